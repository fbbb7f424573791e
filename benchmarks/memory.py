"""Memory of a training on CIFAR-10: what the stage, its worker and Ray's processes hold for themselves, together.

The real train stage runs, with a Ray of its own. The private memory (USS: what would be free if the process ended) of
all processes that it started, itself among them, is added up every half second, and what they share counted once as
the PSS shows it. The aim is less than 2.5 GiB. The peer is the usual script with its DataLoader's processes, its memory
added up in the same way. The last line is `ratio: <ours/peer>`: below 1 is less memory.

    python -m benchmarks.memory
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path

import psutil

from benchmarks.cifar_training import prepare_cifar, usual_steps
from benchmarks.clone import MARK, SECONDS_BETWEEN_SAMPLES, marked, processes, run_stage, write_params
from benchmarks.images import usual_workers, write_cifar
from benchmarks.ours import preset
from benchmarks.pairs import apart
from benchmarks.record import Measurement, add_output_option, finish

AIM_GIB = 2.5


class Peak:
    """The most private memory of all processes together, in bytes, and whose it was then."""

    def __init__(self) -> None:
        self.private = self.proportional = 0
        self.by_process: dict[str, int] = {}

    def look(self, processes: list[psutil.Process]) -> None:
        """Add up what the processes hold now."""
        held: dict[str, int] = {}
        proportional = 0
        for process in processes:
            try:
                memory, name = process.memory_full_info(), _name(process)
            except (psutil.Error, OSError):
                continue
            held[name] = held.get(name, 0) + memory.uss
            proportional += getattr(memory, "pss", memory.uss)  # Linux alone has it
        self.proportional = max(self.proportional, proportional)
        if sum(held.values()) > self.private:
            self.private, self.by_process = sum(held.values()), held


def main(arguments: list[str] | None = None) -> None:
    """Print the peak, by process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--images", type=int, default=50_000, help="training images")
    parser.add_argument("--iterations", type=int, default=200)
    add_output_option(parser)
    options = parser.parse_args(arguments)
    peak = measure(options.network, options.images, options.iterations)
    for name, held in sorted(peak.by_process.items(), key=lambda item: -item[1]):
        print(f"{held / 2**20:7.0f} MiB  {name}")
    print(f"with what they share, counted once: {peak.proportional / 2**30:.2f} GiB")
    ours = peak.private / 2**30
    usual = usual_peak(options.network, options.images, options.iterations).private / 2**30
    name = f"{options.network}, CIFAR-10 training, private memory of all processes"
    ratio = ours / usual
    finish([Measurement(name, ours, usual, "GiB", ratio, ratio, ratio, "aim, at most", AIM_GIB)], options.json)


def measure(network: str, images: int, iterations: int) -> Peak:
    """The peak of one training as the train stage runs it, by the preset's recipe with tests in between."""
    peak, run = Peak(), f"{network}-s0"
    with tempfile.TemporaryDirectory() as name, marked() as environment:
        folder = Path(name)
        write_cifar(folder / "parquet", images, test_images=min(10_000, images))
        every = max(iterations // 2, 1)
        training = {"iterations": every * 2, "curve_every": every, "test_every": every, "precision": "auto"}
        holdout = preset("cifar10")["data"]["holdout"]
        schedule = {"kind": "steps", "milestones": [every], "factor": 0.1}
        changes = {
            "data": {"source": "hf_parquet", "url": str(folder / "parquet"), "holdout": {**holdout, "images": 0}},
            "training": {**training, "schedule": schedule},
            "ensembles": {},
        }
        write_params(folder, "cifar10", {run: {"training": {}}}, changes)
        run_stage(folder, environment, "prepare", "cifar10")
        run_stage(folder, environment, "train", "cifar10", run, watch=peak.look)
    return peak


def usual_peak(network: str, images: int, iterations: int) -> Peak:
    """The peak of the usual script's processes over so many iterations."""
    peak, over = Peak(), threading.Event()
    with tempfile.TemporaryDirectory() as name, marked() as environment:
        store = prepare_cifar(Path(name), images)

        def watch() -> None:
            while not over.wait(SECONDS_BETWEEN_SAMPLES):
                peak.look(processes(environment[MARK]))

        with apart(usual_steps, store, network, usual_workers()) as steps:
            watching = threading.Thread(target=watch)
            watching.start()
            try:
                for _ in range(iterations):
                    next(steps)
            finally:
                over.set()
                watching.join()
    return peak


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    if words and words[0].startswith("ray::"):
        return words[0].split(".")[0].strip()
    named = [Path(word).name for word in words if word.endswith((".py", "gcs_server", "raylet")) or "stages." in word]
    return named[0] if named else process.name()


if __name__ == "__main__":
    main()
