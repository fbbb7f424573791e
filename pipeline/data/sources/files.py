"""Images that are files, or parts of files, as pieces of a listing and as samples."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.data.sources.base import Piece, Sample, ranges
from pipeline.storage import RangeReader, StorageError, join_url, read_bytes

WHOLE = -1


@dataclass(frozen=True)
class ImageFile:
    """One image: the file `file` below the source's URL, or `size` bytes from `offset` of it."""

    key: str
    label: int
    file: str
    offset: int
    """WHOLE where the image is the whole file."""
    size: int
    problem: str | None = None


def pieces_of(split: str, images: list[ImageFile], shard_images: int) -> list[Piece]:
    """The images of a split as pieces; what consecutive images share is stated once."""
    return [
        Piece(split, stop - start, tuple(_runs(images[start:stop])))
        for start, stop in ranges(len(images), shard_images)
    ]


def read_files(url: str, piece: Piece) -> Iterator[Sample]:
    """The samples of a piece that `pieces_of` made, below `url`."""
    for file, runs in itertools.groupby(piece.content, key=lambda run: run[0]):
        # One reader for all runs of a file: what it reads ahead of a label's one image has those of others.
        with RangeReader(join_url(url, file) if file else url) as reader:
            for _, label, entries in runs:
                for entry in entries:
                    yield _sample(url, reader, label, *entry)


def _sample(url: str, reader: RangeReader, label: int, key: str, offset: int, size: int, problem: str | None) -> Sample:
    if problem is not None:
        return Sample(key, label, b"", problem)
    if offset == WHOLE:
        return _whole(url, key, label)
    return Sample(key, label, reader.read(offset, size))


def _whole(url: str, key: str, label: int) -> Sample:
    try:
        return Sample(key, label, read_bytes(join_url(url, key)))
    except StorageError as error:
        if isinstance(error.__cause__, PermissionError):
            return Sample(key, label, b"", "permission denied")
        raise


def _runs(images: Iterable[ImageFile]) -> Iterator[tuple[str, int, tuple[tuple[str, int, int, str | None], ...]]]:
    run: list[ImageFile] = []
    for image in images:
        if run and (image.file, image.label) != (run[0].file, run[0].label):
            yield _run(run)
            run = []
        run.append(image)
    if run:
        yield _run(run)


def _run(images: list[ImageFile]) -> tuple[str, int, tuple[tuple[str, int, int, str | None], ...]]:
    entries = tuple((image.key, image.offset, image.size, image.problem) for image in images)
    return images[0].file, images[0].label, entries
