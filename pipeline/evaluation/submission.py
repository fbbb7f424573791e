"""The ILSVRC test server's file: five class ids a line, a line an image, the ids as the development kit has them.

Run it as `python -m pipeline.evaluation.submission --devkit KIT --out FILE PREDICTIONS…`. KIT is
ILSVRC2012_devkit_t12.tar.gz; PREDICTIONS are files such as predictions/imagenet/<run>/unlabelled_multi_scale.npz,
which the evaluate stage writes where `evaluation.unlabelled_split` is test. Several are averaged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.data.errors import SourceError
from pipeline.data.sources.devkit import read_devkit
from pipeline.data.sources.ilsvrc2012 import image_number
from pipeline.evaluation.ensembles import average
from pipeline.evaluation.predictions import Predictions
from pipeline.storage import StorageError, atomic_file

GUESSES = 5
"""Classes a line, the likeliest first."""


def submission_lines(predictions: Predictions, class_ids: Sequence[int]) -> list[str]:
    """A line an image, in the order of the numbers in the images' names, such as ILSVRC2012_test_00000001.JPEG.

    `class_ids` are the server's by label. ValueError unless there is one for each class, each image is there once, and
    all have such names.
    """
    if predictions.probabilities.shape[1] != len(class_ids):
        raise ValueError(f"{predictions.probabilities.shape[1]} classes predicted, {len(class_ids)} in the kit")
    if len(np.unique(predictions.ids)) != len(predictions.ids):
        raise ValueError("some images are predicted twice; evaluate again")
    ranked = np.argsort(-predictions.probabilities, axis=1, kind="stable")[:, :GUESSES]
    ids = np.asarray(class_ids)[ranked[np.argsort([_number(str(name)) for name in predictions.ids])]]
    return [" ".join(map(str, row)) for row in ids]


def _number(name: str) -> int:
    """An image's place in the file."""
    found = image_number(name)
    if found is None:
        raise ValueError(
            f"'{name}' is not an image of the test set by its name, such as ILSVRC2012_test_00000001.JPEG, by whose"
            " number the server knows it: prepare the images from ILSVRC's own archive (data.source: ilsvrc2012)"
        )
    return found


def check_submission(lines: Sequence[str], n_images: int, class_ids: Sequence[int]) -> None:
    """ValueError names the first line that the server would refuse: a wrong count, an unknown id or a repeated one."""
    if len(lines) != n_images:
        raise ValueError(f"{len(lines)} lines for {n_images} images")
    known = set(map(str, class_ids))
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) != GUESSES or len(set(words)) != GUESSES or not known.issuperset(words):
            raise ValueError(f"line {number}: '{line}' is not {GUESSES} different class ids of the development kit")


def main(arguments: list[str] | None = None) -> int:
    """Average the runs' predictions and write the file; 2 with one message where something does not fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, nargs="+", help="saved predictions, one file a member")
    parser.add_argument("--devkit", required=True, help="path or URL of ILSVRC2012_devkit_t12.tar.gz")
    parser.add_argument("--images", type=int, default=100_000, help="of the test set")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        class_ids = [synset.ilsvrc_id for synset in read_devkit(options.devkit).synsets]
        lines = submission_lines(
            average({str(file): Predictions.load(file) for file in options.predictions}), class_ids
        )
        check_submission(lines, options.images, class_ids)
    except (ValueError, SourceError, StorageError) as error:
        print(f"submission: {error}", file=sys.stderr)
        return 2
    with atomic_file(options.out) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="ascii")
    print(f"{options.out}: {len(lines):,} images")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
