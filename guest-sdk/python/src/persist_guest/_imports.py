"""The contract's imports, under the names that componentize-py gives them.

An interface has its package in its name if the agent's world has another one of the same name, such
as ``types`` of ``wasi:http``.
"""

try:
    from wit_world.imports import persist_snapshot_store as store
except ImportError:
    from wit_world.imports import store

try:
    from wit_world.imports import persist_snapshot_types as types
except ImportError:
    from wit_world.imports import types

__all__ = ["store", "types"]
