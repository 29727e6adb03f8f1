"""The HTTP/1.1 exchange: framing, truncation, flow control, hijacked connections and their release."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import socket
import sys
import time
import tracemalloc
import warnings
from typing import TYPE_CHECKING, Any, Self, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncctr.core.errors import (
    ClosedError,
    ConnectionLostError,
    InvalidConfigError,
    ResourceExhaustedError,
)
from asyncctr.transport import http1_exchange
from asyncctr.transport.http1 import HttpStream, MalformedResponseError, open_stream

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
TO_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
properties = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Peer:
    """The other end of one connection: a real socket that this test reads and writes."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.far.setblocking(False)
        self.request = b""

    async def connect(
        self, factory: Callable[[], asyncio.BaseProtocol]
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        return await asyncio.get_running_loop().create_unix_connection(factory, sock=self.near)

    async def send(self, *parts: bytes) -> None:
        """Each part in a write of its own, the reader given time to take it."""
        for part in parts:
            await asyncio.get_running_loop().sock_sendall(self.far, part)
            for _ in range(3):
                await asyncio.sleep(0)

    async def receive(self, size: int = 65536) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.far, size)

    def eof(self) -> None:
        self.far.shutdown(socket.SHUT_WR)

    async def open(self, *parts: bytes, eof: bool = False, **options: Any) -> HttpStream:
        """A stream whose response begins with ``parts``."""
        opening = asyncio.create_task(open_stream(self.connect, "GET", "/x", **cast("Any", {"headers": {}} | options)))
        try:
            self.request = await self.receive()
            await self.send(*parts)
            if eof:
                self.eof()
            return await opening
        finally:
            opening.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.far.close()


async def read(stream: HttpStream) -> bytes:
    return await stream.receive_all(1 << 30)


def chunked(parts: list[bytes], extension: bytes = b"") -> bytes:
    return b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts if part) + b"0\r\n\r\n"


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


async def settle(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # what is waited for is outside of the loop
            await asyncio.sleep(0.005)


# -- framing


def large(smallest: int, largest: int) -> st.SearchStrategy[bytes]:
    """Long bodies from little entropy, of which hypothesis has 8 KiB for each example."""
    seeds = st.binary(min_size=1, max_size=20)
    return st.builds(lambda seed, size: (seed * size)[:size], seeds, st.integers(smallest, largest))


@properties
@given(
    parts=st.lists(st.binary(max_size=100) | large(4090, 9000), max_size=12),
    cuts=st.lists(st.integers(0, 1 << 20), max_size=40),
    extension=st.sampled_from([b"", b";a=b", b" ;q", b';x="y z"']),
    trailers=st.sampled_from([b"", b"Expires: now\r\n", b"A: 1\r\nB: 2\r\n"]),
)
async def test_chunked_body_survives_any_chunking_and_any_network_split(
    parts: list[bytes], cuts: list[int], extension: bytes, trailers: bytes
) -> None:
    wire = chunked(parts, extension)[:-2] + trailers + b"\r\n"
    with Peer() as peer:
        stream = await peer.open(CHUNKED + wire[:1])
        reading = asyncio.create_task(read(stream))
        await peer.send(*split(wire[1:], cuts))
        assert await reading == b"".join(parts)
        assert await stream.receive() == b""
        assert await peer.receive() == b""  # released by the end of the body, without a close


@properties
@given(
    body=st.binary(max_size=100) | large(0, 20_000),
    cuts=st.lists(st.integers(0, 1 << 20), max_size=20),
    extra=st.binary(max_size=9),
)
async def test_length_body_survives_any_network_split(body: bytes, cuts: list[int], extra: bytes) -> None:
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with Peer() as peer:
        opening = asyncio.create_task(open_stream(peer.connect, "GET", "/x", headers={}))
        await peer.receive()
        for piece in split(wire, cuts):
            await peer.send(piece)
        with contextlib.suppress(OSError):  # the stream may have closed already; it ignores what follows the body
            await peer.send(extra)
        stream = await opening
        assert await read(stream) == body
        assert await stream.receive() == b""


@properties
@given(body=st.binary(max_size=100) | large(0, 20_000), cuts=st.lists(st.integers(0, 1 << 20), max_size=20))
async def test_undelimited_body_is_read_to_the_close(body: bytes, cuts: list[int]) -> None:
    with Peer() as peer:
        stream = await peer.open(TO_CLOSE)
        reading = asyncio.create_task(read(stream))
        await peer.send(*split(body, cuts))
        peer.eof()
        assert await reading == body
        assert not stream.delimited
        stream.close()


@properties
@given(
    parts=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5),
    where=st.integers(0, 1 << 20),
    reset=st.booleans(),
)
async def test_a_chunked_body_cut_anywhere_is_a_lost_connection(parts: list[bytes], where: int, reset: bool) -> None:
    wire = CHUNKED + chunked(parts)
    await cut(wire[: where % len(wire)], b"".join(parts), reset)


