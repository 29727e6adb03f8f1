"""Writing a TFS filesystem: sector 0 and the log's first extension, the files one behind the other, the rest of the log."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import attrs

from asyncctr.backends.nanos.tfs.log import SECTOR, Identity, LogWriter
from asyncctr.backends.nanos.tfs.sources import write_at
from asyncctr.backends.nanos.tfs.tail import Tail
from asyncctr.backends.nanos.tfs.tree import PAGE_SECTORS, Content, Directory, HostFile, Symlink, file_value
from asyncctr.backends.nanos.tfs.values import FIELD, Encoder, Value
from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncctr.core.errors import InvalidConfigError

__all__ = ["HEADROOM", "Written", "write_filesystem"]

HEADROOM = 2 << 20
"""Bytes beyond the data that let a guest write: 1 MiB is for two extensions of its log, which it reserves at its first write, and
without which it finds no room for anything."""

_PAGE = PAGE_SECTORS * SECTOR
# Smaller files are gathered: a call for each is dearer than copying them once more.
_SMALL = 64 << 10
_GATHERED = 1 << 20
_COPIED = 16 << 20
# A filesystem that cannot copy between files, or not from this one.
_CANNOT_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


@attrs.frozen(kw_only=True)
class Written:
    """A filesystem that has been written.

    Attributes:
        length: of the filesystem, in bytes.
        tail: where its log ends, for what is changed of it later.
    """

    length: int
    tail: Tail


def write_filesystem(
    file: int,
    tree: Directory,
    *,
    root: Mapping[str, Value],
    identity: Identity,
    offset: int = 0,
    length: int = 0,
    headroom: int = HEADROOM,
    checkpoint: Callable[[], object] = lambda: None,
) -> Written:
    """Write a filesystem into a sparse file. Blocks the thread.

    Args:
        file: open for writing; what it had from ``offset`` on must be a hole.
        tree: its files.
        root: keys of the root tuple beside ``children``.
        identity: its uuid and label.
        offset: where it begins in the file.
        length: bytes that it has at least.
        headroom: bytes beyond its data that it has at least; none for one that is only read.
        checkpoint: called every few megabytes; what it raises ends the writing.

    Raises:
        InvalidConfigError: a file is none, or changed meanwhile.
        OSError: something cannot be read or written.
    """
    layout = _Layout()
    log = LogWriter(layout.take)
    log.begin(identity)
    children = layout.children(tree)
    encoder = Encoder()
    log.add(encoder.encode({**root, "children": children}))
    free = layout.cursor
    end = log.finish(entries=encoder.entries, free=free)
    data = _DataWriter(file, offset, checkpoint)
    for sector, source, size in layout.files:
        data.add(sector * SECTOR, source, size)
    data.flush()
    for position, piece in log.pieces:
        write_at(file, memoryview(piece), offset + position)
    whole = -(-max(length, free * SECTOR + headroom) // _PAGE) * _PAGE
    os.ftruncate(file, max(os.fstat(file).st_size, offset + whole))
    return Written(length=whole, tail=Tail.of(end, encoder.symbols))


class _Layout:
    """Gives every file its sectors.

    Attributes:
        cursor: the first free sector.
        files: where each file's data goes, in order.
    """

    def __init__(self) -> None:
        self.cursor = 1
        self.files: list[tuple[int, HostFile | Content, int]] = []

    def take(self, sectors: int) -> int:
        start = self.cursor
        self.cursor += sectors
        return start

    def children(self, tree: Directory) -> dict[str, Value]:
        top: dict[str, Value] = {}
        pending = [(tree, top)]
        while pending:
            directory, entries = pending.pop()
            for name, node in directory.children.items():
                if isinstance(node, Directory):
                    below: dict[str, Value] = {}
                    entries[name] = {"children": below}
                    pending.append((node, below))
                elif isinstance(node, Symlink):
                    entries[name] = {"linktarget": node.target}
                else:
                    entries[name] = self._file(node)
        return top

    def _file(self, node: HostFile | Content) -> dict[str, Value]:
        size = len(node.data) if isinstance(node, Content) else _check_regular(node.path, os.stat(node.path))  # noqa: PTH116 - of 18,000 files
        if not size:
            return file_value(0, 0)
        self.cursor = -(-self.cursor // PAGE_SECTORS) * PAGE_SECTORS
        start = self.take(-(-size // _PAGE) * PAGE_SECTORS)
        self.files.append((start, node, size))
        return file_value(start, size)


class _DataWriter:
    """Writes the data of files, small ones together."""

    def __init__(self, file: int, offset: int, checkpoint: Callable[[], object]) -> None:
        self._file = file
        self._offset = offset
        self._checkpoint = checkpoint
        self._gathered = bytearray()
        self._start = 0

    def add(self, position: int, source: HostFile | Content, size: int) -> None:
        if size > _SMALL:
            self._large(self._offset + position, source, size)
            return
        if isinstance(source, Content):
            data = source.data
        else:
            opened = _open(source.path, size)
            try:
                # One more byte tells whether it has grown.
                data = os.read(opened, size + 1)
            finally:
                os.close(opened)
            if len(data) != size:
                raise _changed(source.path)
        if not self._gathered:
            self._start = position
        # What lies between two files is nobody's, and zero.
        self._gathered.extend(bytes(position - self._start - len(self._gathered)))
        self._gathered += data
        if len(self._gathered) >= _GATHERED:
            self.flush()

    def flush(self) -> None:
        self._checkpoint()
        write_at(self._file, memoryview(self._gathered), self._offset + self._start)
        self._gathered.clear()

    def _large(self, position: int, source: HostFile | Content, size: int) -> None:
        self.flush()
        if isinstance(source, Content):
            for start in range(0, size, _COPIED):
                self._checkpoint()
                write_at(self._file, memoryview(source.data)[start : start + _COPIED], position + start)
            return
        opened = _open(source.path, size)
        try:
            copied = 0
            while copied < size:
                self._checkpoint()
                piece = _copy(opened, self._file, min(size - copied, _COPIED), copied, position + copied)
                if not piece:
                    raise _changed(source.path)
                copied += piece
        finally:
            os.close(opened)


def _open(path: str, size: int) -> int:
    """A host file that still is as it was when its place was laid out; the caller closes it."""
    # Not to wait for a writer, should it have become a FIFO.
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        same = _check_regular(path, os.fstat(opened)) == size
    except BaseException:
        os.close(opened)
        raise
    if not same:
        os.close(opened)
        raise _changed(path)
    return opened


def _check_regular(path: str, status: os.stat_result) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise fail(FIELD, f"is to have the file {path}, which is no regular file")
    return status.st_size


def _changed(path: str) -> InvalidConfigError:
    return fail(FIELD, f"is to have the file {path}, which changed while it was read; build again")


def _copy(source: int, target: int, count: int, source_offset: int, target_offset: int) -> int:
    try:
        return os.copy_file_range(source, target, count, source_offset, target_offset)
    except OSError as error:
        if error.errno not in _CANNOT_COPY:
            raise
    data = os.pread(source, min(count, _GATHERED), source_offset)
    write_at(target, memoryview(data), target_offset)
    return len(data)
