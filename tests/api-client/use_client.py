"""Calls each operation through the client that a generator made of the OpenAPI document."""

import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

from client import AuthenticatedClient  # noqa: E402
from client.api import default  # noqa: E402
from client.api.default import (  # noqa: E402
    delete,
    diff,
    fork,
    health,
    history,
    list_agents,
    list_names,
    list_pins,
    list_sessions,
    load,
    metrics,
    openapi,
    pin,
    ready,
    restore,
    run,
    run_in_session,
    save,
    show,
    unpin,
)
from client.models import ForkRequest, Problem, RestoreRequest, RunRequest  # noqa: E402
from client.types import File  # noqa: E402

url, token = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=token, raise_on_unexpected_status=True)
called = set()


def call(operation, *args, **options):
    """Calls one operation, and returns what the client made of the answer."""
    called.add(operation.__name__.rpartition(".")[2])
    return operation.sync_detailed(*args, client=client, **options).parsed


def text_of(version=None):
    options = {} if version is None else {"version": version}
    return call(load, "bot", "memory", **options).payload.read().decode()


assert call(health).status == "ok"
assert call(ready).status == "ok"
assert call(openapi)["openapi"] == "3.1.0"
assert "persist_build_info" in str(call(metrics))

first = call(save, "bot", "memory", body=File(io.BytesIO(b"one")), if_none_match="*")
assert (first.version, first.size, first.parent) == (1, 3, None), first
second = call(save, "bot", "memory", body=File(io.BytesIO(b"two")), if_match='"1"')
assert second.parent == 1, second
conflict = call(save, "bot", "memory", body=File(io.BytesIO(b"x")), if_match='"1"')
assert isinstance(conflict, Problem) and conflict.status == 412, conflict
assert (text_of(), text_of(1)) == ("two", "one")
assert call(show, "bot", "memory").version == 2
assert not call(diff, "bot", "memory", from_=1, to=2).same
assert call(restore, "bot", "memory", body=RestoreRequest(version=1)).version == 3
assert text_of() == "one"
assert call(fork, "bot", "memory", body=ForkRequest(name="copy")).name == "copy"
assert call(pin, "bot", "memory", 1).pins == [1]
assert call(list_pins, "bot", "memory").pins == [1]
assert call(unpin, "bot", "memory", 1).pins == []
assert call(delete, "bot", "copy").deleted
versions = call(history, "bot", "memory").versions
assert [version.version for version in versions] == [3, 2, 1], versions

args = RunRequest(args=["save", "notes", "hello"])
result = call(run, "bot", body=args, idempotency_key="once")
assert [version.name for version in result.versions] == ["notes"], result
assert call(run, "bot", body=args, idempotency_key="once").replayed == "memory"
assert call(run_in_session, "bot", "s1", body=args).versions[0].session == "s1"
assert call(list_agents).names == ["bot"]
assert call(list_sessions, "bot").names == ["s1"]
assert "notes" in call(list_names, "bot").names

# The stream of changes has no end, and the operations in a session are those of the agent.
left_out = {"changes"}
known = {file.stem for file in Path(default.__file__).parent.glob("*.py")} - {"__init__"}
missing = {name for name in known - called - left_out if not name.endswith("_in_session")}
assert not missing, f"not called: {missing}"
print("every operation was called")
