"""Predictions in parts of a split's images, which any machine can make and an interrupted evaluation finds again."""

from __future__ import annotations

import itertools
import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.data.store import Split
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.predictor import Predictor, Protocol
from pipeline.exactness import without_tf32
from pipeline.memory import reuse_freed_memory
from pipeline.models.saved import CARD, INPUT, WEIGHTS
from pipeline.provenance import digest_of
from pipeline.schema import MultiScale
from pipeline.storage import atomic_file, sha256_file

PART_IMAGES, GPU_PART_IMAGES = 1024, 8192
"""Images of a part at most; on GPUs more, as each part there has a process of its own, which takes seconds to start."""
IMAGES_AT_ONCE = 1024
"""Decoded in memory."""
Rows = dict[str, np.ndarray]
"""Probabilities, float32 (images, classes), by the name of the protocol."""


@dataclass(frozen=True)
class Part:
    """Some images of a split, predicted by one protocol."""

    name: str
    """The predictions' name: the protocol's, or holdout."""
    split: str
    protocol: Protocol
    indices: np.ndarray
    """Positions in the split, int64."""
    of: int
    """Images of all parts of this name: the manifest's count for a whole split."""


@dataclass(frozen=True)
class Job:
    """All that a worker on any machine needs besides a part."""

    identity: str
    """Digest of weights, data, precision and whether it is compiled."""
    files: dict[str, np.ndarray]
    """The model folder's content by file name, as bytes."""
    splits: dict[str, Split]
    precision: str
    compile: bool
    batch_size: int
    gpu: bool
    threads: int | None
    """Of torch; None leaves what the process has."""


RunParts = Callable[[Callable[[Job, Part], Rows], Job, Sequence[Part]], Iterable[tuple[Part, Rows]]]
"""Applies a function to a job and each of its parts; gives parts and results as they are ready, in any order."""


class Evaluator:
    """A job's predictor, in the process that predicts."""

    def __init__(self, job: Job) -> None:
        reuse_freed_memory()  # more than half of the time would go into finding memory anew, batch by batch
        self.identity = job.identity
        device = "cuda" if job.gpu and torch.cuda.is_available() else "cpu"
        with tempfile.TemporaryDirectory(prefix="model-") as name:
            for file, content in job.files.items():
                (Path(name) / file).write_bytes(content.tobytes())
            self.predictor = Predictor.load(
                name, device=device, precision=job.precision, batch_size=job.batch_size, compile=job.compile
            )


_kept: list[Evaluator] = []
"""The last job's, so that a worker loads a network once for all its parts."""


