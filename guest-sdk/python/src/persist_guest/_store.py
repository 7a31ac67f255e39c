"""One call to the store each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from . import _check as check
from ._imports import store
from ._imports import types as raw
from ._types import Expect, Info, Limits, Snapshot, info_of
from .errors import Invalid, TooLarge, Unreadable, raised

# As many items as a host gives at most, for it answers with fewer where it allows fewer.
PAGE = 1 << 30

State = bytes | bytearray | memoryview | str


def limits() -> Limits:
    """What this host allows this agent."""
    found = store.limits()
    return Limits(found.max_inline, found.max_chunk, found.max_state, found.max_name, found.max_page)


def save(
    name: str,
    state: State,
    *,
    expect: Expect = "any",
    media_type: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Info:
    """Saves ``state`` as the next version of ``name``. A text is saved as its UTF-8. No bytes are a state.

    Once it returned, the version is durable and is never overwritten. Raises ``Conflict`` where ``expect`` does not hold and
    ``TooLarge`` above ``Limits.max_inline`` bytes.
    """
    global _max_inline
    options = raw_options(expect, media_type, labels)
    data = bytes_of(state)
    # The host ends an agent that passes much more than one call carries.
    if _max_inline is None:
        _max_inline = limits().max_inline
    if len(data) > _max_inline:
        raise TooLarge(len(data))
    with raised():
        return info_of(store.save(check.name(name), data, options))


_max_inline: int | None = None


def save_json(name: str, value: Any, *, expect: Expect = "any", labels: Mapping[str, str] | None = None) -> Info:
    """Saves what ``json.dumps`` makes of ``value``."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return save(name, text, expect=expect, media_type="application/json", labels=labels)


def load(name: str) -> bytes | None:
    """Loads the state at the head of ``name``. ``None``: nothing was saved, or it was deleted."""
    snapshot = load_snapshot(name)
    return None if snapshot is None else snapshot.state


def load_json(name: str) -> Any:
    """Loads the value at the head of ``name``. ``None``: nothing was saved, or it was deleted, or ``None`` was."""
    snapshot = load_snapshot(name)
    return None if snapshot is None else json_of(snapshot)


def json_of(snapshot: Snapshot) -> Any:
    """The value that a state is. The error names the version that is none."""
    try:
        return json.loads(snapshot.state)
    except ValueError as error:
        raise Unreadable(snapshot.info.name, snapshot.info.version, str(error)) from None


def load_snapshot(name: str, at: int | None = None) -> Snapshot | None:
    """Loads the head of ``name``, or version ``at``, with what is known of it. ``None``: nothing was saved, or it is a tombstone.

    Raises ``NotFound`` where there is no version ``at``.
    """
    with raised():
        loaded = store.load(check.name(name), check.at(at))
    return None if loaded is None else Snapshot(info_of(loaded.info), bytes(loaded.state))


def stat(name: str, at: int | None = None) -> Info | None:
    """As ``load_snapshot``, without the state, and a tombstone is returned."""
    with raised():
        info = store.stat(check.name(name), check.at(at))
    return None if info is None else info_of(info)


def head(name: str) -> Expect:
    """The head of ``name`` as what a change expects: ``"absent"`` where nothing was saved. A tombstone is a head."""
    info = stat(name)
    return "absent" if info is None else info.version


def history(name: str) -> Iterator[Info]:
    """All versions of ``name``, newest first, tombstones too."""
    before = None
    while page := history_page(name, before, PAGE):
        yield from page
        before = page[-1].version


def history_page(name: str, before: int | None, limit: int) -> list[Info]:
    """At most ``limit`` versions below ``before``, or of all. Only an empty page is the end."""
    with raised():
        page = store.history(check.name(name), check.at(before), check.limit(limit))
    return [info_of(info) for info in page]


def names(prefix: str = "") -> Iterator[str]:
    """The names that begin with ``prefix``, those of deleted states too."""
    after = None
    while page := names_page(prefix, after, PAGE):
        yield from page
        after = page[-1]


def names_page(prefix: str, after: str | None, limit: int) -> list[str]:
    """At most ``limit`` names after one, or from the first. Only an empty page is the end."""
    since = None if after is None else check.name(after)
    with raised():
        return list(store.names(check.text(prefix, "a prefix"), since, check.limit(limit)))


def delete(name: str, *, expect: Expect = "any") -> Info:
    """Makes a tombstone the next version; ``restore`` undoes it. Raises ``NotFound`` where there is nothing to delete."""
    with raised():
        return info_of(store.delete(check.name(name), raw_expect(expect)))


def restore(name: str, version: int, *, expect: Expect = "any") -> Info:
    """Saves the state of ``version`` again as the next version."""
    with raised():
        return info_of(store.restore(check.name(name), check.version(version), raw_expect(expect)))


def fork(name: str, new_name: str, *, at: int | None = None, expect: Expect = "any") -> Info:
    """Saves the state of ``name``, or that of version ``at``, as the next version of ``new_name``."""
    with raised():
        return info_of(store.fork(check.name(name), check.at(at), check.name(new_name), raw_expect(expect)))


def bytes_of(state: State) -> bytes:
    if isinstance(state, str):
        return check.encoded(state, "a state")
    if isinstance(state, bytes | bytearray | memoryview):
        return bytes(state)
    raise Invalid(f"a state is bytes or a str, and this is {check.shown(state)}")


def raw_options(expect: Expect, media_type: str | None, labels: Mapping[str, str] | None) -> raw.SaveOptions:
    kept = None if media_type is None else check.text(media_type, "a media type")
    return raw.SaveOptions(raw_expect(expect), kept, check.labels(labels))


def raw_expect(expect: Expect) -> raw.Expect:
    match expect:
        case "any":
            return raw.Expect_Any()
        case "absent":
            return raw.Expect_Absent()
        case None:
            raise Invalid('expect is None; use "absent" where nothing was saved, or head(name)')
        case int(version) if not isinstance(version, bool):
            return raw.Expect_Version(check.version(version))
    raise Invalid(f'expect is "any", "absent" or the number of a version, and this is {expect!r}')
