"""Images a second on one GPU: training on CIFAR and at 224, ten-crop evaluation; needs torch, torchvision and numpy.

Ours: bf16, channels_last, fused SGD, mini-batches in passes of BN's images (64 on CIFAR, 32 at 224), CIFAR's pixels on
the device and whole batches augmented there; eager or compiled, whichever is measured to be faster, as the pipeline can
be told; with --graphs also by CUDA graphs, which it can't. Evaluation is in bf16 with BN unfolded, of more images at
once than the presets', which say fp32, and cuDNN tries its kernels as in training, which evaluation does not. The peer:
fp32 (convolutions in TF32, torch's default), NCHW, torch's plain SGD, the loss read after each step; for CIFAR
torchvision's transforms image by image in a DataLoader's processes. At 224 both take made-up images that lie on the
device. Neither Ray nor MLflow is needed, nor what reads parameters and files. The last line is `ratio: <ours/peer>`, of
the first row.

    python -m benchmarks.gpu
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu_steps import (
    BN_IMAGES,
    BN_IMAGES_224,
    CIFAR_BATCH,
    COMPILED,
    Steps,
    cifar_batches,
    endlessly,
    made_up,
    our_steps,
    scores,
    usual_batches,
    usual_steps,
)
from pipeline.models.complexity import complexity_of

ITERATIONS, CIFAR_IMAGES = 64_000, 50_000
WARM_UP = 3


@dataclass(frozen=True)
class Row:
    """A line of the table; its fields are those of results/benchmarks.json, and its name says how ours ran."""

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float
    ratio_min: float
    ratio_max: float
    limit: str
    limit_value: float
    limit_fraction: float


@dataclass(frozen=True)
class Bench:
    """Where and for how long is measured."""

    device: torch.device
    rounds: int
    seconds: float
    matrix_rate: float
    """GFLOP/s of bf16 products."""
    ways: tuple[str, ...]
    """How ours may run."""

    def rate(self, steps: Steps, images: int) -> float:
        """Images a second of some steps, which take about `seconds`."""
        count = max(1, round(self.seconds / self._seconds(steps, 2) * 2))
        return count * images / self._seconds(steps, count)

    def _seconds(self, steps: Steps, count: int) -> float:
        wait(self.device)
        started = time.perf_counter()
        for _ in range(count):
            next(steps)
        wait(self.device)
        return time.perf_counter() - started

    def compare(self, name: str, images: int, gigaflops: float, ours: Callable[[str], Steps], peer: Steps) -> Row:
        """Ours in its fastest way beside the peer, in turn; `images` a step, `gigaflops` an image."""
        torch._dynamo.reset()  # what was compiled for other networks counts against these
        way, steps = self._fastest(ours, images)
        for _ in range(WARM_UP):
            next(peer)
        pairs = [(self.rate(steps, images), self.rate(peer, images)) for _ in range(self.rounds)]
        ratios = [own / others for own, others in pairs]
        own = statistics.median(pair[0] for pair in pairs)
        limit = self.matrix_rate / gigaflops
        row = Row(
            f"{name}, {way}",
            own,
            statistics.median(pair[1] for pair in pairs),
            "images/s",
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            "bf16 matrix rate",
            limit,
            own / limit,
        )
        print(describe(row), flush=True)
        return row

    def _fastest(self, ours: Callable[[str], Steps], images: int) -> tuple[str, Steps]:
        """The fastest of the ways that work here, by one round each."""
        best: tuple[float, str, Steps] | None = None
        for way in self.ways:
            try:
                steps = ours(way)
                for _ in range(WARM_UP):
                    next(steps)
                rate = self.rate(steps, images)
            except Exception as error:  # whatever a compiler raises
                if way == "eager":
                    raise
                print(f"{way}: does not work here: {str(error).strip().partition(chr(10))[0]}")
                continue
            if best is None or rate > best[0]:
                best = rate, way, steps
            del steps  # the slower one's memory is free for the next
        assert best is not None
        return best[1:]


def main(arguments: list[str] | None = None) -> None:
    """Print the table, and the minutes to which CIFAR's 64,000 iterations come."""
    options = _options(arguments)
    device = torch.device(options.device)
    if device.type == "cuda":
        print(torch.cuda.get_device_name(device))
        torch.backends.cudnn.benchmark = True
    rate = matrix_rate(device, 256 if options.quick else 8192)
    print(f"torch {torch.__version__}; bf16 products: {rate:,.0f} GFLOP/s")
    seconds, rounds = (0.01, 1) if options.quick else (options.seconds, options.rounds)
    bench = Bench(device, rounds, seconds, rate, _ways(device, options))
    found: list[Row] = []
    for measure, network in _wanted(options):
        try:
            found.append(measure(bench, network, options))
        except torch.OutOfMemoryError:
            print(f"{network}: not enough memory for {measure.__name__.strip('_')}", flush=True)
            continue
        if options.json is not None:
            options.json.write_text(json.dumps([asdict(row) for row in found], indent=2) + "\n", encoding="utf-8")
    if found:
        print(f"ratio: {found[0].ratio:.2f}")


