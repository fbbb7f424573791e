"""What this machine can do at most: products of matrices in bf16 and fp32, copying of memory, decoding of JPEGs.

The last line is `ratio: <bf16/fp32>`, of the rates of matrix products: what the number format alone is worth.

    python -m benchmarks.limits ILSVRC2012_img_val.tar
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import simplejpeg
import torch

from benchmarks.images import add_image_options, write_images
from benchmarks.pairs import interleaved
from benchmarks.record import Limit, Measurement, add_output_option, finish

SIDE = 2048
COPY_BYTES = 2**28


def main(arguments: list[str] | None = None) -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_image_options(parser, images=128)
    parser.add_argument("--rounds", type=int, default=5)
    add_output_option(parser)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        images = write_images(options, Path(name))
    found = [
        matrix_rates(options.rounds),
        Measurement("memory copy", copy_rate(options.rounds), None, "GB/s"),
        Measurement("JPEG decode only, one core", decode_rate(images, options.rounds), None, "images/s"),
    ]
    finish(found, options.json)


def matrix_rates(rounds: int = 5) -> Measurement:
    """bf16 beside fp32, in GFLOP/s."""
    pairs = interleaved(_products(torch.bfloat16), _products(torch.float32), rounds)
    return pairs.measurement("matrix products, bf16 against fp32", "GFLOP/s")


def matrix_rate(dtype: torch.dtype, rounds: int = 5) -> float:
    """GFLOP/s of products of square matrices: the best of some rounds, as it is a limit."""
    burst = _products(dtype)
    return max(burst() for _ in range(rounds))


def matrix_limit(gigaflops: float) -> Limit:
    """How often a second so many GFLOP could be done, in the number format whose products are the faster here."""
    rates = {"bf16": matrix_rate(torch.bfloat16), "fp32": matrix_rate(torch.float32)}
    fastest = max(rates, key=lambda precision: rates[precision])
    return Limit(f"{fastest} matrix rate", rates[fastest] / gigaflops)


def _products(dtype: torch.dtype) -> Callable[[], float]:
    multiply, side = _largest_product(dtype)

    def burst() -> float:
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < 0.2:
            multiply()
            done += 1
        return done * 2 * side**3 / (time.perf_counter() - started) / 1e9

    return burst


def _largest_product(dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    # Without instructions for bf16, a product of SIDE takes a minute: there a smaller one tells as much.
    side = 256
    while True:
        left, right = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
        multiply = functools.partial(torch.mm, left, right, out=torch.empty(side, side, dtype=dtype))
        multiply()
        if side == SIDE or _seconds(multiply) > 0.05:
            return multiply, side
        side *= 2


def copy_rate(rounds: int = 5, size: int = COPY_BYTES) -> float:
    """GB/s that memory copies, reading and writing counted once: the best of some rounds."""
    source = torch.ones(size, dtype=torch.uint8)
    target = torch.empty_like(source)
    return max(size / _seconds(lambda: target.copy_(source)) / 1e9 for _ in range(rounds))


def decode_rate(images: Sequence[bytes], rounds: int = 5) -> float:
    """Images a second that one core decodes in full and does nothing else with: the best of some rounds."""

    def decode() -> None:
        for content in images:
            simplejpeg.decode_jpeg(content, strict=False)

    return max(len(images) / _seconds(decode) for _ in range(rounds))


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
