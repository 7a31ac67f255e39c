"""The conversation. Each message is saved before the model is asked, and each reply when it comes,
so that a run that is killed loses no turn, and the next run asks again for the same one.

It is saved as that of examples/model-chat, so either agent continues the other's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypedDict

from persist_guest import Expect, load_json, save_json, stat

NAME = "conversation"


class Message(TypedDict):
    role: Literal["user", "assistant"]
    content: str


# Asks the model about messages, and returns its reply. The key is the same if it is asked again, so
# that a service that heard the question before can answer as it did.
Ask = Callable[[list[Message], str], str]


def turn(message: str | None, ask: Ask) -> str:
    """Answers a message that was interrupted, then ``message``, and returns the last reply.

    A ``message`` that is the interrupted one itself is a retry of it, and no second turn.
    """
    conversation = Conversation()
    pending = conversation.pending()
    if pending is not None:
        reply = conversation.answer(ask)
        if message is None or message == pending:
            return reply
    if message is None:
        raise Exception("nothing to answer: give a message")
    conversation.add({"role": "user", "content": message})
    return conversation.answer(ask)


class Conversation:
    """The messages so far, and the version that holds them."""

    def __init__(self) -> None:
        # A deleted conversation has a version, too. If another run saves after this line, `add` is
        # a conflict.
        info = stat(NAME)
        self.head = 0 if info is None else info.version
        self.messages: list[Message] = load_json(NAME) or []

    def pending(self) -> str | None:
        """Returns the message that has no reply yet."""
        if self.messages and self.messages[-1]["role"] == "user":
            return self.messages[-1]["content"]
        return None

    def answer(self, ask: Ask) -> str:
        reply = ask(self.messages, f"turn-{self.head}")
        self.add({"role": "assistant", "content": reply})
        return reply

    def add(self, message: Message) -> None:
        """Saves the conversation with one more message, unless another run saved since."""
        self.messages.append(message)
        expect: Expect = self.head or "absent"
        self.head = save_json(NAME, self.messages, expect=expect).version
