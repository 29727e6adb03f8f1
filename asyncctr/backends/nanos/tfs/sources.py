"""Files of images, and what is read of them by offset: a raw image, a part of one (an overlay has a module of its own)."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Protocol

import attrs

from asyncctr.backends.nanos.tfs.values import FIELD
from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Part", "RawImage", "Source", "created", "opened", "write_at"]


class Source(Protocol):
    """Bytes by their offset."""

    @property
    def length(self) -> int:
        """How many there are."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """That many bytes, not fewer. Blocks the thread.

        Raises:
            InvalidConfigError: it ends before.
        """
        ...


@attrs.frozen
class RawImage:
    """An image as the guest sees it, in a file that the caller opened and closes."""

    file: int

    @property
    def length(self) -> int:
        """The file's."""
        return os.fstat(self.file).st_size

    def read(self, offset: int, length: int) -> bytes:
        """That many bytes of the file."""
        # A broken image may lead anywhere, and far beyond what the file's size leaves room for.
        if offset + length > self.length:
            raise fail(
                FIELD, f"is cut off: it has {self.length} bytes, and something in it goes on to {offset + length}"
            )
        pieces = []
        while length:
            piece = os.pread(self.file, length, offset)
            if not piece:
                raise fail(FIELD, "became shorter while it was read")
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(pieces)


@attrs.frozen(kw_only=True)
class Part:
    """A part of a source.

    Attributes:
        source: what it is a part of.
        offset: where it begins there.
        length: its own.
    """

    source: Source
    offset: int
    length: int

    def read(self, offset: int, length: int) -> bytes:
        """That many bytes of the part."""
        if offset + length > self.length:
            raise fail(
                FIELD, f"is cut off: a part of it has {self.length} bytes, and something goes on to {offset + length}"
            )
        return self.source.read(self.offset + offset, length)


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """A file, to read."""
    # Not to wait for a writer, should it be a FIFO.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def created(path: str) -> Iterator[int]:
    """A new file, 0600, to read and write, which is taken away again if it is not written to its end."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield file
    except BaseException:
        os.unlink(path)  # noqa: PTH108 - as it was opened
        raise
    finally:
        os.close(file)


def write_at(file: int, data: memoryview, offset: int) -> None:
    """Write all of the data at an offset. Blocks the thread.

    Raises:
        OSError: it cannot be written; on a full disk a part of it is.
    """
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
