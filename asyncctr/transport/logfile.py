"""Durable logs in plain files: the runtime appends, any process reads from the first byte, and no reader holds the writer up."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import attrs

from asyncctr.core.errors import (
    AsyncctrError,
    ClosedError,
    ConnectionLostError,
    ContainerNotFoundError,
    ResourceExhaustedError,
)
from asyncctr.core.logs import LogEntry, LogStream
from asyncctr.transport.growing import GrowingFile, last_lines
from asyncctr.transport.inotify import Inotify

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncctr.core.logs import StreamName

__all__ = ["FileLogStream", "LogFiles", "follow_files"]

# Seconds between looks for a writer once the exit was seen: the first one, and the most.
_FIRST_LOOK: Final = 0.001
_LAST_LOOK: Final = 0.25
# Seconds that a writer is given after the exit, where the file system does not tell whether there is one.
_GRACE: Final = 3.0
# Seconds that the exit may take to be seen, or the writer to go, once the files were removed.
_REMOVAL: Final = 0.5


@attrs.frozen(kw_only=True)
class LogFiles:
    """The files of one container's output, as absolute paths. ``stderr`` is empty where a terminal joins both in ``stdout``."""

    stdout: str
    stderr: str = ""

    @classmethod
    def create(cls, directory: str | os.PathLike[str], *, tty: bool = False) -> Self:
        """Make both, for the user alone, in a directory that is made as well where it is not there. They must be new.

        Raises:
            ResourceExhaustedError: the disk is full, or no descriptor is left.
            OSError: they cannot be made for another reason.
        """
        place = os.path.abspath(directory)  # noqa: PTH100  # strings, on the hot path
        files = cls(stdout=f"{place}/stdout", stderr="" if tty else f"{place}/stderr")
        made: list[str] = []
        try:
            if not os.path.isdir(place):  # noqa: PTH112
                os.makedirs(place, mode=0o700, exist_ok=True)  # noqa: PTH103
            for path in files.paths:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
                made.append(path)
        except OSError as error:
            for path in made:
                Path(path).unlink(missing_ok=True)
            if error.errno in _EXHAUSTED:
                raise _failed(place, error, "made") from error
            raise
        return files

    @property
    def paths(self) -> tuple[str, ...]:
        """Those that there are."""
        return (self.stdout, self.stderr) if self.stderr else (self.stdout,)

    def remove(self) -> None:
        """Unlink both, and their directory if it is empty then. What is gone already is no error."""
        for path in self.paths:
            Path(path).unlink(missing_ok=True)
        try:
            Path(self.stdout).parent.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise


async def follow_files(
    files: LogFiles,
    *,
    stdout: bool = True,
    stderr: bool = True,
    follow: bool = True,
    tail: int | None = None,
    exited: Callable[[], Awaitable[None]] | None = None,
    linger: float | None = None,
    gather: float = 0.0,
    backend: str = "",
    resource: str = "",
) -> FileLogStream:
    """Read a container's log. The files are open, and the place to begin at is fixed, when this returns.

    Args:
        files: where it is.
        stdout: whether that stream is wanted.
        stderr: likewise.
        follow: go on until the exit was seen and the writer has closed; ``False`` ends with what is there now.
        tail: begin with the last so many lines of each stream, for the files do not tell how the two were interleaved. A last
            line without its end is a line. What ``log_limit`` took is in ``lost`` only where lines are missing for it.
        exited: returns once the container's exit was seen, and may be called or not, once. What it raises is raised after what
            is there by then has been delivered. ``None``: it has exited.
        linger: seconds that a writer is given after the exit, where one may never close, such as that of an exec whose child
            went to the background; ``None``: all that it takes.
        gather: seconds that what is written byte by byte, as by a serial port, is let come together before it is read.
        backend: for errors.
        resource: for errors.

    Raises:
        ContainerNotFoundError: the files are gone.
        ResourceExhaustedError: no descriptor or watch is left.
        ConnectionLostError: they cannot be read for another reason.
    """
    wanted: list[tuple[StreamName, str]] = []
    if stdout:
        wanted.append(("stdout", files.stdout))
    if stderr and files.stderr:
        wanted.append(("stderr", files.stderr))
    readers: list[_Reader] = []
    try:
        bell = _Bell(Inotify.of_running_loop(), exited) if follow else None
        for name, path in wanted:
            readers.append(_Reader(name, path))
            if tail is not None:
                readers[-1].offset = await last_lines(readers[-1], tail)
    except BaseException as error:
        # Now: an error keeps what it met on its way, and the descriptors with it.
        for reader in readers:
            reader.close()
        if isinstance(error, OSError):
            raise _translated(error, backend=backend, resource=resource) from error
        raise
    return FileLogStream(readers, bell, linger=linger, gather=gather, backend=backend, resource=resource)


