"""A containerd in the test's own process, for what a real one will not do on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from asyncctr.backends.containerd.api import ContainerdApi
from asyncctr.backends.containerd.proto import services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from grpclib.server import Stream

    from asyncctr.transport.grpc import Method

_STREAMED = {
    services.Content.Write.path: Cardinality.STREAM_STREAM,
    services.Content.Read.path: Cardinality.UNARY_STREAM,
    services.Containers.ListStream.path: Cardinality.UNARY_STREAM,
}


class FakeContainerd:
    """Each method does what was set for it; the others do not exist."""

    def __init__(self) -> None:
        self._methods = [
            method
            for service in vars(services).values()
            if isinstance(service, type)
            for method in vars(service).values()
            if hasattr(method, "path")
        ]
        self._work: dict[str, Callable[[Stream[Any, Any]], Awaitable[None]]] = {}
        self.calls: list[str] = []

    def on(self, method: Method[Any, Any], work: Callable[[Stream[Any, Any]], Awaitable[None]]) -> None:
        """Have a method do this with its stream."""
        self._work[method.path] = work

    def answer(self, method: Method[Any, Any], make: Callable[[Any], Any]) -> None:
        """Have a method answer what is made of the request, or fail with what that raises."""

        async def work(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            made = make(request)
            await stream.send_message(await made if hasattr(made, "__await__") else made)

        self.on(method, work)

    def __mapping__(self) -> dict[str, Handler]:
        return {
            method.path: Handler(
                self._handler(method.path),
                _STREAMED.get(method.path, Cardinality.UNARY_UNARY),
                method.request,
                method.answer,
            )
            for method in self._methods
        }

    def _handler(self, path: str) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        async def handle(stream: Stream[Any, Any]) -> None:
            self.calls.append(path.rpartition(".")[2])
            work = self._work.get(path)
            if work is None:
                raise GRPCError(Status.UNIMPLEMENTED, f"no {path} here")
            await work(stream)

        return handle


@pytest.fixture
async def containerd(tmp_path: Path) -> AsyncIterator[FakeContainerd]:
    fake = FakeContainerd()
    server = Server([fake])
    await server.start(path=str(tmp_path / "containerd.sock"))
    yield fake
    server.close()
    await server.wait_closed()


@pytest.fixture
async def api(containerd: FakeContainerd, tmp_path: Path) -> AsyncIterator[ContainerdApi]:
    del containerd
    opened = ContainerdApi(str(tmp_path / "containerd.sock"), namespace="test", op_timeout=5)
    yield opened
    opened.close()
