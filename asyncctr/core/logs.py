"""A container's output: entries, and the stream that delivers them."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Self

import attrs

from asyncctr.core.errors import ClosedError
from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

__all__ = [
    "MAX_ENTRY",
    "LazyLogStream",
    "LineStream",
    "LogEntry",
    "LogLine",
    "LogStream",
    "Output",
    "StreamName",
    "check_log_query",
]

StreamName = Literal["stdout", "stderr"]

MAX_ENTRY = 256 * 1024
"""No ``LogEntry`` carries more bytes than this."""

_CLOSED = "this log stream is closed: a read was cancelled, it failed, aclose() was called, or awaiting it gave another in its place"


def check_log_query(*, stdout: bool, stderr: bool, since: datetime | None, tail: int | None) -> None:
    """Refuse what no backend's ``logs`` takes.

    Raises:
        InvalidConfigError: names the parameter.
    """
    if not stdout and not stderr:
        raise fail("stdout", "stdout or stderr, or both, must be wanted")
    if since is not None and (not isinstance(since, datetime) or since.tzinfo is None):
        raise fail("since", f"must be an aware datetime, not {since!r}")
    if tail is not None and (isinstance(tail, bool) or not isinstance(tail, int) or tail < 0):
        raise fail("tail", f"must be an int of 0 or more, not {tail!r}")


@attrs.frozen
class LogEntry:
    """A chunk of output: not a line, at most 256 KiB. ``time`` is set when timestamps were asked for."""

    stream: StreamName
    data: bytes
    time: datetime | None = None


@attrs.frozen
class LogLine:
    """One decoded line without its line end. ``time`` is that of the chunk in which it ended, where there is one."""

    stream: StreamName
    text: str
    time: datetime | None = None


@attrs.frozen
class Output:
    """All output of a container, per stream."""

    stdout: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    stderr: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


class LogStream(ABC):
    """Output as it comes: an async iterator of :class:`LogEntry`, and an async context manager.

    The stream owns its connection. It is released at the end of the output, by ``aclose``, by leaving ``async with``, by a
    cancelled read, and when the stream is dropped, so that ``async for …: break`` leaks nothing.

    Attributes:
        lost: bytes that are known to have been discarded by the runtime itself (rotation, ``log_limit``, a full disk);
            ``None`` where the runtime does not tell.
    """

    def __init__(self) -> None:
        self.lost: int | None = 0
        self._ended = False
        self._closed = False

    @abstractmethod
    async def _receive(self) -> LogEntry | None:
        """The next entry, ``None`` at the proper end."""

    @abstractmethod
    def _release(self) -> None:
        """Free what the stream holds, at once and without waiting; may be called more than once.

        Not called when the stream is dropped, which the collector may do in any thread: what it holds has to free itself then.
        """

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogEntry:
        if self._ended:
            raise StopAsyncIteration
        if self._closed:
            raise ClosedError(_CLOSED)
        try:
            entry = await self._receive()
        except BaseException:
            self._closed = True
            self._release()
            raise
        if entry is None:
            self._ended = True
            self._release()
            raise StopAsyncIteration
        return entry

    async def aclose(self) -> None:
        """Release the connection. The container goes on."""
        self._closed = True
        self._release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def read(self) -> Output:
        """All that is left, per stream."""
        parts: dict[StreamName, list[bytes]] = {"stdout": [], "stderr": []}
        async with self:
            async for entry in self:
                parts[entry.stream].append(entry.data)
        return Output(b"".join(parts["stdout"]), b"".join(parts["stderr"]))

    def lines(self, *, encoding: str = "utf-8", errors: str = "replace") -> LineStream:
        """The output as decoded whole lines, the two streams kept apart. A last line without its end is a line."""
        return LineStream(self, encoding, errors)


class LineStream:
    """The lines of a log stream; what holds for :class:`LogStream` holds here."""

    def __init__(self, stream: LogStream, encoding: str, errors: str) -> None:
        self._stream = stream
        decoder = codecs.getincrementaldecoder(encoding)
        self._decoders: dict[StreamName, codecs.IncrementalDecoder] = {
            "stdout": decoder(errors),
            "stderr": decoder(errors),
        }
        self._partial: dict[StreamName, list[str]] = {"stdout": [], "stderr": []}
        self._ready: deque[LogLine] = deque()
        self._times: dict[StreamName, datetime | None] = {}
        self._flushed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogLine:
        while not self._ready:
            if self._flushed:
                raise StopAsyncIteration
            try:
                entry = await self._stream.__anext__()
            except StopAsyncIteration:
                self._flushed = True
                for name in self._decoders:
                    self._feed(name, self._decoders[name].decode(b"", final=True), None)
                    if rest := "".join(self._partial[name]):
                        self._ready.append(LogLine(name, rest, self._times.get(name)))
                continue
            self._times[entry.stream] = entry.time
            self._feed(entry.stream, self._decoders[entry.stream].decode(entry.data), entry.time)
        return self._ready.popleft()

    def _feed(self, name: StreamName, text: str, time: datetime | None) -> None:
        # Only "\n" ends a line: splitlines() would also break at form feeds and other separators.
        *whole, rest = text.split("\n")
        partial = self._partial[name]
        for line in whole:
            text = "".join((*partial, line)) if partial else line
            partial.clear()
            self._ready.append(LogLine(name, text.removesuffix("\r"), time))
        if rest:
            partial.append(rest)

    async def aclose(self) -> None:
        """Close the log stream below."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class LazyLogStream(LogStream):
    """A log stream that opens when it is first iterated, entered or awaited; awaiting it gives the opened stream."""

    def __init__(self, opener: Callable[[], Awaitable[LogStream]]) -> None:
        super().__init__()
        self._opener = opener
        self._inner: LogStream | None = None

    async def _open(self) -> LogStream:
        if self._closed:
            raise ClosedError(_CLOSED)
        if self._inner is None:
            self._inner = await self._opener()
        return self._inner

    async def _receive(self) -> LogEntry | None:
        inner = await self._open()
        try:
            return await inner._receive()  # noqa: SLF001  # the same class: delegation without a second round of checks
        finally:
            self.lost = inner.lost

    def _release(self) -> None:
        if self._inner is not None:
            self._inner._closed = True  # noqa: SLF001  # as above
            self._inner._release()  # noqa: SLF001

    async def _hand_over(self) -> LogStream:
        inner = await self._open()
        # It is the caller's from here on: dropping this object must not close it.
        self._inner = None
        self._closed = True
        return inner

    def __await__(self) -> Generator[object, None, LogStream]:
        return self._hand_over().__await__()

    async def __aenter__(self) -> Self:
        await self._open()
        return self
