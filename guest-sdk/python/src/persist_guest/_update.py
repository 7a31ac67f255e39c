"""Changes of a value that another run may change at the same time."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from ._store import json_of, load_snapshot, save_json
from ._types import Expect, Snapshot
from .errors import Conflict, Invalid, Unreadable

T = TypeVar("T")

# Attempts of an update, which are conflicts but for the last.
ATTEMPTS = 10


@overload
def update(
    name: str, change: Callable[[T], T | None], initial: T, *, labels: Mapping[str, str] | None = None
) -> T: ...
@overload
def update(name: str, change: Callable[[Any], Any], *, labels: Mapping[str, str] | None = None) -> Any: ...
def update(
    name: str,
    change: Callable[[Any], Any],
    initial: Any = None,
    *,
    labels: Mapping[str, str] | None = None,
) -> Any:
    """Loads the value of JSON at the head of ``name``, has ``change`` change it, and saves it if the head is still the same::

        @dataclass
        class Plan:
            todo: list[str] = field(default_factory=list)

        def add(plan: Plan) -> None:
            plan.todo.append("buy milk")

        plan = update("plan", add, Plan())

    Where another run saved meanwhile, this begins again, and ``change`` is called again, at most ten times; then it raises
    ``Conflict``. ``change`` gets the value, or a copy of ``initial`` where nothing was saved. It returns the new value, or
    changes the one that it got and returns ``None``. Where the value is the same afterwards, nothing is saved. What it raises
    ends the update.

    Where ``initial`` is a dataclass, values are of its type. A state that does not fit it raises ``Unreadable``.
    """
    kind = type(initial) if dataclasses.is_dataclass(initial) and not isinstance(initial, type) else None
    for attempt in range(1, ATTEMPTS + 1):
        snapshot = load_snapshot(name)
        known = copy.deepcopy(initial) if snapshot is None else _value(snapshot, kind)
        before = _json(known)
        returned = change(known)
        if inspect.iscoroutine(returned):
            returned.close()
            raise Invalid("the function of an update is not async")
        if returned is None and known is None:
            raise Invalid(
                "nothing was saved, and the function returned None: return the value, or give an initial one"
            )
        value = known if returned is None else returned
        text = _json(value)
        if text == before:
            return value
        expect: Expect = "absent" if snapshot is None else snapshot.info.version
        try:
            save_json(name, json.loads(text), expect=expect, labels=labels)
            return value
        except Conflict:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _json(value: Any) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"JSON has no {type(value).__name__}")


def _value(snapshot: Snapshot, kind: type | None) -> Any:
    value = json_of(snapshot)
    if kind is None:
        return value
    try:
        return _typed(value, kind)
    except (TypeError, ValueError) as error:
        raise Unreadable(snapshot.info.name, snapshot.info.version, str(error)) from None


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _typed(value: Any, kind: Any) -> Any:
    """A value of JSON as one of a type: dataclasses, lists, tuples, dicts with text as keys, unions, and what JSON has."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is typing.Union or origin is types.UnionType:
        for option in args:
            try:
                return _typed(value, option)
            except (TypeError, ValueError):
                continue
        raise TypeError(f"{type(value).__name__} is none of {kind}")
    if origin is typing.Literal:
        if value in args:
            return value
        raise ValueError(f"{value!r} is none of {args}")
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        _expect(value, dict, kind)
        hints = _hints(kind)
        known = {field.name for field in dataclasses.fields(kind) if field.init}
        # A field that is not known is from a later agent, which knows more: it is not dropped.
        for name in value.keys() - known:
            raise ValueError(f"{kind.__name__} has no field {name}")
        return kind(**{name: _typed(part, hints[name]) for name, part in value.items()})
    if origin is list:
        _expect(value, list, kind)
        return [_typed(part, args[0]) for part in value]
    if origin is dict:
        _expect(value, dict, kind)
        return {key: _typed(part, args[1]) for key, part in value.items()}
    if origin is tuple:
        _expect(value, list, kind)
        kinds = [args[0]] * len(value) if args[1:] == (...,) else args
        if len(kinds) != len(value):
            raise ValueError(f"{len(value)} items are not a {kind}")
        return tuple(map(_typed, value, kinds))
    if kind is float and type(value) is int:
        return float(value)
    _expect(value, kind if isinstance(kind, type) else type(None), kind)
    return value


def _expect(value: Any, found: type, kind: Any) -> None:
    if not isinstance(value, found) or (isinstance(value, bool) and found is int):
        raise TypeError(f"{type(value).__name__} is not {getattr(kind, '__name__', kind)}")
