"""ImageNet at scale, on paper: images/s, hours, cost and the bottleneck for 1, 8 and 64 GPUs, from measured rates.

A second table has the hours of each of the preset's runs on eight GPUs of one machine, and of eight machines. What is
measured is read from results/benchmarks.json; all else is an assumption that the page names. Nothing here is a
measurement of several GPUs.

    python -m benchmarks.scale [--gpu-rate 2500]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.ours import preset
from benchmarks.page import PAGE, RESULTS, replace_between
from pipeline.models.complexity import Complexity, complexity_of
from pipeline.storage import read_json

LAYOUTS = ((1, 1), (8, 1), (8, 8), (64, 8))
"""GPUs, and the machines that they are spread over."""
BEGIN, END = "<!-- from benchmarks.scale: begin -->\n", "<!-- end of scale -->\n"
TRAINING_VIEWS = "loader, training views on one core"
MEASURED_KB = 54.0
"""kB of the images of that measurement; heavier ones take in proportion longer."""
ITERATIONS, BATCH = 600_000, 256
TRAINING_IMAGES = 1_281_167
TEST_IMAGES = 50_000


@dataclass(frozen=True)
class Assumptions:
    """What is not measured here; each is an option of the command line."""

    gpu_rate: float = 2500.0
    """Images/s of ResNet-50's training on one GPU: a guess for an H100, to be replaced by benchmarks.gpu's figure."""
    cores_a_gpu: int = 8
    """Processes of each GPU's loader, on a core each, as conf/cluster/ray.yaml has them."""
    image_kb: float = 110.0
    """kB of a stored image: ILSVRC2012's training images are 138 GB for 1.28 million."""
    s3_gbit_a_machine: float = 25.0
    """Gbit/s that a machine of several GPUs reads from S3: all training images once, then from its cache."""
    network_gbit_a_machine: float = 400.0
    """Gbit/s between such machines, for the sum of gradients."""
    small_gbit_a_machine: float = 10.0
    """Gbit/s of a machine of one GPU, from S3 and to the others."""
    overlap: float = 0.7
    """Share of the gradients' exchange that is hidden behind the backward pass."""
    test_every: int = 20_000
    """Iterations between passes over the test images for the curve, as the preset has it."""
    test_rate: float = 1000.0
    """Images/s of such a pass on one GPU, whose process decodes them by eight threads."""
    price: float = 4.0
    """Dollars for a GPU's hour, its share of the machine with it."""


@dataclass(frozen=True)
class Plan:
    """What a number of GPUs comes to."""

    gpus: int
    machines: int
    rates: dict[str, float]
    """Images/s of all GPUs together that each resource would allow."""
    hours: float
    """Testing for the curve, and waiting for S3, included."""
    testing: float
    """Hours of them."""
    reading: float
    """Hours in which each machine gets all training images from S3, in the first epoch and perhaps beyond it."""
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
    plans = [plan(gpus, machines, views, "resnet50", assumed) for gpus, machines in LAYOUTS]
    measured = f"{views:,.0f} training views a second and core, of images of {MEASURED_KB:g} kB"
    foot = f"Measured: {measured}. Assumed: {_in_words(assumed)}."
    return "\n".join([table(plans), runs_table(views, assumed), foot, ""])


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
    return 4.0 * _cost(network).parameters


@cache
def _cost(network: str) -> Complexity:
    return complexity_of(network, 1000, 224)


def plan(gpus: int, machines: int, views: float, network: str, assumed: Assumptions) -> Plan:
    """Rates by resource for the paper's 600,000 iterations of 256 images (section 3.4); the batch is never enlarged."""
    s3 = assumed.small_gbit_a_machine if _small(gpus, machines) else assumed.s3_gbit_a_machine
    rates = {
        "GPUs": _with_exchange(gpus, machines, network, assumed),
        "decoding": gpus * assumed.cores_a_gpu * views * min(1.0, MEASURED_KB / assumed.image_kb),
    }
    reading = TRAINING_IMAGES * assumed.image_kb * 1e3 / (s3 * 1e9 / 8) / 3600
    waiting = max(0.0, reading - TRAINING_IMAGES / min(rates.values()) / 3600)
    testing = ITERATIONS / assumed.test_every * TEST_IMAGES / (gpus * assumed.test_rate) / 3600
    hours = ITERATIONS * BATCH / min(rates.values()) / 3600 + waiting + testing
    return Plan(gpus, machines, rates, hours, testing, reading, hours * gpus * assumed.price)


def _small(gpus: int, machines: int) -> bool:
    """Whether these are several machines of one GPU."""
    return 1 < machines == gpus


def _with_exchange(gpus: int, machines: int, network: str, assumed: Assumptions) -> float:
    """Images/s of all GPUs, each step longer by what is left to see of a ring's exchange between machines.

    An exchange is hidden behind the backward pass, two thirds of the computing, by no more than that takes.
    """
    compute = BATCH / gpus / (assumed.gpu_rate / _work(network))
    gbit = assumed.small_gbit_a_machine if _small(gpus, machines) else assumed.network_gbit_a_machine
    exchange = 2 * gradient_bytes(network) * (machines - 1) / machines / (gbit * 1e9 / 8)
    return BATCH / (compute + exchange - min(assumed.overlap * exchange, compute * 2 / 3))


def _work(network: str) -> float:
    """Multiply-adds, as a multiple of ResNet-50's, whose rate is assumed."""
    return _cost(network).multiply_adds / _cost("resnet50").multiply_adds


def runs_table(views: float, assumed: Assumptions) -> str:
    """The preset's runs by network, in Markdown: their hours on eight GPUs together and on eight apart."""
    runs = Counter(name.rpartition("-s")[0] for name in preset("imagenet")["runs"])
    lines = [
        "| network | runs | gradients, MB | hours, 8 GPUs of one machine | hours, 8 machines of one GPU |",
        "|---|--:|--:|--:|--:|",
    ]
    total = [0.0, 0.0]
    for network, count in runs.items():
        hours = [count * plan(8, machines, views, network, assumed).hours for machines in (1, 8)]
        total = [sum(pair) for pair in zip(total, hours, strict=True)]
        megabytes = gradient_bytes(network) / 1e6
        lines.append(f"| {network} | {count} | {megabytes:,.0f} | {hours[0]:.1f} | {hours[1]:.1f} |")
    lines.append(f"| all | {runs.total()} | | {total[0]:.0f} | {total[1]:.0f} |")
    return "\n".join(lines) + "\n"


def table(plans: Sequence[Plan]) -> str:
    """A row a number of GPUs, in Markdown."""
    heads = ("GPUs", "machines", "images/s", "hours", "testing, h", "S3, h", "dollars", "bottleneck")
    lines = [
        f"| {' | '.join(heads)} | GPUs allow | decoding allows |",
        "|--:|--:|--:|--:|--:|--:|--:|---|--:|--:|",
    ]
    for one in plans:
        allowed = " | ".join(f"{one.rates[name]:,.0f}" for name in ("GPUs", "decoding"))
        rate, hours = f"{one.images_per_second:,.0f}", f"{one.hours:.1f} | {one.testing:.1f} | {one.reading:.2f}"
        figures = f"{one.gpus} | {one.machines} | {rate} | {hours} | {one.dollars:,.0f}"
        lines.append(f"| {figures} | {one.bottleneck} | {allowed} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
