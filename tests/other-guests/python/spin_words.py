"""Makes one call of Spin's interfaces, with the words of tests/other-guests/spin."""

import re

import wit_world
from componentize_py_types import Err
from wit_world.imports import atomics, batch, key_value, store


def text(value: bytes | None) -> str:
    return "none" if value is None else value.decode()


def spin(name: str, bucket: str, rest: list[str]) -> str:
    with key_value.Store.open(bucket) as opened:
        match name, *rest:
            case "get", key:
                return text(opened.get(key))
            case "set", key, value:
                opened.set(key, value.encode())
                return "set"
            case "delete", key:
                opened.delete(key)
                return "deleted"
            case "exists", key:
                return str(opened.exists(key)).lower()
            case "keys",:
                return " ".join(opened.get_keys())
    raise Err("no such function")


def draft2(name: str, bucket: str, rest: list[str]) -> str:
    with store.open(bucket) as opened:
        match name, *rest:
            case "get-many", *keys:
                found = batch.get_many(opened, keys)
                return " ".join(f"{key}={text(value)}" for key, value in found)
            case "increment", key, delta:
                return str(atomics.increment(opened, key, int(delta)))
            case "swap", key, value:
                atomics.swap(atomics.Cas.new(opened, key), value.encode())
                return "swapped"
    raise Err("no such function")


class WitWorld(wit_world.WitWorld):
    def run(self, args: list[str]) -> str:
        dialect, name, bucket, *rest = args
        try:
            return (spin if dialect == "spin" else draft2)(name, bucket, rest)
        except Err as error:
            raise Err(reason(error.value)) from None


def reason(case: object) -> str:
    """Returns the text of a case of the interface, or the name of one without text."""
    if isinstance(case, str):
        return case
    name = type(case).__name__.removeprefix("Error_")
    return getattr(case, "value", None) or re.sub("(?<!^)(?=[A-Z])", " ", name).lower()