@properties
@given(body=st.binary(min_size=1, max_size=100), where=st.integers(0, 1 << 20), reset=st.booleans())
async def test_a_length_body_cut_anywhere_is_a_lost_connection(body: bytes, where: int, reset: bool) -> None:
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    await cut(wire[: where % len(wire)], body, reset)


async def cut(wire: bytes, body: bytes, reset: bool) -> None:
    received = b""
    with Peer() as peer:
        opening = asyncio.create_task(open_stream(peer.connect, "GET", "/x", headers={}))
        if reset:
            await asyncio.sleep(0.001)  # the request is there, and closing with it unread resets
        else:
            await peer.receive()
        await peer.send(wire)
        peer.far.close()
        with pytest.raises(ConnectionLostError):  # either call may be the one
            stream = await opening
            while data := await stream.receive():
                received += data
    assert body.startswith(received)


async def test_every_truncation_of_one_chunked_response() -> None:
    wire = CHUNKED + b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: t\r\n\r\n"
    for length in range(len(wire)):
        await cut(wire[:length], b"hello!", reset=False)
    with Peer() as peer:
        assert await read(await peer.open(wire, eof=True)) == b"hello!"


async def test_a_chunk_larger_than_everything_in_between() -> None:
    body = os.urandom(3 << 20)
    with Peer() as peer:
        stream = await peer.open(CHUNKED)
        sending = asyncio.create_task(peer.send(b"%x\r\n" % len(body), body, b"\r\n0\r\n\r\n"))
        sizes = []
        parts = []
        while data := await stream.receive():
            sizes.append(len(data))
            parts.append(data)
        await sending
    assert b"".join(parts) == body
    assert max(sizes) <= http1_exchange.BLOCK


@pytest.mark.parametrize(
    "body",
    [
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"5\r\nhell\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"11111111111111111\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"x" * 5000,
        b"5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA: " + b"x" * 70000,
    ],
)
async def test_a_malformed_chunk_is_refused_without_waiting_for_more(body: bytes) -> None:
    with Peer() as peer:
        stream = await peer.open(CHUNKED)
        await peer.send(body)
        with pytest.raises(MalformedResponseError):
            await asyncio.wait_for(read(stream), 5)
        with contextlib.suppress(ConnectionResetError):
            assert await peer.receive() == b""  # and the connection is released


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "TLS"),
        (b"HTTP/2 200\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\nA: b\n\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "malformed field"),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "malformed field"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", "malformed field"),
        (b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", "malformed field"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000, "longer than"),
        (
            b"HTTP/1.1 100 Continue\r\nA: " + b"x" * 40000 + b"\r\n\r\n" + b"HTTP/1.1 102 P\r\nA: " + b"x" * 40000,
            "longer than",
        ),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "without having been asked"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 4\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer coding"),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer coding"),
    ],
)
async def test_a_malformed_head_is_refused_without_waiting_for_more(head: bytes, text: str) -> None:
    with Peer() as peer:
        with pytest.raises(MalformedResponseError, match=text):
            await asyncio.wait_for(peer.open(head), 5)
        with contextlib.suppress(ConnectionResetError):
            assert await peer.receive() == b""


