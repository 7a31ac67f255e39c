"""What the agent remembers: one state named ``memory``, JSON, a version for each turn."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from persist_guest import PersistError, errors, load_snapshot, save_json

NAME = "memory"


@dataclass(frozen=True)
class Turn:
    text: str
    speaker: str | None = None

    @classmethod
    def of(cls, line: str) -> Turn:
        """A line of a conversation: ``Speaker: text``, or only the text."""
        speaker, colon, text = line.partition(": ")
        return cls(text, speaker) if colon else cls(line)

    def __str__(self) -> str:
        return self.text if self.speaker is None else f"{self.speaker}: {self.text}"


class Memory:
    """The conversation so far, and the version it was loaded from or saved as last."""

    def __init__(self) -> None:
        loaded = load_snapshot(NAME)
        self._head = loaded.info.version if loaded else None
        self.turns = read(loaded.state, loaded.info.version) if loaded else []

    def add(self, line: str) -> None:
        """Adds one turn and saves.

        The save is refused if another run saved since: its turns are not ours to overwrite. After any error this memory is
        ahead of what is saved: load it again.
        """
        self.turns.append(Turn.of(line))
        turn = len(self.turns)
        value = {"turns": [fields(turn) for turn in self.turns]}
        try:
            expect = "absent" if self._head is None else self._head
            self._head = save_json(NAME, value, expect=expect, labels={"turn": str(turn)}).version
        except errors.Conflict:
            raise Exception(
                f"turn {turn} was not saved: another run saved a turn meanwhile; run me again"
            ) from None
        except errors.UnknownOutcome:
            raise Exception(f"turn {turn} may or may not have been saved; run me again, I look first") from None
        except PersistError as error:
            raise Exception(f"turn {turn} was not saved: {error}") from None

    def check_beginning_of(self, lines: list[str]) -> None:
        """Refuses a conversation that does not begin with exactly what is remembered."""
        for at, turn in enumerate(self.turns):
            line = Turn.of(lines[at]) if at < len(lines) else None
            if line == turn:
                continue
            theirs = "it ends before" if line is None else f'it says "{line}"'
            raise Exception(f'this is another conversation: in turn {at + 1} I remember "{turn}", {theirs}')

    def last_about(self, text: str) -> tuple[int, str] | None:
        """The last turn that shares a word with ``text``, and the longest word they share. Short words say little."""
        wanted = set(words(text))
        for number in range(len(self.turns), 0, -1):
            shared = [word for word in words(self.turns[number - 1].text) if size(word) > 4 and word in wanted]
            if shared:
                return number, max(reversed(shared), key=size)
        return None


def words(text: str) -> list[str]:
    return re.split(r"[\W_]+", text.lower())


def size(word: str) -> int:
    """The size of a word, which is that of its UTF-8 in every language."""
    return len(word.encode())


def fields(turn: Turn) -> dict[str, str]:
    return {"text": turn.text} if turn.speaker is None else {"speaker": turn.speaker, "text": turn.text}


def read(state: bytes, version: int) -> list[Turn]:
    """The turns of a saved memory. What this agent does not know is from a later one, which knows more: it is not dropped."""
    try:
        match json.loads(state):
            case {"turns": list(turns), **others} if not others:
                return [turn_of(turn) for turn in turns]
        raise ValueError
    except (TypeError, ValueError):
        raise Exception(
            f"unreadable: version {version} of {NAME} is not what this agent reads; it is left as it is, "
            "and an earlier version may be readable"
        ) from None


def turn_of(value: object) -> Turn:
    match value:
        case {"text": str(text), **others} if others.keys() <= {"speaker"}:
            speaker = others.get("speaker")
            if speaker is None or isinstance(speaker, str):
                return Turn(text, speaker)
    raise ValueError("no turn")
