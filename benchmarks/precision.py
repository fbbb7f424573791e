"""Whether bf16 and compiling change results: short trainings by each, several seeds, beside fp32's spread over seeds.

A training ends with the loss over its last iterations and the test error. In full, `--seeds 3`, resnet20's 2,000
iterations take hours on two cores (nine trainings); `--iterations 20` shows that it runs.

    python -m benchmarks.precision --iterations 2000
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.cifar_training import prepare_cifar
from benchmarks.overhead import make_spec
from pipeline.training.session import RunSpec, Session

WAYS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32", "compile": False},
    "bf16": {"precision": "bf16", "compile": False},
    "fp32, compiled": {"precision": "fp32", "compile": True},
}


def main(arguments: list[str] | None = None) -> None:
    """Print mean, least and largest of each way's final loss and error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=50_000, help="training images")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS), metavar="WAY")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        spec = make_spec(options.network, prepare_cifar(Path(name), options.images), options.iterations)
        for way in options.ways:
            ends = [end_of(spec, seed, WAYS[way]) for seed in range(options.seeds)]
            print(f"{way}: {described(ends)}", flush=True)


def end_of(spec: RunSpec, seed: int, changes: dict[str, Any]) -> tuple[float, float]:
    """Final training loss, and test error in percent, of one training."""
    training = spec.training.model_copy(update=changes)
    session = Session(replace(spec, seed=seed, training=training), device=torch.device("cpu"))
    for _ in session.trainer.advance(training.iterations):
        pass
    last = session.trainer.curve[-1]
    assert last.test_error is not None
    return last.training_loss, last.test_error


def described(ends: Sequence[tuple[float, float]]) -> str:
    """Both figures over the seeds: mean (least to largest)."""
    losses, errors = zip(*ends, strict=True)
    return f"training loss {_spread(losses)}, test error {_spread(errors)}%"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.4g} ({min(values):.4g} to {max(values):.4g})"


if __name__ == "__main__":
    main()
