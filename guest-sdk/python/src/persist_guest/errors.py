"""Why a call failed: one exception for each case of the contract. After any but ``UnknownOutcome``, the call has changed nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from componentize_py_types import Err

from ._imports import types as raw


class PersistError(Exception):
    """Any of them. ``code`` is the case as the contract calls it."""

    code = "other"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class Conflict(PersistError):
    """The expectation does not hold."""

    code = "conflict"

    def __init__(self, head: int | None) -> None:
        self.head = head
        """The newest version; ``None`` where nothing was saved."""
        super().__init__(
            "conflict: this change expects a version, and nothing is saved under the name"
            if head is None
            else f"conflict: the newest version is {head}, not what this change expects; load it and decide again"
        )


class NotFound(PersistError):
    """The name or version that the call needs was never saved, or was pruned."""

    code = "not-found"

    def __init__(self) -> None:
        super().__init__("not found: never saved, or pruned; the history lists what there is")


class Denied(PersistError):
    """This agent lacks a right."""

    code = "denied"

    def __init__(self, right: str) -> None:
        self.right = right
        """``load``, ``save``, ``list`` or ``delete``."""
        super().__init__(f"denied: this agent has no right to {right}; the operator can grant it")


class TooLarge(PersistError):
    """The state is more than one call carries."""

    code = "too-large"

    def __init__(self, size: int) -> None:
        self.size = size
        """Bytes of the state."""
        super().__init__(
            f"too large: the state has {size} bytes, more than one call carries; save it with Writer, load it with Reader"
        )


class QuotaExceeded(PersistError):
    """A limit of this agent was met."""

    code = "quota-exceeded"

    def __init__(self, limit: str, maximum: int) -> None:
        self.limit = limit
        """Its stable name, for example ``versions-at-rest``."""
        self.maximum = maximum
        super().__init__(f"quota exceeded: {limit} is limited to {maximum}; use less, or ask the operator for more")


class Invalid(PersistError, ValueError):
    """An argument breaks a rule."""

    code = "invalid"

    def __init__(self, rule: str) -> None:
        self.rule = rule
        super().__init__(f"invalid argument: {rule}")


class Corrupt(PersistError):
    """What is stored fails verification, and nothing of it is returned."""

    code = "corrupt"

    def __init__(self, found: str) -> None:
        self.found = found
        super().__init__(f"corrupt: what is stored fails verification ({found}); an earlier version may be whole")


class Unreadable(PersistError, ValueError):
    """A version was loaded and verified, and is not the value that the agent reads. It was left as it is."""

    code = "unreadable"

    def __init__(self, name: str, version: int, why: str) -> None:
        self.name = name
        self.version = version
        super().__init__(
            f"unreadable: version {version} of {name} is not what this agent reads ({why}); "
            "it is left as it is, and an earlier version may be readable"
        )


class Throttled(PersistError):
    """Storage wants to be asked later."""

    code = "throttled"

    def __init__(self, milliseconds: int | None) -> None:
        self.seconds = None if milliseconds is None else milliseconds / 1000
        """After how long; ``None`` if unknown."""
        super().__init__(f"throttled: try again {'later' if milliseconds is None else f'in {milliseconds} ms'}")


class Unavailable(PersistError):
    """Storage cannot be reached or refuses the host."""

    code = "unavailable"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"storage is unavailable, tell the operator: {reason}")


class Timeout(PersistError, TimeoutError):
    """The host's time for the call ran out."""

    code = "timeout"

    def __init__(self) -> None:
        super().__init__("timeout: the host's time for the call ran out and nothing was changed; try again")


class UnknownOutcome(PersistError):
    """The change may have been made: ``stat`` the version and compare before trying again."""

    code = "unknown-outcome"

    def __init__(self, version: int) -> None:
        self.version = version
        super().__init__(
            f"unknown outcome: it may have been saved as version {version}; stat that and compare before trying again"
        )


@contextmanager
def raised() -> Iterator[None]:
    """Calls of the host go in here: what they raise becomes one of the exceptions above."""
    try:
        yield
    except Err as error:
        raise _from(error.value) from None


def _from(error: object) -> Exception:
    match error:
        case raw.Error_Conflict(head):
            return Conflict(head)
        case raw.Error_NotFound():
            return NotFound()
        case raw.Error_Denied(right):
            return Denied(right)
        case raw.Error_TooLarge(size):
            return TooLarge(size)
        case raw.Error_QuotaExceeded(quota):
            return QuotaExceeded(quota.limit, quota.max)
        case raw.Error_Invalid(rule):
            return Invalid(rule)
        case raw.Error_Corrupt(found):
            return Corrupt(found)
        case raw.Error_Throttled(wait):
            return Throttled(wait)
        case raw.Error_Unavailable(reason):
            return Unavailable(reason)
        case raw.Error_Timeout():
            return Timeout()
        case raw.Error_UnknownOutcome(version):
            return UnknownOutcome(version)
        case raw.Error_Other(failure):
            return PersistError(f"{failure.message} ({failure.code})", failure.code)
        case _:
            return PersistError(f"the host failed in a way that this SDK does not know: {error!r}")
