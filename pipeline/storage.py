"""Files and URLs through fsspec: atomic writes, checksums, JSON."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)
_PARTICIPLE = {"read": "read", "write": "written"}
# Our own retries are enough; the client's own would multiply with them.
_S3_OPTIONS = {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 1}}}
_FINAL_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, TypeError)
_FINAL_NAMES = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "UnauthorizedSSOTokenError")


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a local file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: str | Path) -> Any:
    """The value in a JSON file; ValueError names the file when it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); remove it and run its stage again") from error


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinities are refused."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        _flush(partial)
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place, whole, when the block ends without an error."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield partial
        partial.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


@dataclass(frozen=True)
class Retry:
    """How often, and after which pauses, a remote operation is tried again.

    Each pause is twice the one before, up to `longest_pause`. `level` is that of the warnings that say so.
    """

    attempts: int = 7
    first_pause: float = 0.5
    longest_pause: float = 30.0
    seconds: float | None = None
    """Tries again for so long instead of `attempts` times, and says so once."""
    level: int = logging.WARNING


DEFAULT_RETRY = Retry()


class ContentError(ValueError):
    """What was read is not what it should be; reading it again cannot help."""


class StorageError(OSError):
    """A file or URL that cannot be read or written; the message names it and the reason."""


def is_local(url: str | Path) -> bool:
    """Whether `url` is a path or file:// URL of this machine's file system."""
    return isinstance(url, Path) or "://" not in url or url.startswith("file://")


def local_path(url: str | Path) -> Path:
    """The path of a local `url`."""
    return Path(str(url).removeprefix("file://"))


def absolute_url(url: str | Path) -> str:
    """`url` so that it means the same to processes with another working folder."""
    return str(local_path(url).absolute()) if is_local(url) else str(url)


def join_url(url: str | Path, *names: str) -> str:
    """`url` with path components added."""
    return "/".join([str(url).rstrip("/"), *names])


def resolve(url: str | Path) -> tuple[Any, str]:
    """The fsspec file system of `url` and the path in it; ValueError for a protocol that cannot be used here."""
    if is_local(url):
        return fsspec.filesystem("file"), str(local_path(url))
    options = _S3_OPTIONS if str(url).startswith(("s3://", "s3a://")) else {}
    try:
        system, path = fsspec.core.url_to_fs(str(url), **options)
    except ImportError as error:
        raise ValueError(f"{url}: a package for this kind of URL is not installed ({error})") from error
    except ValueError as error:
        raise ValueError(f"{url}: not a URL that can be read ({error})") from error
    if options:
        system.retries = 1  # s3fs would try five times beside
    return system, path


def attempt(action: Callable[[Any, str], T], url: str | Path, retry: Retry = DEFAULT_RETRY, *, verb: str = "read") -> T:
    """`action(file system, path)`, tried again with growing pauses while a remote server fails to answer.

    StorageError names `url` and the reason: at once where trying again cannot help (no such file, access denied).
    """
    system, path = resolve(url)
    began, pause = time.monotonic(), retry.first_pause
    tries = 0
    while True:
        tries += 1
        try:
            return action(system, path)
        except ContentError:
            raise
        except Exception as error:  # each file system has errors of its own
            left = _left(retry, tries, time.monotonic() - began)
            if not left or not _may_pass(error, url):
                raise StorageError(f"{url}: cannot be {_PARTICIPLE[verb]}: {_reason(error, tries)}") from error
            _tell(url, error, retry, tries, pause)
        time.sleep(min(pause, left))
        pause = min(2 * pause, retry.longest_pause)


def _left(retry: Retry, tries: int, seconds: float) -> float:
    """For how long it may still be tried, after so many tries in so many seconds; 0 where it is enough."""
    if retry.seconds is None:
        return math.inf if tries < retry.attempts else 0.0
    return max(0.0, retry.seconds - seconds)


def _tell(url: str | Path, error: Exception, retry: Retry, tries: int, pause: float) -> None:
    if retry.seconds is None:
        _LOGGER.log(retry.level, "%s: %s; trying again in %.1f s", url, _one_line(error), pause)
    elif tries == 1:
        _LOGGER.log(retry.level, "%s: %s; trying again for %g s", url, _one_line(error), retry.seconds)


