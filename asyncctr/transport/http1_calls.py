"""Short HTTP/1.1 calls on kept connections: one request, one answer in memory, as few turns of the loop as can be.

A run of a short container is half a dozen of these, so what one costs is most of what the client costs.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from asyncctr.core.errors import AsyncctrError, ClosedError, ResourceExhaustedError
from asyncctr.transport.http1 import encode_request, parse_head
from asyncctr.transport.http1_exchange import HEAD_LIMIT, Exchange, MalformedResponseError, frame_body, lost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncctr.transport.http1 import Connect

__all__ = ["Call", "CallPool"]

_IDLE_LIMIT = 32
"""Connections kept while nothing is asked."""

_STATUS = b"HTTP/1.1 "
# Answers that have no body, whatever their fields say: RFC 9112 section 6.3.
_EMPTY = (b"HTTP/1.1 204 ", b"HTTP/1.1 304 ")


class Call:
    """A request that was sent. Its answer can be awaited again by somebody else when the first to wait is cancelled."""

    __slots__ = ("_data", "_exchange", "_pool", "expired")

    def __init__(self, pool: CallPool, exchange: Exchange) -> None:
        self._pool = pool
        self._exchange = exchange
        self._data = b""
        self.expired = False

    def close(self) -> None:
        """Give the answer up, and the connection with it."""
        exchange = self._exchange
        if not exchange.closed:
            exchange.closed = True
            exchange.drop()

    def _expire(self) -> None:
        self.expired = True
        self.close()

    async def answer(self, *, timeout: float, limit: int) -> tuple[int, bytes]:  # noqa: ASYNC109  # cheaper than a scope per call
        """The status and the whole body.

        Args:
            timeout: seconds; then the connection is closed and ``TimeoutError`` raised.
            limit: the most bytes the body may have.

        Raises:
            TimeoutError: there was no whole answer in time.
            ConnectionLostError: the peer closed before it was whole.
            ResourceExhaustedError: the body is longer than ``limit``.
        """
        exchange = self._exchange
        timer = exchange.loop.call_later(timeout, self._expire)
        try:
            status = await self._head()
            body = await self._body(limit)
        except asyncio.CancelledError:
            # The answer is still coming: whoever undoes the call may want it.
            raise
        except BaseException:
            self.close()
            if self.expired:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()
        self._pool.take_back(exchange)
        return status, body

    async def _head(self) -> int:
        exchange = self._exchange
        data = self._data
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > HEAD_LIMIT:
                raise MalformedResponseError(f"the response's head is longer than {HEAD_LIMIT} bytes")
            if not exchange.pieces:
                if exchange.eof or exchange.closed:
                    if isinstance(exchange.cause, AsyncctrError):
                        raise exchange.cause
                    raise lost("the peer closed the connection without an answer", exchange.cause)
                await exchange.readable()
                continue
            data = self._data = data + exchange.take()
        head = data[:end]
        self._data = b""
        exchange.give_back(data[end + 4 :])
        low = head.lower()
        if head.startswith(_EMPTY):
            exchange.keep = b"\r\nconnection: close" not in low
            exchange.finish()
            return int(head[9:12])
        # The answers that engines give to short calls; whatever else is framed by the general rules.
        length = low.find(b"\r\ncontent-length: ")
        if head.startswith(_STATUS) and length > 0 and b"\r\ntransfer-encoding" not in low and head[9:10] in b"2345":
            stop = low.find(b"\r\n", length + 18)
            size = low[length + 18 : stop if stop > 0 else len(low)]
            if size.isdigit() and low.count(b"\r\ncontent-length") == 1:
                exchange.keep = b"\r\nconnection: close" not in low
                exchange.by_length(int(size))
                return int(head[9:12])
        status, fields, minor = parse_head(head)
        if status < 200:
            if status == 101:
                raise MalformedResponseError("the peer switched protocols (101) without having been asked to")
            return await self._head()
        exchange.keep = minor == "1" and "close" not in fields.get("connection", "").lower()
        frame_body(exchange, status, fields, minor)
        return status

    async def _body(self, limit: int) -> bytes:
        exchange = self._exchange
        parts: list[bytes] = []
        size = 0
        while not exchange.done:
            if not exchange.pieces:
                if exchange.eof or exchange.closed:
                    exchange.end_of_file()
                    break
                await exchange.readable()
                continue
            part = exchange.mode(exchange, exchange.take())
            size += len(part)
            if size > limit:
                raise ResourceExhaustedError(f"the response is longer than the {limit} bytes allowed for it")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class CallPool:
    """Connections to one place, kept between calls; as many at once as there are calls.

    Args:
        connect: opens a connection.
        host: the ``Host`` field.
        connect_timeout: seconds that a new connection may take; then ``TimeoutError`` without an errno is raised.
    """

    def __init__(self, connect: Connect, *, host: str, connect_timeout: float) -> None:
        self._connect = connect
        self._connect_timeout = connect_timeout
        self._host = host
        self._idle: list[Exchange] = []
        self._closed = False

    def close(self) -> None:
        """Close the idle connections; those of calls under way are closed when they end."""
        self._closed = True
        for exchange in self._idle:
            exchange.closed = True
            exchange.drop()
        self._idle.clear()

    def take_back(self, exchange: Exchange) -> None:
        """Keep a connection whose answer is whole, unless the peer or we are done with it."""
        healthy = exchange.keep and exchange.done and not exchange.eof and not exchange.unread
        if healthy and not self._closed and len(self._idle) < _IDLE_LIMIT and not exchange.transport.is_closing():
            self._idle.append(exchange)
        elif not exchange.closed:
            exchange.closed = True
            exchange.drop()

    async def send(self, method: str, target: str, *, headers: Mapping[str, str], body: bytes = b"") -> Call:
        """Send a request. Cancelled, it has not been sent.

        Raises:
            ClosedError: the pool is closed.
            TimeoutError: a new connection took too long.
            OSError, BackendUnavailableError: what connecting raises.
        """
        if self._closed:
            raise ClosedError("the connections are closed")
        request = encode_request(method, target, headers, body, None, self._host, keep=True)
        while self._idle:
            exchange = self._idle.pop()
            if exchange.eof or exchange.unread or exchange.transport.is_closing():
                exchange.closed = True
                exchange.drop()
                continue
            exchange.reset()
            exchange.transport.write(request)
            return Call(self, exchange)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_timeout):
            _, protocol = await self._connect(lambda: Exchange(loop))
        exchange = cast("Exchange", protocol)
        exchange.keep = True
        exchange.transport.write(request)
        return Call(self, exchange)
