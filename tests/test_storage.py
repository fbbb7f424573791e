"""Tests of pipeline.storage on local files and a real S3 server."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
from s3fs import S3File, S3FileSystem

from pipeline import storage
from pipeline.storage import Retry, StorageError
from tests.s3_server import S3Server

CONTENT = bytes(range(256)) * 40


def test_an_atomic_file_keeps_the_old_content_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    storage.write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError), storage.atomic_file(path) as partial:
        partial.write_text(f"half {1 / 0}")
    assert storage.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_an_atomic_directory_replaces_the_whole_folder(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "old").write_text("old")
    with storage.atomic_directory(folder) as partial:
        (partial / "new").write_text("new")
    assert [p.name for p in folder.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_json_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON"):
        storage.read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="JSON compliant"):
        storage.write_json(tmp_path / "b.json", float("nan"))


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_local_file_by_path_and_by_url(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}{tmp_path}/sub/a.bin"
    _check_file(url)
    assert (tmp_path / "sub" / "a.bin").read_bytes() == CONTENT


def test_a_file_in_s3(s3: str) -> None:
    _check_file(f"{s3}/sub/a.bin")


def _check_file(url: str) -> None:
    folder = url.rsplit("/", 1)[0]
    assert not storage.exists(url)
    with storage.publish(url) as partial:
        partial.write_bytes(CONTENT)
    assert storage.exists(url)
    assert getattr(storage.resolve(url)[0], "retries", 1) == 1, "s3fs's own would multiply with ours"
    assert storage.read_bytes(url) == CONTENT
    assert storage.file_size(url) == len(CONTENT)
    assert storage.list_files(folder) == {"a.bin": len(CONTENT)}
    assert storage.sha256_url(url) == hashlib.sha256(CONTENT).hexdigest()
    with storage.RangeReader(url) as reader:
        assert reader.read(1000, 10) == CONTENT[1000:1010]
        assert reader.read(0, 3) == CONTENT[:3]
    with storage.RangeReader(url, ahead=False) as reader:
        assert [reader.read(offset, 10) for offset in (1000, 0)] == [CONTENT[1000:1010], CONTENT[:10]]


def test_nothing_is_read_ahead_where_that_is_not_wanted(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url, fetch, fetched = f"{s3}/a.bin", S3File._fetch_range, []
    with storage.publish(url) as partial:
        partial.write_bytes(bytes(10**6))

    def counted(self: S3File, start: int, end: int) -> bytes:
        fetched.append(end - start)
        return fetch(self, start, end)

    monkeypatch.setattr(S3File, "_fetch_range", counted)
    for ahead, expected in ((False, [512, 512]), (True, [10**6])):
        with storage.RangeReader(url, ahead=ahead) as reader:
            assert [len(reader.read(offset, 512)) for offset in (0, 500_000)] == [512, 512]
        assert fetched == expected
        fetched.clear()


def test_nothing_is_published_when_the_block_fails(s3: str, tmp_path: Path) -> None:
    for url in (f"{s3}/a", str(tmp_path / "a")):
        with pytest.raises(ZeroDivisionError), storage.publish(url) as partial:
            partial.write_bytes(CONTENT[1 // 0 :])
        assert not storage.exists(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("zip9://a/b", "Protocol not known"),
        ("gs://bucket/a", "package for this kind of URL is not installed"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        storage.read_bytes(url)
    assert url in str(caught.value)


def test_a_missing_file_is_named_at_once(s3: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for url in (f"{s3}/none", str(tmp_path / "none"), "s3://no-such-bucket/none"):
        with pytest.raises(StorageError, match="none: cannot be read: no such file or folder"):
            storage.read_bytes(url)
    with pytest.raises(StorageError, match="no such file or folder"):
        storage.list_files(f"{s3}/nowhere")
    assert not caplog.records


@pytest.mark.parametrize("wrong", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_or_expired_credentials_are_named_at_once(
    s3: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    monkeypatch.setenv(wrong, "expired")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match=f"{s3}/a: cannot be read: access denied.*credentials and their expiry"):
        storage.read_bytes(f"{s3}/a")
    with pytest.raises(StorageError, match="cannot be written: access denied"), storage.publish(f"{s3}/a") as partial:
        partial.write_bytes(b"")
    assert not caplog.records


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch, s3: str) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match="NoCredentialsError"):
        storage.read_bytes(f"{s3}/a")


def test_patience_in_seconds_ends_and_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(storage.time, "sleep", pauses.append)
    monkeypatch.setattr(storage.time, "monotonic", lambda: sum(pauses))

    def fail(system: object, path: str) -> None:
        raise OSError("away")

    with caplog.at_level(logging.WARNING), pytest.raises(StorageError, match=r"memory://a: .*away \(26 attempts\)"):
        storage.attempt(fail, "memory://a", Retry(seconds=600))
    assert pauses[:7] == [0.5, 1, 2, 4, 8, 16, 30]
    assert max(pauses) == 30
    assert sum(pauses) == 600
    assert caplog.messages == ["memory://a: OSError: away; trying again for 600 s"]
    caplog.clear()
    with caplog.at_level(logging.WARNING), pytest.raises(StorageError):
        storage.attempt(fail, "memory://a", Retry(seconds=1, level=logging.DEBUG))
    assert not caplog.messages


@pytest.mark.slow
def test_a_dead_server_is_asked_again_with_growing_pauses(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = S3Server(tmp_path)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    S3FileSystem.clear_instance_cache()
    url = f"s3://{server.bucket}/a"
    with storage.publish(url) as partial:
        partial.write_bytes(CONTENT)
    server.kill()
    with caplog.at_level(logging.WARNING), pytest.raises(StorageError, match=r"connect.*\(3 attempts\)"):
        storage.read_bytes(url, Retry(3, 0.1))
    assert [record.args[-1] for record in caplog.records if record.args] == [0.1, 0.2]
    server.start()
    assert storage.read_bytes(url, Retry(5, 0.2)) == CONTENT
    server.kill()
