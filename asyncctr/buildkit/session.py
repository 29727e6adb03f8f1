"""The session of a build: what the daemon asks of the client, served on a connection that the client makes."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, cast

import attrs
from grpclib.const import Cardinality, Handler
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from asyncctr.buildkit.proto.services import Control
from asyncctr.buildkit.proto.session_pb2 import BytesMessage
from asyncctr.core.errors import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from grpclib.client import Stream

    from asyncctr.buildkit.channel import BuildkitChannel
    from asyncctr.transport.grpc import Method

__all__ = ["Service", "Session", "handler"]

_NAME = "asyncctr"
# The most that goes into one message, and what may wait to be sent before writing stops, in bytes.
_MESSAGE = 1 << 20
_HIGH_WATER = 1 << 20

Service = dict[str, Handler]
"""Methods that are served, by their paths."""


def handler(method: Method[Any, Any], cardinality: Cardinality, function: Callable[[Any], Awaitable[None]]) -> Service:
    """A method that is served by a function of a :class:`grpclib.server.Stream`."""
    return {method.path: Handler(function, cardinality, method.request, method.answer)}


@attrs.frozen
class _Mapping:
    methods: Service

    def __mapping__(self) -> Service:
        return self.methods


class Session:
    """What is served to a daemon for one build.

    Args:
        channel: to the daemon.
        services: what is served.
        shared_key: under which the daemon keeps what it was sent, so that another build need not send it again; empty for
            nothing in particular.

    Attributes:
        id: names it in a request.
    """

    def __init__(self, channel: BuildkitChannel, services: Service, *, shared_key: str = "") -> None:
        self._channel = channel
        self._paths = tuple(services)
        self._shared_key = shared_key
        self.id = uuid.uuid4().hex
        self._server = Server([_Mapping(services)], codec=ProtoCodec())
        # Patterns and names of files come in headers.
        self._server._h2_config.header_encoding = "utf-8"  # noqa: SLF001  # there is no option for it

    def _headers(self) -> list[tuple[str, str]]:
        prefix = "x-docker-expose-session"
        fields = [(f"{prefix}-uuid", self.id), (f"{prefix}-name", _NAME)]
        if self._shared_key:
            # An empty one would not mean none.
            fields.append((f"{prefix}-sharedkey", self._shared_key))
        return fields + [(f"{prefix}-grpc-method", path) for path in self._paths]

    async def serve(self, ready: asyncio.Event) -> None:
        """Serve until it is cancelled; ``ready`` is set once there is a connection.

        Raises:
            ConnectionLostError: the daemon ended it, or went away.
            BackendUnavailableError: there is no BuildKit.
        """
        protocol = _Served(self._server._protocol_factory())  # noqa: SLF001  # it listens on no socket
        try:
            if self._channel.address.upgrade is None:
                await self._carried(protocol, ready)
            else:
                await self._switched(protocol, ready)
        finally:
            await protocol.end()
        address = self._channel.address
        message = f"BuildKit at {address.place} ended the build's session"
        raise ConnectionLostError(message, backend=address.backend)

    async def _switched(self, protocol: _Served, ready: asyncio.Event) -> None:
        """On a connection of its own, which older engines have for it: with less work for each byte."""
        headers: dict[str, tuple[str, ...]] = {}
        for name, value in self._headers():
            headers[name] = (*headers.get(name, ()), value)
        stream = await self._channel.address.switched("/session", headers)
        stream.hand_over(protocol)
        ready.set()
        await protocol.lost.wait()

    async def _carried(self, protocol: _Served, ready: asyncio.Event) -> None:
        """In the messages of a call on the connection that there is."""
        async with self._channel.stream(Control.Session, Cardinality.STREAM_STREAM, metadata=self._headers()) as stream:
            await stream.send_request()
            transport = _Transport(protocol)
            protocol.connection_made(transport)
            ready.set()
            sending = asyncio.create_task(transport.send(stream), name="asyncctr build session")
            try:
                while (message := await stream.recv_message()) is not None and not protocol.lost.is_set():
                    protocol.data_received(message.data)
            except GRPCError:
                # The daemon ends the call with whatever status when it has done with the session.
                return
            finally:
                sending.cancel()
                await asyncio.wait({sending})


class _Served(asyncio.Protocol):
    """The server's protocol, whose end can be waited for."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._made = False
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made = True
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)
        self.lost.set()

    async def end(self) -> None:
        """Close the connection, and wait for the calls that were being served."""
        if self._made:
            processor = cast("Any", self._inner).processor
            processor.close("the build is over")
            await processor.handler.wait_closed()


class _Transport(asyncio.Transport):
    """Bytes that another call carries, message by message."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._waiting: list[bytes] = []
        self._size = 0
        self._paused = False
        self._closing = False
        self._more = asyncio.Event()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002  # asyncio's signature
        return default

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self._more.set()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._waiting.append(bytes(data))
        self._size += len(data)
        if self._size > _HIGH_WATER and not self._paused:
            self._paused = True
            self._protocol.pause_writing()
        self._more.set()

    async def send(self, stream: Stream[BytesMessage, BytesMessage]) -> None:
        """Send what was written, until it is closed or cancelled."""
        while not self._closing:
            await self._more.wait()
            self._more.clear()
            data = memoryview(b"".join(self._waiting))
            self._waiting.clear()
            self._size = 0
            if self._paused:
                self._paused = False
                self._protocol.resume_writing()
            for start in range(0, len(data), _MESSAGE):
                await stream.send_message(BytesMessage(data=bytes(data[start : start + _MESSAGE])))
