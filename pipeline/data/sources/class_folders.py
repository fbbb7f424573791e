"""Images in a folder for each class: train/<class>/<image>, and likewise val and test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.data.errors import SourceError
from pipeline.data.sources.base import UNLABELLED, Listing, Piece, RunTasks, Sample
from pipeline.data.sources.files import WHOLE, ImageFile, pieces_of, read_files
from pipeline.storage import exists, join_url, list_files

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ClassFolders:
    """The folder or URL above train/, val/ and test/; labels are positions in the sorted order of train's folders."""

    url: str

    def listing(self, shard_images: int, run_tasks: RunTasks) -> Listing:
        """All files, hidden ones left out; test images may lie in no class folder. SourceError for unknown classes."""
        found = {split: self._files(split) for split in _SPLITS}
        if not found["train"]:
            raise SourceError(f"{self.url}: no images below train/<class>/ there")
        classes = sorted({path.split("/")[1] for path in found["train"] if path.count("/") > 1})
        label_of = {name: label for label, name in enumerate(classes)}
        pieces = [
            piece
            for split, files in found.items()
            for piece in pieces_of(split, [self._image(p, s, label_of) for p, s in files.items()], shard_images)
        ]
        return Listing(tuple(classes), tuple(classes), tuple(pieces))

    def read(self, piece: Piece) -> Iterator[Sample]:
        """The files' bytes."""
        return read_files(self.url, piece)

    def _files(self, split: str) -> dict[str, int]:
        folder = join_url(self.url, split)
        if not exists(folder):
            return {}
        files = {f"{split}/{path}": size for path, size in list_files(folder).items()}
        return {path: size for path, size in files.items() if not any(part.startswith(".") for part in path.split("/"))}

    def _image(self, path: str, size: int, label_of: dict[str, int]) -> ImageFile:
        split, *middle, _ = path.split("/")
        if not middle and split == "test":
            return ImageFile(path, UNLABELLED, "", WHOLE, size)
        if not middle or middle[0] not in label_of:
            raise SourceError(f"{self.url}: {path} lies in no class folder that train/ has")
        return ImageFile(path, label_of[middle[0]], "", WHOLE, size)
