"""One agent for the tests of the Python SDK: its first argument picks a scenario, and the words are those of tests/guest.

Where a scenario makes up a state, the byte at offset ``i`` is ``byte_at(i)``.
"""

import array
import io
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import persist_guest as persist
from persist_guest import Info, PersistError, Reader, Writer, agent, errors

MIB = 1 << 20

# Kept from the garbage collector, which would close it.
KEPT: list[Writer] = []


def version(info: Info) -> str:
    return f"version {info.version}"


def expect(text: str = "any") -> persist.Expect:
    return int(text) if text.isdigit() else text


def at(text: str | None) -> int | None:
    return None if text is None else int(text)


def byte_at(i: int) -> int:
    return ((i + 1) * 0x9E3779B97F4A7C15 >> 40) & 0xFF


def made_up(start: int, size: int) -> bytes:
    return bytes(byte_at(i) for i in range(start, start + size))


def describe(info: Info) -> str:
    labels = ",".join(f"{key}={value}" for key, value in info.labels.items())
    return (
        f"version {info.version} parent {info.parent or 'none'} {'deleted' if info.deleted else 'saved'} size {info.size} "
        f"sha256 {info.sha256} media-type {info.media_type or 'none'} labels {labels or 'none'} name {info.name}"
    )


def describe_error(error: PersistError) -> str:
    match error:
        case errors.Conflict():
            details = "none" if error.head is None else error.head
        case errors.Denied():
            details = error.right
        case errors.TooLarge():
            details = error.size
        case errors.QuotaExceeded():
            details = f"{error.limit} {error.maximum}"
        case errors.Invalid():
            details = error.rule
        case errors.UnknownOutcome():
            details = error.version
        case _:
            details = ""
    return f"{error.code} {details}".strip()


def save(name: str, text: str) -> str:
    return version(persist.save(name, text))


def zeros_save(name: str, size: str) -> str:
    """As big-save, without the time to make the bytes up."""
    return version(persist.save(name, bytes(int(size))))


def head(name: str) -> str:
    return str(persist.head(name))


def save_at_head(name: str, text: str) -> str:
    return version(persist.save(name, text, expect=persist.head(name)))


def update(name: str, item: str, beside: str = "") -> str:
    remaining = [beside] if beside == "once" else [beside] * 99 if beside else []

    def add(items: list[str]) -> list[str] | None:
        if remaining:
            persist.save_json(name, [*items, remaining.pop()])
        if item == "throw":
            raise Exception("no luck")
        return None if item == "none" else [*items, item]

    return " ".join(persist.update(name, add, []))


def calls(name: str, *args: str) -> str:
    """A conversation whose words are `quick`, `throw` and `race`, and replies `again` and `throw`."""
    remaining = ["race"] if args == ("race",) else []

    def message(heard: list[str], words: list[str]) -> persist.Call | str:
        if remaining:
            remaining.pop()
            calls(name, "other")
        return taken(heard, " ".join(words), persist.Call("model", messages=heard))

    def reply(heard: list[str], text: str) -> persist.Call | str:
        again = persist.Call("tool", messages=heard) if text == "again" else None
        return taken(heard, text, again)

    def taken(heard: list[str], text: str, call: persist.Call | None) -> persist.Call | str:
        if text == "throw":
            raise Exception("no luck")
        heard.append(text)
        if call is not None and text != "quick":
            return call
        return text if text.startswith("{") else f"{len(heard)} {text}"

    return persist.run_calls(name, args, initial=[], message=message, reply=reply)


@dataclass
class Turn:
    text: str
    speaker: str | None = None


@dataclass
class Talk:
    turns: list[Turn] = field(default_factory=list)
    seen: dict[str, float] = field(default_factory=dict)


def update_dataclass(name: str, text: str) -> str:
    """A dataclass comes back as what it was, and what is none is left as it is."""

    def add(talk: Talk) -> None:
        talk.turns.append(Turn(text))
        talk.seen[text] = len(talk.turns) / 2

    talk = persist.update(name, add, Talk())
    assert all(isinstance(turn, Turn) for turn in talk.turns)
    return " ".join(f"{turn.text}:{talk.seen[turn.text]:g}" for turn in talk.turns)


def save_expect(name: str, expected: str, text: str) -> str:
    return version(persist.save(name, text, expect=expect(expected)))


def save_labels(name: str, text: str, media_type: str, *labels: str) -> str:
    return version(
        persist.save(
            name,
            text,
            media_type=None if media_type == "-" else media_type,
            labels=dict(label.split("=", 1) for label in labels),
        )
    )


def big_save(name: str, size: str) -> str:
    return version(persist.save(name, made_up(0, int(size))))


def load(name: str, number: str | None = None) -> str:
    loaded = persist.load_snapshot(name, at(number))
    return "none" if loaded is None else f"{loaded.info.version} {loaded.state.decode(errors='replace')}"


def stat(name: str, number: str | None = None) -> str:
    info = persist.stat(name, at(number))
    return "none" if info is None else describe(info)


def history(name: str) -> str:
    return "\n".join(map(describe, persist.history(name)))


