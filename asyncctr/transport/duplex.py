"""gRPC calls with messages both ways, such as uploads: a message of a megabyte goes out in one write, and not in one for each frame."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar, cast

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from asyncctr.transport.unary import UnaryConnection

__all__ = ["Duplex"]

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class _Exchange:
    """The call as its connection knows it."""

    def __init__(self) -> None:
        self.window = 0
        self.messages: deque[bytes] = deque()
        self.is_over = False
        self.error: Exception | None = None
        self.changed = asyncio.Event()
        self._buffer = b""

    def received(self, data: bytes) -> None:
        buffer = self._buffer + data
        while len(buffer) >= 5 and len(buffer) >= (end := 5 + int.from_bytes(buffer[1:5], "big")):
            self.messages.append(buffer[5:end])
            buffer = buffer[end:]
        self._buffer = buffer
        self.changed.set()

    def ended(self, error: Exception | None) -> None:
        self.is_over = True
        self.error = error
        self.changed.set()

    def granted(self, size: int) -> None:
        self.window += size
        self.changed.set()

    def wake(self) -> None:
        self.changed.set()


class Duplex(Generic[Request, Answer]):
    """A call that is open. Used by one task.

    Args:
        connection: what it is made on.
        headers: of the call.
        answer: the class of what comes back.

    Raises:
        StreamTerminatedError: the connection broke.
    """

    def __init__(self, connection: UnaryConnection, headers: bytes, answer: type[Answer]) -> None:
        self._connection = connection
        self._answer = cast("type[Message]", answer)
        self._exchange = _Exchange()
        self._stream = connection.open(headers, self._exchange)

    async def send(self, message: Request, *, end: bool = False) -> None:
        """Send a message, as the server takes it; with ``end`` the last one. It may still be on its way when this returns.

        Raises:
            GRPCError: the server has ended the call, with this status.
            StreamTerminatedError: the connection broke, or the server broke the call off.
        """
        data = cast("Message", message).SerializeToString()
        # Not compressed, and so long.
        left = memoryview(b"".join((b"\0", len(data).to_bytes(4, "big"), data)))
        exchange = self._exchange
        while left:
            room = min(self._connection.room, exchange.window)
            if exchange.is_over:
                # Without an error as well: nobody takes it any more, which an answer tells.
                self._raise()
                return
            if room <= 0:
                exchange.changed.clear()
                await exchange.changed.wait()
                continue
            piece, left = left[:room], left[room:]
            exchange.window -= len(piece)
            self._connection.write(self._stream, piece, end=end and not left)

    async def receive(self) -> Answer | None:
        """The next message; ``None`` where the server has ended the call.

        Raises:
            GRPCError: it did so with this status.
            StreamTerminatedError: the connection broke, or the server broke the call off.
        """
        exchange = self._exchange
        while not exchange.messages:
            if exchange.is_over:
                self._raise()
                return None
            exchange.changed.clear()
            await exchange.changed.wait()
        return cast("Answer", self._answer.FromString(exchange.messages.popleft()))

    def _raise(self) -> None:
        if self._exchange.error is not None:
            raise self._exchange.error

    def close(self) -> None:
        """Break it off, unless it has ended."""
        self._connection.cancel(self._stream)