def _ways(device: torch.device, options: argparse.Namespace) -> tuple[str, ...]:
    if device.type != "cuda" or options.eager:
        return ("eager",)
    return ("eager", *(way for way in COMPILED if options.graphs or "graphs" not in way))


def _wanted(options: argparse.Namespace) -> list[tuple[Callable[[Bench, str, argparse.Namespace], Row], str]]:
    at_224 = [(measure, network) for network in options.imagenet for measure in (_training_224, _ten_crop)]
    return [*((_cifar, network) for network in options.cifar), *at_224]


def _cores() -> int:
    """Those that this process may use; more than 16 feed no faster."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="few and small batches: to see that it runs")
    parser.add_argument("--cifar", nargs="*", default=["resnet20", "resnet56", "resnet110"], metavar="NETWORK")
    parser.add_argument("--imagenet", nargs="*", default=["resnet18b", "resnet50", "resnet152"], metavar="NETWORK")
    parser.add_argument("--batch-size", type=int, default=256, help="images a step of training at 224")
    parser.add_argument("--images-together", type=int, default=48, help="whose ten crops make one forward pass")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round, about")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--eager", action="store_true", help="do not try compiling")
    parser.add_argument("--graphs", action="store_true", help="try CUDA graphs too, which the pipeline does not have")
    parser.add_argument("--workers", type=int, default=_cores(), help="processes of the peer's DataLoader")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements there as well")
    options = parser.parse_args(arguments)
    if options.quick:
        options.batch_size, options.images_together, options.workers = 2, 1, 0
    return options


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, side: int) -> float:
    """GFLOP/s of products of square bf16 matrices: the best of five bursts."""
    left, right = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    best = 0.0
    for _ in range(6):  # the first one warms up
        wait(device)
        started = time.perf_counter()
        for _ in range(10):
            torch.mm(left, right)
        wait(device)
        best = max(best, 20 * side**3 / (time.perf_counter() - started) / 1e9)
    return best


def describe(row: Row) -> str:
    """A line on a row, with the minutes of the paper's schedule for CIFAR."""
    text = (
        f"{row.name}: ours {row.ours:,.1f}, peer {row.peer:,.1f} {row.unit}, ratio {row.ratio:.2f}"
        f" ({row.ratio_min:.2f}–{row.ratio_max:.2f}), {100 * row.limit_fraction:.1f}% of the {row.limit}"
    )
    minutes = ITERATIONS * CIFAR_BATCH / row.ours / 60
    return text + (f"; {ITERATIONS:,} iterations in {minutes:.1f} min" if "CIFAR" in row.name else "")


def _gigaflops(network: str, classes: int, size: int, passes: int) -> float:
    return passes * 2e-9 * complexity_of(network, classes, size).multiply_adds


def _cifar(bench: Bench, network: str, options: argparse.Namespace) -> Row:
    images = 512 if options.quick else CIFAR_IMAGES
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, images)
    return bench.compare(
        f"{network}, CIFAR training",
        CIFAR_BATCH,
        _gigaflops(network, 10, 32, 3),
        lambda way: our_steps(network, 10, cifar_batches(pixels, labels, bench.device), BN_IMAGES, bench.device, way),
        usual_steps(network, 10, usual_batches(pixels, labels, options.workers), bench.device),
    )


def _training_224(bench: Bench, network: str, options: argparse.Namespace) -> Row:
    images, labels = made_up(options.batch_size, 224, bench.device)
    ours = images.contiguous(memory_format=torch.channels_last)  # fp32, as the loader gives them
    return bench.compare(
        f"{network}, training at 224",
        options.batch_size,
        _gigaflops(network, 1000, 224, 3),
        lambda way: our_steps(network, 1000, endlessly(ours, labels), BN_IMAGES_224, bench.device, way),
        usual_steps(network, 1000, endlessly(images, labels), bench.device),
    )


def _ten_crop(bench: Bench, network: str, options: argparse.Namespace) -> Row:
    views, _ = made_up(10 * options.images_together, 224, bench.device)
    return bench.compare(
        f"{network}, ten-crop evaluation",
        options.images_together,
        10 * _gigaflops(network, 1000, 224, 1),
        lambda way: scores(network, views, bench.device, way),
        scores(network, views, bench.device, None),
    )


if __name__ == "__main__":
    main()
