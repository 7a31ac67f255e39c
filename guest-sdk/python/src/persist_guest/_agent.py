"""The agent's own end of the contract."""

from __future__ import annotations

import contextlib
import inspect
import sys
import traceback
from collections.abc import Callable

import wit_world
from componentize_py_types import Err

from .errors import PersistError

NOT_ASYNC = "an agent's function is not async"


def agent(run: Callable[[list[str]], str | None]) -> Callable[[list[str]], str | None]:
    """Makes a function what a host runs: it gets the caller's arguments, and what it returns is the answer.

    What it raises is the reason that the caller is told: the words of a ``PersistError`` and of a plain ``Exception`` as they
    are, those of any other with its type, and its traceback is printed. It is not async: the host does not wait for it. There is one
    in the module that the component is made of.
    """
    if inspect.iscoroutinefunction(run) or inspect.isasyncgenfunction(run):
        raise TypeError(NOT_ASYNC)

    class WitWorld(wit_world.WitWorld):  # type: ignore[misc]
        def run(self, args: list[str]) -> str:
            try:
                return _answer(run(args))
            except Exception as error:
                # Anything else that is raised would be a trap, and its words would be lost.
                raise Err(_reason(error)) from None
            finally:
                # What was printed is read when the run has ended.
                sys.stdout.flush()
                sys.stderr.flush()

    # Where componentize-py looks for it.
    run.__globals__["WitWorld"] = WitWorld
    return run


def _answer(answer: object) -> str:
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise Exception(NOT_ASYNC)
    return "" if answer is None else _well_formed(str(answer))


def _reason(error: Exception) -> str:
    try:
        words = _well_formed(str(error))
    except Exception:
        words = "its words cannot be told"
    kind = type(error)
    if isinstance(error, PersistError) or kind is Exception:
        return words or "the agent gave no reason"
    # Without memory there is no traceback either.
    with contextlib.suppress(Exception):
        own = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(kind, error, own)
    return f"{kind.__name__}: {words}" if words else kind.__name__


def _well_formed(text: str) -> str:
    """The text with U+FFFD in place of each half of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
