"""One HTTP/1.1 exchange on a connection of its own, its body handed over raw and in bulk.

For the streams of a container runtime: bodies of a million tiny chunks (a log's line each), and hijacked connections
that carry both directions once the response head has arrived. Plain calls belong to an ordinary client.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from asyncctr.core.errors import (
    AsyncctrError,
    ClosedError,
    InvalidConfigError,
    ResourceExhaustedError,
    UnsupportedError,
)
from asyncctr.transport.http1_exchange import (
    BLOCK,
    HEAD_LIMIT,
    TOKEN,
    Exchange,
    MalformedResponseError,
    frame_body,
    lost,
    parse_fields,
)

__all__ = [
    "Connect",
    "HttpStream",
    "MalformedResponseError",
    "PendingStream",
    "RequestFields",
    "encode_request",
    "open_stream",
    "parse_head",
    "start_stream",
]

Connect = Callable[[Callable[[], asyncio.BaseProtocol]], Awaitable[tuple[asyncio.BaseTransport, asyncio.BaseProtocol]]]
"""Opens a connection on the running loop: :meth:`asyncctr.transport.dial.Dialer.connect`."""

RequestFields = Mapping[str, str | tuple[str, ...]]
"""A request's fields; several values are lines of their own."""

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OWN_FIELDS = frozenset({"Host", "Connection", "Content-Length"})
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: .*)?")
_BAD_VALUE = re.compile(r"[\r\n\0]")
_TARGET = re.compile(r"/[!-~]*")


class HttpStream:
    """The handle of one exchange: the response's head, and both directions of its connection.

    The connection is released by :meth:`close`, by dropping the handle, and by the end of a body that marks its own end
    (:attr:`delimited`); one that does not can be sent to after it. One task may receive while others send.

    Attributes:
        status: the response's status code.
        headers: its fields, names in lower case; repeated fields are joined by ``", "``.
    """

    __slots__ = ("__weakref__", "_exchange", "headers", "status")

    def __init__(self, exchange: Exchange, status: int, headers: Mapping[str, str]) -> None:
        self._exchange = exchange
        self.status = status
        self.headers = headers

    def __repr__(self) -> str:
        return f"<HttpStream {self.status}{' closed' if self._exchange.closed else ''}>"

    @property
    def delimited(self) -> bool:
        """Whether the body marks its own end. If not, its ``b""`` may as well be a connection cut in the middle."""
        return self._exchange.delimited

    @property
    def upgraded(self) -> bool:
        """Whether the peer switched protocols (101)."""
        return self.status == 101

    async def receive(self) -> bytes:
        """The next bytes of the body: all that is there, at most about 256 KiB; ``b""`` at its end, again and again.

        Cancelling loses nothing: the next call goes on where this one would have.

        Raises:
            ConnectionLostError: the peer closed before the body's end, or reset the connection.
            MalformedResponseError: the body is not framed as RFC 9112 section 7.1 says.
            ClosedError: the stream was closed on this side.
        """
        exchange = self._exchange
        while True:
            if exchange.closed:
                raise ClosedError("receive on a closed stream")
            if exchange.pieces and not exchange.done:
                try:
                    data = exchange.mode(exchange, exchange.take())
                except MalformedResponseError:
                    self.close()
                    raise
                if data:
                    return data
                continue
            if exchange.done:
                return b""
            if exchange.eof:
                exchange.end_of_file()
                return b""
            await exchange.readable()

    async def receive_all(self, limit: int) -> bytes:
        """The rest of the body, at most ``limit`` bytes.

        Raises:
            ResourceExhaustedError: the body is longer; the stream is closed.
            ConnectionLostError, ClosedError: as :meth:`receive`.
        """
        parts: list[bytes] = []
        size = 0
        while data := await self.receive():
            size += len(data)
            if size > limit:
                self.close()
                raise ResourceExhaustedError(f"the response is longer than the {limit} bytes allowed for it")
            parts.append(data)
        return b"".join(parts)

    async def send(self, data: bytes | bytearray) -> None:
        """Send to a hijacked connection; returns when the transport's buffer has room again.

        When cancelled, an unknown part of ``data`` has been or will still be sent.

        Raises:
            ConnectionLostError: the peer is gone. What it sent before can still be received.
            ClosedError: the stream was closed, or its sending side ended, on this side.
        """
        exchange = self._exchange
        exchange.check_sending()
        if len(data) <= BLOCK:
            if data:
                exchange.transport.write(bytes(data))
                await exchange.drain()
            return
        with memoryview(data) as view, view.cast("B") as octets:
            for start in range(0, len(octets), BLOCK):
                exchange.check_sending()
                # A copy: transports may keep what they are given, and the caller may change its buffer.
                exchange.transport.write(bytes(octets[start : start + BLOCK]))
                await exchange.drain()

    async def send_eof(self) -> None:
        """End the sending side (a half-close); the body can still be received. A second call does nothing.

        Returns when all that was sent is the kernel's, so that closing the stream then loses none of it.

        Raises:
            UnsupportedError: the transport cannot half-close (TLS in asyncio).
            ConnectionLostError, ClosedError: as :meth:`send`.
        """
        exchange = self._exchange
        if exchange.ended:
            return
        exchange.check_sending()
        if not exchange.transport.can_write_eof():
            raise UnsupportedError(
                "end of input cannot be sent over TLS: asyncio has no half-close there; "
                "connect by a unix socket or ssh instead",
                field="stdin",
            )
        exchange.ended = True
        # From now on a drain waits for the last byte: whoever ends the sending side may close the stream next.
        exchange.transport.set_write_buffer_limits(high=0)
        exchange.transport.write_eof()
        await exchange.drain()

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Give the connection that the peer has switched to another protocol, and what of it has arrived, to that protocol.

        It is that protocol's to close, and this handle is closed.

        Raises:
            ConnectionLostError: the peer is gone.
            ClosedError: the stream was closed on this side.
        """
        exchange = self._exchange
        exchange.check_sending()
        received, transport = b"".join(exchange.pieces), exchange.transport
        exchange.closed = True
        exchange.pieces.clear()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if received:
            protocol.data_received(received)
        if exchange.paused:
            transport.resume_reading()

    def close(self) -> None:
        """Abort the connection, at once, from the loop's own thread. Idempotent."""
        exchange = self._exchange
        if not exchange.closed:
            exchange.closed = True
            exchange.drop()

    async def aclose(self) -> None:
        """:meth:`close`, and wait until the socket is closed."""
        self.close()
        await self._exchange.gone()

    def __del__(self) -> None:
        _drop_from_any_thread(self._exchange)


