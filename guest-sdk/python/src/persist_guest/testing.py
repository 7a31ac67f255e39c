"""Tests of an agent without WebAssembly.

Outside a component the calls of this package use a store in memory with the rules of a host. What it lacks is a disk,
compression and pruning. With pytest, one line in ``conftest.py`` has each test begin with nothing saved::

    pytest_plugins = ["persist_guest.testing"]

With other frameworks call ``reset()`` before each test.
"""

from __future__ import annotations

import contextlib
import dataclasses

from . import _double, _store, limits
from .errors import PersistError

__all__ = ["fail_next", "reset", "set_limits"]


def reset() -> None:
    """Forgets all that was saved, and takes back ``set_limits`` and ``fail_next``."""
    _double.STORE.reset()
    _store._max_inline = None


def set_limits(**changes: int) -> None:
    """Sets limits by their names in ``Limits``, such as ``max_inline=1000``."""
    _double.STORE.limits = dataclasses.replace(limits(), **changes)
    _store._max_inline = None


def fail_next(error: PersistError) -> None:
    """Makes the next call fail with ``error``, and change nothing. Calls of a reader or a writer count."""
    _double.STORE.failure = error


with contextlib.suppress(ImportError):
    import pytest

    @pytest.fixture(autouse=True)
    def _empty_store() -> None:
        reset()
