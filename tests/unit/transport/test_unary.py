"""Calls to a gRPC server: answers, statuses, sizes, cancellation, and connections that break."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.core.errors import AsyncctrError, BackendUnavailableError, ClosedError, ConnectionLostError
from asyncctr.testing.proxy import FaultProxy
from asyncctr.transport.dial import UnixDialer
from asyncctr.transport.grpc import GrpcClient, Method
from asyncctr.transport.unary import UnaryCalls, request_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

ECHO = Method("/test.Echo/Echo", BytesValue, BytesValue)
METADATA = {"test-name": "a value"}


class Echo:
    """Answers with what it gets, or as that says."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def echo(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.metadata = dict(stream.metadata)
        if request.value == b"fail":
            raise GRPCError(Status.NOT_FOUND, "nothing is there: 100 % ünique")
        if request.value == b"wait":
            self.waiting.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if request.value == b"large":
            request = BytesValue(value=bytes(3 << 20))
        await stream.send_message(request)

    def __mapping__(self) -> dict[str, Handler]:
        return {ECHO.path: Handler(self.echo, Cardinality.UNARY_UNARY, BytesValue, BytesValue)}


@asynccontextmanager
async def serving(socket: Path) -> AsyncIterator[Echo]:
    echo = Echo()
    server = Server([echo])
    await server.start(path=str(socket))
    try:
        yield echo
    finally:
        server.close()
        await server.wait_closed()


def translate(error: GRPCError, resource: str, kind: str) -> AsyncctrError:
    return AsyncctrError(f"{error.status.name} {error.message} {resource} {kind}")


@asynccontextmanager
async def client(socket: Path) -> AsyncIterator[GrpcClient]:
    made = GrpcClient(str(socket), backend="test", translate=translate, op_timeout=10, metadata=METADATA)
    try:
        yield made
    finally:
        made.close()
        # A closed connection is gone a turn of the loop later.
        await asyncio.sleep(0)


async def test_answers_and_statuses(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as echo, client(tmp_path / "s") as calls:
        for value in (b"", b"x", b"x" * 16_000):
            assert (await calls.call(ECHO, BytesValue(value=value))).value == value
        assert echo.metadata.items() >= METADATA.items()
        with pytest.raises(AsyncctrError, match="NOT_FOUND nothing is there: 100 % ünique it that"):
            await calls.call(ECHO, BytesValue(value=b"fail"), resource="it", kind="that")
        assert (await calls.call(ECHO, BytesValue(value=b"after"))).value == b"after"


async def test_large_messages_both_ways(tmp_path: Path) -> None:
    async with serving(tmp_path / "s"), client(tmp_path / "s") as calls:
        assert len((await calls.call(ECHO, BytesValue(value=b"large"))).value) == 3 << 20
        value = b"y" * (1 << 20)
        assert (await calls.call(ECHO, BytesValue(value=value))).value == value


async def test_many_more_bytes_than_a_window_and_many_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path / "s"), client(tmp_path / "s") as calls:
        values = [b"%d " % index * 2_000 for index in range(300)]
        found = await asyncio.gather(*(calls.call(ECHO, BytesValue(value=value)) for value in values))
        assert [answer.value for answer in found] == values


async def test_a_cancelled_call_is_cancelled_there_and_harms_no_other(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as echo, client(tmp_path / "s") as calls:
        task = asyncio.create_task(calls.call(ECHO, BytesValue(value=b"wait"), timeout=None))
        await echo.waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(echo.cancelled.wait(), 5)
        assert (await calls.call(ECHO, BytesValue(value=b"after"))).value == b"after"


async def test_a_connection_that_breaks_and_is_made_again(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as echo, FaultProxy(tmp_path / "s") as proxy, client(proxy.path) as calls:
        task = asyncio.create_task(calls.call(ECHO, BytesValue(value=b"wait"), timeout=None))
        await echo.waiting.wait()
        proxy.cut()
        with pytest.raises(ConnectionLostError, match=r"Echo\.Echo"):
            await task
        assert (await calls.call(ECHO, BytesValue(value=b"again"))).value == b"again"
        assert proxy.opened == 2


async def test_nobody_listens(tmp_path: Path) -> None:
    async with client(tmp_path / "s") as calls:
        with pytest.raises(BackendUnavailableError, match="No such file"):
            await calls.call(ECHO, BytesValue())


async def test_closed_under_a_call_and_before_one(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as echo, client(tmp_path / "s") as calls:
        task = asyncio.create_task(calls.call(ECHO, BytesValue(value=b"wait"), timeout=None))
        await echo.waiting.wait()
        calls.close()
        with pytest.raises(ClosedError):
            await task
        with pytest.raises(ClosedError):
            await calls.call(ECHO, BytesValue())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10,
        # Headers that refer to a table that there is not, a continuation of nothing, and a call that is broken off.
        b"\0\0\1\1\4\0\0\0\1\xff",
        b"\0\0\0\x09\4\0\0\0\1",
        b"\0\0\4\3\0\0\0\0\1\0\0\0\2",
        b"",
    ],
)
async def test_what_is_no_answer_is_a_lost_connection(tmp_path: Path, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        # After the request, which a call that is broken off must have made.
        await asyncio.sleep(0.05)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with (
        await asyncio.start_unix_server(serve, tmp_path / "s"),
        client(tmp_path / "s") as calls,
    ):
        with pytest.raises(ConnectionLostError):
            await calls.call(ECHO, BytesValue(value=b"x"))


_ASCII = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=300)


@given(_ASCII, st.dictionaries(_ASCII.map(str.lower), _ASCII, max_size=4))
def test_headers_are_read_as_they_were_meant(path: str, metadata: dict[str, str]) -> None:
    found = Decoder().decode(request_headers(path, metadata))
    expected = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    assert [(str(name), str(value)) for name, value in found] == [*expected, *metadata.items()]


@pytest.mark.parametrize("bulk", [False, True])
async def test_a_ping_is_answered_though_nothing_else_is_sent(tmp_path: Path, bulk: bool) -> None:
    payload = b"12345678"
    answered = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0\0\x08\x06\0\0\0\0\0" + payload)
        await reader.readuntil(b"\0\0\x08\x06\x01\0\0\0\0" + payload)
        answered.set()
        writer.close()

    async with await asyncio.start_unix_server(serve, path=tmp_path / "s"):
        calls = UnaryCalls(UnixDialer(str(tmp_path / "s")), bulk=bulk)
        await calls.connection()
        async with asyncio.timeout(5):
            await answered.wait()
        calls.close()
