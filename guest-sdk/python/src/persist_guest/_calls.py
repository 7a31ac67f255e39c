"""Agents that ask their driver to make calls, such as requests to a model."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ._store import json_of, load_snapshot, save_json, stat
from ._types import Expect
from ._update import ATTEMPTS, _json, _typed
from .errors import Conflict, Invalid, Unreadable

T = TypeVar("T")


class Call:
    """A call that the driver makes, of a kind that it knows::

        Call("model", messages=chat.messages)

    The driver gets a JSON object with the kind as ``call``, an ``id`` and these parameters.
    """

    def __init__(self, kind: str, /, **params: Any) -> None:
        if not isinstance(kind, str):
            raise Invalid("the kind of a call is a str")
        if "call" in params or "id" in params:
            raise Invalid("the parameters of a call have no call and no id, which are added")
        self.kind = kind
        self.params = params


def run_calls(
    name: str,
    args: Sequence[str],
    *,
    initial: T,
    message: Callable[[T, list[str]], Call | str],
    reply: Callable[[T, str], Call | str],
) -> str:
    """Takes the arguments of a run, and returns its answer, which may be a call for the driver::

        @dataclass
        class Chat:
            messages: list[dict[str, str]] = field(default_factory=list)

        def message(chat: Chat, words: list[str]) -> Call:
            chat.messages.append({"role": "user", "content": " ".join(words)})
            return Call("model", messages=chat.messages)

        def reply(chat: Chat, text: str) -> str:
            chat.messages.append({"role": "assistant", "content": text})
            return text

        @agent
        def run(args: list[str]) -> str:
            return run_calls("chat", args, initial=Chat(), message=message, reply=reply)

    An agent has no network of its own. It answers with a call, as JSON. The program that runs it,
    the driver, makes the call and runs the agent again with ``reply``, the call's ``id`` and the
    reply. ``persist chat --driver PROGRAM`` is such a driver.

    The state is saved under ``name`` with the pending call, before the call is returned. A run that
    is killed, or a driver, loses no turn and doubles none:

    - ``["reply", ID, TEXT]`` is the reply to a call. A second reply to the same call gets the
      answer of the first. While another call is pending, that call is returned.
    - Other arguments are a message. While a call is pending, the same message returns that call
      again. A different message waits until the call is replied to.
    - No arguments return the pending call.

    ``message`` and ``reply`` change the state, which begins as a copy of ``initial``. They return a
    ``Call``, or the answer. They may be called again if another run saved meanwhile. What they
    raise ends the run, and nothing is saved. Where ``initial`` is a dataclass, the state is of its
    type.

    An answer that a driver would take for a call is returned with ``answer: `` before it.
    """
    for attempt in range(1, ATTEMPTS + 1):
        saved, expect, following = _load(name, initial)
        before = _json(saved)
        answer = _Turn(saved, f"turn-{following}", message, reply).take(list(args))
        after = _json(saved)
        if after == before:
            return answer
        try:
            save_json(name, json.loads(after), expect=expect)
            return answer
        except Conflict:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


@dataclasses.dataclass
class _Pending:
    id: str
    message: list[str]
    # The call as the driver gets it, as text.
    call: str


@dataclasses.dataclass
class _Last:
    """The last call that was replied to, and the answer of its turn."""

    id: str
    answer: str


@dataclasses.dataclass
class _Saved:
    """Contents of the snapshot, which are the same in the SDK of every language but C."""

    state: Any
    pending: _Pending | None = None
    # Messages that came while a call was pending.
    waiting: list[list[str]] = dataclasses.field(default_factory=list)
    last: _Last | None = None


def _load(name: str, initial: Any) -> tuple[_Saved, Expect, int]:
    """Loads what is saved, the head as what a save expects, and the version after it."""
    kind = type(initial) if dataclasses.is_dataclass(initial) else None
    while True:
        snapshot = load_snapshot(name)
        if snapshot is not None:
            try:
                saved = _typed(json_of(snapshot), _Saved)
                saved.state = saved.state if kind is None else _typed(saved.state, kind)
            except (TypeError, ValueError) as error:
                info = snapshot.info
                raise Unreadable(info.name, info.version, str(error)) from None
            return saved, snapshot.info.version, snapshot.info.version + 1
        head = stat(name)
        if head is None:
            return _Saved(copy.deepcopy(initial)), "absent", 1
        # A run that saved in between is loaded. A tombstone is a head.
        if head.deleted:
            return _Saved(copy.deepcopy(initial)), head.version, head.version + 1


class _Turn:
    """One run's part of a turn."""

    def __init__(
        self,
        saved: _Saved,
        id: str,
        message: Callable[[Any, list[str]], Call | str],
        reply: Callable[[Any, str], Call | str],
    ) -> None:
        self._saved = saved
        self._id = id
        self._message = message
        self._reply = reply

    def take(self, args: list[str]) -> str:
        saved = self._saved
        pending = saved.pending
        match args:
            case ["reply", id, text]:
                if pending is None:
                    if saved.last is None or saved.last.id != id:
                        raise Invalid(f"no call {id} is pending")
                    return saved.last.answer
                if pending.id != id:
                    return pending.call
                saved.pending = None
                return self._proceed(self._reply(saved.state, text), pending.message, id)
            case _ if pending is not None:
                latest = saved.waiting[-1] if saved.waiting else pending.message
                if args and args != latest:
                    saved.waiting.append(args)
                return pending.call
            case []:
                raise Invalid("no call is pending; give a message")
        return self._proceed(self._message(saved.state, args), args, None)

    def _proceed(self, following: object, message: list[str], replied: str | None) -> str:
        """Keeps the call that comes next, or answers; then the next message that waits has its
        turn."""
        saved = self._saved
        while True:
            if isinstance(following, Call):
                call = _json({"call": following.kind, "id": self._id, **following.params})
                saved.pending = _Pending(self._id, message, call)
                return call
            answer = _told(following)
            if not saved.waiting:
                if replied is not None:
                    saved.last = _Last(replied, answer)
                return answer
            message = saved.waiting.pop(0)
            following = self._message(saved.state, message)


def _told(answer: object) -> str:
    """Returns an answer so that no driver takes it for a call."""
    if inspect.iscoroutine(answer):
        answer.close()
        raise Invalid("the functions of run_calls are not async")
    if not isinstance(answer, str):
        kind = type(answer).__name__
        raise Invalid(f"a step of run_calls returns a Call or a str, and this is of type {kind}")
    if answer.lstrip().startswith("{"):
        try:
            if "call" in json.loads(answer):
                return f"answer: {answer}"
        except ValueError:
            pass
    return answer
