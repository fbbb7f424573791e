"""A registered model behind HTTP that no malformed request brings to a 5xx: `python -m pipeline.tracking.serve MODEL`.

It is MLflow's own scoring application, as `mlflow models serve` runs it, behind a guard: MLflow answers with 500 where
there is no content type, and where JSON is nested too deep or has an integer of thousands of digits. Besides, an image
can be posted as it is, with a content type image/… and `protocol` and `top_k` in the query.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import mlflow.pyfunc
import uvicorn
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server

from pipeline.tracking.store import initialise

MOST_BYTES = 100_000_000
"""Of a request's body."""
_PATH = "/invocations"
_JSON = "application/json"
_DEEPEST = 100
_LOG = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class RequestError(Exception):
    """A request at fault: the HTTP status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def guarded(app: App) -> App:
    """The scoring application behind the guard, an ASGI application as it is one."""

    async def serve(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != _PATH or scope["method"] != "POST":
            return await app(scope, receive, send)
        try:
            body, content_type = _checked(_header(scope, b"content-type"), await _body(scope, receive), scope)
        except RequestError as error:
            return await _answer(send, error.status, str(error))
        others = [(name, value) for name, value in scope["headers"] if name not in (b"content-type", b"content-length")]
        headers = [*others, (b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await app({**scope, "headers": headers}, _replay(body, receive), send)

    return serve


def _checked(content_type: str, body: bytes, scope: Message) -> tuple[bytes, str]:
    """The body and content type for the scoring application; RequestError for what it would stumble over."""
    kind = content_type.partition(";")[0].strip().lower()
    if not kind:
        raise RequestError(415, f"no Content-Type; give {_JSON}, or image/jpeg and the like")
    if kind.startswith("image/"):
        params = _query(scope)
        text = base64.b64encode(body).decode("ascii")
        return json.dumps({"inputs": [text], **({"params": params} if params else {})}).encode(), _JSON
    if kind == _JSON:
        _check_json(body)
    return body, content_type


def _check_json(body: bytes) -> None:
    try:
        text = body.decode("utf-8")
        if _depth(text) > _DEEPEST:
            raise RequestError(400, f"JSON nested deeper than {_DEEPEST} levels")
        json.loads(text)
    except ValueError as error:  # what is no UTF-8, no JSON, or has a number that Python refuses to read
        raise RequestError(400, f"not JSON: {error}") from None


def _depth(text: str) -> int:
    """At least the depth of JSON's arrays and objects; brackets in strings count too, but none of base64 is one."""
    depth = deepest = 0
    for character in filter("[{}]".__contains__, text) if text.count("[") + text.count("{") > _DEEPEST else "":
        depth += 1 if character in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _query(scope: Message) -> dict[str, Any]:
    try:
        found: dict[str, Any] = dict(parse_qsl(scope["query_string"].decode("ascii"), strict_parsing=False))
        return {**found, **({"top_k": int(found["top_k"])} if "top_k" in found else {})}
    except ValueError as error:
        raise RequestError(400, f"query: {error}") from None


async def _body(scope: Message, receive: Receive) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "the client went away")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MOST_BYTES:
            raise RequestError(413, f"more than {MOST_BYTES:,} bytes")
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _answer(send: Send, status: int, reason: str) -> None:
    content = json.dumps({"error_code": "BAD_REQUEST", "message": reason}).encode()
    headers = [(b"content-type", _JSON.encode()), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _header(scope: Message, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; 2 where the model cannot be loaded."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking.serve", description=__doc__.split("\n")[0])
    parser.add_argument("model", help="models:/digits-resnet56@best, for one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args(arguments)
    try:
        initialise()
        model = mlflow.pyfunc.load_model(options.model)
    except (MlflowException, ValueError, OSError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 2
    uvicorn.run(guarded(scoring_server.init(model)), host=options.host, port=options.port, log_level="warning")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
