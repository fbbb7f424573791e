"""Tar archives read in place: a listing of members with their offsets, and nothing unpacked."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.data.errors import SourceError
from pipeline.data.sources.window import Window
from pipeline.storage import RangeReader, file_size


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    name: str
    offset: int
    """Of its content in the file that holds the archive."""
    size: int
    problem: str | None = None
    """Why it cannot be used as an image."""


@dataclass(frozen=True)
class Archive:
    """An archive that is a file, or a member of one."""

    url: str
    name: str
    """For messages."""
    offset: int
    size: int

    @staticmethod
    def at(url: str) -> Archive:
        """The archive that is the file `url`."""
        return Archive(url, url, 0, file_size(url))


def list_members(archive: Archive, *, large: bool = False) -> list[Member]:
    """The archive's files in its order, folders left out; SourceError where it is damaged or cut short.

    `large` members, of many MB each, are passed over; the content of small ones is cheaper read than asked around.
    """
    if not archive.size:
        raise SourceError(f"{archive.name}: zero bytes, not a tar archive")
    try:
        with RangeReader(archive.url, ahead=not large) as reader:
            return list(_members(Window(reader, archive.offset, archive.size), archive))
    except tarfile.TarError as error:
        raise SourceError(f"{archive.name}: damaged or not a tar archive ({error})") from error


def _members(window: Window, archive: Archive) -> Iterator[Member]:
    with tarfile.open(fileobj=window, mode="r:") as tar:
        for info in tar:
            if info.isdir():
                continue
            if info.offset_data + info.size > archive.size:
                raise SourceError(f"{archive.name}: cut short within {info.name}")
            yield Member(info.name, archive.offset + info.offset_data, info.size, _problem(info))
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all


def _problem(info: tarfile.TarInfo) -> str | None:
    path = PurePosixPath(info.name)
    if path.is_absolute() or ".." in path.parts:
        return "the archive's member has a name that points outside of it"
    if not info.isreg():
        return "the archive's member is a link or device, not a file"
    return None
