"""Iterations a second of CIFAR-10 training through Ray Train, MLflow and checkpoints against the bare loop.

Ours is what the train stage does: Ray is started, a worker trains, reports its curve, keeps a checkpoint every so many
iterations; the curve goes to an MLflow database. The peer is the same loop alone in a process, with as many threads.
Both train by turns of some seconds, one stopped with all its processes while the other trains: two trainings one after
the other differ by more than what is to be found. A turn's first two seconds do not count: in them Ray's processes make
up for what they missed. The start-up is that of short trainings before, from a Ray that runs, as `make reproduce` keeps
one, to a point at which training has begun, less the time that it has taken by then. The last line is
`ratio: <ours/peer>`.

    python -m benchmarks.overhead
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch

from benchmarks.cifar_training import BATCH, prepare_cifar
from benchmarks.clone import by_itself
from benchmarks.ours import preset
from benchmarks.record import Measurement, add_output_option, finish
from benchmarks.turns import in_turns, rate_between
from pipeline import cluster
from pipeline.cluster import cores
from pipeline.cluster_section import Cluster
from pipeline.config import parse_params
from pipeline.data.store import Store
from pipeline.memory import environment, reuse_freed_memory
from pipeline.provenance import digest_of
from pipeline.training.session import RunSpec, Session

CURVE_EVERY = 5
SHORT = {"iterations": 40, "test_every": 40}


def main(arguments: list[str] | None = None) -> None:
    """Print both rates, and the start-up."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as name, working_in(Path(name)):
        store = prepare_cifar(Path(name), options.images)
        spec = make_spec(options.network, store, options.iterations, options.curve_every)
        where = cluster_settings(Path(name), options.checkpoint_every)
        short = Staged(replace(spec, training=spec.training.model_copy(update=SHORT)), where)
        for _ in range(options.rounds):
            short.curve(lambda: None)
        ours, peer = partial(staged_curve, spec, where), partial(bare_curve, spec, cores())
        rates = in_turns(ours, peer, options.turn, options.settle, environment())  # as the worker is started
    print(f"{len(rates.ours)} turns of {options.turn:g} s each")
    print(f"start of Ray: {', '.join(f'{seconds:.1f}' for seconds in short.ray_starts)} s")
    print(f"start-up from there to the first iteration: {', '.join(f'{each:.1f}' for each in short.start_ups)} s")
    name = f"{options.network}, Ray Train + MLflow + checkpoints against the bare loop"
    times = {"start of Ray": short.ray_starts, "start-up to the first iteration, Ray running": short.start_ups}
    warm = [Measurement(what, statistics.median(each[1:] or each), None, "s") for what, each in times.items()]
    finish([rates.measurement(name, "iterations/s"), *warm], options.json)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--images", type=int, default=10_000, help="training images")
    parser.add_argument("--iterations", type=int, default=1500, help="of each training: over two minutes on two cores")
    parser.add_argument("--checkpoint-every", type=int, default=200, help="iterations; the preset for one machine's")
    parser.add_argument("--curve-every", type=int, default=20, help="iterations; the preset's are 100")
    parser.add_argument("--turn", type=float, default=15.0, help="seconds in which one trains and the other is stopped")
    parser.add_argument("--settle", type=float, default=2.0, help="of them, which do not count; then state is steady")
    parser.add_argument("--rounds", type=int, default=2, help="of short trainings, which tell the start-up")
    add_output_option(parser)
    options = parser.parse_args(arguments)
    if options.settle >= options.turn or options.rounds < 1:
        parser.error("--settle has to be less than --turn, and --rounds 1 or more")
    return options


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """MLflow's database and all else that is written lie in `folder` for the length of the block."""
    with by_itself(), chdir(folder):
        yield