def _drop_from_any_thread(exchange: Exchange) -> None:
    if exchange.closed or exchange.lost:
        return
    exchange.closed = True
    # Through the loop: the collector may run in any thread, and asyncio's transports are not thread-safe.
    with contextlib.suppress(RuntimeError):  # the loop is closed, and its transports with it
        exchange.loop.call_soon_threadsafe(exchange.drop)


# -- the request and the response's head


async def open_stream(
    connect: Connect,
    method: str,
    target: str,
    *,
    headers: RequestFields,
    body: bytes = b"",
    upgrade: str | None = None,
    host: str = "docker",
) -> HttpStream:
    """Send one request on a new connection, and return when the response's head has arrived, whatever its status.

    Interim (1xx) responses are skipped. There is no time limit here: put ``asyncio.timeout`` around the call.

    Args:
        connect: opens the connection.
        method: any but HEAD and CONNECT, whose responses are framed differently.
        target: the path and query, percent-encoded.
        headers: further fields; those that frame the message and ``Host`` are written here and refused in it.
        body: the request's content, held in memory until it is sent.
        upgrade: the protocol to ask for, such as ``"tcp"``; the peer may still answer otherwise: see ``status``.
        host: the ``Host`` field.

    Raises:
        InvalidConfigError: the request cannot be written as HTTP.
        OSError, BackendUnavailableError: what ``connect`` raises.
        BackendUnavailableError: the connection's carrier (ssh) failed before the peer could answer.
        ConnectionLostError: the peer closed before the head was complete.
        MalformedResponseError: the peer does not speak HTTP/1.1, or uses a transfer coding other than chunked.
    """
    pending = await start_stream(connect, method, target, headers=headers, body=body, upgrade=upgrade, host=host)
    return await pending.response()


async def start_stream(
    connect: Connect,
    method: str,
    target: str,
    *,
    headers: RequestFields,
    body: bytes = b"",
    upgrade: str | None = None,
    host: str = "docker",
) -> PendingStream:
    """The first half of :func:`open_stream`: return when the request was sent, so that several can be under way at once."""
    request = encode_request(method, target, headers, body, upgrade, host)
    loop = asyncio.get_running_loop()
    _, protocol = await connect(lambda: Exchange(loop))
    exchange = cast("Exchange", protocol)
    exchange.transport.write(request)
    return PendingStream(exchange, upgrade is not None)


