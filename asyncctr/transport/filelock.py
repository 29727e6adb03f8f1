"""Locks between processes, which end with their holders."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

__all__ = ["FileLock", "locked"]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file, which is made if need be. It blocks: for what takes milliseconds, in a thread."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class FileLock:
    """A lock on a file or directory that may be waited for long. It lasts until every holder of the descriptor has gone.

    A program that was given the descriptor goes on holding it when this process is killed.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    async def take(cls, path: Path, *, shared: bool = False) -> FileLock:
        """Wait for the lock on what exists.

        Raises:
            FileNotFoundError: it does not.
        """
        operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            await _wait(descriptor, operation)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    @classmethod
    def take_now(cls, path: Path) -> FileLock:
        """The lock on what nobody else knows yet."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return cls(descriptor)

    def fileno(self) -> int:
        """The descriptor that holds it."""
        return self._descriptor

    @property
    def is_orphan(self) -> bool:
        """Whether what is locked was removed meanwhile."""
        return os.fstat(self._descriptor).st_nlink == 0

    def release(self) -> None:
        """Let go. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


async def _wait(descriptor: int, operation: int) -> None:
    """Wait in a thread of its own: there is no bound to it, and a pool's threads would run out. Closes on failure."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def settle(error: OSError | None) -> None:
        if future.cancelled():
            os.close(descriptor)
        elif error is not None:
            os.close(descriptor)
            future.set_exception(error)
        else:
            future.set_result(None)

    def wait() -> None:
        problem: OSError | None = None
        try:
            fcntl.flock(descriptor, operation)
        except OSError as error:
            problem = error
        try:
            loop.call_soon_threadsafe(settle, problem)
        except RuntimeError:  # the loop was closed
            os.close(descriptor)

    threading.Thread(target=wait, name="asyncctr lock", daemon=True).start()
    try:
        await future
    except asyncio.CancelledError:
        if not future.cancelled() and future.exception() is None:
            # It came together with the lock.
            os.close(descriptor)
        raise
