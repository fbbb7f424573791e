"""ImageNet at scale, on paper: images/s, hours, cost and the bottleneck for 1, 8 and 64 GPUs, from measured rates.

What is measured is read from results/benchmarks.json; all else is an assumption that the table's foot names. Nothing
here is a measurement of several GPUs.

    python -m benchmarks.scale [--gpu-rate 2500]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.page import PAGE, RESULTS, replace_between
from pipeline.models.complexity import complexity_of
from pipeline.storage import read_json

GPUS = (1, 8, 64)
BEGIN, END = "<!-- from benchmarks.scale: begin -->\n", "<!-- end of scale -->\n"
TRAINING_VIEWS = "loader, training views on one core"
MEASURED_KB = 54.0
"""kB of the images of that measurement; heavier ones take in proportion longer."""
ITERATIONS, BATCH = 600_000, 256
TEST_IMAGES = 50_000


@dataclass(frozen=True)
class Assumptions:
    """What is not measured here; each is an option of the command line."""

    gpu_rate: float = 2500.0
    """Images/s of ResNet-50's training on one GPU: a guess for an H100, to be replaced by benchmarks.gpu's figure."""
    cores_a_gpu: int = 12
    """CPU cores for each GPU's loader: a cloud machine of 8 GPUs has about 96."""
    image_kb: float = 110.0
    """kB of a stored image: ILSVRC2012's training images are 138 GB for 1.28 million."""
    s3_gbit_a_machine: float = 25.0
    """Gbit/s that a machine reads from S3."""
    network_gbit_a_machine: float = 400.0
    """Gbit/s between machines, for the sum of gradients."""
    gpus_a_machine: int = 8
    overlap: float = 0.7
    """Share of the gradients' exchange that is hidden behind the backward pass."""
    test_every: int = 20_000
    """Iterations between passes over the test images for the curve, as the preset has it."""
    test_rate: float = 150.0
    """Images/s of such a pass on one GPU, whose process decodes them by itself."""
    price: float = 4.0
    """Dollars for a GPU's hour, its share of the machine with it."""


@dataclass(frozen=True)
class Plan:
    """What a number of GPUs comes to."""

    gpus: int
    rates: dict[str, float]
    """Images/s of all GPUs together that each resource would allow."""
    hours: float
    """Testing for the curve included."""
    testing: float
    """Hours of them."""
    dollars: float

    @property
    def bottleneck(self) -> str:
        """The resource that allows the least."""
        return min(self.rates, key=lambda name: self.rates[name])

    @property
    def images_per_second(self) -> float:
        """What the bottleneck allows."""
        return self.rates[self.bottleneck]


def main(arguments: list[str] | None = None) -> None:
    """Print the table, and put it into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    for name, value in asdict(Assumptions()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, metavar="FIGURE")
    options = vars(parser.parse_args(arguments))
    page, results = options.pop("page"), read_json(options.pop("results"))
    text = section(results, replace(Assumptions(), **options))
    print(text)
    replace_between(page, BEGIN, END, text)


def section(results: dict[str, Any], assumed: Assumptions) -> str:
    """The table with its assumptions, as the page shows it."""
    views = views_a_core(results)
    plans = [plan(gpus, views, gradient_bytes("resnet50"), assumed) for gpus in GPUS]
    measured = f"{views:,.0f} training views a second and core, of images of {MEASURED_KB:g} kB"
    return table(plans) + f"\nMeasured: {measured}. Assumed: {_in_words(assumed)}.\n"


def _in_words(assumed: Assumptions) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in asdict(assumed).items())


def views_a_core(results: dict[str, Any]) -> float:
    """Training views a second on one core, as benchmarks.loader measured them; ValueError where it has not."""
    for found in results["benchmarks"]:
        if found["name"] == TRAINING_VIEWS:
            return float(found["ours"])
    raise ValueError(f"no figure of '{TRAINING_VIEWS}': run `python -m benchmarks`")


def gradient_bytes(network: str) -> float:
    """Bytes of a network's fp32 gradients, which are summed over all GPUs at each step."""
    return 4.0 * complexity_of(network, 1000, 224).parameters


def plan(gpus: int, views: float, gradients: float, assumed: Assumptions) -> Plan:
    """Rates by resource for the paper's 600,000 iterations of 256 images (section 3.4); the batch is never enlarged."""
    machines = -(-gpus // assumed.gpus_a_machine)
    rates = {
        "GPUs": _with_exchange(gpus, machines, gradients, assumed),
        "decoding": gpus * assumed.cores_a_gpu * views * min(1.0, MEASURED_KB / assumed.image_kb),
        "S3": machines * assumed.s3_gbit_a_machine * 1e9 / 8 / (assumed.image_kb * 1e3),
    }
    testing = ITERATIONS / assumed.test_every * TEST_IMAGES / (gpus * assumed.test_rate) / 3600
    hours = ITERATIONS * BATCH / min(rates.values()) / 3600 + testing
    return Plan(gpus, rates, hours, testing, hours * gpus * assumed.price)


def _with_exchange(gpus: int, machines: int, gradients: float, assumed: Assumptions) -> float:
    """Images/s of all GPUs, each step longer by what is left to see of a ring's exchange between machines."""
    compute = BATCH / gpus / assumed.gpu_rate
    sent = 2 * gradients * (machines - 1) / machines
    exchange = sent / (assumed.network_gbit_a_machine * 1e9 / 8)
    return BATCH / (compute + exchange * (1 - assumed.overlap))


def table(plans: Sequence[Plan]) -> str:
    """A row a number of GPUs, in Markdown."""
    lines = [
        "| GPUs | images/s | hours | testing | dollars | bottleneck | GPUs allow | decoding allows | S3 allows |",
        "|--:|--:|--:|--:|--:|---|--:|--:|--:|",
    ]
    for one in plans:
        allowed = " | ".join(f"{one.rates[name]:,.0f}" for name in ("GPUs", "decoding", "S3"))
        lines.append(
            f"| {one.gpus} | {one.images_per_second:,.0f} | {one.hours:.1f} | {one.testing:.1f} | {one.dollars:,.0f} |"
            f" {one.bottleneck} | {allowed} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