class PendingStream:
    """A request that was sent, and whose response has not been looked at."""

    __slots__ = ("_exchange", "_expired", "_taken", "_upgrade")

    def __init__(self, exchange: Exchange, upgrade: bool) -> None:
        self._exchange = exchange
        self._upgrade = upgrade
        self._expired = False
        self._taken = False

    def close(self) -> None:
        """Abort the connection."""
        if not self._exchange.closed:
            self._exchange.closed = True
            self._exchange.drop()

    def _expire(self) -> None:
        self._expired = True
        self.close()

    async def response(self, *, timeout: float | None = None) -> HttpStream:  # noqa: ASYNC109  # cheaper than a scope
        """The stream, once the response's head has arrived. Failed or cancelled, the connection is closed.

        Raises:
            TimeoutError: there was no head within ``timeout`` seconds.
            ConnectionLostError, MalformedResponseError: as :func:`open_stream`.
        """
        exchange = self._exchange
        timer = None if timeout is None else exchange.loop.call_later(timeout, self._expire)
        try:
            status, fields = await _head(exchange, self._upgrade)
        except BaseException:  # a cancellation, too, must not leave the connection open
            self.close()
            if self._expired:
                raise TimeoutError from None
            raise
        finally:
            if timer is not None:
                timer.cancel()
        self._taken = True
        return HttpStream(exchange, status, fields)

    def __del__(self) -> None:
        # Dropped without its response: as HttpStream.
        if not self._taken:
            _drop_from_any_thread(self._exchange)


def encode_request(
    method: str,
    target: str,
    headers: RequestFields,
    body: bytes,
    upgrade: str | None,
    host: str,
    *,
    keep: bool = False,
) -> bytes:
    """The request as it goes over the wire; ``keep`` asks for the connection to stay open afterwards."""
    if method not in _METHODS:
        raise InvalidConfigError(f"the method {method!r} cannot be used here", field="method")
    if not _TARGET.fullmatch(target):
        raise InvalidConfigError(f"the target {target!r} is not a percent-encoded path", field="target")
    if not host.isascii() or _BAD_VALUE.search(host):
        raise InvalidConfigError(f"the host {host!r} cannot be written in an HTTP message", field="host")
    fields: dict[str, str | tuple[str, ...]] = {"Host": host}
    if upgrade is None:
        if not keep:
            fields["Connection"] = "close"
    else:
        fields["Connection"] = "Upgrade"
        fields["Upgrade"] = upgrade
    if body or method in ("POST", "PUT", "PATCH"):
        fields["Content-Length"] = str(len(body))
    for name in headers:
        if name.lower() in ("host", "connection", "upgrade", "content-length", "transfer-encoding"):
            raise InvalidConfigError(f"the field {name} is written by open_stream itself", field="headers")
    fields.update(headers)
    lines = [f"{method} {target} HTTP/1.1"]
    for name, values in fields.items():
        if name in _OWN_FIELDS:
            lines.append(f"{name}: {values}")
            continue
        lines += _field_lines(name, (values,) if isinstance(values, str) else values)
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _field_lines(name: str, values: tuple[str, ...]) -> list[str]:
    for value in values:
        # The value may be a credential: name the field only.
        if not TOKEN.fullmatch(name) or not value.isascii() or _BAD_VALUE.search(value):
            raise InvalidConfigError(f"the field {name!r} cannot be written in an HTTP message", field="headers")
    return [f"{name}: {value}" for value in values]


async def _head(exchange: Exchange, upgrade: bool) -> tuple[int, dict[str, str]]:
    data = b""
    total = 0
    while True:
        end = data.find(b"\r\n\r\n")
        if total + (len(data) if end < 0 else end) > HEAD_LIMIT:
            msg = f"the response's head is longer than {HEAD_LIMIT} bytes"
            raise MalformedResponseError(msg)
        if not data.startswith(b"HTTP/1.") and not b"HTTP/1.".startswith(data):
            raise MalformedResponseError(
                f"the peer answered {data[:40]!r}, which is not HTTP; is something else listening there, or TLS?"
            )
        if end >= 0:
            status, fields, minor = parse_head(data[:end])
            total += end + 4
            data = data[end + 4 :]
            if status >= 200 or status == 101:
                break
        elif exchange.pieces:
            data += exchange.take()
        elif exchange.eof or exchange.closed:
            if isinstance(exchange.cause, AsyncctrError):
                raise exchange.cause
            if exchange.broken:
                raise lost("the connection broke before the response", exchange.cause)
            what = "in the middle of the response's head" if data or total else "without an answer"
            raise lost(f"the peer closed the connection {what}", exchange.cause)
        else:
            await exchange.readable()
    if status == 101 and not upgrade:
        msg = "the peer switched protocols (101) without having been asked to"
        raise MalformedResponseError(msg)
    exchange.give_back(data)
    frame_body(exchange, status, fields, minor)
    return status, fields


def parse_head(head: bytes) -> tuple[int, dict[str, str], str]:
    """The status, the fields by lower-case name, and HTTP/1's minor version of a response's head."""
    lines = head.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(lines[0].decode("latin-1"))
    if match is None:
        raise MalformedResponseError(f"the peer sent {lines[0][:80]!r} where an HTTP/1.1 status line belongs")
    return int(match[2]), parse_fields(lines[1:]), match[1]
