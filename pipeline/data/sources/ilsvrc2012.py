"""ILSVRC2012 as it is distributed: a tar of class tars, a tar of validation images, the development kit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.data.errors import SourceError
from pipeline.data.sources.base import UNLABELLED, Listing, Piece, RunTasks, Sample
from pipeline.data.sources.devkit import Devkit, Synset, read_devkit
from pipeline.data.sources.files import ImageFile, pieces_of, read_files
from pipeline.data.sources.tars import Archive, Member, list_members
from pipeline.storage import exists, join_url

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
TESTS = ("ILSVRC2012_img_test_v10102019.tar", "ILSVRC2012_img_test.tar")
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_NUMBER = re.compile(r"_(\d{8})\.JPEG$")


@dataclass(frozen=True)
class Ilsvrc2012:
    """The folder or URL of the archives; the test archive, which has no labels, may be missing."""

    url: str

    def listing(self, shard_images: int, run_tasks: RunTasks) -> Listing:
        """Labels are positions in WNID order. SourceError for a missing archive, class or image, or a wrong count."""
        self._check_archives()
        devkit = read_devkit(join_url(self.url, DEVKIT))
        splits = {"train": self._train(devkit.synsets, run_tasks), "val": self._val(devkit), "test": self._test()}
        pieces = [piece for split, images in splits.items() for piece in pieces_of(split, images, shard_images)]
        keys, names = zip(*((synset.wnid, synset.words) for synset in devkit.synsets), strict=True)
        return Listing(keys, names, tuple(pieces))

    def read(self, piece: Piece) -> Iterator[Sample]:
        """The images' bytes, read in place from the archives."""
        return read_files(self.url, piece)

    def _check_archives(self) -> None:
        missing = [name for name in (TRAIN, VAL, DEVKIT) if not exists(join_url(self.url, name))]
        if missing:
            raise SourceError(f"{self.url}: no {', '.join(missing)} there")

    def _train(self, synsets: Sequence[Synset], run_tasks: RunTasks) -> list[ImageFile]:
        archives = self._class_archives(synsets)
        listings = run_tasks(list_members, archives)
        images = []
        for label, (synset, members) in enumerate(zip(synsets, listings, strict=True)):
            self._check_count(synset, members)
            images += [_image(member, f"{synset.wnid}/{member.name}", label, TRAIN) for member in members]
        return images

    def _class_archives(self, synsets: Sequence[Synset]) -> list[Archive]:
        url = join_url(self.url, TRAIN)
        members = {PurePosixPath(member.name).stem: member for member in list_members(Archive.at(url), large=True)}
        wanted = [synset.wnid for synset in synsets]
        missing, unknown = sorted(set(wanted) - set(members)), sorted(set(members) - set(wanted))
        if missing:
            raise SourceError(f"{url}: no class archive for {', '.join(missing)}, which the development kit names")
        if unknown:
            raise SourceError(f"{url}: {', '.join(unknown)} are no classes of the development kit")
        return [_inner(url, members[wnid]) for wnid in wanted]

    def _check_count(self, synset: Synset, members: Sequence[Member]) -> None:
        if synset.train_images and len(members) != synset.train_images:
            where = join_url(self.url, TRAIN)
            raise SourceError(
                f"{where}: {len(members)} images in {synset.wnid}.tar, {synset.train_images} in the development kit"
            )

    def _val(self, devkit: Devkit) -> list[ImageFile]:
        url = join_url(self.url, VAL)
        members = _by_number(list_members(Archive.at(url)), url)
        if len(members) != len(devkit.ground_truth):
            raise SourceError(f"{url}: {len(members)} images, but {len(devkit.ground_truth)} lines of ground truth")
        pairs = zip(members, devkit.ground_truth, strict=True)
        return [_image(member, member.name, label, VAL) for member, label in pairs]

    def _test(self) -> list[ImageFile]:
        for name in TESTS:
            url = join_url(self.url, name)
            if exists(url):
                members = _by_number(list_members(Archive.at(url)), url)
                return [_image(member, member.name, UNLABELLED, name) for member in members]
        return []


def _inner(url: str, member: Member) -> Archive:
    if member.problem:
        raise SourceError(f"{url}: {member.name}: {member.problem}")
    return Archive(url, f"{url}: {member.name}", member.offset, member.size)


def _image(member: Member, key: str, label: int, file: str) -> ImageFile:
    return ImageFile(key, label, file, member.offset, member.size, member.problem)


def image_number(name: str) -> int | None:
    """Of a validation or test image, from its name, such as ILSVRC2012_test_00000001.JPEG; None where it has none."""
    found = _NUMBER.search(name)
    return int(found[1]) if found else None


def _by_number(members: Sequence[Member], url: str) -> list[Member]:
    """In the order of the numbers in the names, which need not be the archive's; they must run from 1."""
    numbered = {}
    for member in members:
        number = image_number(member.name)
        if number is None:
            raise SourceError(f"{url}: {member.name}: the name has no image number such as _00000001.JPEG")
        numbered[number] = member
    absent = [number for number in range(1, len(members) + 1) if number not in numbered]
    if absent:
        raise SourceError(f"{url}: no image of number {absent[0]} among {len(members)}")
    return [numbered[number] for number in sorted(numbered)]
