"""Tests of pipeline.data.cache against a real S3 server."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.data.cache import CachedFiles, NodeCache
from pipeline.data.errors import StoreError
from pipeline.data.manifest import FileEntry
from pipeline.storage import Retry, StorageError, publish, sha256_file


def put(s3: str, name: str, content: bytes) -> FileEntry:
    with publish(f"{s3}/{name}") as partial:
        partial.write_bytes(content)
    return FileEntry(name=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def held(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_file_is_downloaded_once_and_verified(s3: str, tmp_path: Path) -> None:
    entry = put(s3, "a", b"a" * 1000)
    cache = NodeCache(tmp_path, 5000)
    path = cache.get(s3, entry)
    assert path.read_bytes() == b"a" * 1000
    inode = path.stat().st_ino
    assert NodeCache(tmp_path, 5000).get("s3://nowhere/at-all", entry).stat().st_ino == inode


def test_a_damaged_file_is_downloaded_again(s3: str, tmp_path: Path) -> None:
    entry = put(s3, "a", b"a" * 1000)
    cache = NodeCache(tmp_path, 5000)
    for damage in (b"a" * 999 + b"b", b"a" * 10):
        cache.get(s3, entry).write_bytes(damage)
        assert cache.get(s3, entry).read_bytes() == b"a" * 1000


def test_a_file_is_hashed_once_on_a_machine_and_when_something_has_written_to_it(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    monkeypatch.setattr("pipeline.data.cache.sha256_file", lambda path: hashed.append(path) or sha256_file(path))
    entry = put(s3, "a", b"a" * 1000)
    for _ in range(3):
        path = NodeCache(tmp_path, 5000).get(s3, entry)
    assert len(hashed) == 1
    os.utime(path)
    for _ in range(3):
        NodeCache(tmp_path, 5000).get(s3, entry)
    assert len(hashed) == 2
    with open(path, "r+b") as file:
        file.write(b"b")
    assert NodeCache(tmp_path, 5000).get(s3, entry).read_bytes() == b"a" * 1000
    assert len(hashed) == 4, "found wrong, and what was downloaded in its place found right"


def test_a_cache_sent_elsewhere_is_the_one_of_that_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RESNET_CACHE", str(tmp_path / "here"))
    sent = [pickle.dumps(cache) for cache in (NodeCache.of_environment(), NodeCache(tmp_path / "own", 7))]
    files = pickle.dumps(CachedFiles("s3://bucket/store", NodeCache.of_environment()))
    monkeypatch.setenv("RESNET_CACHE", str(tmp_path / "there"))
    monkeypatch.setenv("RESNET_CACHE_GIB", "3")
    anywhere, own = map(pickle.loads, sent)
    assert (anywhere._folder, anywhere.limit_bytes) == (tmp_path / "there", 3 * 2**30)
    assert (own._folder, own.limit_bytes) == (tmp_path / "own", 7)
    assert pickle.loads(files).mapped_bytes == 3 * 2**30


def test_a_file_that_is_not_the_manifests_is_refused_and_not_kept(s3: str, tmp_path: Path) -> None:
    entry = put(s3, "a", b"a" * 1000)
    put(s3, "a", b"b" * 1000)
    with pytest.raises(StoreError, match=r"/a: not the file of the manifest \(SHA-256 differs\)"):
        NodeCache(tmp_path, 5000).get(s3, entry)
    assert held(tmp_path) == set()


def test_the_least_recently_used_go_when_room_is_needed(s3: str, tmp_path: Path) -> None:
    a, b, c, d = (put(s3, name, name.encode() * 1000) for name in "abcd")
    (tmp_path / "lost+found").mkdir()  # as at a volume's root
    os.utime(tmp_path / "lost+found", (1, 1))
    cache = NodeCache(tmp_path, 3500)
    for position, entry in enumerate((a, b, c)):
        os.utime(cache.get(s3, entry), (1000 + position, 1000 + position))
    cache.get(s3, a)
    mapped = open(tmp_path / b.sha256, "rb")  # noqa: SIM115 — what is open stays readable
    cache.get(s3, d)
    assert held(tmp_path) == {*(entry.sha256 for entry in (a, c, d)), "lost+found"}
    assert mapped.read() == b"b" * 1000
    mapped.close()


def test_a_file_larger_than_the_cache_is_refused(s3: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="1000 bytes do not fit into the cache of 999; raise RESNET_CACHE_GIB"):
        NodeCache(tmp_path, 999).get(s3, put(s3, "a", b"a" * 1000))


def test_a_place_that_is_none_is_named(s3: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"file: no place for a cache \(.*\); set RESNET_CACHE to another"):
        NodeCache(tmp_path / "file", 10**6).get(s3, put(s3, "a", b"a" * 1000))


def test_the_bound_holds_while_many_download_at_once(s3: str, tmp_path: Path) -> None:
    entries = [put(s3, str(n), bytes([n]) * 100_000) for n in range(12)]
    cache = NodeCache(tmp_path, 800_000)
    largest = []

    def get(entry: FileEntry) -> bytes:
        content = cache.opened(s3, entry, Path.read_bytes)
        with FileLock(tmp_path / "cache.lock"):
            largest.append(sum(path.stat().st_size for path in tmp_path.iterdir() if path.suffix != ".lock"))
        return content

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(get, entries))
    assert [content[:1] for content in found] == [bytes([n]) for n in range(12)]
    assert max(largest) <= 800_000


def test_a_file_removed_before_it_is_opened_is_downloaded_again(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, other = put(s3, "a", b"a" * 1000), put(s3, "b", b"b" * 1000)
    cache, get, paths = NodeCache(tmp_path, 1500), NodeCache.get, []

    def get_while_others_need_room(self: NodeCache, url: str, wanted: FileEntry) -> Path:
        paths.append(get(self, url, wanted))
        if len(paths) < 3:
            get(NodeCache(tmp_path, 1500), url, other)
        return paths[-1]

    monkeypatch.setattr(NodeCache, "get", get_while_others_need_room)
    assert cache.opened(s3, entry, Path.read_bytes) == b"a" * 1000
    assert len(paths) == 3


def test_a_missing_file_is_named_and_no_partial_is_left(s3: str, tmp_path: Path) -> None:
    entry = FileEntry(name="none", bytes=10, sha256="0" * 64)
    with pytest.raises(StorageError, match=f"{s3}/none: cannot be read: no such file"):
        NodeCache(tmp_path, 5000, Retry(2, 0.1)).get(s3, entry)
    assert held(tmp_path) == set()


def test_what_was_just_downloaded_does_not_look_abandoned(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others who make room then go by its time."""
    ages, replace = [], Path.replace

    def watched(self: Path, target: Path) -> Path:
        ages.append(time.time() - self.stat().st_mtime)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    NodeCache(tmp_path, 3500).get(s3, put(s3, "a", b"a" * 1000))
    assert [age < 60 for age in ages] == [True]


def test_abandoned_partials_go(s3: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "x.1.partial").write_bytes(b"x" * 3000)
    os.utime(tmp_path / "x.1.partial", (0, 0))
    with caplog.at_level(logging.INFO):
        NodeCache(tmp_path, 3500).get(s3, put(s3, "a", b"a" * 1000))
    assert not (tmp_path / "x.1.partial").exists()


def test_the_environment_says_where_and_how_much(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RESNET_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("RESNET_CACHE_GIB", "0.5")
    assert NodeCache.of_environment().limit_bytes == 2**29
    monkeypatch.setenv("RESNET_CACHE_GIB", "much")
    with pytest.raises(ValueError, match="RESNET_CACHE_GIB='much' is not a number"):
        NodeCache.of_environment()
