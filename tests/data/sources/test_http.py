"""Sources read over HTTP, from a server on loopback with and without range requests."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.data.prepare import prepare
from pipeline.storage import StorageError
from tests.data.material import data, tree_of, write_ilsvrc2012


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class WithRanges(Quiet):
    def do_GET(self) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if match is None or not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()
        start, stop = int(match[1]), min(int(match[2] or len(content)) + 1, len(content))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(content[start:stop])

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


@contextmanager
def served(folder: Path, handler: type[SimpleHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.slow
def test_archives_by_http_give_the_same_shards(tmp_path: Path) -> None:
    source = write_ilsvrc2012(tmp_path / "source")
    local = prepare(data("ilsvrc2012", source), tmp_path / "local")
    with served(source, WithRanges) as url:
        remote = prepare(data("ilsvrc2012", url), tmp_path / "remote")
    assert remote.splits == local.splits
    shards = {name: content for name, content in tree_of(tmp_path / "remote").items() if name.endswith(".arrow")}
    assert shards == {name: content for name, content in tree_of(tmp_path / "local").items() if name in shards}


def test_a_server_without_ranges_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with served(write_ilsvrc2012(tmp_path / "source"), Quiet) as url:
        with pytest.raises(StorageError, match=f"{url}/ILSVRC2012_img_train.tar: cannot be read: .*range"):
            prepare(data("ilsvrc2012", url), tmp_path / "out")
        with pytest.raises(ValueError, match=r"no ILSVRC2012_img_train\.tar"):
            prepare(data("ilsvrc2012", f"{url}/nowhere"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
