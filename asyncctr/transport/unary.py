"""gRPC calls on an HTTP/2 connection of their own: what they need of the protocol, and nothing that costs time beside it.

Frames are those of RFC 9113, headers those of RFC 7541 without its dynamic tables, and messages those of gRPC (PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from urllib.parse import unquote

from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from hpack import Decoder, HPACKError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncctr.transport.dial import UnixDialer

__all__ = ["Call", "UnaryCalls", "UnaryConnection", "request_headers"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Length and type, flags, stream (4.1).
_HEAD: Final = struct.Struct(">IBI")
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_ACK = _END_STREAM = 0x1
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20
_CANCEL: Final = struct.pack(">I", 8)
# HEADER_TABLE_SIZE 0: the same headers are the same bytes each time. ENABLE_PUSH 0. INITIAL_WINDOW_SIZE: the most there is.
_OUR_SETTINGS: Final = struct.pack(">HIHIHI", 1, 0, 2, 0, 4, 2**31 - 1)
_MAX_CONCURRENT, _INITIAL_WINDOW = 3, 4
# Before any settings (6.5.2, 6.9.2).
_WINDOW: Final = 65_535
# What every peer takes in one frame (4.2).
_FRAME: Final = 16_384
# Received bytes after which the connection's window is opened again.
_REFILL: Final = 1 << 29
_STREAMS_END: Final = 1 << 31
_KEPT: Final = 256
# Seconds that the answer to a ping may wait. gRPC's servers send one with whatever they get, to learn how much fits on the way, but
# none while another is open: each would wake this side once more.
_PING_PAUSE: Final = 0.1


def _integer(value: int, bits: int) -> bytes:
    """With a prefix of so many bits, whose others are zero (RFC 7541, 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((value,))
    made = bytearray((most,))
    value -= most
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _text(value: str) -> bytes:
    data = value.encode("ascii")
    return _integer(len(data), 7) + data


def request_headers(path: str, metadata: Mapping[str, str]) -> bytes:
    """The header block of a call: literals without indexing (RFC 7541, 6.2.2), so that it can be sent any number of times."""
    # From the static table: ":method: POST", ":scheme: http", and the names ":path", ":authority" and "content-type".
    parts = [b"\x83\x86", _integer(4, 4), _text(path), _integer(1, 4), _text("localhost")]
    parts += [_integer(31, 4), _text("application/grpc"), b"\0", _text("te"), _text("trailers")]
    for name, value in metadata.items():
        parts += [b"\0", _text(name), _text(value)]
    return b"".join(parts)


class Call(Protocol):
    """What the connection tells a call."""

    def received(self, data: bytes) -> None:
        """Some of what the server sends."""

    def ended(self, error: Exception | None) -> None:
        """Nothing more comes: with status 0, or with an error."""

    def granted(self, size: int) -> None:
        """So many bytes more may be sent on its stream, or fewer."""

    def wake(self) -> None:
        """What kept it from sending may be over."""


class _Unary:
    """One message there, one back."""

    __slots__ = ("future", "parts")

    def __init__(self, future: asyncio.Future[bytes | None]) -> None:
        self.future = future
        self.parts: list[bytes] = []

    def received(self, data: bytes) -> None:
        self.parts.append(data)

    def ended(self, error: Exception | None) -> None:
        if self.future.done():
            return
        body = b"".join(self.parts)
        if error is None and body and (body[0] or len(body) - 5 != int.from_bytes(body[1:5], "big")):
            error = GRPCError(Status.INTERNAL, "the answer is not one whole message")
        if error is None:
            self.future.set_result(body[5:] if body else None)
        else:
            self.future.set_exception(error)

    def granted(self, size: int) -> None:
        """Its message was sent whole."""

    def wake(self) -> None:
        """Likewise."""


class UnaryConnection(asyncio.Protocol):
    """One connection.

    Args:
        bulk: it carries much at a time: the server has to learn quickly how much fits on the way.
    """

    def __init__(self, *, bulk: bool = False) -> None:
        self._bulk = bulk
        self._pings: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._calls: dict[int, Call] = {}
        self._next = 1
        self._window = self._stream_window = _WINDOW
        self._most = _STREAMS_END
        self._paused = False
        self._received = 0
        self._decoder = Decoder()
        self._decoder.max_allowed_table_size = 0
        self._decoder.header_table_size = 0
        self._known: dict[bytes, dict[str, str]] = {}
        self._unfinished: tuple[int, int, bytes] | None = None
        self.usable = True
        """Whether further calls may be made."""

    def fits(self, size: int) -> bool:
        """Whether a message of so many bytes can be sent now, in one frame."""
        return (
            size + 5 <= min(_FRAME, self._window, self._stream_window)
            and len(self._calls) < self._most
            and not self._paused
        )

    async def call(self, headers: bytes, message: bytes) -> bytes | None:
        """Send a message that fits, and wait for the answer; ``None`` where the server succeeds without one.

        Raises:
            GRPCError: the server's status.
            StreamTerminatedError: the connection broke, or the server broke the call off.
        """
        if self._transport is None:
            raise StreamTerminatedError("Connection lost")
        call = _Unary(self._loop.create_future())
        stream = self._register(call)
        size = len(message) + 5
        self._window -= size
        self._transport.write(
            b"".join(
                (
                    _HEAD.pack(len(headers) << 8 | _HEADERS, _END_HEADERS, stream),
                    headers,
                    _HEAD.pack(size << 8 | _DATA, _END_STREAM, stream),
                    # Not compressed, and so long.
                    b"\0",
                    len(message).to_bytes(4, "big"),
                    message,
                )
            )
        )
        try:
            return await call.future
        except asyncio.CancelledError:
            self.cancel(stream)
            raise

    def _register(self, call: Call) -> int:
        stream = self._next
        self._next += 2
        self.usable = self.usable and self._next < _STREAMS_END
        self._calls[stream] = call
        return stream

    def open(self, headers: bytes, call: Call) -> int:
        """Begin a call whose messages follow, with :meth:`write`; its stream, to be given to :meth:`cancel` at its end.

        Raises:
            StreamTerminatedError: the connection broke.
        """
        if self._transport is None:
            raise StreamTerminatedError("Connection lost")
        stream = self._register(call)
        call.granted(self._stream_window)
        self._send(_HEADERS, _END_HEADERS, stream, headers)
        return stream

    @property
    def room(self) -> int:
        """How many bytes can be sent now, whatever the stream."""
        return 0 if self._paused else self._window

    def write(self, stream: int, data: memoryview, *, end: bool) -> None:
        """Send what there is room for, in as many frames as it takes, and in one piece."""
        if self._transport is None:
            return
        self._window -= len(data)
        parts: list[bytes | memoryview] = []
        for start in range(0, len(data), _FRAME):
            piece = data[start : start + _FRAME]
            flags = _END_STREAM if end and start + _FRAME >= len(data) else 0
            parts += (_HEAD.pack(len(piece) << 8 | _DATA, flags, stream), piece)
        self._transport.write(b"".join(parts))

    def cancel(self, stream: int) -> None:
        """Break a call off, unless it has ended."""
        if self._calls.pop(stream, None) is not None:
            self._send(_RST_STREAM, 0, stream, _CANCEL)

    def close(self) -> None:
        """Close it; calls under way raise ``StreamTerminatedError``."""
        self.usable = False
        if self._transport is not None:
            # Not only closed: what is still to be written may be more than a server that is stuck ever takes.
            self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :meth:`asyncio.Protocol.connection_made`."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(_PREFACE)
        self._send(_SETTINGS, 0, 0, _OUR_SETTINGS)
        self._send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1 - _WINDOW))

    def connection_lost(self, exc: Exception | None) -> None:
        """See :meth:`asyncio.Protocol.connection_lost`."""
        self.usable = False
        self._transport = None
        self._fail(0, "Connection lost" if exc is None else f"Connection lost: {exc}")

    def pause_writing(self) -> None:
        """See :meth:`asyncio.Protocol.pause_writing`."""
        self._paused = True

    def resume_writing(self) -> None:
        """See :meth:`asyncio.Protocol.resume_writing`."""
        self._paused = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        """See :meth:`asyncio.Protocol.data_received`."""
        buffer = self._buffer + data if self._buffer else data
        at, end = 0, len(buffer)
        try:
            while end - at >= _HEAD.size:
                head, flags, stream = _HEAD.unpack_from(buffer, at)
                stop = at + _HEAD.size + (head >> 8)
                if stop > end:
                    break
                self._frame(head & 0xFF, flags, stream & 0x7FFFFFFF, buffer[at + _HEAD.size : stop])
                at = stop
        except (HPACKError, UnicodeDecodeError, struct.error, IndexError, ValueError) as error:
            self._fail(0, f"Protocol error: {error}")
            self.close()
            return
        self._buffer = buffer[at:]

    # --- frames

    def _grant(self, stream: int, size: int) -> None:
        if stream == 0:
            self._window += size
            self._wake()
        elif (call := self._calls.get(stream)) is not None:
            call.granted(size)

    def _ping(self, payload: bytes) -> None:
        self._pings.append(payload)
        if self._bulk:
            self._answer_pings()
        elif len(self._pings) == 1:
            self._loop.call_later(_PING_PAUSE, self._answer_pings)

    def _answer_pings(self) -> None:
        for payload in self._pings:
            self._send(_PING, _ACK, 0, payload)
        self._pings.clear()

    def _wake(self) -> None:
        for call in self._calls.values():
            call.wake()

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(_HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (_HEADERS, _CONTINUATION):
            self._header_frame(kind, flags, stream, payload)
        elif kind == _DATA:
            self._data(flags, stream, payload)
        elif kind == _PING:
            if not flags & _ACK:
                self._ping(payload)
        elif kind == _WINDOW_UPDATE:
            self._grant(stream, struct.unpack(">I", payload)[0] & 0x7FFFFFFF)
        elif kind == _SETTINGS:
            if not flags & _ACK:
                self._settings(payload)
        elif kind == _RST_STREAM:
            call = self._calls.pop(stream, None)
            if call is not None:
                reason = f"the server broke it off, code {struct.unpack('>I', payload)[0]}"
                call.ended(StreamTerminatedError(reason))
        elif kind == _GOAWAY:
            self.usable = False
            self._fail(struct.unpack_from(">I", payload)[0] & 0x7FFFFFFF, "the server is going away")
            self._close_if_done()

    def _settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _MAX_CONCURRENT:
                self._most = value
            elif name == _INITIAL_WINDOW:
                # Of the streams that are open, too (6.9.2).
                for call in self._calls.values():
                    call.granted(value - self._stream_window)
                self._stream_window = value
        self._send(_SETTINGS, _ACK, 0, b"")

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        self._received += len(payload)
        if self._received >= _REFILL:
            self._send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received))
            self._received = 0
        call = self._calls.get(stream)
        if call is None:
            return
        call.received(payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload)
        if flags & _END_STREAM:
            self._end(stream, {})

    def _header_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _CONTINUATION:
            if self._unfinished is None:
                raise ValueError("a continuation of nothing")
            stream, first, before = self._unfinished
            self._unfinished = None
            payload = before + payload
            ended = first & _END_STREAM
        else:
            ended = flags & _END_STREAM
            if flags & _PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & _PRIORITY:
                payload = payload[5:]
        if not flags & _END_HEADERS:
            self._unfinished = (stream, ended, payload)
            return
        headers = self._decode(payload)
        if ended:
            self._end(stream, headers)
        elif headers.get(":status") != "200":
            self._end(stream, {**headers, "grpc-status": str(Status.UNKNOWN.value), "grpc-message": "this is no gRPC"})

    def _decode(self, block: bytes) -> dict[str, str]:
        headers = self._known.get(block)
        if headers is None:
            headers = {
                str(name): str(value) for name, value in cast("list[tuple[Any, Any]]", self._decoder.decode(block))
            }
            if len(self._known) < _KEPT:
                self._known[block] = headers
        return headers

    def _end(self, stream: int, trailers: Mapping[str, str]) -> None:
        call = self._calls.pop(stream, None)
        if call is None:
            return
        status = trailers.get("grpc-status")
        if status == "0":
            call.ended(None)
        elif status is None:
            call.ended(GRPCError(Status.UNKNOWN, "the answer has no status"))
        else:
            message = unquote(trailers.get("grpc-message", ""))
            call.ended(GRPCError(_status(status), message or None))
        if not self.usable:
            self._close_if_done()

    def _fail(self, last: int, reason: str) -> None:
        """End the calls after the last one that the server answers."""
        for stream in [stream for stream in self._calls if stream > last]:
            self._calls.pop(stream).ended(StreamTerminatedError(reason))

    def _close_if_done(self) -> None:
        if not self._calls and self._transport is not None:
            self._transport.close()


