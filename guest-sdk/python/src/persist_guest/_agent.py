"""The agent's own end of the contract."""

from __future__ import annotations

import sys
from collections.abc import Callable

import wit_world
from componentize_py_types import Err


def agent(run: Callable[[list[str]], str | None]) -> Callable[[list[str]], str | None]:
    """Makes a function what a host runs: it gets the caller's arguments, and what it returns is the answer.

    What it raises is the reason that the caller is told. There is one in the module that the component is made of.
    """

    class WitWorld(wit_world.WitWorld):
        def run(self, args: list[str]) -> str:
            try:
                answer = run(args)
                return "" if answer is None else str(answer)
            except Exception as error:
                # Anything else that is raised would be a trap, and its words would be lost.
                raise Err(str(error) or type(error).__name__) from None
            finally:
                # What was printed is read when the run has ended.
                sys.stdout.flush()
                sys.stderr.flush()

    # Where componentize-py looks for it.
    run.__globals__["WitWorld"] = WitWorld
    return run