def names(prefix: str) -> str:
    return "\n".join(persist.names(prefix))


def delete(name: str, expected: str = "any") -> str:
    return version(persist.delete(name, expect=expect(expected)))


def restore(name: str, number: str, expected: str = "any") -> str:
    return version(persist.restore(name, int(number), expect=expect(expected)))


def fork(name: str, new_name: str, number: str | None = None) -> str:
    return version(persist.fork(name, new_name, at=at(number)))


def limits() -> str:
    found = persist.limits()
    return (
        f"max-inline {found.max_inline}\nmax-chunk {found.max_chunk}\nmax-state {found.max_state}\n"
        f"max-name {found.max_name}\nmax-page {found.max_page}"
    )


def stream(name: str, chunks: str, size: str) -> str:
    with Writer(name) as writer:
        for chunk in range(int(chunks)):
            writer.write(made_up(chunk * int(size), int(size)))
        return version(writer.finish())


def stream_mib(name: str, count: str) -> str:
    piece = bytearray(made_up(0, 4096) * 256)
    with Writer(name) as writer:
        for i in range(int(count)):
            piece[0] = i % 256
            writer.write(piece)
        return version(writer.finish())


def stream_expect(name: str, expected: str, text: str) -> str:
    with Writer(name, expect=expect(expected)) as writer:
        writer.write(text.encode())
        return version(writer.finish())


def stream_beside_save(name: str) -> str:
    with Writer(name) as writer:
        writer.write(b"late")
        persist.save(name, b"early")
        return version(writer.finish())


def copy(name: str, new_name: str) -> str:
    reader = Reader.open(name)
    if reader is None:
        return "none"
    with reader, Writer(new_name) as writer:
        shutil.copyfileobj(reader, writer, MIB)
        return version(writer.finish())


def read_lines(name: str, count: str) -> str:
    """Lines of a state, of which each would be a call or more without a buffer."""
    with Writer(name) as writer:
        for number in range(int(count)):
            writer.write(f"line {number}\n".encode())
        writer.finish()
    reader = Reader.open(name)
    calls = 0
    following = reader._raw._next

    def counted(size: int) -> bytes:
        nonlocal calls
        calls += 1
        return following(size)

    reader._raw._next = counted
    with reader:
        total = sum(line == f"line {number}\n".encode() for number, line in enumerate(reader))
        reader.seek(-7, 2)
        last = reader.readline().decode().strip()
        text = io.TextIOWrapper(Reader.open(name)).readline().strip()
        return f"{total} lines, few calls {calls <= reader.info.size // 65536 + 4}, {last}, {text}"


def read_at(name: str, offset: str, length: str) -> str:
    reader = Reader.open(name)
    if reader is None:
        return "none"
    with reader:
        reader.seek(int(offset))
        return reader.read(int(length)).decode(errors="replace")


def half_written(name: str) -> Writer:
    """A writer of which the host holds something."""
    writer = Writer(name)
    writer.write(made_up(0, 4096) * 512)
    return writer


def unfinished(name: str) -> str:
    half_written(name).close()
    return "unfinished"


def leaked(name: str) -> str:
    KEPT.append(half_written(name))
    return "leaked"


def trap_mid_write(name: str) -> str:
    KEPT.append(half_written(name))
    return trap()


def many_writers(name: str, count: str) -> str:
    try:
        while len(KEPT) < int(count):
            KEPT.append(Writer(name))
        return f"opened {len(KEPT)}"
    except PersistError as error:
        return f"opened {len(KEPT)} {describe_error(error)}"


def trap(*_: str) -> str:
    raise SystemExit("as asked")


KNOWN = "what the agent knows"


def descend(levels: int) -> int:
    return 0 if levels == 0 else 1 + descend(levels - 1)


def save_deep(name: str, levels: str) -> str:
    descend(int(levels))
    return version(persist.save(name, KNOWN))


def print_(text: str) -> str:
    print("out", text)
    print("err", text, file=sys.stderr)
    return "printed"


def error(text: str) -> str:
    raise Exception(text)


def echo(*args: str) -> str:
    return "\n".join(args)


