"""Tests of pipeline.data.sources.tars."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from pipeline.data.errors import SourceError
from pipeline.data.sources.tars import Archive, list_members
from tests.data.material import tar


def test_members_lie_where_the_listing_says(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    contents = {f"{n}.JPEG": bytes([n]) * (n * 700) for n in range(1, 6)}
    whole = tar(path, contents)
    for member in list_members(Archive.at(str(path))):
        assert whole[member.offset : member.offset + member.size] == contents[member.name]
        assert member.problem is None


def test_a_tar_within_a_tar_is_listed_in_place(tmp_path: Path) -> None:
    inner = tar(tmp_path / "inner.tar", {"x.JPEG": b"x" * 1234, "y.JPEG": b"y"})
    whole = tar(tmp_path / "outer.tar", {"before": b"1", "inner.tar": inner})
    outer = {member.name: member for member in list_members(Archive.at(str(tmp_path / "outer.tar")))}
    archive = Archive(str(tmp_path / "outer.tar"), "inner", outer["inner.tar"].offset, outer["inner.tar"].size)
    x, y = list_members(archive)
    assert (whole[x.offset : x.offset + x.size], whole[y.offset : y.offset + y.size]) == (b"x" * 1234, b"y")


@pytest.mark.parametrize("name", ["../../x.JPEG", "/etc/passwd", "a/../../b.JPEG"])
def test_a_name_that_points_outside_is_a_problem(tmp_path: Path, name: str) -> None:
    tar(tmp_path / "a.tar", {name: b"1"})
    (member,) = list_members(Archive.at(str(tmp_path / "a.tar")))
    assert member.problem == "the archive's member has a name that points outside of it"


def test_links_are_problems_and_folders_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind, name in ((tarfile.DIRTYPE, "folder"), (tarfile.SYMTYPE, "link"), (tarfile.FIFOTYPE, "pipe")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    members = list_members(Archive.at(str(tmp_path / "a.tar")))
    assert [member.name for member in members] == ["link", "pipe"]
    assert all(member.problem and "not a file" in member.problem for member in members)


@pytest.mark.parametrize("cut", [100, 700, 1500])
def test_a_damaged_archive_is_named(tmp_path: Path, cut: int) -> None:
    whole = tar(tmp_path / "a.tar", {"x.JPEG": b"x" * 2000})
    (tmp_path / "a.tar").write_bytes(whole[:cut])
    with pytest.raises(SourceError, match=r"a\.tar: (damaged|cut short)"):
        list_members(Archive.at(str(tmp_path / "a.tar")))


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    for content in (b"", io.BytesIO(b"text" * 400).read()):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(SourceError, match=r"a\.tar: .*not a tar archive"):
            list_members(Archive.at(str(tmp_path / "a.tar")))
