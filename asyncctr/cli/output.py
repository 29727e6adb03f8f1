"""The container's output to this process's: every byte, at once, by a thread, with back-pressure."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncctr.core.logs import StreamName

__all__ = ["Output"]

T = TypeVar("T")

HIGH_WATER = 1 << 20
"""Bytes that may wait to be written before more is asked of the container."""


class Output:
    """Writes two descriptors in the order of the calls.

    A thread does it: the reader may be slow for ever, and the loop has signals and a time limit to attend to. The descriptors
    stay in blocking mode, for other processes share them.

    Attributes:
        broken: set when a write has failed; what comes later is dropped.
        error: that failure; a ``BrokenPipeError`` when the reader has gone.
    """

    def __init__(self, stdout: int = 1, stderr: int = 2, *, on_full: Callable[[], None] | None = None) -> None:
        self.broken = asyncio.Event()
        self.error: OSError | None = None
        self.on_full = on_full
        self._descriptors: dict[StreamName, int] = {"stdout": stdout, "stderr": stderr}
        self._loop = asyncio.get_running_loop()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._waiting = 0
        self._queue: deque[tuple[int, bytes]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        # A daemon: a reader that neither reads nor goes away must not keep this process.
        threading.Thread(target=self._work, name="asyncctr output", daemon=True).start()

    # --- on the loop ---

    def put(self, stream: StreamName, data: bytes, /) -> None:
        """Write; an ``OutputSink``. Calls ``on_full`` when enough is waiting."""
        if self.broken.is_set() or not data:
            return
        self._waiting += len(data)
        self._idle.clear()
        with self._changed:
            self._queue.append((self._descriptors[stream], data))
            self._changed.notify()
        if self._waiting > HIGH_WATER:
            self._has_room.clear()
            if self.on_full is not None:
                self.on_full()

    async def room(self) -> None:
        """Until little is waiting, or nothing can be written any more."""
        await self._has_room.wait()

    async def flush(self) -> None:
        """Until all is written, or nothing can be any more."""
        await self._idle.wait()

    def close(self) -> None:
        """End the thread once it has written what is waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _written(self, size: int) -> None:
        self._waiting -= size
        if self._waiting <= HIGH_WATER // 2:
            self._has_room.set()
        if not self._waiting:
            self._idle.set()

    def _break(self, error: OSError) -> None:
        self.error = error
        self.broken.set()
        self._has_room.set()
        self._idle.set()

    # --- in the thread ---

    def _tell(self, callback: Callable[[T], None], value: T) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback, value)
        except RuntimeError:
            # The loop is closed: the command has ended without waiting for the output.
            return False
        return True

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    if self._closed:
                        return
                    self._changed.wait()
                batch = list(self._queue)
                self._queue.clear()
            try:
                for descriptor, data in _joined(batch):
                    _write_all(descriptor, data)
            except OSError as error:
                self._tell(self._break, error)
                return
            if not self._tell(self._written, sum(len(data) for _, data in batch)):
                return


def _joined(batch: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Neighbours for the same descriptor as one."""
    runs: list[tuple[int, list[bytes]]] = []
    for descriptor, data in batch:
        if runs and runs[-1][0] == descriptor:
            runs[-1][1].append(data)
        else:
            runs.append((descriptor, [data]))
    return [(descriptor, b"".join(parts)) for descriptor, parts in runs]


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            # Somebody who shares it has made it non-blocking.
            select.select([], [descriptor], [])
