"""Two workers of one thread each against one worker of two threads, at the same mini-batch, through Ray Train.

The last line is `ratio: <two workers/one>`.

    python -m benchmarks.workers
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.cifar_training import prepare_cifar
from benchmarks.overhead import Staged, cluster_settings, make_spec, working_in
from benchmarks.pairs import interleaved
from benchmarks.record import add_output_option, finish

BN_IMAGES = 64
"""Of a mini-batch of 128: each worker normalises its own half, and one worker both in turn, as the preset says."""


def main(arguments: list[str] | None = None) -> None:
    """Print both rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--images", type=int, default=10_000, help="training images")
    parser.add_argument("--iterations", type=int, default=300, help="of one training")
    parser.add_argument("--rounds", type=int, default=3)
    add_output_option(parser)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, working_in(Path(name)):
        spec = make_spec(options.network, prepare_cifar(Path(name), options.images), options.iterations)
        spec = replace(spec, training=spec.training.model_copy(update={"bn_images": BN_IMAGES}))
        one, two = (cluster_settings(Path(name) / f"of{n}", options.iterations) for n in (1, 2))
        alone = Staged(spec, one.model_copy(update={"cpus_per_worker": 2}))
        shared = Staged(spec, two.model_copy(update={"workers": 2, "cpus_per_worker": 1}))
        rates = interleaved(shared.rate, alone.rate, options.rounds)
    finish(
        [rates.measurement(f"{options.network}, two workers against one of two threads", "iterations/s")], options.json
    )


if __name__ == "__main__":
    main()