def _status(text: str) -> Status:
    try:
        return Status(int(text))
    except ValueError:
        return Status.UNKNOWN


class UnaryCalls:
    """Calls to one server, on a connection that is made when it is needed, and made again when it was lost.

    Args:
        dialer: of the server.
        bulk: for much at a time.

    Attributes:
        closed: whether :meth:`close` was called.
    """

    def __init__(self, dialer: UnixDialer, *, bulk: bool = False) -> None:
        self.closed = False
        self._dialer = dialer
        self._bulk = bulk
        self._connecting = asyncio.Lock()
        self._connection: UnaryConnection | None = None
        self._headers: dict[tuple[str, tuple[tuple[str, str], ...]], bytes] = {}

    async def connection(self) -> UnaryConnection:
        """The connection.

        Raises:
            OSError: there is no server.
            StreamTerminatedError: it was closed meanwhile.
        """
        found = self._connection
        if found is not None and found.usable:
            return found
        async with self._connecting:
            found = self._connection
            if found is None or not found.usable:
                _, protocol = await self._dialer.connect(lambda: UnaryConnection(bulk=self._bulk))
                found = self._connection = cast("UnaryConnection", protocol)
            if self.closed:
                found.close()
                raise StreamTerminatedError("it was closed")
        return found

    def headers(self, path: str, metadata: Mapping[str, str]) -> bytes:
        """See :func:`request_headers`; kept for the next call."""
        key = (path, tuple(metadata.items()))
        block = self._headers.get(key)
        if block is None:
            while len(self._headers) >= _KEPT:
                del self._headers[next(iter(self._headers))]
            block = self._headers[key] = request_headers(path, metadata)
        return block

    def close(self) -> None:
        """Close the connection, for good."""
        self.closed = True
        if self._connection is not None:
            self._connection.close()
