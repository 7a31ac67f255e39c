"""Saves and loads the state of a sandboxed WebAssembly agent through a Persist host.

An agent is one function. This one keeps notes::

    from persist_guest import agent, load, save

    @agent
    def run(args: list[str]) -> str:
        notes = load("notes") or b""
        for note in args:
            notes += f"{note}\\n".encode()
            save("notes", notes)
        return notes.decode()

A save never overwrites: it adds a version. The newest version of a name is its head. Where the host keeps them is not the
agent's business: it can name its own states, and nothing else.
"""

import importlib.util

if importlib.util.find_spec("wit_world") is None:
    # Not in a component: tests use a store in memory.
    from . import _double

    _double.install()

from ._agent import agent
from ._calls import Call, run_calls
from ._store import (
    delete,
    fork,
    head,
    history,
    history_page,
    limits,
    load,
    load_json,
    load_snapshot,
    names,
    names_page,
    restore,
    save,
    save_json,
    stat,
)
from ._stream import Reader, Writer
from ._types import Expect, Info, Limits, Snapshot
from ._update import update
from .errors import PersistError

__all__ = [
    "Call",
    "Expect",
    "Info",
    "Limits",
    "PersistError",
    "Reader",
    "Snapshot",
    "Writer",
    "agent",
    "delete",
    "fork",
    "head",
    "history",
    "history_page",
    "limits",
    "load",
    "load_json",
    "load_snapshot",
    "names",
    "names_page",
    "restore",
    "run_calls",
    "save",
    "save_json",
    "stat",
    "update",
]