@pytest.mark.parametrize(
    ("response", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 404 \r\nContent-Length: 2, 2\r\n\r\nno", 404, b"no"),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            200,
            b"x",
        ),
        (b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", 400, None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 200, b"x"),
    ],
)
async def test_framing_by_status_and_fields(response: bytes, status: int, body: bytes | None) -> None:
    with Peer() as peer:
        stream = await peer.open(response, eof=body is None)
        assert stream.status == status
        assert await asyncio.wait_for(read(stream), 5) == (response.partition(b"\r\n\r\n")[2] if body is None else body)
        stream.close()


async def test_header_names_are_lower_case_and_repeats_are_joined() -> None:
    with Peer() as peer:
        stream = await peer.open(b"HTTP/1.1 200 OK\r\nAPI-Version: 1.41\r\nX:  a \r\nx:b\r\nContent-Length: 0\r\n\r\n")
        assert stream.headers == {"api-version": "1.41", "x": "a, b", "content-length": "0"}


async def test_the_request_as_it_is_sent() -> None:
    with Peer() as peer:
        await peer.open(
            b"HTTP/1.1 204 No Content\r\n\r\n", headers={"X-Registry-Auth": "secret"}, body=b"{}", host="docker"
        )
        assert peer.request == (
            b"GET /x HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Length: 2\r\n"
            b"X-Registry-Auth: secret\r\n\r\n{}"
        )
    with Peer() as peer:
        (await peer.open(UPGRADED, upgrade="tcp")).close()
        assert peer.request == b"GET /x HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "GET /"},
        {"method": "HEAD"},
        {"target": "x"},
        {"target": "/a b"},
        {"target": "/a\r\nX: y"},
        {"target": "/ü"},
        {"headers": {"A": "b\r\nC: d"}},
        {"headers": {"A b": "c"}},
        {"headers": {"A": "hush\0"}},
        {"headers": {"Content-Length": "1"}},
        {"host": "a\nb"},
        {"upgrade": "a\nb"},
    ],
)
async def test_a_request_that_would_not_be_one_is_refused_before_connecting(arguments: dict[str, Any]) -> None:
    async def connect(_: object) -> Any:
        pytest.fail("connected")

    with pytest.raises(InvalidConfigError) as caught:
        await open_stream(connect, **({"method": "GET", "target": "/", "headers": {}} | arguments))
    assert "hush" not in str(caught.value)


# -- receiving


async def test_receive_coalesces_what_is_there() -> None:
    with Peer() as peer:
        stream = await peer.open(CHUNKED)
        for number in range(100):
            await peer.send(b"3\r\n%03d\r\n" % number)
        assert await stream.receive() == b"".join(b"%03d" % number for number in range(100))
        stream.close()


async def test_a_cancelled_receive_loses_nothing() -> None:
    with Peer() as peer:
        stream = await peer.open(CHUNKED)
        received = b""
        expected = b""
        for number in range(200):
            reading = asyncio.create_task(stream.receive())
            for _ in range(number % 4):
                await asyncio.sleep(0)
            part = b"%d" % number
            expected += part
            peer.far.send(b"%x\r\n%s\r\n" % (len(part), part))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                received += await reading
        await peer.send(b"0\r\n\r\n")
        assert received + await read(stream) == expected


async def test_two_receivers_at_once_are_refused() -> None:
    with Peer() as peer:
        stream = await peer.open(CHUNKED)
        first = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="two tasks"):
            await stream.receive()
        await peer.send(b"1\r\nx\r\n")
        assert await first == b"x"
        stream.close()


async def test_an_unread_stream_stops_reading_and_goes_on_when_read() -> None:
    body = os.urandom(8 << 20)
    with Peer() as peer:
        stream = await peer.open(TO_CLOSE)

        async def send() -> None:
            await asyncio.get_running_loop().sock_sendall(peer.far, body)
            peer.eof()

        sending = asyncio.create_task(send())
        await asyncio.sleep(0.3)
        assert not sending.done()
        assert stream._exchange.unread <= http1_exchange.HIGH_WATER + http1_exchange.BLOCK
        assert await read(stream) == body
        await sending
        stream.close()


async def test_receive_all_is_bounded_and_releases() -> None:
    with Peer() as peer:
        stream = await peer.open(CHUNKED + b"5\r\nhello\r\n")
        with pytest.raises(ResourceExhaustedError):
            await stream.receive_all(4)
        assert await peer.receive() == b""


