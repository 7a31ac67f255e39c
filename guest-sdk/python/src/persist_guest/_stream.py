"""States written and read in pieces."""

from __future__ import annotations

import io
from collections.abc import Mapping

from . import _check as check
from ._imports import store
from ._store import raw_options
from ._types import Expect, Info, info_of
from .errors import Invalid, raised

# Bytes collected before they are sent: fewer calls across the sandbox's wall. More would only cost the agent memory.
COLLECTED = 1 << 20

# Bytes that a buffered reader asks for at once. Larger reads go past its buffer.
BUFFER = 1 << 16


def _piece() -> int:
    largest: int = store.limits().max_chunk
    return max(1, min(COLLECTED, largest))


class Writer(io.RawIOBase):
    """A state saved piece by piece. Nothing of it is visible before ``finish`` returned::

        with Writer("log") as writer:
            for line in lines:
                writer.write(line)
            info = writer.finish()

    Leaving the block without ``finish``, also by an exception, saves nothing. Small writes are collected.

    All that one run saves, through writers and otherwise, must fit in its memory together: componentize-py 0.25.1 does not give
    back what it copies for the host. ``--limit memory=1GiB`` of ``persist run`` makes room for more.
    """

    def __init__(
        self,
        name: str,
        *,
        expect: Expect = "any",
        media_type: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._stream: store.Writer | None = None
        self._failed: Exception | None = None
        self._buffer = bytearray()
        options = raw_options(expect, media_type, labels)
        with raised():
            self._stream = store.Writer.open(check.name(name), options)
        self._piece = _piece()

    def writable(self) -> bool:
        return True

    def write(self, piece: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Appends any number of bytes."""
        self._check()
        view = memoryview(piece)
        data = view if view.c_contiguous else view.tobytes()
        try:
            self._buffer += data
            while len(self._buffer) >= self._piece:
                self._send(self._piece)
        except Exception as error:
            # A writer that failed stays failed, so that a lost piece cannot be followed by a commit.
            self._failed = error
            raise
        return view.nbytes

    def finish(self) -> Info:
        """Saves what was written, and closes the writer whatever comes of it.

        Raises ``Conflict`` if another run saved meanwhile, even with ``"any"``: what was written cannot be replayed.
        """
        try:
            stream = self._check()
            if self._buffer:
                self._send(len(self._buffer))
            # The call takes the stream, whatever comes of it.
            self._stream = None
            with raised():
                return info_of(store.Writer.finish(stream))
        finally:
            self.close()

    def close(self) -> None:
        """Ends the writer. What was not finished is not saved."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.__exit__(None, None, None)
        super().close()

    def _check(self) -> store.Writer:
        if self._failed is not None:
            raise self._failed
        if self._stream is None:
            raise Invalid("the writer was finished or closed before")
        return self._stream

    def _send(self, size: int) -> None:
        stream = self._check()
        piece = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        with raised():
            stream.write(piece)


class _RawReader(io.RawIOBase):
    """A stream of the host as a raw file. Each read is one call."""

    def __init__(self, stream: store.Reader) -> None:
        super().__init__()
        self._stream: store.Reader | None = stream
        self._piece = _piece()
        self._position = 0
        self.info = info_of(stream.info())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        piece = self._next(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def readall(self) -> bytes:
        """All from the position, in the largest pieces that there are."""
        return b"".join(iter(lambda: self._next(self._piece), b""))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.check_open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.info.size}.get(whence)
        if base is None:
            raise Invalid(f"whence is 0, 1 or 2, and this is {whence!r}")
        self._position = check.whole(base + offset, "where a seek goes", 63)
        return self._position

    def tell(self) -> int:
        self.check_open()
        return self._position

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.__exit__(None, None, None)
        super().close()

    def check_open(self) -> store.Reader:
        if self._stream is None:
            raise Invalid("the reader was closed before")
        return self._stream

    def _next(self, size: int) -> bytes:
        stream = self.check_open()
        if size == 0:
            return b""
        with raised():
            piece = stream.read(self._position, min(size, self._piece))
        self._position += len(piece)
        return bytes(piece)


class Reader(io.BufferedReader):
    """One version, read in any order: a buffered binary file. It stays that version whatever is saved meanwhile.

    Open it with ``Reader.open``. ``for line in reader`` gives its lines, as bytes; ``io.TextIOWrapper(reader)`` gives texts.
    """

    def __init__(self, stream: store.Reader) -> None:
        self._raw = _RawReader(stream)
        super().__init__(self._raw, BUFFER)
        self.info = self._raw.info
        """Information about the version."""

    @classmethod
    def open(cls, name: str, at: int | None = None) -> Reader | None:
        """Opens the head of ``name``, or version ``at``. ``None``: nothing was saved, or it is a tombstone."""
        with raised():
            stream = store.Reader.open(check.name(name), check.at(at))
        return None if stream is None else cls(stream)

    # A file that was closed is refused in the words of the SDK.

    def read(self, size: int | None = -1, /) -> bytes:
        self._raw.check_open()
        return super().read(size)

    def seek(self, target: int, whence: int = io.SEEK_SET, /) -> int:
        self._raw.check_open()
        if not isinstance(target, int):
            raise Invalid(f"where a seek goes is an int, and this is {check.shown(target)}")
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise Invalid(f"whence is 0, 1 or 2, and this is {whence!r}")
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self.info.size}[whence]
        return super().seek(check.whole(base + target, "where a seek goes", 63))

    def tell(self) -> int:
        self._raw.check_open()
        return super().tell()