def read_bytes(url: str | Path, retry: Retry = DEFAULT_RETRY) -> bytes:
    """The whole content of a file; StorageError where it cannot be had."""
    return attempt(lambda system, path: system.cat_file(path), url, retry)


def file_size(url: str | Path, retry: Retry = DEFAULT_RETRY) -> int:
    """A file's length in bytes; StorageError where there is none, or the server does not say."""
    size = attempt(lambda system, path: system.info(path)["size"], url, retry)
    if size is None:
        raise StorageError(f"{url}: the server does not say how long it is, so that no part of it can be read")
    return int(size)


def exists(url: str | Path, retry: Retry = DEFAULT_RETRY) -> bool:
    """Whether there is a file or folder at `url`; StorageError where that cannot be found out."""
    return bool(attempt(lambda system, path: _has(system, path), url, retry))


def list_files(url: str | Path, retry: Retry = DEFAULT_RETRY) -> dict[str, int]:
    """All files below `url` by relative path, with their sizes, sorted; StorageError where there is no such folder."""

    def find(system: Any, path: str) -> dict[str, int]:
        found = system.find(path, detail=True)
        if not found and not system.exists(path):
            raise FileNotFoundError(path)
        root = system._strip_protocol(path).rstrip("/") + "/"
        return {name.removeprefix(root): info["size"] for name, info in sorted(found.items())}

    return attempt(find, url, retry)


def sha256_url(url: str | Path, retry: Retry = DEFAULT_RETRY) -> str:
    """Hexadecimal SHA-256 of a file anywhere, read as a stream."""

    def digest(system: Any, path: str) -> str:
        with system.open(path, "rb") as file:
            return _digest_of(file)

    return attempt(digest, url, retry)


def download(url: str | Path, target: Path, retry: Retry = DEFAULT_RETRY) -> None:
    """Copy a file to the local path `target`, which is overwritten."""
    attempt(lambda system, path: system.get_file(path, str(target)), url, retry)


@contextlib.contextmanager
def publish(url: str | Path, retry: Retry = DEFAULT_RETRY) -> Iterator[Path]:
    """A local temporary path whose content appears at `url`, whole, when the block ends without an error."""
    if is_local(url):
        with atomic_file(local_path(url)) as partial:
            yield partial
        return
    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder) / "partial"
        yield partial
        attempt(lambda system, path: system.put_file(str(partial), path), url, retry, verb="write")


class RangeReader:
    """Parts of one file, read in any order; best in ascending order, as remote files are read ahead, by some MB.

    Small parts that lie far apart are read faster with `ahead` false.
    """

    def __init__(self, url: str | Path, retry: Retry = DEFAULT_RETRY, *, ahead: bool = True) -> None:
        self._url, self._retry = url, retry
        self._options = {} if ahead or is_local(url) else {"cache_type": "none"}
        self._file: Any = None

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer only at the file's end."""
        return attempt(lambda system, path: self._read(system, path, offset, size), self._url, self._retry)

    def _read(self, system: Any, path: str, offset: int, size: int) -> bytes:
        try:
            if self._file is None:
                self._file = system.open(path, "rb", **self._options)
            self._file.seek(offset)
            return self._file.read(size)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Let the file go; reading opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def __enter__(self) -> RangeReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _has(system: Any, path: str) -> bool:
    try:
        system.info(path)
    except FileNotFoundError:
        return False
    return True


def _may_pass(error: Exception, url: str | Path) -> bool:
    return not is_local(url) and not isinstance(error, _FINAL_ERRORS) and type(error).__name__ not in _FINAL_NAMES


def _reason(error: Exception, tries: int) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    if isinstance(error, PermissionError) or type(error).__name__ in _FINAL_NAMES:
        return f"access denied ({_one_line(error)}); check the permissions, and the credentials and their expiry"
    return _one_line(error) + (f" ({tries} attempts)" if tries > 1 else "")


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(f"{type(error).__name__}: {text}".split())


def _digest_of(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()