def predictor_of(job: Job) -> Predictor:
    """The job's predictor, made at its first use in this process, which runs as many threads as the job says."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    if not _kept or _kept[0].identity != job.identity:
        _kept[:] = [Evaluator(job)]
    return _kept[0].predictor


def make_job(
    model: Path,
    splits: dict[str, Split],
    data_digest: str,
    *,
    precision: str,
    batch_size: int,
    gpu: bool,
    threads: int | None,
    compile: bool = False,
) -> Job:
    """The job of a model folder on the splits of a store; ValueError where the folder lacks a file."""
    if absent := [name for name in (WEIGHTS, CARD, INPUT) if not (model / name).exists()]:
        raise ValueError(
            f"{model}: no {', no '.join(absent)}; `dvc pull` the trained run, or run its train stage again"
        )
    files = {name: np.fromfile(model / name, np.uint8) for name in (WEIGHTS, CARD, INPUT)}
    digests = {name: sha256_file(model / name) for name in files}
    device = "cuda" if gpu else "cpu"
    identity = digest_of([digests, data_digest, precision, compile, device, torch.__version__])
    return Job(identity, files, splits, precision, compile, batch_size, gpu, threads)


def plan(
    name: str,
    split: Split,
    protocol: Protocol,
    tasks: int,
    indices: np.ndarray | None = None,
    *,
    most: int = PART_IMAGES,
) -> list[Part]:
    """The parts of a split's images (or those at `indices`), in order: of equal size, enough for `tasks` at once."""
    chosen = np.arange(split.n_images) if indices is None else np.asarray(indices)
    size = max(1, min(most, -(-len(chosen) // tasks)))
    starts = range(0, len(chosen), size)
    return [Part(name, split.name, protocol, chosen[start : start + size], len(chosen)) for start in starts]


def predict_part(job: Job, part: Part) -> Rows:
    """A part's probabilities; those of `MultiScale.ways` too where the protocol asks for them.

    ValueError where a GPU was asked for and there is none.
    """
    if job.gpu and not torch.cuda.is_available():
        raise ValueError(f"cluster.gpus_per_worker: torch sees no GPU on {platform.node()}, where images are evaluated")
    predictor, split = predictor_of(job), job.splits[part.split]
    starts = range(0, len(part.indices), IMAGES_AT_ONCE)
    chosen = [part.indices[start : start + IMAGES_AT_ONCE] for start in starts]
    with without_tf32():
        found = [_predict(predictor, split.images(some, torch.get_num_threads()), part) for some in chosen]
    return {name: np.concatenate([rows[name] for rows in found]) for name in found[0]}


def _predict(predictor: Predictor, images: Sequence[np.ndarray], part: Part) -> Rows:
    protocol = part.protocol
    if not isinstance(protocol, MultiScale) or not protocol.report_others:
        return {part.name: predictor.predict(images, protocol)}
    ways = predictor.predict_ways(images, protocol)
    return {part.name: ways.pop(protocol.way), **ways}


def in_turn(function: Callable[[Job, Part], Rows], job: Job, parts: Sequence[Part]) -> Iterator[tuple[Part, Rows]]:
    """Runs the parts here, one after another."""
    return ((part, function(job, part)) for part in parts)


def predict_parts(
    job: Job, parts: Sequence[Part], folder: Path, run: RunParts = in_turn
) -> Iterator[tuple[Part, Rows]]:
    """The parts' probabilities in the parts' order, each part kept in `folder` as soon as it is made.

    Parts that are there already, of the same job, protocol and images, are not made again. ValueError where a part
    comes back with other rows than its images.
    """
    files = {_identity(job, part): part for part in parts}
    absent = {name: part for name, part in files.items() if _read(folder / f"{name}.npz", len(part.indices)) is None}
    for made, rows in run(predict_part, job, list(absent.values())) if absent else ():
        name = _identity(job, made)
        _check(absent.pop(name), rows)
        with atomic_file(folder / f"{name}.npz") as partial, open(partial, "wb") as file:
            np.savez(file, **rows)  # type: ignore[arg-type]  # the stub takes the rows for the keyword allow_pickle
    if absent:
        raise ValueError(f"{len(absent)} of {len(parts)} parts were not predicted; run the evaluate stage again")
    for name, part in files.items():
        kept = _read(folder / f"{name}.npz", len(part.indices))
        if kept is None:
            raise ValueError(f"{folder / name}.npz: gone while it was needed; run the evaluate stage again")
        yield part, kept


def assemble(made: Iterable[tuple[Part, Rows]], splits: dict[str, Split]) -> Iterator[tuple[str, Predictions]]:
    """Predictions by name, from parts that lie together; ValueError unless each image of theirs is there once."""
    for name, group in itertools.groupby(made, key=lambda pair: pair[0].name):
        parts, rows = zip(*group, strict=True)
        indices, split = np.concatenate([part.indices for part in parts]), splits[parts[0].split]
        if len(indices) != parts[0].of or len(np.unique(indices)) != parts[0].of:
            raise ValueError(f"{name}: {len(np.unique(indices))} images in {len(indices)} rows, not {parts[0].of}")
        ids = np.array([split.keys[int(i)] for i in indices])
        for output in rows[0]:
            found = np.concatenate([each[output] for each in rows])
            yield output, Predictions(ids, split.labels[indices], found)


def _identity(job: Job, part: Part) -> str:
    images = [part.split, len(part.indices), digest_of(part.indices.tolist())]
    return digest_of([job.identity, part.name, part.protocol.model_dump(mode="json"), images])[:32]


def _read(path: Path, n_images: int) -> Rows | None:
    """A part as it was kept; None for one that is missing or broken."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            rows = {name: arrays[name] for name in arrays.files}
    except Exception:  # numpy and zipfile raise errors of any kind on broken files
        return None
    return rows if all(len(each) == n_images for each in rows.values()) else None


def _check(part: Part, rows: Rows) -> None:
    for name, each in rows.items():
        if len(each) != len(part.indices) or not np.isfinite(each).all():
            raise ValueError(f"{name}: {len(each)} rows for {len(part.indices)} images, or rows that are not finite")