class FileLogStream(LogStream):
    """One read of the files of a log. It holds their descriptors and no output: a slow reader reads at its own pace."""

    def __init__(
        self,
        readers: list[_Reader],
        bell: _Bell | None,
        *,
        linger: float | None,
        gather: float,
        backend: str,
        resource: str,
    ) -> None:
        super().__init__()
        self._readers = readers
        self._bell = bell
        self._linger = linger
        self._gather = gather
        self._backend = backend
        self._resource = resource
        # Which reader is next: they take turns.
        self._turn = 0
        # Whether the last read did not have to wait, so that others get the loop before the next.
        self._greedy = False
        # When the end was first expected: the exit seen, or the files removed; and the pause before the next look at it.
        self._ending: float | None = None
        self._look = _FIRST_LOOK

    def __del__(self) -> None:
        if self._bell is not None:
            self._bell.drop_from_any_thread()

    def _release(self) -> None:
        for reader in self._readers:
            reader.close()
        if self._bell is not None:
            self._bell.drop()

    async def _receive(self) -> LogEntry | None:
        if self._greedy:
            await asyncio.sleep(0)
        self._greedy = True
        try:
            entry = await self._next()
        except OSError as error:
            if self._closed:
                raise ClosedError("this log stream was closed while it was read") from error
            raise _translated(error, backend=self._backend, resource=self._resource) from error
        if entry is None and self._bell is not None:
            self._raise_failure(self._bell)
        return entry

    async def _next(self) -> LogEntry | None:
        bell = self._bell
        while True:
            # Before the read, so that what is read then is all there is.
            over = bell is None or self._is_over(bell)
            if entry := await self._read():
                return entry
            if over or bell is None:
                return None
            # An armed file is read once more before it is waited for.
            if bell.arm(self._readers):
                continue
            self._greedy = False
            if await bell.wait(None if self._ending is None else self._look):
                self._look = _FIRST_LOOK
                if self._gather and not bell.exited:
                    await asyncio.sleep(self._gather)
            else:
                self._look = min(2 * self._look, _LAST_LOOK)

    async def _read(self) -> LogEntry | None:
        """What is there, of the stream whose turn it is or else of the other."""
        for _ in self._readers:
            reader = self._readers[self._turn]
            self._turn = (self._turn + 1) % len(self._readers)
            data = await reader.read()
            self.lost = (self.lost or 0) + reader.lost
            reader.lost = 0
            if data:
                return LogEntry(reader.name, data)
        return None

    def _is_over(self, bell: _Bell) -> bool:
        """Whether all that the container wrote is in the files, or nothing more is to be had."""
        if bell.failure is not None:
            return True
        removed = any(reader.is_removed for reader in self._readers)
        if not (bell.exited or removed):
            return False
        writers = {reader.has_writer() for reader in self._readers}
        if bell.exited and writers <= {False}:
            return True
        if not bell.exited and True in writers:
            # Its log was taken away, but it runs.
            self._ending = None
            return False
        now = asyncio.get_running_loop().time()
        if self._ending is None:
            self._ending = now
        patience = _REMOVAL if removed else self._linger if True in writers else _GRACE
        return patience is not None and now >= self._ending + patience

    def _raise_failure(self, bell: _Bell) -> None:
        if bell.failure is not None:
            raise bell.failure
        if not bell.exited:
            message = f"container {self._resource[:12]} was removed" if self._resource else "the container was removed"
            raise ContainerNotFoundError(message, backend=self._backend, resource=self._resource)


