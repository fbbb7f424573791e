"""What a stage costs beside its work: seconds of each stage of an experiment in which there is next to nothing to do.

Digits, two networks of 8 layers and 10 iterations. Once with a Ray kept from stage to stage, as `make reproduce` has
it, once with a Ray of its own for each stage that needs one, as a plain `dvc repro`. What the training's ten iterations
take is left out. The last line is `ratio: <one kept/a Ray of its own>` of the train stage: below 1 is less time.

    python -m benchmarks.stages
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.clone import local_cluster, marked, run_stage, write_params
from benchmarks.record import Measurement, add_output_option, finish
from pipeline import cluster
from pipeline.cluster.ray_session import LOGS
from pipeline.cluster_section import Cluster

RUNS = ("plain8-s0", "resnet8-s0")
STAGES = ("prepare", "train", "evaluate", "ensemble", "report", "register")
AIM_SECONDS = 10.0
Seconds = dict[str, list[float]]


def main(arguments: list[str] | None = None) -> None:
    """Print the seconds of each stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=3, help="of each way, after one to warm up; 0 counts that one alone"
    )
    add_output_option(parser)
    options = parser.parse_args(arguments)
    kept: Seconds = {name: [] for name in STAGES}
    alone: Seconds = {name: [] for name in STAGES}
    with tempfile.TemporaryDirectory() as name, marked() as environment:
        folder = Path(name)
        _write_params(folder)

        def each_its_own() -> None:
            _round(folder, environment, alone)

        def one_kept() -> None:
            with cluster.session(Cluster.model_validate(local_cluster())) as address:
                _round(folder, {**environment, **_joining(), "RAY_ADDRESS": address, cluster.OWN_RAY: "1"}, kept)

        for number in range(options.rounds + 1):
            for way in (one_kept, each_its_own) if number % 2 else (each_its_own, one_kept):
                way()
            if number == 0 and options.rounds:
                for found in (*alone.values(), *kept.values()):
                    found.clear()
    finish([_measurement(stage, kept[stage], alone[stage]) for stage in ("train", *_others())], options.json)


def _others() -> tuple[str, ...]:
    return tuple(stage for stage in STAGES if stage != "train")


def _joining() -> dict[str, str]:
    """What a process needs to be let in by the Ray that this one started."""
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_") or name == LOGS}


def _write_params(folder: Path) -> None:
    training = {"iterations": 10, "curve_every": 5, "test_every": 10, "bn_recompute_images": 64}
    schedule = {"kind": "steps", "milestones": [8], "factor": 0.1}
    runs = {run: {"training": {}} for run in RUNS}
    changes = {"training": {**training, "schedule": schedule}, "ensembles": {"both": list(RUNS)}}
    write_params(folder, "digits", runs, changes)


def _round(folder: Path, environment: dict[str, str], seconds: Seconds) -> None:
    """Every stage once, all anew but MLflow's database; for train and evaluate each of both runs is counted."""
    for left in ("data", "models", "predictions", "results", "checkpoints"):
        shutil.rmtree(folder / left, ignore_errors=True)
    for stage in STAGES:
        for words in ([run] for run in RUNS) if stage in ("train", "evaluate") else ([],):
            started = time.perf_counter()
            run_stage(folder, environment, stage, "digits", *words)
            worked = _trained_seconds(folder, words[0]) if stage == "train" else 0.0
            seconds[stage].append(time.perf_counter() - started - worked)


def _trained_seconds(folder: Path, run: str) -> float:
    record = json.loads((folder / "models" / "digits" / run / "train.json").read_text(encoding="utf-8"))
    return float(record["wall_seconds"])


def _measurement(stage: str, kept: list[float], alone: list[float]) -> Measurement:
    """Seconds with one Ray kept, beside those with a Ray of its own; the median of the rounds' ratios."""
    ratios = sorted(one / other for one, other in zip(kept, alone, strict=True))
    return Measurement(
        f"{stage} stage with nothing to do: one Ray kept, its own Ray",
        statistics.median(kept),
        statistics.median(alone),
        "s",
        statistics.median(ratios),
        ratios[0],
        ratios[-1],
        "aim, at most",
        AIM_SECONDS,
    )


if __name__ == "__main__":
    main()