async def test_a_peer_that_closes_without_an_answer() -> None:
    with Peer() as peer:
        opening = asyncio.create_task(open_stream(peer.connect, "GET", "/x", headers={}))
        await peer.receive()
        peer.far.close()
        with pytest.raises(ConnectionLostError, match="without an answer"):
            await opening


async def test_a_cancelled_open_releases_the_connection() -> None:
    with Peer() as peer:
        opening = asyncio.create_task(open_stream(peer.connect, "GET", "/x", headers={}))
        await peer.receive()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert await asyncio.wait_for(peer.receive(), 5) == b""


# -- both directions


class _Taken(asyncio.Protocol):
    """What a connection is handed over to."""

    def __init__(self) -> None:
        self.transport: asyncio.BaseTransport | None = None
        self.received = b""
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def test_a_switched_connection_is_handed_over_with_what_has_arrived() -> None:
    with Peer() as peer:
        stream = await peer.open(UPGRADED + b"early", upgrade="h2c")
        protocol = _Taken()
        stream.hand_over(protocol)
        await peer.send(b" and late")
        peer.eof()
        await protocol.lost.wait()
        assert protocol.received == b"early and late"
        with pytest.raises(ClosedError):
            await stream.receive()
        with pytest.raises(ClosedError):
            stream.hand_over(_Taken())


@pytest.mark.parametrize("head", [UPGRADED, TO_CLOSE])
async def test_a_hijacked_connection_carries_both_directions_and_a_half_close(head: bytes) -> None:
    body = os.urandom(4 << 20)
    with Peer() as peer:
        stream = await peer.open(head + b"early", upgrade="tcp")
        assert await stream.receive() == b"early"

        async def echo() -> None:
            while data := await peer.receive():
                await asyncio.get_running_loop().sock_sendall(peer.far, data)
            await peer.send(b"done")
            peer.eof()

        echoing = asyncio.create_task(echo())
        reading = asyncio.create_task(read(stream))
        await stream.send(bytearray(body))
        await stream.send_eof()
        await stream.send_eof()
        assert await reading == body + b"done"
        await echoing
        with pytest.raises(ClosedError):
            await stream.send(b"x")
        stream.close()


async def test_sending_goes_on_after_the_peer_ended_its_side() -> None:
    with Peer() as peer:
        stream = await peer.open(UPGRADED, eof=True, upgrade="tcp")
        assert await stream.receive() == b""
        await stream.send(b"still here")
        assert await peer.receive() == b"still here"
        stream.close()


async def test_send_waits_for_a_slow_reader_and_close_ends_the_wait() -> None:
    with Peer() as peer:
        stream = await peer.open(UPGRADED, upgrade="tcp")
        sending = asyncio.create_task(stream.send(bytes(8 << 20)))
        await asyncio.sleep(0.2)
        assert not sending.done()
        stream.close()
        with pytest.raises(ClosedError):
            await asyncio.wait_for(sending, 5)


async def test_a_send_to_a_peer_that_went_away_fails_and_its_last_words_are_kept() -> None:
    # A program that prints and ends before it has read its input: the send breaks while output is still in the kernel.
    words = os.urandom(100_000)
    with Peer() as peer:
        stream = await peer.open(UPGRADED, upgrade="tcp")
        peer.far.send(words)
        peer.far.close()
        with pytest.raises(ConnectionLostError):  # the transport may notice a send later
            while True:
                await stream.send(bytes(1 << 20))
        assert await read(stream) == words
        stream.close()


async def test_words_are_kept_even_if_reading_had_stopped() -> None:
    words = os.urandom(http1_exchange.HIGH_WATER + 150_000)
    with Peer() as peer:
        stream = await peer.open(UPGRADED, upgrade="tcp")
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(peer.far, words), 5)
        await settle(lambda: stream._exchange.paused)
        peer.far.close()
        with pytest.raises(ConnectionLostError):
            while True:
                await stream.send(bytes(1 << 20))
        assert await read(stream) == words
        stream.close()


