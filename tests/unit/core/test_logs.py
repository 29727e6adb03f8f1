"""Log streams: whole lines, both streams apart, and one release whatever ends them."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr import ClosedError, LogEntry, LogStream
from asyncctr.core.logs import LazyLogStream

pytestmark = pytest.mark.anyio


class Listed(LogStream):
    def __init__(self, entries: list[LogEntry], released: list[int] | None = None) -> None:
        super().__init__()
        self.entries = list(entries)
        self.released = [] if released is None else released

    async def _receive(self) -> LogEntry | None:
        await asyncio.sleep(0)
        return self.entries.pop(0) if self.entries else None

    def _release(self) -> None:
        self.released.append(1)


class Endless(Listed):
    async def _receive(self) -> LogEntry | None:
        await asyncio.Event().wait()
        return None


async def lines(entries: list[LogEntry]) -> list[tuple[str, str]]:
    return [(line.stream, line.text) async for line in Listed(entries).lines()]


async def test_read_keeps_the_streams_apart() -> None:
    output = await Listed([LogEntry("stdout", b"a"), LogEntry("stderr", b"b"), LogEntry("stdout", b"c")]).read()
    assert (output.stdout, output.stderr) == (b"ac", b"b")


async def test_lines_across_chunks_and_streams() -> None:
    got = await lines(
        [
            LogEntry("stdout", b"one\ntw"),
            LogEntry("stderr", b"err"),
            LogEntry("stdout", b"o\r\n\x0cthree \xe2\x82"),
            LogEntry("stdout", b"\xac"),
        ]
    )
    assert got == [("stdout", "one"), ("stdout", "two"), ("stdout", "\x0cthree \u20ac"), ("stderr", "err")]


@given(st.binary(), st.integers(min_value=1, max_value=7))
def test_lines_are_the_same_however_they_are_cut(data: bytes, step: int) -> None:
    chunks = [LogEntry("stdout", data[i : i + step]) for i in range(0, len(data), step)]
    whole = [LogEntry("stdout", data)] if data else []
    assert asyncio.run(lines(chunks)) == asyncio.run(lines(whole))


async def test_the_end_releases_and_stays_the_end() -> None:
    stream = Listed([LogEntry("stdout", b"a")])
    assert [entry.data async for entry in stream] == [b"a"]
    assert stream.released
    assert [entry async for entry in stream] == []


async def test_an_early_break_drops_the_stream_at_once() -> None:
    dropped: list[int] = []
    stream = Listed([LogEntry("stdout", b"a")] * 3)
    weakref.finalize(stream, dropped.append, 1)
    gc.disable()  # by reference counts alone: a cycle would keep the connection until some later collection
    try:
        async for _ in stream:
            break
        del stream
        assert dropped == [1]
    finally:
        gc.enable()


async def test_a_cancelled_read_releases() -> None:
    stream = Endless([])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(stream)
    assert stream.released == [1]
    with pytest.raises(ClosedError):
        await anext(stream)


async def test_use_after_aclose() -> None:
    stream = Listed([LogEntry("stdout", b"a")])
    await stream.aclose()
    with pytest.raises(ClosedError):
        await anext(stream)


async def test_a_lazy_stream_opens_once_and_releases_what_it_opened() -> None:
    opened: list[Listed] = []

    async def opener() -> LogStream:
        opened.append(Listed([LogEntry("stdout", b"a"), LogEntry("stdout", b"b")]))
        return opened[-1]

    lazy = LazyLogStream(opener)
    assert not opened
    async with lazy:
        assert len(opened) == 1
        assert (await anext(lazy)).data == b"a"
    assert opened[0].released
    assert await LazyLogStream(opener) is opened[1]
    async with LazyLogStream(opener) as third:
        async for _ in third:
            break
    assert opened[2].released
