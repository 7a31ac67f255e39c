"""Saves and loads checkpoints by LangGraph's SqliteSaver, one for each line of standard input.

A line is `save` or `load`; the answer is the seconds that it took. The first argument is the
database, and the second a file with the state.
"""

import sqlite3
import sys
import time

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver


def main():
    database, state = sys.argv[1:]
    with open(state, "rb") as file:
        state = file.read()
    connection = sqlite3.connect(database, check_same_thread=False)
    saver = SqliteSaver(connection)
    saver.setup()
    # setup() of SqliteSaver asks for a write-ahead log.
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    sync = connection.execute("PRAGMA synchronous").fetchone()[0]
    print(f"{mode} {sync}", flush=True)
    config = {"configurable": {"thread_id": "bench", "checkpoint_ns": ""}}
    version = 0
    for line in sys.stdin:
        started = time.perf_counter()
        if line.strip() == "save":
            version += 1
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"state": state}
            checkpoint["channel_versions"] = {"state": version}
            config = saver.put(config, checkpoint, {"step": version}, {"state": version})
        else:
            newest = {"configurable": {"thread_id": "bench", "checkpoint_ns": ""}}
            found = saver.get_tuple(newest).checkpoint
            assert found["channel_values"]["state"] == state
        print(time.perf_counter() - started, flush=True)


main()