def make_spec(network: str, store: Path, iterations: int, curve_every: int = CURVE_EVERY) -> RunSpec:
    """A short run by the preset's recipe, uncompiled, 128 images in one BN, tested at its end alone."""
    tree = preset("cifar10")
    tree["data"]["store"] = None
    tree["training"] |= {"bn_images": BATCH, "iterations": iterations, "bn_recompute_images": 0, "compile": False}
    tree["training"] |= {"curve_every": curve_every, "test_every": iterations - iterations % curve_every}
    tree["training"]["schedule"]["milestones"] = []
    tree |= {"runs": {f"{network}-s0": {}}, "ensembles": {}, "cluster": cluster_settings(store, 1).model_dump()}
    tree["data"]["holdout"]["images"] = 0
    params = parse_params(tree)
    return RunSpec(
        experiment="benchmark",
        run=f"{network}-s0",
        network=network,
        seed=0,
        store=str(store),
        data_digest=Store.open(store).digest,
        data=params.data,
        augmentation=params.augmentation,
        training=params.training,
        test_split="test",
    )


def cluster_settings(storage: Path, checkpoint_every: int) -> Cluster:
    """One worker with all cores on a Ray of its own."""
    values = {"address": None, "workers": 1, "cpus_per_worker": None, "gpus_per_worker": 0.0, "loader_processes": 0}
    keeping = {"storage": str(storage / "checkpoints"), "checkpoint_every": checkpoint_every, "checkpoints_kept": 2}
    waits = {"joining_seconds": 30.0, "resize_seconds": 60.0, "progress_seconds": 3600.0}
    return Cluster.model_validate({**values, **keeping, **waits, "max_failures": 0})


@dataclass
class Staged:
    """Trainings as the train stage runs them, each a run of its own, and how long each took to begin."""

    spec: RunSpec
    settings: Cluster

    def __post_init__(self) -> None:
        self.ray_starts: list[float] = []
        self.start_ups: list[float] = []

    def rate(self) -> float:
        """Iterations a second of one training, in steady state."""
        return _steady_rate(self.curve(lambda: None))

    def curve(self, begun: Callable[[], object]) -> list[dict[str, Any]]:
        """The curve of one training; `begun` is called when its first checkpoint has been kept."""
        from pipeline.tracking.runs import TrainingRun
        from pipeline.tracking.store import initialise

        spec = replace(self.spec, seed=len(self.start_ups))
        initialise()
        before = time.monotonic()
        with cluster.session(self.settings):
            self.ray_starts.append(time.monotonic() - before)
            watch = _Watch(begun)
            identity = digest_of(spec.identity())
            tracked = TrainingRun.start_or_continue(
                spec.experiment, spec.run, identity, spec.parameters(), {}, anew=True
            )
            tracked.log_load()
            watch.hand_on = tracked.log_curves
            with cluster.train(spec, self.settings, watch.receive):
                pass
            tracked.finish()
        self.start_ups.append(watch.start_up)
        return watch.rows


class _Watch:
    """Receives the curve, and notes when training must have begun."""

    def __init__(self, begun: Callable[[], object]) -> None:
        self.began, self.tell = time.monotonic(), begun
        self.start_up = 0.0
        self.rows: list[dict[str, Any]] = []
        self.hand_on: Any = None

    def receive(self, rows: list[dict[str, Any]]) -> None:
        if not self.rows:
            self.start_up = time.monotonic() - self.began - rows[-1]["seconds"]
            self.tell()
        self.rows = rows
        self.hand_on(rows)


def staged_curve(spec: RunSpec, settings: Cluster, begun: Event) -> list[dict[str, Any]]:
    """The curve of one training as the train stage runs it."""
    return Staged(spec, settings).curve(begun.set)


def bare_curve(spec: RunSpec, threads: int, begun: Event) -> list[dict[str, Any]]:
    """The curve of the same training without Ray, checkpoints and MLflow."""
    reuse_freed_memory()  # as the worker does
    torch.set_num_threads(threads)
    session = Session(spec, device=torch.device("cpu"))
    for done in session.trainer.advance(spec.training.iterations):
        if done == spec.training.curve_every:
            begun.set()
    return [vars(point) for point in session.trainer.curve]


def _steady_rate(rows: list[dict[str, Any]]) -> float:
    """Iterations a second after the warm-up and before the last point, at which the test images are looked at."""
    return rate_between(rows[min(2, len(rows) - 3)], rows[-2])


if __name__ == "__main__":
    main()
