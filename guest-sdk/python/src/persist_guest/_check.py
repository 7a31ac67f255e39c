"""What an agent passes is checked here, once for all calls: what the contract has no place for would be a trap."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import Invalid


# The host ends an agent that passes more than a call carries. It takes far less for a text, and says so.
LONGEST_TEXT = 65536
MOST_LABELS = 1024


def text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{what} is a str, and this is {shown(value)}")
    if len(value) > LONGEST_TEXT:
        raise Invalid(f"{what} has {len(value)} characters; at most {LONGEST_TEXT} are allowed")
    encoded(value, what)
    return value


def encoded(value: str, what: str) -> bytes:
    """The UTF-8 of a text."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise Invalid(f"{what} has half of a surrogate pair, which is no character") from None


def name(value: object) -> str:
    return text(value, "a name")


def whole(value: object, what: str, bits: int) -> int:
    """A whole number that the contract has room for. ``True`` is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise Invalid(f"{what} is an int from 0 to 2**{bits} - 1, and this is {shown(value)}")
    return int(value)


def version(value: object) -> int:
    return whole(value, "a version", 64)


def at(value: object) -> int | None:
    return None if value is None else version(value)


def limit(value: object) -> int:
    return whole(value, "a limit", 32)


def labels(value: object) -> list[tuple[str, str]]:
    if value is None:
        return []
    if not isinstance(value, Mapping):
        raise Invalid(f"labels are a mapping, and this is {shown(value)}")
    if len(value) > MOST_LABELS:
        raise Invalid(f"there are {len(value)} labels; at most {MOST_LABELS} are allowed")
    return [(text(key, "the key of a label"), text(word, "the value of a label")) for key, word in value.items()]


def shown(value: object) -> str:
    """What a value is, for people."""
    return repr(value) if value is None or isinstance(value, bool | int | float) else f"of type {type(value).__name__}"
