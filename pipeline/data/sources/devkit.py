"""The ILSVRC2012 development kit: synsets with their ids, and the validation images' ground truth."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass

import numpy as np

from pipeline.data.errors import SourceError
from pipeline.storage import read_bytes

_META = "data/meta.mat"
_GROUND_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True)
class Synset:
    """A class."""

    wnid: str
    ilsvrc_id: int
    """The development kit's number, from 1; not the label, which is the position in WNID order."""
    words: str
    train_images: int
    """0 where the kit does not say."""


@dataclass(frozen=True)
class Devkit:
    """What the kit says, checked."""

    synsets: tuple[Synset, ...]
    """Of the classes (synsets without children), in WNID order: the index is the label."""
    ground_truth: tuple[int, ...]
    """Labels of the validation images in the order of their numbers."""


def read_devkit(url: str) -> Devkit:
    """Read `ILSVRC2012_devkit_t12.tar.gz`; SourceError says what is missing or contradictory."""
    content = read_bytes(url)
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
            meta, truth = _member(tar, _META, url), _member(tar, _GROUND_TRUTH, url)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise SourceError(f"{url}: damaged or not a gzipped tar archive ({error})") from error
    synsets = _synsets(meta, url)
    return Devkit(synsets, _ground_truth(truth, synsets, url))


def _member(tar: tarfile.TarFile, suffix: str, url: str) -> bytes:
    for info in tar:
        if info.isreg() and info.name.endswith(suffix):
            file = tar.extractfile(info)
            assert file is not None
            return file.read()
    raise SourceError(f"{url}: it has no {suffix}")


def _synsets(meta: bytes, url: str) -> tuple[Synset, ...]:
    from scipy.io import loadmat

    try:
        rows = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        leaves = [row for row in rows if int(row["num_children"]) == 0]
        found = [
            Synset(str(row["WNID"]), int(row["ILSVRC2012_ID"]), str(row["words"]), int(row["num_train_images"]))
            for row in leaves
        ]
    except Exception as error:  # scipy's reader raises errors of any kind on broken files
        raise SourceError(f"{url}: {_META} cannot be read ({type(error).__name__}: {error})") from error
    for what, values in (("WNID", [s.wnid for s in found]), ("ILSVRC2012_ID", [s.ilsvrc_id for s in found])):
        if not found or len(set(values)) < len(values):
            raise SourceError(f"{url}: {_META} has no classes, or two with the same {what}")
    return tuple(sorted(found, key=lambda synset: synset.wnid))


def _ground_truth(content: bytes, synsets: tuple[Synset, ...], url: str) -> tuple[int, ...]:
    label_of = {str(synset.ilsvrc_id): label for label, synset in enumerate(synsets)}
    lines = content.decode("ascii", "replace").split()
    wrong = [f"line {number}: {line}" for number, line in enumerate(lines, 1) if line not in label_of]
    if wrong:
        listed = "; ".join(wrong[:10]) + (f"; and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        raise SourceError(f"{url}: {_GROUND_TRUTH} has labels that are no class's ILSVRC2012_ID: {listed}")
    return tuple(label_of[line] for line in lines)
