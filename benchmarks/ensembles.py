"""All ensembles of some runs from their saved predictions: seconds, and the most memory the process took.

The predictions are made up, seeded, of ImageNet's validation set's size by default: 8 runs, 50,000 images, 1,000
classes. The time includes reading them. No peer is measured, so there is no ratio.

    python -m benchmarks.ensembles
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.record import Measurement, add_output_option, finish
from pipeline.evaluation.ensembles import subset_errors
from pipeline.evaluation.predictions import Predictions


def main(arguments: list[str] | None = None) -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    add_output_option(parser)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"run-{seed}.npz" for seed in range(options.runs)]
        for seed, file in enumerate(files):
            made_up(seed, options.images, options.classes).save(file)
        started = time.perf_counter()
        found = subset_errors({file.stem: Predictions.load(file) for file in files})
        seconds = time.perf_counter() - started
    what = f"{len(found)} ensembles of {options.runs} runs, {options.images:,} images of {options.classes:,} classes"
    measured = [
        Measurement(what, seconds, None, "s"),
        Measurement("memory at most while doing so", peak_gib(), None, "GiB"),
    ]
    finish(measured, options.json)


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
