"""Every benchmark, each in a process of its own; one table, kept in results/benchmarks.json and docs/performance.md.

    python -m benchmarks [ILSVRC2012_img_val.tar]

With --quick or --only the figures are kept where --out says, if it says so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.images import DATA_VARIABLE
from benchmarks.page import PAGE, RESULTS, refresh
from benchmarks.record import Measurement, as_json, console, read, table
from pipeline.provenance import PACKAGES, code_version, hardware, now
from pipeline.storage import write_json

SCRIPTS = {
    "limits": ["--images", "8", "--rounds", "1"],
    "loader": ["--images", "32", "--rounds", "2"],
    "prepare": ["--images", "32"],
    "cifar_training": ["--compile", "no", "--images", "1000", "--seconds", "1", "--rounds", "2"],
    "imagenet_training": ["--compile", "no", "--images", "64", "--iterations", "1", "--rounds", "1"],
    "evaluation": ["--compile", "no", "--images", "8", "--images-together", "2", "--images-a-round", "4"],
    "ensembles": ["--runs", "4", "--images", "2000"],
    "overhead": [
        "--images",
        "1000",
        "--iterations",
        "120",
        "--checkpoint-every",
        "20",
        "--curve-every",
        "5",
        "--turn",
        "2",
        "--settle",
        "0",
        "--rounds",
        "1",
    ],
    "memory": ["--images", "2000", "--iterations", "4"],
    "stages": ["--rounds", "0"],
    "workers": ["--images", "640", "--iterations", "25", "--rounds", "1"],
    "gpu": ["--quick"],
}
"""What each runs with under --quick: enough to see that it works, too little to be believed."""

ON_IMAGES = ("limits", "loader", "prepare", "imagenet_training", "evaluation")


def main(arguments: list[str] | None = None) -> int:
    """Run them, print and write what they found; 1 if one of them failed, whose figures are then missing.

    Then the published figures stay as they are.
    """
    options = _options(arguments)
    load = list(os.getloadavg())  # of other work: later it is the benchmarks' own
    found, failed = run_all(options)
    if not found:
        print("no benchmark gave a figure", file=sys.stderr)
        return 1
    console().print(table(found))
    results = document(found, load, shared_machine=options.shared_machine, quick=options.quick)
    if out := options.out or (None if failed else _place_of_a_whole_run(options)):
        write_json(out, results)
        print(f"written to {out}")
    if out == RESULTS:
        refresh(PAGE, RESULTS)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _place_of_a_whole_run(options: argparse.Namespace) -> Path | None:
    """The published figures are those of all scripts, in full: a part of them is not put in their place."""
    return None if options.quick or options.only else RESULTS


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, nargs="?", help=f"JPEG images: an archive or folder; by default what {DATA_VARIABLE} has"
    )
    parser.add_argument("--only", nargs="+", choices=tuple(SCRIPTS), metavar="NAME", help="these scripts alone")
    parser.add_argument(
        "--quick", action="store_true", help="see that they run, in a few minutes; the figures are poor"
    )
    parser.add_argument("--shared-machine", action="store_true", help="note that other work ran at the same time")
    parser.add_argument("--out", type=Path, help=f"file for the figures; {RESULTS} by default, where all are measured")
    return parser.parse_args(arguments)


def run_all(options: argparse.Namespace) -> tuple[list[Measurement], list[str]]:
    """The figures of all scripts, and the names of those that failed."""
    found: list[Measurement] = []
    failed = []
    usual = [name for name in SCRIPTS if name != "gpu" or torch.cuda.is_available()]
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or usual:
            file = Path(folder) / f"{name}.json"
            print(f"— {name}", flush=True)
            ended = subprocess.run(command(name, options, file), check=False)
            if ended.returncode == 0 and file.exists():
                found += read(file)
            else:
                failed.append(name)
    return found, failed


def command(name: str, options: argparse.Namespace, file: Path) -> Sequence[str]:
    """The script as it is run alone."""
    source = [str(options.source)] if options.source and name in ON_IMAGES else []
    quick = SCRIPTS[name] if options.quick else []
    return [sys.executable, "-m", f"benchmarks.{name}", *source, *quick, "--json", str(file)]


def document(
    found: Sequence[Measurement], load: Sequence[float], *, shared_machine: bool, quick: bool
) -> dict[str, Any]:
    """What results/benchmarks.json holds."""
    return {
        "benchmarks": as_json(found),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "versions": {package: version(package) for package in PACKAGES},
        **code_version(),
        "measured": now().isoformat(timespec="seconds"),
        "load_average": [round(each, 2) for each in load],
        "shared_machine": shared_machine,
        "quick": quick,
    }


if __name__ == "__main__":
    raise SystemExit(main())