# What the contract has no place for. Each is to be refused as invalid, and nothing happens.
WRONG: dict[str, Callable[[], object]] = {
    "load none": lambda: persist.load(None),
    "load surrogate": lambda: persist.load("a\ud800"),
    "save number": lambda: persist.save(5, b""),
    "state number": lambda: persist.save("k", 5),
    "state surrogate": lambda: persist.save("k", "a\ud800"),
    "labels number": lambda: persist.save("k", b"", labels={"turn": 1}),
    "labels list": lambda: persist.save("k", b"", labels=["a"]),
    "labels surrogate": lambda: persist.save("k", b"", labels={"a": "\udc00"}),
    "media type bytes": lambda: persist.save("k", b"", media_type=b"x"),
    "expect negative": lambda: persist.save("k", b"", expect=-1),
    "expect huge": lambda: persist.save("k", b"", expect=1 << 64),
    "expect true": lambda: persist.save("k", b"", expect=True),
    "expect none": lambda: persist.save("k", b"", expect=None),
    "delete none": lambda: persist.delete("k", expect=None),
    "restore expect none": lambda: persist.restore("k", 1, expect=None),
    "fork expect none": lambda: persist.fork("k", "l", expect=None),
    "writer expect none": lambda: Writer("k", expect=None),
    "update async": lambda: persist.update("k", asynchronous_change, {}),
    "update without a value": lambda: persist.update("k", lambda value: None),
    "load 18 MiB": lambda: persist.load("n" * 18 * MIB),
    "label 18 MiB": lambda: persist.save("k", b"", labels={"a": "n" * 18 * MIB}),
    "load at text": lambda: persist.load_snapshot("k", "1"),
    "load at negative": lambda: persist.load_snapshot("k", -1),
    "stat at fraction": lambda: persist.stat("k", 1.5),
    "history limit negative": lambda: persist.history_page("k", None, -1),
    "history limit huge": lambda: persist.history_page("k", None, 1 << 40),
    "history before text": lambda: persist.history_page("k", "1", 1),
    "names prefix": lambda: list(persist.names(5)),
    "names after": lambda: persist.names_page("", 5, 1),
    "delete": lambda: persist.delete(5),
    "restore negative": lambda: persist.restore("k", -1),
    "restore none": lambda: persist.restore("k", None),
    "fork": lambda: persist.fork("k", None),
    "fork at": lambda: persist.fork("k", "l", at="1"),
    "reader": lambda: Reader.open(5),
    "reader at": lambda: Reader.open("k", -1),
    "writer": lambda: Writer(5),
    "writer media type": lambda: Writer("k", media_type=5),
}


def not_refused(calls: dict[str, Callable[[], object]]) -> str:
    accepted = []
    for label, call in calls.items():
        try:
            call()
            accepted.append(label)
        except errors.Invalid:
            pass
        except Exception as error:
            accepted.append(f"{label}: {error!r}")
    return "\n".join(accepted) or "all refused"


def wrong_arguments() -> str:
    return not_refused(WRONG)


def closed(name: str) -> str:
    """Streams that were closed, and seeks to nowhere."""
    with Writer(name) as finished:
        finished.finish()
    reader, sought = Reader.open(name), Reader.open(name)
    reader.close()
    reader.close()
    return not_refused(
        {
            "write": lambda: finished.write(b"x"),
            "finish": lambda: finished.finish(),
            "read": lambda: reader.read(1),
            "readall": lambda: reader.read(),
            "tell": lambda: reader.tell(),
            "seek": lambda: reader.seek(0),
            "whence": lambda: sought.seek(0, 9),
            "far": lambda: sought.seek(1 << 64),
            "before": lambda: sought.seek(-1),
            "text": lambda: sought.seek(0.5),
        }
    )


class Full:
    """A stream for which there is no memory."""

    def write(self, piece: bytes) -> None:
        raise MemoryError

    def __exit__(self, *_: object) -> None:
        pass


def lost_piece(name: str) -> str:
    """A writer that lost a piece, and goes on when there is memory again."""
    with Writer(name) as writer:
        stream, writer._stream = writer._stream, Full()
        for piece in (bytes(MIB), b"more"):
            try:
                writer.write(piece)
                return "accepted"
            except MemoryError:
                writer._stream = stream
        try:
            return version(writer.finish())
        except MemoryError:
            return "refused and closed" if writer.closed else "refused"


def write_items(name: str) -> str:
    """What holds items of more than a byte is written, and counted, in bytes."""
    items = array.array("I", [1, 2, 3])
    with Writer(name) as writer:
        counts = [writer.write(memoryview(items)), writer.write(items), writer.write(memoryview(b"abcd")[::2])]
        return f"{counts} {writer.finish().size}"


def wasi() -> str:
    return f"clock {int(time.time())} random {random.SystemRandom().getrandbits(32):08x}"


async def asynchronous_change(value: object) -> object:
    return value


async def asynchronous() -> str:
    return "x"


class Wordless(Exception):
    pass


def tell(what: str) -> object:
    """What a function returns and raises besides texts and errors of the store."""
    match what:
        case "async":
            return asynchronous()
        case "number":
            return 42
        case "surrogate":
            return "a\ud800b"
        case "raise-surrogate":
            raise Exception("a\ud800b")
        case "raise-value":
            raise ValueError("no luck")
        case "raise-wordless":
            raise Wordless
        case "raise-invalid":
            raise errors.Invalid("no luck")
        case "decorate-async":
            return agent(asynchronous)
    return {}["memory"]


@agent
def run(args: list[str]) -> str:
    name, *rest = args or [""]
    if name == "load-uncaught":
        # The failure of a call, as the SDK says it to people.
        return str(persist.load_snapshot(rest[0], 99))
    if name == "tell":
        return tell(*rest)
    function = name.replace("-", "_") if name != "print" else "print_"
    scenario = globals().get(function)
    if not callable(scenario) or name.startswith("_"):
        raise Exception("usage: a scenario of tests/languages/python, and its arguments")
    try:
        return scenario(*rest)
    except PersistError as failure:
        raise Exception(describe_error(failure)) from None
