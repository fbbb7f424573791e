"""Images prepared a second on one core: reading, checking by decoding, writing shards; and then averaging them.

python -m benchmarks.prepare ILSVRC2012_img_val.tar
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.images import add_image_options, data_of, write_images
from benchmarks.limits import decode_rate
from benchmarks.record import Measurement, add_output_option, finish
from pipeline.data.prepare import prepare
from pipeline.data.tasks import sum_images, write_shard

CORES_A_NODE = 64
IMAGENET = 1_281_167 + 50_000
IMAGENET_TRAIN = 1_281_167


def main(arguments: list[str] | None = None) -> None:
    """Print the rates, and what they come to for ImageNet on one node and on eight."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_image_options(parser, images=512)
    add_output_option(parser)
    options = parser.parse_args(arguments)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(options, folder / "images")
        timed = _Timed()
        prepare(data_of("class_folders", folder / "images", shard_images=256), folder / "store", run_tasks=timed)
        decode = decode_rate(images)
    stored = len(images) / timed.seconds[write_shard.__name__]
    averaged = len(images) / timed.seconds[sum_images.__name__]
    _extrapolate(stored, averaged)
    reached = ("JPEG decode only, one core", decode, stored / decode)
    name = "prepare, images read, checked and stored on one core"
    finish([Measurement(name, stored, None, "images/s", None, None, None, *reached)], options.json)


def _extrapolate(stored: float, averaged: float) -> None:
    print(f"stored: {stored:.0f} images/s a core; averaged: {averaged:.0f} images/s a core")
    for nodes in (1, 8):
        cores = nodes * CORES_A_NODE
        seconds = IMAGENET / stored / cores + IMAGENET_TRAIN / averaged / cores
        print(
            f"ImageNet on {nodes} node(s) of {CORES_A_NODE} such cores, if reading and writing keep up: {seconds:.0f} s"
        )


class _Timed:
    """Runs tasks here and adds up the seconds by task."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        return self._run(function, items)

    def _run(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        for item in items:
            start = time.perf_counter()
            result = function(item)
            self.seconds[function.__name__] = self.seconds.get(function.__name__, 0) + time.perf_counter() - start
            yield result


if __name__ == "__main__":
    main()
