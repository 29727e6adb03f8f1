"""A machine's output: its console without the kernel's own lines."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from asyncctr.backends.nanos.console import ConsoleFilter
from asyncctr.core.logs import LogEntry, LogStream

if TYPE_CHECKING:
    from asyncctr.transport.logfile import FileLogStream

__all__ = ["GATHER", "ConsoleStream"]

GATHER: Final = 0.005
"""Seconds that output is let come together: a serial port writes its file byte by byte."""

_CHUNK: Final = 256 << 10


class ConsoleStream(LogStream):
    """One read of a console.

    Args:
        console: the file, from its first byte.
        tail: begin with the last so many lines of what the program had printed of the first ``present`` bytes.
        present: how much of the console was there when it was asked for.
    """

    def __init__(self, console: FileLogStream, *, tail: int | None = None, present: int = 0) -> None:
        super().__init__()
        self._console = console
        self._filter = ConsoleFilter()
        self._tail = tail
        self._present = present
        self._taken = 0
        self._ahead = b""  # what was read beyond them
        self._ready: deque[LogEntry] = deque()
        self._finished = False

    def _release(self) -> None:
        self._console._release()  # noqa: SLF001  # a stream around a stream

    async def _receive(self) -> LogEntry | None:
        while not self._ready and not self._finished:
            if self._tail is not None:
                await self._skip(self._tail)
                self._tail = None
            else:
                self._put(await self._next())
        self.lost = self._console.lost
        return self._ready.popleft() if self._ready else None

    async def _next(self) -> bytes:
        """What comes next of the program's, which may be nothing yet."""
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return self._filter.feed(data)
        try:
            entry = await self._console.__anext__()
        except StopAsyncIteration:
            self._finished = True
            return self._filter.finish()
        data = entry.data
        if self._tail is not None:
            # What log_limit has taken meanwhile may be all of that, and more.
            room = max(0, self._present - self._taken - (self._console.lost or 0))
            data, self._ahead = data[:room], data[room:]
        self._taken += len(entry.data)
        return self._filter.feed(data)

    def _put(self, data: bytes) -> None:
        for start in range(0, len(data), _CHUNK):
            self._ready.append(LogEntry("stdout", data[start : start + _CHUNK]))

    async def _skip(self, count: int) -> None:
        """Read what was there, and keep its last lines; a last one without its end is one."""
        kept = b""
        while self._taken + (self._console.lost or 0) < self._present and not self._finished:
            kept = _last_lines(kept + await self._next(), count)
        self._put(kept)


def _last_lines(data: bytes, count: int) -> bytes:
    if not count:
        return b""
    place = len(data) - data.endswith(b"\n")
    for _ in range(count):
        place = data.rfind(b"\n", 0, place)
        if place < 0:
            return data
    return data[place + 1 :]
