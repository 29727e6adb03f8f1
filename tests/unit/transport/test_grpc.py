"""Calls to a gRPC server: what goes out, and what each way of failing means."""

from __future__ import annotations

import asyncio
import copy
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from asyncctr.backends.containerd.proto import version_pb2
from asyncctr.backends.containerd.proto.services import Version
from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    ClosedError,
    ConnectionLostError,
    OperationTimeoutError,
)
from asyncctr.testing.proxy import FaultProxy
from asyncctr.transport.grpc import GrpcClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from grpclib.server import Stream

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

METHOD = Version.Version
EMPTY = METHOD.request()


class Service:
    """One method, which does what ``work`` does."""

    def __init__(self, work: Callable[[Stream[Any, Any]], Awaitable[None]]) -> None:
        self._work = work

    def __mapping__(self) -> dict[str, Handler]:
        return {METHOD.path: Handler(self._work, Cardinality.UNARY_UNARY, METHOD.request, METHOD.answer)}


@asynccontextmanager
async def serving(path: Path, work: Callable[[Stream[Any, Any]], Awaitable[None]]) -> AsyncIterator[Server]:
    server = Server([Service(work)])
    await server.start(path=str(path))
    try:
        yield server
    finally:
        server.close()
        await server.wait_closed()


def translate(error: GRPCError, resource: str, kind: str) -> AsyncctrError:
    return AsyncctrError(f"{kind}: {error.message}", resource=resource, status=error.status.name)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[GrpcClient]:
    opened = GrpcClient(
        str(tmp_path / "socket"), backend="test", translate=translate, op_timeout=5, metadata={"who": "me"}
    )
    yield opened
    opened.close()


async def answer(stream: Stream[Any, Any]) -> None:
    await stream.recv_message()
    assert stream.metadata is not None
    await stream.send_message(version_pb2.VersionResponse(version=str(stream.metadata["who"])))


async def silence(stream: Stream[Any, Any]) -> None:
    await stream.recv_message()
    await asyncio.Event().wait()


async def test_an_answer_and_the_metadata(client: GrpcClient, tmp_path: Path) -> None:
    async with serving(tmp_path / "socket", answer):
        answers = await asyncio.gather(*(client.call(METHOD, EMPTY) for _ in range(20)))
        assert {found.version for found in answers} == {"me"}
        client.close()


async def test_a_status_is_translated_with_what_it_was_about(client: GrpcClient, tmp_path: Path) -> None:
    async def refuse(_: Stream[Any, Any]) -> None:
        raise GRPCError(Status.NOT_FOUND, "gone")

    async with serving(tmp_path / "socket", refuse):
        with pytest.raises(AsyncctrError, match="thing: gone") as caught:
            await client.call(METHOD, EMPTY, resource="abc", kind="thing")
        assert (caught.value.resource, caught.value.status) == ("abc", "NOT_FOUND")
        assert isinstance(caught.value.__cause__, GRPCError)
        client.close()


async def test_no_answer_in_time(client: GrpcClient, tmp_path: Path) -> None:
    async with serving(tmp_path / "socket", silence):
        with pytest.raises(OperationTimeoutError, match=r"test did not answer Version.Version within 0.1 s") as caught:
            await client.call(METHOD, EMPTY, timeout=0.1, resource="abc")
        assert caught.value.resource == "abc"
        # The caller's own deadline stays its own.
        with pytest.raises(TimeoutError) as own:
            async with asyncio.timeout(0.1):
                await client.call(METHOD, EMPTY)
        assert not isinstance(own.value, AsyncctrError)
        client.close()


async def test_nobody_listens(client: GrpcClient) -> None:
    with pytest.raises(BackendUnavailableError, match="socket"):
        await client.call(METHOD, EMPTY)


async def test_a_connection_that_breaks_is_lost_and_made_again(tmp_path: Path) -> None:
    under_way = asyncio.Event()
    quiet = True

    async def first_silent(stream: Stream[Any, Any]) -> None:
        under_way.set()
        await (silence if quiet else answer)(stream)

    async with serving(tmp_path / "socket", first_silent), FaultProxy(f"unix://{tmp_path}/socket") as proxy:
        client = GrpcClient(str(proxy.path), backend="test", translate=translate, op_timeout=5, metadata={"who": "me"})
        for reset in (False, True):
            call = asyncio.create_task(client.call(METHOD, EMPTY, timeout=None))
            await under_way.wait()
            under_way.clear()
            proxy.cut(reset=reset)
            with pytest.raises(ConnectionLostError, match=r"broke during Version.Version"):
                await call
        quiet = False
        assert (await client.call(METHOD, EMPTY)).version == "me"
        client.close()


async def test_a_peer_that_hangs_up(client: GrpcClient, tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async with await asyncio.start_unix_server(hang_up, tmp_path / "socket"):
        with pytest.raises(ConnectionLostError, match=r"broke during Version.Version"):
            await client.call(METHOD, EMPTY)


async def test_after_close_nothing_is_called(client: GrpcClient, tmp_path: Path) -> None:
    async with serving(tmp_path / "socket", silence):
        call = asyncio.create_task(client.call(METHOD, EMPTY))
        await asyncio.sleep(0.05)
        client.close()
        with pytest.raises(ClosedError):
            await call
        with pytest.raises(ClosedError):
            await client.call(METHOD, EMPTY)
        with pytest.raises(ClosedError):
            client.check_open()


async def test_a_cancelled_call_leaves_the_connection_usable(client: GrpcClient, tmp_path: Path) -> None:
    quiet = True

    async def first_silent(stream: Stream[Any, Any]) -> None:
        await (silence if quiet else answer)(stream)

    async with serving(tmp_path / "socket", first_silent):
        calls = [asyncio.create_task(client.call(METHOD, EMPTY)) for _ in range(5)]
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in done)
        quiet = False
        assert (await client.call(METHOD, EMPTY)).version == "me"
        client.close()


async def test_a_copy_with_other_metadata_is_closed_with_it(client: GrpcClient, tmp_path: Path) -> None:
    async with serving(tmp_path / "socket", answer):
        twin = copy.copy(client)
        twin.metadata = {"who": "twin"}
        assert (await twin.call(METHOD, EMPTY)).version == "twin"
        client.close()
        with pytest.raises(ClosedError):
            await twin.call(METHOD, EMPTY)
        with pytest.raises(ClosedError):
            async with twin.stream(METHOD, Cardinality.UNARY_UNARY):
                pass


async def test_a_close_while_it_connects_leaves_no_connection(client: GrpcClient, tmp_path: Path) -> None:
    async with serving(tmp_path / "socket", answer):
        calls = [asyncio.create_task(client.call(METHOD, EMPTY)) for _ in range(3)]
        await asyncio.sleep(0)
        client.close()
        for call in calls:
            with pytest.raises(ClosedError):
                await call
        assert client._unary._connection is None or not client._unary._connection.usable
