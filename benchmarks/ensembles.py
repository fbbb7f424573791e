"""All ensembles of some runs from their saved predictions: seconds, and the most memory the process took.

The predictions are made up, seeded, of ImageNet's validation set's size by default: 8 runs, 50,000 images, 1,000
classes. The time includes reading them. The peer averages the arrays of each ensemble anew, as one writes it, and takes
the five likeliest classes; of its ensembles only some are timed. The last line is `ratio: <ours/peer>` of ensembles a
second.

    python -m benchmarks.ensembles
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import Measurement, Pairs, add_output_option, finish
from pipeline.evaluation.ensembles import subset_errors
from pipeline.evaluation.predictions import Predictions


def main(arguments: list[str] | None = None) -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--peer-ensembles", type=int, default=12, help="how many the peer averages")
    add_output_option(parser)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"run-{seed}.npz" for seed in range(options.runs)]
        for seed, file in enumerate(files):
            made_up(seed, options.images, options.classes).save(file)
        started = time.perf_counter()
        found = subset_errors({file.stem: Predictions.load(file) for file in files})
        seconds, memory = time.perf_counter() - started, peak_gib()
        usual = usual_rate(files, options.peer_ensembles)
    what = f"{len(found)} ensembles of {options.runs} runs, {options.images:,} images of {options.classes:,} classes"
    measured = [
        Pairs((len(found) / seconds,), (usual,)).measurement(what, "ensembles/s"),
        Measurement("all of them, reading included", seconds, None, "s"),
        Measurement("memory at most while doing so", memory, None, "GiB"),
    ]
    finish(measured, options.json)


def usual_rate(files: Sequence[Path], count: int) -> float:
    """Ensembles a second as one writes it, over `count` of them spread evenly from the small to the large."""
    arrays = {file: Predictions.load(file) for file in files}
    labels = torch.from_numpy(next(iter(arrays.values())).labels)
    sizes = range(1, len(files) + 1)
    subsets = [subset for size in sizes for subset in itertools.combinations(arrays, size)]
    chosen = subsets[:: max(1, len(subsets) // count)]
    started = time.perf_counter()
    for subset in chosen:
        mean = np.mean([arrays[file].probabilities for file in subset], axis=0, dtype=np.float64)
        likeliest = torch.from_numpy(mean).topk(min(5, mean.shape[1])).indices
        hits = likeliest == labels[:, None]
        _ = 1 - hits[:, 0].float().mean(), 1 - hits.any(1).float().mean()
    return len(chosen) / (time.perf_counter() - started)


def made_up(seed: int, n_images: int, classes: int) -> Predictions:
    """Softmax of normal scores, the label's raised, so that about a quarter of 1,000 classes' images are mistaken."""
    labels = np.arange(n_images) % classes
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((n_images, classes), dtype=np.float32)
    rows[np.arange(n_images), labels] += 4
    np.exp(rows, out=rows)
    rows /= rows.sum(1, keepdims=True)
    return Predictions(np.array([f"image-{number:08d}" for number in range(n_images)]), labels, rows)


def peak_gib() -> float:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** (30 if sys.platform == "darwin" else 20)


if __name__ == "__main__":
    main()
