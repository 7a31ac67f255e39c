"""Sends HTTP requests through the host, by ``wasi:http``."""

from __future__ import annotations

import contextlib
import re
from urllib.parse import urlsplit

from componentize_py_types import Err, Ok
from wit_world.imports import outgoing_handler
from wit_world.imports import wasi_http_types as http
from wit_world.imports.streams import StreamError_Closed

# Bytes that one write takes.
WRITE = 4096


class HttpError(Exception):
    """A request that got no response."""


def post(url: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """Sends a request, and returns the status and the body of the response."""
    try:
        response = _send(_request(url, headers), body)
        return response.status(), _read(response)
    except Err as error:
        raise HttpError(_words(error.value)) from None


def _request(url: str, headers: dict[str, str]) -> http.OutgoingRequest:
    parts = urlsplit(url)
    pairs = [(name, value.encode()) for name, value in headers.items()]
    request = http.OutgoingRequest(http.Fields.from_list(pairs))
    request.set_method(http.Method_Post())
    secure = parts.scheme == "https"
    request.set_scheme(http.Scheme_Https() if secure else http.Scheme_Http())
    request.set_authority(parts.netloc)
    path = parts.path or "/"
    request.set_path_with_query(f"{path}?{parts.query}" if parts.query else path)
    return request


def _send(request: http.OutgoingRequest, body: bytes) -> http.IncomingResponse:
    outgoing = request.body()
    future = outgoing_handler.handle(request, None)
    # A request that was refused takes no body. The response says why.
    with contextlib.suppress(Err):
        with outgoing.write() as stream:
            for start in range(0, len(body), WRITE):
                stream.blocking_write_and_flush(body[start : start + WRITE])
        http.OutgoingBody.finish(outgoing, None)
    with future.subscribe() as response_came:
        response_came.block()
    match future.get():
        case Ok(Ok(response)):
            return response
        case Ok(Err() as error):
            raise error
    raise HttpError("the response was lost")


def _read(response: http.IncomingResponse) -> bytes:
    pieces = []
    with response.consume() as body, body.stream() as stream:
        while True:
            try:
                pieces.append(stream.blocking_read(1 << 16))
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    return b"".join(pieces)
                raise


def _words(error: object) -> str:
    """Names an error as the interface does, such as HTTP-request-denied."""
    kind = type(error).__name__.rpartition("_")[2]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind).lower()
    words = re.sub(r"\b(http|dns|tls|ip|uri)\b", lambda word: word[0].upper(), words)
    detail = getattr(error, "value", None)
    return f"{words}: {detail}" if isinstance(detail, str) else words