async def test_a_reset_is_a_lost_connection_even_without_a_length() -> None:
    with Peer() as peer:
        stream = await peer.open(UPGRADED + b"words", upgrade="tcp")
        await stream.send(b"never read")
        peer.far.close()
        received = b""
        with pytest.raises(ConnectionLostError):
            while data := await stream.receive():
                received += data
        assert received == b"words"


# -- release


async def test_close_is_idempotent_and_wakes_the_receiver() -> None:
    with Peer() as peer:
        stream = await peer.open(CHUNKED)
        reading = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        stream.close()
        stream.close()
        with pytest.raises(ClosedError):
            await asyncio.wait_for(reading, 5)
        with pytest.raises(ClosedError):
            await stream.receive()
        with pytest.raises(ClosedError):
            await stream.send(b"x")
        await stream.aclose()
        assert peer.near.fileno() == -1
        assert await peer.receive() == b""


@pytest.mark.parametrize("parts", [(CHUNKED,), (CHUNKED, b"3\r\nabc\r\n"), (TO_CLOSE,)])
async def test_dropping_the_handle_releases_the_connection_without_the_collector(parts: tuple[bytes, ...]) -> None:
    gc.disable()
    try:
        with Peer() as peer:
            stream = await peer.open(*parts)
            del stream
            assert await asyncio.wait_for(peer.receive(), 5) == b""
    finally:
        gc.enable()


async def test_dropping_the_handle_in_another_thread() -> None:
    with Peer() as peer:
        holder = [await peer.open(CHUNKED)]
        await asyncio.to_thread(holder.clear)
        assert await asyncio.wait_for(peer.receive(), 5) == b""


def test_a_handle_that_outlives_its_loop() -> None:
    async def main() -> HttpStream:
        return await peer.open(CHUNKED)

    with Peer() as peer:
        stream = asyncio.run(main())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # asyncio's own, about the transport
            del stream
            gc.collect()
        assert peer.far.recv(65536) == b""


async def test_an_idle_stream_is_small() -> None:
    count = 200
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer()) for _ in range(count + 1)]
        streams = [await peers[0].open(CHUNKED + b"1\r\nx\r\n")]
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.take_snapshot()
        for peer in peers[1:]:
            streams.append(await peer.open(CHUNKED + b"1\r\nx\r\n"))
            await streams[-1].receive()
        gc.collect()
        after = tracemalloc.take_snapshot()
        tracemalloc.stop()
        size = sum(entry.size_diff for entry in after.compare_to(before, "filename")) / count
        for stream in streams:
            stream.close()
    assert size < 6 * 1024, f"{size} bytes each"


SENDER = """
import socket, sys
far = socket.socket(fileno=int(sys.argv[1]))
far.setblocking(True)
for _ in range(1000):
    far.sendall((b"49\\r\\n" + b"x" * 73 + b"\\r\\n") * 1000)
far.sendall(b"0\\r\\n\\r\\n")
"""


async def test_a_million_tiny_chunks_take_little_cpu() -> None:
    with Peer() as peer:
        stream = await peer.open(CHUNKED)
        far = peer.far.fileno()
        # A process of its own, so that its CPU time is not counted here.
        sender = await asyncio.create_subprocess_exec(sys.executable, "-c", SENDER, str(far), pass_fds=[far])
        start = time.process_time()
        size = 0
        while data := await stream.receive():
            size += len(data)
        used = time.process_time() - start
        await sender.wait()
    assert size == 73 * 1_000_000
    assert used < 2.0, f"{used} s"  # 0.4 s where nothing else runs


@pytest.mark.parametrize("size", [1, 60_000, 3_000_000])
async def test_closing_after_the_end_of_input_loses_none_of_it(size: int) -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]
    with Peer() as peer:
        stream = await peer.open(UPGRADED, upgrade="tcp")

        async def send() -> None:
            for start in range(0, len(data), 20_000):
                await stream.send(data[start : start + 20_000])
            await stream.send_eof()
            stream.close()

        sending = asyncio.create_task(send())
        # A peer that is behind: everybody's buffers are full.
        await asyncio.sleep(0.1)
        received = bytearray()
        while part := await peer.receive():
            received += part
        await sending
    assert received == data
