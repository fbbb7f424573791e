"""Malformed requests to a served model, drawn from a seed."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

from tests.tracking.factory import images
from tests.tracking.test_images import bomb, encoded

GOOD = base64.b64encode(encoded(images(1)[0])).decode()
FORMATS = ("inputs", "instances", "dataframe_split", "dataframe_records", "messages", "input", "prompt", "x", "")
TYPES = (
    *["application/json"] * 12,
    *["application/json; charset=utf-8", "application/json;", "application/json; charset=latin-1", "APPLICATION/JSON"],
    *["text/csv", "application/vnd.apache.parquet", "text/plain", "multipart/form-data; boundary=x", "image/jpeg"],
    *["image/png", "image/", "/", ";", "", "application/x-www-form-urlencoded", "a" * 500],
)
QUERIES = ("", "", "", "?top_k=many", "?top_k=-3", "?protocol=%ff", "?top_k=" + "9" * 5000, "?&&==", "?x=1")


def request(draw: random.Random) -> tuple[bytes, dict[str, str], str]:
    """A body, headers and path, of which at least one is wrong in most; some happen to be right."""
    content_type = draw.choice(TYPES)
    headers = {} if draw.random() < 0.1 else {"Content-Type": content_type}
    return _body(draw), headers, "/invocations" + draw.choice(QUERIES)


def _body(draw: random.Random) -> bytes:
    form = draw.randrange(8)
    if form == 0:
        return draw.randbytes(draw.randrange(200))
    if form == 1:
        return _deep(draw)
    if form == 2:
        return _damaged(draw, encoded(images(1, seed=draw.randrange(9))[0], draw.choice(["JPEG", "PNG", "GIF"])))
    text = json.dumps(_request_tree(draw)).encode()
    return _damaged(draw, text) if form == 3 else text


def _request_tree(draw: random.Random) -> Any:
    if draw.random() < 0.1:
        return _tree(draw, 3)
    tree = {draw.choice(FORMATS): _data(draw) for _ in range(draw.choice([1, 1, 1, 2]))}
    if draw.random() < 0.5:
        tree["params"] = draw.choice([_tree(draw, 2), {"protocol": _tree(draw, 1)}, {"top_k": _tree(draw, 1)}])
    return tree


def _data(draw: random.Random) -> Any:
    item = draw.choice(
        [GOOD, GOOD[: draw.randrange(len(GOOD))], _tree(draw, 3), base64.b64encode(_bytes(draw)).decode()]
    )
    return draw.choice(
        [
            item,
            [item],
            [GOOD, item],
            {"images": [item]},
            {"columns": ["images"], "data": [[item]]},
            {"columns": _tree(draw, 1), "data": _tree(draw, 2), "index": _tree(draw, 1)},
            [{"images": item}],
            [{"images": {"b64": item}}],
        ]
    )


def _tree(draw: random.Random, depth: int) -> Any:
    leaves = [None, True, -1, 0, 10**30, 1.5, 1e308, float("nan"), float("inf"), "", "\0", "é\ud800", GOOD, "ten_crop"]
    if depth == 0 or draw.random() < 0.3:
        return draw.choice(leaves)
    inner = [_tree(draw, depth - 1) for _ in range(draw.randrange(4))]
    return draw.choice([inner, {draw.choice(["images", "b64", "data", "", "0"]): inner}, [[inner]]])


def _bytes(draw: random.Random) -> bytes:
    return draw.choice([b"", draw.randbytes(40), bomb(10_000, 10_000), bomb(60_000, 60_000), bomb(0, 0)])


def _deep(draw: random.Random) -> bytes:
    levels = draw.choice([200, 990, 3_000, 100_000])
    bodies = [b"[" * levels + b"]" * levels, b'{"inputs":' + b"[" * levels, b'{"a":' * levels, b"9" * levels]
    return draw.choice([*bodies, b'{"inputs":[' + b"9" * levels + b"]}"])


def _damaged(draw: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(draw.randrange(1, 6)):
        position = draw.randrange(len(damaged))
        damaged[position] = draw.randrange(256)
    return bytes(damaged[: draw.randrange(1, len(damaged) + 1)]) if draw.random() < 0.5 else bytes(damaged)
