"""A file that another process appends to: reading it in place, its hole and last lines, and whether anyone still writes."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import threading
from typing import Final

__all__ = ["GrowingFile", "first_data", "last_lines"]

# Bytes read at a time. Four times as many are read in half the time, but 200 busy readers then hold their loop up for 80 ms.
_BLOCK: Final = 64 * 1024


class GrowingFile:
    """A file and how far it was read. Its descriptor is closed by :meth:`close` and by dropping it.

    Attributes:
        descriptor: open for reading; -1 once it is closed.
        offset: where to read on.
        lost: bytes that were punched out before they could be read.
    """

    __slots__ = ("descriptor", "lost", "offset")

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.offset = 0
        self.lost = 0
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def __del__(self) -> None:
        # In whichever thread: a descriptor has none.
        self.close()

    def close(self) -> None:
        """Idempotent."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def is_removed(self) -> bool:
        """Whether it has no name any more."""
        return os.fstat(self.descriptor).st_nlink == 0

    def has_writer(self) -> bool | None:
        """Whether any process has the file open for writing; ``None`` where that cannot be told.

        A read lease is refused then (fcntl(2), ``F_SETLEASE``). Who opens the file for writing during the microseconds that it
        is held waits for its release. The kernel signals the holder of that, by default with a SIGIO, which would end
        this process; SIGURG is ignored unless somebody wants it. A release forgets the choice of signal.

        After IN_CLOSE_WRITE it may be ``True`` for another moment: the kernel tells of a close before it counts the writer out.
        """
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return True
        except OSError:
            # Not our file and no CAP_LEASE, or a file system without leases.
            return None
        fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False

    async def read(self) -> bytes:
        """What comes next and is there; empty at the end. What was punched out of the file meanwhile is counted in ``lost``."""
        while data := await self.read_at(self.offset, _BLOCK):
            if b"\0" in data:
                # A hole reads as zeros. It begins with the file (see logspace), so zeros behind the first data are the program's.
                # Asked after the read: what is data now was data then.
                size = os.fstat(self.descriptor).st_size
                start = first_data(self.descriptor)
                hole = max((size if start is None else start) - self.offset, 0)
                self.lost += hole
                self.offset += hole
                data = data[hole:]
            self.offset += len(data)
            if data:
                return data
        return b""

    async def read_at(self, offset: int, size: int) -> bytes:
        """A part of the file: on the loop what is in memory, and in a thread what has to come from the disk."""
        buffer = memoryview(_scratch.buffer)[:size]
        try:
            return bytes(buffer[: os.preadv(self.descriptor, [buffer], offset, os.RWF_NOWAIT)])
        except BlockingIOError:
            # A descriptor of its own, because this one may be closed, and its number be another file's, before the thread is done.
            reader = _Duplicate(self.descriptor)
            return await asyncio.get_running_loop().run_in_executor(None, reader.read, offset, size)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            # tmpfs, which is memory.
            return os.pread(self.descriptor, size, offset)


class _Scratch(threading.local):
    """Where reads of a thread's loops go to before they are copied at their right size."""

    def __init__(self) -> None:
        self.buffer = bytearray(_BLOCK)


_scratch = _Scratch()


class _Duplicate:
    """A descriptor for the use of a thread, closed when that and whoever waits for it are done."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = -1
        self._descriptor = os.dup(descriptor)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """From the disk."""
        return os.pread(self._descriptor, size, offset)


def first_data(descriptor: int) -> int | None:
    """Where a file's first data is, behind the hole that was punched into its beginning; ``None`` where it has none."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


async def last_lines(file: GrowingFile, count: int) -> int:
    """Where the last ``count`` lines begin; 0 if there are no more than that. A last line without its end is one."""
    size = end = os.fstat(file.descriptor).st_size
    if not count or not size:
        return size
    floor = first_data(file.descriptor)
    if floor is None:
        return 0
    # A newline at the very end ends the last line and begins none.
    missing = count + (await file.read_at(size - 1, 1) == b"\n")
    while end > floor:
        start = max(end - _BLOCK, floor)
        block = await _read_whole(file, start, end)
        found = block.count(b"\n")
        if found >= missing:
            return start + len(block.rsplit(b"\n", missing)[0]) + 1
        missing -= found
        end = start
        await asyncio.sleep(0)
    return 0


async def _read_whole(file: GrowingFile, start: int, end: int) -> bytes:
    block = b""
    while start + len(block) < end and (part := await file.read_at(start + len(block), end - start - len(block))):
        block += part
    return block
