"""Calls with messages both ways: whole messages of any size, ends from either side, and connections that break."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from asyncctr.core.errors import AsyncctrError, BackendUnavailableError, ClosedError, ConnectionLostError
from asyncctr.testing.proxy import FaultProxy
from asyncctr.transport.grpc import GrpcClient, Method

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

TALK = Method("/test.Talk/Talk", BytesValue, BytesValue)
# More than any window, and no multiple of a frame.
LARGE = bytes(range(256)) * 12_345


class Talk:
    """Sends back what it gets, or does as that says."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def talk(self, stream: Any) -> None:
        try:
            while (request := await stream.recv_message()) is not None:
                if request.value == b"fail":
                    raise GRPCError(Status.NOT_FOUND, "nothing is there")
                if request.value == b"stop":
                    return
                if request.value == b"deaf":
                    await asyncio.Event().wait()
                await stream.send_message(request)
        finally:
            self.over.set()

    def __mapping__(self) -> dict[str, Handler]:
        return {TALK.path: Handler(self.talk, Cardinality.STREAM_STREAM, BytesValue, BytesValue)}


@asynccontextmanager
async def serving(socket: Path) -> AsyncIterator[Talk]:
    made = Talk()
    server = Server([made])
    await server.start(path=str(socket))
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


def translate(error: GRPCError, resource: str, kind: str) -> AsyncctrError:
    return AsyncctrError(f"{error.status.name} {error.message} {resource} {kind}")


@asynccontextmanager
async def client(socket: Path) -> AsyncIterator[GrpcClient]:
    made = GrpcClient(str(socket), backend="test", translate=translate, op_timeout=10, metadata={})
    try:
        yield made
    finally:
        made.close()


async def test_messages_of_any_size_arrive_whole_and_in_order(tmp_path: Path) -> None:
    sizes = [0, 1, 16_378, 16_379, 16_380, 65_530, 65_531, 1 << 20, len(LARGE)]
    async with serving(tmp_path / "s"), client(tmp_path / "s") as api, api.duplex(TALK) as call:
        for index, size in enumerate(sizes):
            await call.send(BytesValue(value=LARGE[:size]), end=index == len(sizes) - 1)
            answer = await call.receive()
            assert answer is not None
            assert answer.value == LARGE[:size]
        assert await call.receive() is None


async def test_what_is_sent_ahead_is_answered_in_turn(tmp_path: Path) -> None:
    async with (
        serving(tmp_path / "s"),
        client(tmp_path / "s") as api,
        api.duplex(TALK) as call,
        asyncio.TaskGroup() as group,
    ):

        async def send() -> None:
            for index in range(20):
                await call.send(BytesValue(value=bytes([index]) * 200_000), end=index == 19)

        group.create_task(send())
        for index in range(20):
            answer = await call.receive()
            assert answer is not None
            assert answer.value == bytes([index]) * 200_000


async def test_a_status_ends_it_for_both_sides(tmp_path: Path) -> None:
    async with serving(tmp_path / "s"), client(tmp_path / "s") as api:
        with pytest.raises(AsyncctrError, match="NOT_FOUND nothing is there it thing"):
            async with api.duplex(TALK, resource="it", kind="thing") as call:
                await call.send(BytesValue(value=b"fail"))
                await call.receive()
        with pytest.raises(AsyncctrError, match="NOT_FOUND"):
            async with api.duplex(TALK) as call:
                await call.send(BytesValue(value=b"fail"))
                for _ in range(100):
                    await call.send(BytesValue(value=LARGE))
        async with api.duplex(TALK) as call:
            await call.send(BytesValue(value=b"stop"))
            assert await call.receive() is None


async def test_one_that_is_left_is_broken_off_and_its_window_is_nobody_elses(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as talk, client(tmp_path / "s") as api:
        async with api.duplex(TALK) as call:
            await call.send(BytesValue(value=b"deaf"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    while True:
                        await call.send(BytesValue(value=LARGE))
        async with asyncio.timeout(5):
            await talk.over.wait()


async def test_a_connection_that_breaks_and_one_that_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path / "s"), FaultProxy(tmp_path / "s") as proxy, client(proxy.path) as api:
        with pytest.raises(ConnectionLostError):
            async with api.duplex(TALK) as call:
                await call.send(BytesValue(value=b"deaf"))
                asyncio.get_running_loop().call_later(0.05, proxy.cut)
                await call.receive()
        async with api.duplex(TALK) as call:
            await call.send(BytesValue(value=b"again"))
            assert await call.receive() == BytesValue(value=b"again")
        with pytest.raises(ClosedError):
            async with api.duplex(TALK) as call:
                await call.send(BytesValue(value=b"deaf"))
                api.close()
                await call.receive()
    async with client(tmp_path / "none") as api:
        with pytest.raises(BackendUnavailableError):
            async with api.duplex(TALK):
                pass