class _Reader(GrowingFile):
    """One of the streams, and the last watch that was set for it."""

    __slots__ = ("name", "watch")

    def __init__(self, name: StreamName, path: str) -> None:
        super().__init__(path)
        self.name: StreamName = name
        self.watch = -1


class _Bell:
    """What wakes a follower. Inotify, timers and the task that waits for the exit know this alone, so that a dropped stream goes."""

    __slots__ = ("_armed", "_exit", "_future", "_inotify", "_loop", "_rung", "_wait_exit", "exited", "failure")

    def __init__(self, inotify: Inotify, wait_exit: Callable[[], Awaitable[None]] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._inotify = inotify
        self._wait_exit = wait_exit
        self._exit: asyncio.Task[None] | None = None
        self._armed: set[int] = set()
        self._future: asyncio.Future[None] | None = None
        self._rung = False
        self.exited = wait_exit is None
        self.failure: BaseException | None = None

    def arm(self, readers: list[_Reader]) -> bool:
        """Be woken by these files and the exit; whether anything was still to be done for it."""
        done = False
        if self._wait_exit is not None:
            self._exit = self._loop.create_task(_wait(self._wait_exit), name="asyncctr log: wait for the exit")
            self._exit.add_done_callback(self._exit_seen)
            self._wait_exit = None
            done = True
        for reader in readers:
            if reader.watch not in self._armed:
                reader.watch = self._inotify.arm(reader.descriptor, self._written)
                self._armed.add(reader.watch)
                done = True
        return done

    async def wait(self, seconds: float | None) -> bool:
        """Until it rings, or for so long; whether it rang, since this was last asked."""
        if not self._rung:
            self._future = self._loop.create_future()
            timer = None if seconds is None else self._loop.call_later(seconds, self._wake)
            try:
                await self._future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        rung, self._rung = self._rung, False
        return rung

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def _ring(self) -> None:
        self._rung = True
        self._wake()

    def _written(self, watch: int) -> None:
        self._armed.discard(watch)
        self._ring()

    def _exit_seen(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self.failure = ConnectionLostError("the wait for the container's exit was cancelled")
        else:
            self.failure = task.exception()
            self.exited = self.failure is None
        self._ring()

    def drop(self) -> None:
        """Let go of the watches and of the exit, from the loop's own thread. Idempotent."""
        for watch in self._armed:
            self._inotify.disarm(watch, self._written)
        self._armed.clear()
        if self._exit is not None:
            self._exit.cancel()
        # Somebody may wait for it.
        self._ring()

    def drop_from_any_thread(self) -> None:
        """Likewise: the collector may run in any."""
        if self._armed or (self._exit is not None and not self._exit.done()):
            try:
                self._loop.call_soon_threadsafe(self.drop)
            except RuntimeError:
                # The loop is closed, and all that it had with it.
                pass


async def _wait(wait_exit: Callable[[], Awaitable[None]]) -> None:
    await wait_exit()


_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})


def _failed(what: str, error: OSError, deed: str) -> ResourceExhaustedError:
    hint = "; raise the limit of open files (ulimit -n)" if error.errno == errno.EMFILE else ""
    return ResourceExhaustedError(f"{what}: the log cannot be {deed}: {error.strerror}{hint}", status=error.errno)


def _translated(error: OSError, *, backend: str, resource: str) -> AsyncctrError:
    if isinstance(error, FileNotFoundError):
        message = "the container's log is gone: it was removed"
        return ContainerNotFoundError(message, backend=backend, resource=resource, status=error.errno)
    if error.errno in _EXHAUSTED:
        exhausted = _failed(error.filename or "log", error, "read")
        exhausted.backend, exhausted.resource = backend, resource
        return exhausted
    hint = "; only the user that made it may read it" if isinstance(error, PermissionError) else ""
    message = f"the log cannot be read: {error.strerror}{hint}"
    return ConnectionLostError(message, backend=backend, resource=resource, status=error.errno)
