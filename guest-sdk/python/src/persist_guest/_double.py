"""A host in memory, for tests without WebAssembly. It takes the place of the modules that componentize-py generates."""

from __future__ import annotations

import hashlib
import sys
import time
import types as modules
from dataclasses import dataclass, field, replace
from typing import Any

# Bytes of labels and media type together, as a host has it.
MAX_LABEL_BYTES = 8 << 10


class Err(Exception):
    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.value = value


@dataclass(frozen=True)
class Info:
    name: str
    version: int
    parent: int | None
    deleted: bool
    size: int
    stored_size: int
    sha256: str
    created_at: int
    media_type: str | None
    labels: list[tuple[str, str]]


@dataclass(frozen=True)
class Snapshot:
    info: Info
    state: bytes


@dataclass(frozen=True)
class Limits:
    max_inline: int = 16 << 20
    max_chunk: int = 1 << 20
    max_state: int = 1 << 30
    max_name: int = 200
    max_page: int = 100


@dataclass(frozen=True)
class SaveOptions:
    expect: Any
    media_type: str | None
    labels: list[tuple[str, str]]


@dataclass(frozen=True)
class Quota:
    limit: str
    max: int


@dataclass(frozen=True)
class Failure:
    code: str
    message: str


@dataclass(frozen=True)
class Expect_Any:
    pass


@dataclass(frozen=True)
class Expect_Absent:
    pass


@dataclass(frozen=True)
class Expect_Version:
    value: int


@dataclass(frozen=True)
class Error_Conflict:
    value: int | None


@dataclass(frozen=True)
class Error_NotFound:
    pass


@dataclass(frozen=True)
class Error_Denied:
    value: str


@dataclass(frozen=True)
class Error_TooLarge:
    value: int


@dataclass(frozen=True)
class Error_QuotaExceeded:
    value: Quota


@dataclass(frozen=True)
class Error_Invalid:
    value: str


@dataclass(frozen=True)
class Error_Corrupt:
    value: str


@dataclass(frozen=True)
class Error_Throttled:
    value: int | None


@dataclass(frozen=True)
class Error_Unavailable:
    value: str


@dataclass(frozen=True)
class Error_Timeout:
    pass


@dataclass(frozen=True)
class Error_UnknownOutcome:
    value: int


@dataclass(frozen=True)
class Error_Other:
    value: Failure


def _invalid(rule: str) -> Err:
    return Err(Error_Invalid(rule))


