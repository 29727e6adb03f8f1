"""Calls to a gRPC server on a unix socket: deadlines, and what went wrong told apart."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

import attrs
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    ClosedError,
    ConnectionLostError,
)
from asyncctr.transport.deadline import Deadline
from asyncctr.transport.dial import UnixDialer
from asyncctr.transport.duplex import Duplex
from asyncctr.transport.unary import UnaryCalls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from google.protobuf.message import Message
    from grpclib.protocol import H2Protocol

    from asyncctr.transport.protobuf import Schema

__all__ = ["GrpcClient", "Method", "broken_connections"]

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@attrs.frozen
class Method(Generic[Request, Answer]):
    """A method of a service: its path, and the classes of its messages."""

    path: str
    request: type[Request]
    answer: type[Answer]

    @classmethod
    def of(cls, path: str, schema: Schema, request: str, answer: str) -> Self:
        """A method whose messages are of a schema, by their full names."""
        return cls(path, cast("type[Request]", schema.message(request)), cast("type[Answer]", schema.message(answer)))


@contextmanager
def broken_connections(
    lost: Callable[[Exception], AsyncctrError], *, place: str, backend: str, resource: str = "", advice: str = ""
) -> Iterator[None]:
    """What goes wrong with the connection of a call, as errors of the tree; the server's own status is left as it is.

    Args:
        lost: the error for a connection that was there.
        place: who is called, and where, for the error of one that never was.
        backend: for that error.
        resource: likewise.
        advice: what to do about it, a sentence; likewise.
    """
    try:
        yield
    except (StreamTerminatedError, ProtocolError, ConnectionResetError, BrokenPipeError) as error:
        raise lost(error) from error
    except RuntimeError as error:
        # uvloop's, of a transport that was closed under the stream.
        if "closed" not in str(error):
            raise
        raise lost(error) from error
    except OSError as error:
        if isinstance(error, TimeoutError) and error.errno is None:
            raise
        message = f"cannot reach {place}: {error.strerror or error}"
        if advice:
            message = f"{message}. {advice}"
        raise BackendUnavailableError(message, backend=backend, resource=resource, status=error.errno) from error


class _Channel(Channel):
    """A channel whose connections are dialed as all others here are: a full queue of the listener is waited for."""

    def __init__(self, dialer: UnixDialer) -> None:
        # A codec of one's own keeps error details out, which other packages' schemas would be needed for.
        super().__init__(path=dialer.path, codec=ProtoCodec())
        self._dialer = dialer

    async def _create_connection(self) -> H2Protocol:
        _, protocol = await self._dialer.connect(self._protocol_factory)
        return cast("H2Protocol", protocol)


class GrpcClient:
    """Calls on connections that are made when they are needed, and made again when they were lost: one for short calls, one
    for uploads, one for other streams.

    Args:
        socket: the path of the server's unix socket.
        backend: the type of the backend, for errors.
        translate: the error for a status and message of the server; called with the call's ``resource`` and ``kind``.
        op_timeout: seconds that an answer may take.
        metadata: sent with every call.

    Attributes:
        socket: as given.
        op_timeout: as given.
        metadata: as given.
        ready: awaited before each call, to see to it that there is a server; ``None`` for nothing.
    """

    def __init__(
        self,
        socket: str,
        *,
        backend: str,
        translate: Callable[[GRPCError, str, str], AsyncctrError],
        op_timeout: float,
        metadata: Mapping[str, str],
    ) -> None:
        self.socket = socket
        self.op_timeout = op_timeout
        self._backend = backend
        self._translate = translate
        self.metadata = dict(metadata)
        self.ready: Callable[[], Awaitable[None]] | None = None
        self._channel = _Channel(UnixDialer(socket))
        # Which says, too, whether it is closed: to copies that have other metadata as well.
        self._unary = UnaryCalls(UnixDialer(socket))
        # What fills a connection's window is not to hold the short calls up.
        self._bulk = UnaryCalls(UnixDialer(socket), bulk=True)

    def close(self) -> None:
        """Close the connection; calls under way raise ``ClosedError`` or ``ConnectionLostError``."""
        self._unary.close()
        self._bulk.close()
        self._channel.close()

    def check_open(self, resource: str = "") -> None:
        """Raise ``ClosedError`` once it is closed."""
        if self._unary.closed:
            raise ClosedError(f"the connection to {self._backend} is closed", backend=self._backend, resource=resource)

    async def call(
        self,
        method: Method[Request, Answer],
        request: Request,
        *,
        resource: str = "",
        kind: str = "",
        timeout: float | None = 0.0,  # noqa: ASYNC109  # the error tells the seconds
    ) -> Answer:
        """One request, one answer.

        Args:
            method: of a service.
            request: its message.
            resource: what it is about, for errors.
            kind: what that is (``container``, ``image``, …), which tells what "not found" means.
            timeout: seconds; 0 for ``op_timeout``, ``None`` for ever.

        Raises:
            BackendUnavailableError: nobody listens on the socket.
            ConnectionLostError: the connection broke before the answer.
            OperationTimeoutError: no answer in time.
            AsyncctrError: what the server's status means.
        """
        seconds = self.op_timeout if timeout == 0.0 else timeout
        data = cast("Message", request).SerializeToString()
        async with self.deadline(method, seconds, resource=resource):
            await self._prepare(resource)
            with self._translated(method, resource, kind):
                connection = await self._unary.connection()
                if connection.fits(len(data)):
                    found = await connection.call(self._unary.headers(method.path, self.metadata), data)
                    answer = None if found is None else cast("type[Message]", method.answer).FromString(found)
                else:
                    answer = await self._call_slowly(method, request)
        if answer is None:
            message = f"{self._backend} ended {_short(method)} without an answer"
            raise ConnectionLostError(message, backend=self._backend, resource=resource)
        return cast("Answer", answer)

    async def _call_slowly(self, method: Method[Request, Answer], request: Request) -> Any:
        """A large one, piece by piece as the server takes it."""
        async with self._channel.request(
            method.path, Cardinality.UNARY_UNARY, method.request, method.answer, metadata=self.metadata
        ) as stream:
            await stream.send_message(request, end=True)
            return await stream.recv_message()

    async def _prepare(self, resource: str) -> None:
        self.check_open(resource)
        if self.ready is not None:
            await self.ready()

    def deadline(self, method: Method[Any, Any], seconds: float | None, *, resource: str = "") -> Deadline:
        """For an answer of a method."""
        message = f"{self._backend} did not answer {_short(method)}"
        return Deadline(seconds, message, backend=self._backend, resource=resource)

    @asynccontextmanager
    async def stream(
        self, method: Method[Request, Answer], cardinality: Cardinality, *, resource: str = "", kind: str = ""
    ) -> AsyncIterator[Stream[Request, Answer]]:
        """A call whose messages the caller sends and receives; no deadline. Errors are those of :meth:`call`."""
        await self._prepare(resource)
        # The status of a stream that broke off is known only when it is left.
        with self._translated(method, resource, kind):
            async with self._channel.request(
                method.path, cardinality, method.request, method.answer, metadata=self.metadata
            ) as stream:
                yield stream

    @asynccontextmanager
    async def duplex(
        self, method: Method[Request, Answer], *, resource: str = "", kind: str = ""
    ) -> AsyncIterator[Duplex[Request, Answer]]:
        """Likewise, for much that is sent: with less work for each byte."""
        await self._prepare(resource)
        with self._translated(method, resource, kind):
            connection = await self._bulk.connection()
            call = Duplex[Request, Answer](connection, self._bulk.headers(method.path, self.metadata), method.answer)
            try:
                yield call
            finally:
                call.close()

    @contextmanager
    def _translated(self, method: Method[Any, Any], resource: str, kind: str) -> Iterator[None]:
        """What goes wrong in a call, as errors of the tree."""
        try:
            with broken_connections(
                lambda error: self._lost(method, error, resource),
                place=f"{self._backend} at {self.socket}",
                backend=self._backend,
                resource=resource,
            ):
                yield
        except GRPCError as error:
            raise self._translate(error, resource, kind) from error

    def _lost(self, method: Method[Any, Any], error: Exception, resource: str) -> AsyncctrError:
        if self._unary.closed:
            message = f"the connection to {self._backend} was closed during {_short(method)}"
            return ClosedError(message, backend=self._backend, resource=resource)
        message = f"the connection to {self._backend} at {self.socket} broke during {_short(method)}: {error}"
        return ConnectionLostError(message, backend=self._backend, resource=resource)


def _short(method: Method[Any, Any]) -> str:
    service, _, name = method.path[1:].partition("/")
    return f"{service.rpartition('.')[2]}.{name}"
