"""Calls to a BuildKit: how it is dialed, and what went wrong told apart."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from h2.settings import SettingCodes

from asyncctr.buildkit.proto.status_pb2 import Status as RpcStatus
from asyncctr.core.errors import BackendUnavailableError, ConnectionLostError
from asyncctr.transport.deadline import Deadline
from asyncctr.transport.grpc import broken_connections
from asyncctr.transport.http1 import open_stream

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterator, Sequence

    from asyncctr.transport.dial import Dialer
    from asyncctr.transport.grpc import Method
    from asyncctr.transport.http1 import HttpStream, RequestFields

__all__ = ["Address", "BuildkitChannel", "Detail"]

Request = TypeVar("Request")
Answer = TypeVar("Answer")

# An error comes with the Dockerfile and stack traces, all in one header field. h2's own limit is 64 KiB.
_HEADER_LIMIT = 16 << 20


@attrs.frozen(kw_only=True)
class Address:
    """Where a BuildKit is.

    Attributes:
        dialer: makes connections to it.
        backend: the type of the backend, for errors.
        place: what is dialed, for errors.
        advice: what to do when nothing answers there, a sentence for errors.
        upgrade: for the BuildKit of a Docker engine: the path before ``/grpc`` and ``/session``, where HTTP/1.1 is switched to
            HTTP/2; ``None`` where HTTP/2 is spoken from the start.
        op_timeout: seconds that a connection may take.
    """

    dialer: Dialer = attrs.field(repr=False)
    backend: str
    place: str
    advice: str = ""
    upgrade: str | None = None
    op_timeout: float = 30.0

    async def switched(self, path: str, headers: RequestFields) -> HttpStream:
        """A connection of an engine that has switched to HTTP/2 at that path below ``upgrade``.

        Raises:
            BackendUnavailableError: the engine does not switch there.
        """
        target = f"{self.upgrade}{path}"
        stream = await open_stream(self.dialer.connect, "POST", target, headers=headers, upgrade="h2c")
        if stream.upgraded:
            return stream
        stream.close()
        message = f"{self.place} has no BuildKit: POST {target} was answered with {stream.status}"
        raise BackendUnavailableError(message, backend=self.backend, status=stream.status)


@attrs.frozen
class Detail:
    """What an error comes with: a type, and a document."""

    kind: str
    document: dict[str, Any]


class _Details(StatusDetailsCodecBase):
    """The details of an error, each a JSON document in an ``Any`` (BuildKit, util/grpcerrors)."""

    def encode(self, status: Status, message: str | None, details: Any) -> bytes:  # noqa: ARG002  # grpclib's signature
        """Nothing: this side sends none."""
        return b""

    def decode(self, status: Status, message: str | None, data: bytes) -> Sequence[Detail]:  # noqa: ARG002  # likewise
        """Those that are JSON."""
        found: list[Detail] = []
        for detail in RpcStatus.FromString(data).details:
            try:
                document = json.loads(detail.value)
            except ValueError:
                continue
            if isinstance(document, dict):
                found.append(Detail(detail.type_url, document))
        return found


class _Protocol(H2Protocol):
    """A client's connection that takes long header fields."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connection._connection.update_settings({SettingCodes.MAX_HEADER_LIST_SIZE: _HEADER_LIMIT})  # noqa: SLF001  # there is no option for it
        self.connection.flush()


class BuildkitChannel(Channel):
    """A connection to a BuildKit, made when it is first needed; ``close`` ends it and all its calls.

    Attributes:
        address: as given.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(path=address.place, codec=ProtoCodec(), status_details_codec=_Details())
        self.address = address

    def _protocol_factory(self) -> H2Protocol:
        plain = super()._protocol_factory()
        return _Protocol(plain.handler, plain.config, plain.h2_config)

    async def _create_connection(self) -> H2Protocol:
        address = self.address
        message = f"connecting to {address.place} did not end"
        async with Deadline(address.op_timeout, message, backend=address.backend):
            protocol = self._protocol_factory()
            if address.upgrade is None:
                await address.dialer.connect(lambda: protocol)
            else:
                (await address.switched("/grpc", {})).hand_over(protocol)
        return protocol

    async def call(self, method: Method[Request, Answer], request: Request) -> Answer:
        """One request, one answer, however long it takes; cancelled, the daemon is told so.

        Raises:
            GRPCError: the daemon's own status.
            BackendUnavailableError: nobody listens there.
            ConnectionLostError: the connection broke before the answer.
        """
        async with self.stream(method, Cardinality.UNARY_UNARY) as stream:
            await stream.send_message(request, end=True)
            answer = await stream.recv_message()
        if answer is None:
            raise self._lost(method, "it ended without an answer")
        return answer

    @asynccontextmanager
    async def stream(
        self,
        method: Method[Request, Answer],
        cardinality: Cardinality,
        *,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> AsyncIterator[Stream[Request, Answer]]:
        """A call whose messages the caller sends and receives. Errors are those of :meth:`call`."""
        with self._translated(method):
            async with self.request(
                method.path, cardinality, method.request, method.answer, metadata=metadata
            ) as stream:
                yield stream

    @contextmanager
    def _translated(self, method: Method[Any, Any]) -> Iterator[None]:
        address = self.address
        try:
            with broken_connections(
                lambda error: self._lost(method, error),
                place=f"BuildKit at {address.place}",
                backend=address.backend,
                advice=address.advice,
            ):
                yield
        except GRPCError as error:
            # A daemon that is ended tells its calls so, where it is quick enough.
            if error.status is Status.UNAVAILABLE:
                raise self._lost(method, error.message or "it is unavailable") from error
            raise

    def _lost(self, method: Method[Any, Any], why: object) -> ConnectionLostError:
        name = method.path.rpartition("/")[2]
        message = f"the connection to BuildKit at {self.address.place} broke during {name}: {why}"
        return ConnectionLostError(message, backend=self.address.backend)