@dataclass
class Store:
    """Versions of each name, of which version ``n`` is item ``n - 1``: nothing is pruned."""

    names: dict[str, list[Snapshot]] = field(default_factory=dict)
    limits: Any = field(default_factory=Limits)
    failure: Exception | None = None

    def reset(self) -> None:
        self.names, self.limits, self.failure = {}, Limits(), None

    def call(self) -> None:
        """Every call begins here, so that none escapes ``fail_next``."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def find(self, name: str, at: int | None) -> Snapshot | None:
        self.check_name(name)
        versions = self.names.get(name, [])
        if at is None:
            return versions[-1] if versions else None
        if not 1 <= at <= len(versions):
            raise Err(Error_NotFound())
        return versions[at - 1]

    def find_state(self, name: str, at: int | None) -> Snapshot | None:
        found = self.find(name, at)
        return None if found is None or found.info.deleted else found

    def commit(self, name: str, options: SaveOptions, state: bytes, deleted: bool = False) -> Info:
        self.check_expect(name, options.expect)
        versions = self.names.setdefault(name, [])
        info = Info(
            name=name,
            version=len(versions) + 1,
            parent=len(versions) or None,
            deleted=deleted,
            size=len(state),
            stored_size=len(state),
            sha256=hashlib.sha256(state).hexdigest(),
            created_at=time.time_ns() // 1_000_000,
            media_type=options.media_type,
            labels=list(options.labels),
        )
        versions.append(Snapshot(info, state))
        return info

    def again(self, saved: Snapshot, expect: Any, key: str, value: str) -> SaveOptions:
        """How to save a state again: with what its author gave, and where it is from."""
        own = [label for label in saved.info.labels if not label[0].startswith("persist.")]
        return SaveOptions(expect, saved.info.media_type, [*own, (key, value)])

    def check_expect(self, name: str, expect: Any) -> None:
        versions = self.names.get(name, [])
        match expect:
            case Expect_Any():
                holds = True
            case Expect_Absent():
                holds = not versions or versions[-1].info.deleted
            case _:
                holds = bool(versions) and len(versions) == expect.value
        if not holds:
            raise Err(Error_Conflict(len(versions) or None))

    def check_name(self, name: str) -> None:
        """A host counts the bytes of a name in its key, where all but the plainest cost three."""
        if not name:
            raise _invalid("a name is empty; the minimum is one byte")
        for character in name:
            if ord(character) < 32 or 127 <= ord(character) < 160:
                raise _invalid(f"a name contains the control character U+{ord(character):04X}")
        plain = b"abcdefghijklmnopqrstuvwxyz0123456789._-"
        cost = sum(1 if byte in plain and (at or byte != ord(".")) else 3 for at, byte in enumerate(name.encode()))
        if cost > self.limits.max_name:
            raise _invalid(
                f"a name is {cost} bytes long; at most {self.limits.max_name} are allowed, and every byte except "
                "a-z 0-9 . _ - counts as three"
            )

    def check_options(self, options: SaveOptions) -> None:
        texts = [text for label in options.labels for text in label] + [options.media_type or ""]
        size = sum(len(text.encode()) for text in texts)
        if size > MAX_LABEL_BYTES:
            raise _invalid(f"labels and media type have {size} bytes; the maximum is {MAX_LABEL_BYTES}")
        for key, _ in options.labels:
            if not key:
                raise _invalid('the label key "" is empty')
            if key.startswith("persist."):
                raise _invalid(f'the label key "{key}" is reserved: it starts with persist.')

    def check_state(self, size: int) -> None:
        if size > self.limits.max_state:
            raise Err(Error_QuotaExceeded(Quota("state-size", self.limits.max_state)))

    def check_inline(self, size: int) -> None:
        if size > self.limits.max_inline:
            raise Err(Error_TooLarge(size))

    def page(self, limit: int) -> int:
        if limit == 0:
            raise _invalid("a limit is 0; the minimum is 1")
        return min(limit, int(self.limits.max_page))


STORE = Store()


def limits() -> Any:
    return STORE.limits


def save(name: str, state: bytes, options: SaveOptions) -> Info:
    STORE.call()
    STORE.check_name(name)
    STORE.check_options(options)
    STORE.check_inline(len(state))
    STORE.check_state(len(state))
    return STORE.commit(name, options, bytes(state))


def load(name: str, at: int | None) -> Snapshot | None:
    STORE.call()
    found = STORE.find_state(name, at)
    if found is not None:
        STORE.check_inline(found.info.size)
    return found


def stat(name: str, at: int | None) -> Info | None:
    STORE.call()
    found = STORE.find(name, at)
    return None if found is None else found.info


def history(name: str, before: int | None, limit: int) -> list[Info]:
    STORE.call()
    STORE.check_name(name)
    most = STORE.page(limit)
    infos = [saved.info for saved in reversed(STORE.names.get(name, []))]
    return [info for info in infos if before is None or info.version < before][:most]


def names(prefix: str, after: str | None, limit: int) -> list[str]:
    STORE.call()
    most = STORE.page(limit)
    if after is not None:
        STORE.check_name(after)
    known = sorted(STORE.names, key=str.encode)
    return [name for name in known if name.startswith(prefix) and (after is None or name > after)][:most]


def delete(name: str, expect: Any) -> Info:
    STORE.call()
    STORE.check_name(name)
    STORE.check_expect(name, expect)
    if STORE.find_state(name, None) is None:
        raise Err(Error_NotFound())
    return STORE.commit(name, SaveOptions(expect, None, []), b"", deleted=True)


def restore(name: str, version: int, expect: Any) -> Info:
    STORE.call()
    saved = STORE.find_state(name, version)
    if saved is None:
        raise Err(Error_NotFound())
    options = STORE.again(saved, expect, "persist.restored-from", str(version))
    return STORE.commit(name, options, saved.state)


def fork(name: str, at: int | None, new_name: str, expect: Any) -> Info:
    STORE.call()
    STORE.check_name(new_name)
    saved = STORE.find_state(name, at)
    if saved is None:
        raise Err(Error_NotFound())
    options = STORE.again(saved, expect, "persist.forked-from", name)
    return STORE.commit(new_name, options, saved.state)


class Writer:
    def __init__(self, name: str, options: SaveOptions) -> None:
        self.name, self.options, self.state, self.failed = name, options, bytearray(), False

    @classmethod
    def open(cls, name: str, options: SaveOptions) -> Writer:
        STORE.call()
        STORE.check_name(name)
        STORE.check_options(options)
        STORE.check_expect(name, options.expect)
        if isinstance(options.expect, Expect_Any):
            count = len(STORE.names.get(name, []))
            options = replace(options, expect=Expect_Version(count) if count else Expect_Absent())
        return cls(name, options)

    def write(self, chunk: bytes) -> None:
        self._check()
        self.failed = True
        STORE.call()
        if len(chunk) > STORE.limits.max_chunk:
            raise Err(Error_QuotaExceeded(Quota("chunk", STORE.limits.max_chunk)))
        STORE.check_state(len(self.state) + len(chunk))
        self.state += chunk
        self.failed = False

    @staticmethod
    def finish(this: Writer) -> Info:
        this._check()
        STORE.call()
        return STORE.commit(this.name, this.options, bytes(this.state))

    def _check(self) -> None:
        if self.failed:
            raise _invalid("a writer cannot continue after an error; drop it and open a new one")

    def __exit__(self, *_: object) -> None:
        pass


class Reader:
    def __init__(self, saved: Snapshot) -> None:
        self.saved = saved

    @classmethod
    def open(cls, name: str, at: int | None) -> Reader | None:
        STORE.call()
        saved = STORE.find_state(name, at)
        return None if saved is None else cls(saved)

    def info(self) -> Info:
        return self.saved.info

    def read(self, offset: int, length: int) -> bytes:
        STORE.call()
        if length == 0:
            raise _invalid("a read of 0 bytes; it reads at least 1")
        return self.saved.state[offset : offset + min(length, STORE.limits.max_chunk)]

    def __exit__(self, *_: object) -> None:
        pass


class WitWorld:
    pass


def install() -> None:
    """Puts this module in the place of those that componentize-py generates."""
    this = sys.modules[__name__]
    world = modules.ModuleType("wit_world")
    imports = modules.ModuleType("wit_world.imports")
    generated = modules.ModuleType("wit_world.imports.types")
    for name, value in vars(this).items():
        if name.startswith(("Error_", "Expect_")) or name in ("Info", "SaveOptions", "Snapshot"):
            setattr(generated, name, value)
    generated.Expect = Any  # type: ignore[attr-defined]
    errors = modules.ModuleType("componentize_py_types")
    errors.Err = Err  # type: ignore[attr-defined]
    world.WitWorld = WitWorld  # type: ignore[attr-defined]
    world.imports = imports  # type: ignore[attr-defined]
    imports.store, imports.types = this, generated  # type: ignore[attr-defined]
    sys.modules |= {
        "wit_world": world,
        "wit_world.imports": imports,
        "wit_world.imports.store": this,
        "wit_world.imports.types": generated,
        "componentize_py_types": errors,
    }
