"""A part of a file, or all of it, as a file object whose reads are tried again."""

from __future__ import annotations

import io

from pipeline.storage import RangeReader


class Window(io.RawIOBase):
    """`size` bytes of what `reader` reads, from `offset` on, as a file of its own."""

    def __init__(self, reader: RangeReader, offset: int, size: int) -> None:
        self._reader, self._offset, self._size, self._position = reader, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]  # as in io.RawIOBase
        wanted = max(0, min(len(buffer), self._size - self._position))
        content = self._reader.read(self._offset + self._position, wanted) if wanted else b""
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
