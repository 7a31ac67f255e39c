"""An agent that holds a conversation with a model behind an HTTP API.

The API has the chat-completions format, which most services and local servers speak.

The argument is a message, and the answer is the model's. Without an argument, a message that was
interrupted is answered. Its environment says where the model is:

- ``MODEL_URL``, such as ``https://api.example.com/v1/chat/completions``
- ``MODEL``, the name of the model

The operator allows the host and adds the key, which the agent never sees::

    persist chat --env MODEL_URL=https://api.example.com/v1/chat/completions --env MODEL=small \\
        --allow-http api.example.com --http-headers api.example.com=headers.txt model_chat.wasm

``wit`` has the part of ``wasi:http`` that it imports. Build it with::

    componentize-py --wit-path wit --world example:model-chat/model-chat \\
        componentize model_chat --output model_chat.wasm
"""

import json
import os

import http_client
from conversation import Message, turn
from persist_guest import agent


@agent
def run(args: list[str]) -> str:
    match args:
        case []:
            return turn(None, ask)
        case [message]:
            return turn(message, ask)
    raise Exception("usage: one message, or none to answer the last")


def ask(messages: list[Message], key: str) -> str:
    url = os.environ.get("MODEL_URL")
    if not url:
        raise Exception("set MODEL_URL: --env MODEL_URL=…")
    question = {"model": os.environ.get("MODEL", "default"), "messages": messages}
    headers = {"content-type": "application/json", "idempotency-key": key}
    try:
        status, body = http_client.post(url, headers, json.dumps(question).encode())
    except http_client.HttpError as error:
        raise Exception(f"cannot ask the model: {error}") from None
    if not 200 <= status < 300:
        why = body.decode(errors="replace")[:500]
        raise Exception(f"the model's server answered {status}: {why}")
    match json.loads(body):
        case {"choices": [{"message": {"content": str(content)}}, *_]}:
            return content
    raise Exception("the model's server answered without a choice")
