"""The nouns of the contract, as Python has them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from ._imports import types

Expect = Literal["any", "absent"] | int
"""What must be true of a name for a change to be made, else it is ``errors.Conflict``.

``"any"``: anything; a ``Writer`` takes the head when it is opened as what it expects. ``"absent"``: nothing was saved, or the
head is a tombstone. A number: this version is the head.
"""


@dataclass(frozen=True)
class Info:
    """What is known of one version without reading its state."""

    name: str
    version: int
    """1 for the first save of a name, then one more for each save, delete, restore or fork into it."""
    parent: int | None
    """The head when this version was made; ``None`` for the first."""
    deleted: bool
    """True for a tombstone: the name was deleted here. ``size`` is then 0."""
    size: int
    """Bytes of state."""
    stored_size: int
    """Bytes at rest, compressed."""
    sha256: str
    """Of the state, 64 lower-case hexadecimal digits."""
    created_at: datetime
    """The host's clock, UTC. For people: ``version`` is the order."""
    media_type: str | None
    labels: dict[str, str]
    """As given when saved, and the host's own, which begin with ``persist.``."""


@dataclass(frozen=True)
class Snapshot:
    """One version with its state."""

    info: Info
    state: bytes
    """Bit for bit as saved."""


@dataclass(frozen=True)
class Limits:
    """The limits that an agent can plan for. Others are met as ``errors.QuotaExceeded``."""

    max_inline: int
    """Bytes of state in one save or load; above it, use ``Writer`` and ``Reader``."""
    max_chunk: int
    """Bytes that one call of a stream carries; ``Writer`` and ``Reader`` see to it."""
    max_state: int
    """Bytes of one state."""
    max_name: int
    """Bytes of a name, where one other than ``a-z 0-9 . _ -`` and a leading dot count as three."""
    max_page: int
    """Items in one page of history or names."""


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def info_of(raw: types.Info) -> Info:
    return Info(
        name=raw.name,
        version=raw.version,
        parent=raw.parent,
        deleted=raw.deleted,
        size=raw.size,
        stored_size=raw.stored_size,
        sha256=raw.sha256,
        created_at=EPOCH + timedelta(milliseconds=raw.created_at),
        media_type=raw.media_type,
        labels=dict(raw.labels),
    )
