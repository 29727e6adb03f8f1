"""Room for logs: the limit that a container's log is kept to, and the watch on the disk that holds them.

A runtime that cannot write a log stops reading the container's output, which then blocks the container for ever.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
import tempfile
from typing import TYPE_CHECKING, Final, TypeVar

from asyncctr.core.errors import ResourceExhaustedError
from asyncctr.transport.growing import first_data

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from asyncctr.transport.logfile import LogFiles

__all__ = ["LogKeeper", "SpaceWatch", "can_limit", "enforce_limit"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# From <linux/falloc.h>.
_KEEP_SIZE: Final = 0x1
_PUNCH_HOLE: Final = 0x2
# Seconds between looks at the sizes of logs: usually, and while one is at its limit.
_PAUSE: Final = 1.0
_SHORT_PAUSE: Final = 0.1
# Seconds between looks at the free space.
_SPACE_PAUSE: Final = 0.5
# A disk with less left than this is full, or this share of a small one. ext4 keeps two hundredths of itself, at most 4,096
# clusters, from everyone, root included, while it counts them as free.
_RESERVE: Final = 32 << 20
_RESERVED_SHARE: Final = 0.04


async def enforce_limit(files: LogFiles, limit: int) -> int:
    """Drop the oldest output if the log holds more than ``limit`` bytes, until seven eighths of that are left.

    The blocks are punched out of the beginning of a file: offsets stay, the writer is not disturbed, and readers find the hole.
    The smaller stream keeps up to half of what is kept, so that a flood on the other does not wash it away.

    Returns:
        How many bytes were dropped. Files that are gone have none.

    Raises:
        OSError: it cannot be done, such as on a file system that has no holes: ``EOPNOTSUPP``.
    """
    dropped, _ = await asyncio.to_thread(_enforce, files.paths, limit)
    return dropped


def _enforce(paths: tuple[str, ...], limit: int) -> tuple[int, int]:
    """How many bytes were dropped now, and how many ever."""
    descriptors: list[int] = []
    try:
        for path in paths:
            descriptors.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW))  # noqa: PERF401  # those opened are closed
        ends = [os.fstat(descriptor).st_size for descriptor in descriptors]
        starts = [
            end if (start := first_data(descriptor)) is None else min(start, end)
            for descriptor, end in zip(descriptors, ends, strict=True)
        ]
        held = [end - start for start, end in zip(starts, ends, strict=True)]
        if sum(held) <= limit:
            return 0, sum(starts)
        dropped = 0
        for descriptor, start, end, kept in zip(descriptors, starts, ends, _shares(held, limit), strict=True):
            block = max(os.fstat(descriptor).st_blksize, os.sysconf("SC_PAGE_SIZE"))
            # Whole blocks only: parts of one would become zeros that nobody can tell from output.
            cut = (end - kept + block - 1) // block * block
            cut = min(cut, end // block * block)
            if cut > start:
                _punch(descriptor, cut)
                dropped += cut - start
    except FileNotFoundError:
        return 0, 0
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return dropped, sum(starts) + dropped


def _shares(held: list[int], limit: int) -> list[int]:
    """How many bytes each stream keeps of what it holds."""
    left = limit - limit // 8
    if len(held) == 1:
        return [left]
    small = min(*held, left // 2)
    return [min(held[0], left - small), small] if held[0] > held[1] else [small, min(held[1], left - small)]


def _punch(descriptor: int, end: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # Offsets of 64 bits, which is what the plain name takes where the other is not.
    fallocate = getattr(libc, "fallocate64", None) or libc.fallocate
    if fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(end)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def can_limit(directory: str | os.PathLike[str]) -> bool:
    """Whether logs in this directory can be limited: its file system can take blocks out of a file, and tells where they were.

    Raises:
        OSError: no file can be made there.
    """
    block = os.sysconf("SC_PAGE_SIZE")
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        block = max(block, os.fstat(file.fileno()).st_blksize)
        file.write(b"x" * (2 * block))
        try:
            _punch(file.fileno(), block)
            return first_data(file.fileno()) == block
        except (AttributeError, OSError):
            return False


class LogKeeper:
    """Keeps the logs of containers to their limits, for as long as it runs, from the loop that it is used in.

    It looks at the sizes: two ``stat`` a container and second cost less than a wake-up for every write would, and a limit may be
    passed by what is written in a second, or a tenth of one once it has been reached.
    """

    def __init__(self) -> None:
        # With each log's limit, and how many bytes of it were known to be dropped.
        self._logs: dict[LogFiles, tuple[int, int]] = {}
        self._task: asyncio.Task[None] | None = None

    def register(self, files: LogFiles, limit: int) -> None:
        """Keep this log to ``limit`` bytes. Several may keep the same one, in different processes too."""
        self._logs.setdefault(files, (limit, 0))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="asyncctr log limits")

    def unregister(self, files: LogFiles) -> None:
        """Keep it no longer; one that is not kept is no error. A log whose files are gone needs no such call."""
        self._logs.pop(files, None)
        if not self._logs and self._task is not None:
            self._task.cancel()
            self._task = None

    async def aclose(self) -> None:
        """Keep none any longer."""
        self._logs.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        pause = _PAUSE
        while self._logs:
            await asyncio.sleep(pause)
            pause = _PAUSE
            for files in list(self._logs):
                if await self._look(files):
                    pause = _SHORT_PAUSE

    async def _look(self, files: LogFiles) -> bool:
        """Whether the log was over its limit, and was cut."""
        found = self._logs.get(files)
        if found is None:
            return False
        limit, dropped = found
        try:
            if sum(os.stat(path).st_size for path in files.paths) - dropped <= limit:  # noqa: PTH116  # a hundred a second
                return False
            now, dropped = await asyncio.to_thread(_enforce, files.paths, limit)
        except FileNotFoundError:
            self._logs.pop(files, None)
            return False
        except OSError as error:
            logger.warning("the log %s cannot be kept to its limit: %s", files.stdout, error.strerror)
            self._logs.pop(files, None)
            return False
        if files in self._logs:
            self._logs[files] = (limit, dropped)
        return now > 0


class SpaceWatch:
    """Tells those who wait for containers that the disk with their logs is full. Looks only while somebody waits.

    Args:
        directory: where the logs are.
        reserve: bytes; with less than that left the disk is full. ``None``: 32 MiB, or a twenty-fifth of a small disk.
        backend: for errors.
    """

    def __init__(self, directory: str | os.PathLike[str], *, reserve: int | None = None, backend: str = "") -> None:
        self._directory = os.fspath(directory)
        self._reserve = reserve
        self._backend = backend
        self._scopes: set[asyncio.Timeout] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._left = 0

    async def guard(self, work: Awaitable[T]) -> T:
        """The result of ``work``, which is cancelled when the disk is full.

        Raises:
            ResourceExhaustedError: it is.
        """
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scopes.add(scope)
                self._schedule()
                try:
                    return await work
                finally:
                    self._scopes.discard(scope)
        except TimeoutError as error:
            if not scope.expired():
                raise
            message = (
                f"the disk that holds the logs is full: {self._left >> 10} KiB are left for {self._directory}. A container whose "
                f"output cannot be written blocks. Free some space, and give containers a smaller log_limit"
            )
            raise ResourceExhaustedError(message, backend=self._backend, status=errno.ENOSPC) from error

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SPACE_PAUSE, self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._scopes:
            return
        if self._is_full():
            now = asyncio.get_running_loop().time()
            for scope in self._scopes:
                scope.reschedule(now)
            self._scopes.clear()
        else:
            self._schedule()

    def _is_full(self) -> bool:
        try:
            state = os.statvfs(self._directory)
        except OSError:
            # The directory's own users will say more.
            return False
        # Daemons of root's may use what is kept for root.
        self._left = (state.f_bavail if os.geteuid() else state.f_bfree) * state.f_frsize
        reserve = self._reserve
        if reserve is None:
            reserve = min(_RESERVE, int(state.f_blocks * state.f_frsize * _RESERVED_SHARE))
        return self._left < reserve
