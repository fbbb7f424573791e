"""Whether bf16 and compiling change results: short trainings by each, several seeds, beside fp32's spread over seeds.

So does the usual script, the peer of `cifar_training`: what it ends with on the same images says whether they, or the
pipeline, are what a figure comes from. The rate drops at 1/2 and 3/4, as the paper's does. A training ends with the
loss over its last hundred iterations and the test error. In full, `--seeds 3`, resnet20's 2,000 iterations take hours
on two cores; each finished training is written to `--out` at once, and the same command goes on from there.
`--iterations 20` shows that it runs. The last line says whether any way ends elsewhere than fp32 by more than seeds do.

    python -m benchmarks.precision
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.optim.lr_scheduler import MultiStepLR
from torchvision import transforms

from benchmarks import page
from benchmarks.cifar_training import BATCH, USUAL_MEAN, USUAL_STD, prepare_cifar, usual_script
from benchmarks.overhead import make_spec
from benchmarks.seeds import CONTROL, End, described, verdict
from pipeline.data.store import Store
from pipeline.provenance import code_version, hardware
from pipeline.schema import Steps
from pipeline.storage import read_json, write_json
from pipeline.training.session import RunSpec, Session

WAYS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32", "compile": False},
    "bf16": {"precision": "bf16", "compile": False},
    "fp32, compiled": {"precision": "fp32", "compile": True},
    "bf16, compiled": {"precision": "bf16", "compile": True},
    CONTROL: {},
}
LAST = 100
"""Iterations over which the final training loss is averaged."""


def main(arguments: list[str] | None = None) -> None:
    """Print mean, least and largest of each way's final loss and error, and whether any is not fp32's."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    kept = _kept(options)
    todo = [(way, seed) for seed in range(options.seeds) for way in options.ways if str(seed) not in kept[way]]
    with tempfile.TemporaryDirectory() as name:
        spec = _spec(options, Path(name)) if todo else None
        for way, seed in todo:
            assert spec is not None
            kept[way][str(seed)] = (
                usual_end(spec, seed, options.threads) if way == CONTROL else end_of(spec, seed, WAYS[way])
            )
            write_json(options.out, {"settings": _settings(options), "ends": kept})
            print(f"{way}, seed {seed}: {kept[way][str(seed)]}", flush=True)
    ends = {way: list(kept[way].values()) for way in options.ways if kept[way]}
    for way, found in ends.items():
        print(f"{way}: {described(found)}")
    print(verdict(ends))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=50_000, help="training images")
    parser.add_argument("--test-images", type=int, default=10_000, help="test images")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS), metavar="WAY")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=page.PRECISION, help="finished trainings, which are not run again")
    return parser.parse_args(arguments)


def _spec(options: argparse.Namespace, folder: Path) -> RunSpec:
    store = prepare_cifar(folder, options.images, options.test_images)
    return with_drops(make_spec(options.network, store, options.iterations))


def with_drops(spec: RunSpec) -> RunSpec:
    """The same, its rate divided by ten at 1/2 and 3/4, as the paper's is (section 4.2)."""
    milestones = [spec.training.iterations // 2, spec.training.iterations * 3 // 4]
    schedule = spec.training.schedule.model_copy(update={"milestones": milestones})
    return replace(spec, training=spec.training.model_copy(update={"schedule": schedule}))


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("network", "iterations", "images", "test_images")}


def _kept(options: argparse.Namespace) -> dict[str, dict[str, End]]:
    """Finished trainings by way and seed; ValueError where the file is of other settings."""
    ends: dict[str, dict[str, End]] = {way: {} for way in WAYS}
    if not options.out.exists():
        return ends
    found = read_json(options.out)
    if found["settings"] != _settings(options):
        raise ValueError(f"{options.out}: is of {found['settings']}, not {_settings(options)}: give another --out")
    return {**ends, **found["ends"]}


def end_of(spec: RunSpec, seed: int, changes: dict[str, Any]) -> End:
    """How one training ends."""
    training, started = spec.training.model_copy(update=changes), time.monotonic()
    session = Session(replace(spec, seed=seed, training=training), device=torch.device("cpu"))
    for _ in session.trainer.advance(training.iterations):
        pass
    curve = session.trainer.curve
    assert curve[-1].test_error is not None
    last = [point.training_loss for point in curve if point.iteration > training.iterations - LAST]
    return _end(last, curve[-1].test_error, started)


def usual_end(spec: RunSpec, seed: int, workers: int) -> End:
    """How the usual script ends, by the same schedule."""
    torch.manual_seed(seed)
    started, training = time.monotonic(), spec.training
    model, optimizer, steps = usual_script(Path(spec.store), spec.network, workers)
    assert isinstance(training.schedule, Steps)
    rate = MultiStepLR(optimizer, training.schedule.milestones, training.schedule.factor)
    losses = []
    for loss in itertools.islice(steps, training.iterations):
        losses.append(loss)
        rate.step()
    return _end(losses[-LAST:], _usual_test_error(model, Path(spec.store)), started)


@torch.inference_mode()
def _usual_test_error(model: torch.nn.Module, store: Path) -> float:
    split = Store.open(store).split("test")
    view = transforms.Compose([transforms.ToTensor(), transforms.Normalize(USUAL_MEAN, USUAL_STD)])
    model.eval()
    wrong = 0
    for images, labels in zip(batched(split.array(), BATCH), batched(split.labels, BATCH), strict=True):
        scores = model(torch.stack([view(Image.fromarray(image)) for image in images]))
        wrong += int((scores.argmax(1).numpy() != labels).sum())
    return 100 * wrong / len(split.labels)


def batched(values: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Runs of so many, the last one shorter."""
    return (values[start : start + size] for start in range(0, len(values), size))


def _end(last: Sequence[float], test_error: float, started: float) -> End:
    return {
        "training_loss": statistics.mean(last),
        "test_error": test_error,
        "seconds": round(time.monotonic() - started, 1),
        "git_commit": code_version()["git_commit"],
        "processor": hardware()["processor"],
    }


if __name__ == "__main__":
    main()
