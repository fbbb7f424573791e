"""Images prepared a second on one core: reading, checking by decoding, writing shards; and then averaging them.

The peer decodes each file by PIL, to see that it can be, and adds it to a tar archive, as one packs shards. Rounds are
interleaved. The last line is `ratio: <ours/peer>`.

    python -m benchmarks.prepare ILSVRC2012_img_val.tar
"""

from __future__ import annotations

import io
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.images import data_of, one_core_options, write_images
from benchmarks.limits import decode_rate
from benchmarks.pairs import interleaved
from benchmarks.record import Limit, finish
from pipeline.data.prepare import prepare
from pipeline.data.tasks import sum_images, write_shard

CORES_A_NODE = 64
IMAGENET = 1_281_167 + 50_000
IMAGENET_TRAIN = 1_281_167
SHARD_IMAGES = 256


def main(arguments: list[str] | None = None) -> None:
    """Print the rates, and what they come to for ImageNet on one node and on eight."""
    options = one_core_options(__doc__, arguments, rounds=3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(options, folder / "images")
        ours = _Ours(folder, len(images))
        ours.store(), usual_rate(folder / "images", folder / "shards")  # to warm up
        pairs = interleaved(ours.store, lambda: usual_rate(folder / "images", folder / "shards"), options.rounds)
        limit = Limit("JPEG decode only, one core", decode_rate(images))
    found = pairs.measurement("prepare, images read, checked and stored on one core", "images/s", limit)
    _extrapolate(found.ours, statistics.median(ours.averaged[1:]))
    finish([found], options.json)


class _Ours:
    """The prepare stage's tasks on images in class folders, into a new store each time."""

    def __init__(self, folder: Path, n_images: int) -> None:
        self._folder, self._n_images = folder, n_images
        self.averaged: list[float] = []
        """Images averaged a second, each time."""

    def store(self) -> float:
        """Images stored a second."""
        timed = _Timed()
        data = data_of("class_folders", self._folder / "images", shard_images=SHARD_IMAGES)
        prepare(data, self._folder / f"store{len(self.averaged)}", run_tasks=timed)
        self.averaged.append(self._n_images / timed.seconds[sum_images.__name__])
        return self._n_images / timed.seconds[write_shard.__name__]


def usual_rate(images: Path, shards: Path) -> float:
    """Images a second as one packs them: each decoded by PIL, to see that it can be, and added to a tar archive."""
    shards.mkdir(exist_ok=True)
    files = sorted(images.rglob("*.JPEG"))
    started = time.perf_counter()
    for start in range(0, len(files), SHARD_IMAGES):
        with tarfile.open(shards / f"{start:05d}.tar", "w") as tar:
            for file in files[start : start + SHARD_IMAGES]:
                content = file.read_bytes()
                Image.open(io.BytesIO(content)).convert("RGB").load()
                member = tarfile.TarInfo(str(file.relative_to(images)))
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return len(files) / (time.perf_counter() - started)


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
