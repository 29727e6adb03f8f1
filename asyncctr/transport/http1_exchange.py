"""The protocol under an HTTP/1.1 exchange: what arrived, flow control, and the framing of bodies (RFC 9112)."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
from typing import TYPE_CHECKING, Final, cast

from asyncctr.core.errors import ClosedError, ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BLOCK", "HEAD_LIMIT", "TOKEN", "Exchange", "MalformedResponseError", "frame_body", "lost", "parse_fields"]

BLOCK: Final = 256 * 1024
"""The most that one read takes from the socket, and about the most that is decoded at once, in bytes."""
HIGH_WATER: Final = 512 * 1024
"""Reading stops while more than this many received bytes are unread."""
HEAD_LIMIT: Final = 64 * 1024
"""The most bytes of a response head, interim responses included, and of a chunked body's trailer section."""
TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A method's or field's name: RFC 9110 section 5.6.2."""

_LINE_LIMIT: Final = 4096
_SALVAGE_LIMIT: Final = 16 * 1024 * 1024
_CHUNK_LINE = re.compile(rb"\r\n([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?")
_BAD_VALUE = re.compile(r"[\r\n\0]")

# A chunk's size line, with the CRLF that ends the chunk before it, to its size: one lookup checks both, strictly, at a
# third of the cost of int(). Bounded; a line that is not here goes through _chunk_size.
_sizes: dict[bytes, int] = {}
_SIZES_LIMIT: Final = 4096

_local = threading.local()


class MalformedResponseError(ConnectionLostError):
    """What the peer sent is not HTTP/1.1. The rest of the stream cannot be told, so it counts as lost."""


class Exchange(asyncio.BufferedProtocol):
    """The protocol behind a stream. It does not know its handle, so that dropping the handle is noticed."""

    __slots__ = (
        "broken", "cause", "closed", "done", "ended", "eof", "keep", "left", "loop", "lost", "mode", "paused", "pieces", "rest",
        "scratch", "transport", "unread", "waiter", "waiters", "write_paused",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        # One for all streams of a thread: it is filled and emptied within one callback of the loop.
        scratch: memoryview | None = getattr(_local, "scratch", None)
        if scratch is None:
            scratch = _local.scratch = memoryview(bytearray(BLOCK))
        self.scratch = scratch
        self.pieces: list[bytes] = []  # received, not yet taken
        self.unread = 0  # the bytes in pieces
        self.rest = b""  # chunked: the start of a size line or trailer section, taken but not yet whole
        self.left = 0  # what is left of the body (by length) or of the current chunk (chunked), in bytes
        self.mode: Callable[[Exchange, bytes], bytes] = _to_close
        self.waiter: asyncio.Future[None] | None = None  # the receiver
        self.waiters: list[asyncio.Future[None]] | None = None  # the senders, and who waits for the loss
        self.cause: Exception | None = None  # why the connection broke, in either direction
        self.broken = False  # it broke while more might have come
        self.keep = False  # the connection is used again after this exchange
        self.paused = False  # reading
        self.write_paused = False
        self.eof = False  # nothing more will arrive
        self.done = False  # the body's end has been reached
        self.ended = False  # our sending side was ended
        self.closed = False  # by this side
        self.lost = False  # connection_lost was called

    # -- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # one size fits all
        """Where the transport puts what it reads."""
        return self.scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read; stop reading when too much is unread."""
        if self.closed or (self.done and not self.keep):
            return
        self.pieces.append(bytes(self.scratch[:nbytes]))
        self.unread += nbytes
        if self.unread > HIGH_WATER and not self.paused:
            self.paused = True
            self.transport.pause_reading()
        if self.waiter is not None:
            self.wake()

    def eof_received(self) -> bool:
        """Note that the peer has ended its side; keep ours open where there may be more to send."""
        self.eof = True
        self.wake()
        # A hijacked connection may still be sent to; asyncio's TLS cannot keep it.
        return self.mode is _to_close and not self.done and not self.is_tls()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note why the connection is over, save what can still be read, and wake everybody."""
        self.cause = exc
        if exc is not None and not self.eof and not self.closed and not self.done:
            ended = self.salvage()
            # Only a send breaks a pipe; a reset may have been met by the read, which then sees an end of file next.
            self.broken = not (ended and isinstance(exc, BrokenPipeError))
        self.lost = self.eof = True
        self.wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """It has room again, or never will."""
        self.write_paused = False
        waiters, self.waiters = self.waiters, None
        for future in waiters or ():
            if not future.done():
                future.set_result(None)

    # -- what the stream calls

    @property
    def delimited(self) -> bool:
        """Whether the body marks its own end."""
        return self.mode is not _to_close

    def is_tls(self) -> bool:
        """Whether the connection is encrypted, and so cannot be half-closed."""
        return self.transport.get_extra_info("sslcontext") is not None

    def wake(self) -> None:
        """Let the receiver look again."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def readable(self) -> None:
        """Until something arrived or the connection ended."""
        if self.waiter is not None:
            msg = "two tasks receive from one stream"
            raise RuntimeError(msg)
        self.waiter = waiter = self.loop.create_future()
        try:
            await waiter
        finally:
            if self.waiter is waiter:
                self.waiter = None

    def take(self) -> bytes:
        """Received bytes, about a block of them; reading goes on once few are left."""
        pieces = self.pieces
        size = count = 0
        for piece in pieces:
            if size and size + len(piece) > BLOCK:
                break
            size += len(piece)
            count += 1
        data = pieces[0] if count == 1 else b"".join(pieces[:count])
        del pieces[:count]
        self.unread -= size
        if self.paused and self.unread <= BLOCK:
            self.paused = False
            if not self.eof and not self.transport.is_closing():
                self.transport.resume_reading()
        return data

    def give_back(self, data: bytes) -> None:
        """Put bytes that were taken in front again."""
        if data:
            self.pieces.insert(0, data)
            self.unread += len(data)

    def check_sending(self) -> None:
        """Raise if nothing can be sent: ``ClosedError``, ``ConnectionLostError``."""
        if self.closed:
            msg = "send on a closed stream"
            raise ClosedError(msg)
        if self.ended:
            msg = "send after the end of input"
            raise ClosedError(msg)
        if self.lost or self.transport.is_closing():
            raise lost("the peer has closed the connection", self.cause)

    async def drain(self) -> None:
        """Until the transport's buffer has room."""
        while self.write_paused and not self.lost:
            await self.notified()
        if self.closed:
            msg = "the stream was closed while it was being sent to"
            raise ClosedError(msg)
        if self.lost:
            raise lost("the connection broke while it was being sent to", self.cause)

    async def notified(self) -> None:
        """Until the transport's buffer has room, or the connection is lost."""
        future = self.loop.create_future()
        if self.waiters is None:
            self.waiters = []
        self.waiters.append(future)
        await future

    async def gone(self) -> None:
        """Until the socket is closed."""
        while not self.lost:
            await self.notified()

    def finish(self) -> None:
        """The body is complete: nothing else can come on this connection, unless it is kept."""
        self.done = True
        if not self.keep:
            self.drop()

    def by_length(self, size: int) -> None:
        """The body has this many bytes."""
        self.mode = _by_length
        self.left = size
        if not size:
            self.finish()

    def reset(self) -> None:
        """Make ready for the next answer on a connection that was kept."""
        self.done = False
        self.mode = _to_close
        self.left = 0

    def drop(self) -> None:
        """Abort the transport and free what was received."""
        self.pieces.clear()
        self.unread = 0
        self.rest = b""
        if not self.lost:
            self.transport.abort()
        self.wake()

    def end_of_file(self) -> None:
        """All that was received is taken and no more will come: fine only where that is what ends the body."""
        if self.broken:
            raise lost("the connection broke in the middle of the response", self.cause)
        if self.mode is not _to_close:
            self.drop()
            raise lost("the peer closed the connection in the middle of its response", None)
        self.done = True

    def salvage(self) -> bool:
        """After a send has failed: take what the kernel still holds. Whether it ends with the end of the peer's side.

        asyncio closes the whole connection when a send fails, as it does when a program ends before it has read all of
        its input; what that program printed last is then still in the receive buffer.
        """
        sock = self.transport.get_extra_info("socket")
        if sock is None or self.is_tls():
            return False
        try:
            with socket.socket(fileno=os.dup(sock.fileno())) as copy:
                copy.setblocking(False)
                while self.unread < _SALVAGE_LIMIT:
                    data = copy.recv(BLOCK)
                    if not data:
                        return True
                    self.pieces.append(data)
                    self.unread += len(data)
        except OSError:
            # BlockingIOError: that was all. ConnectionResetError: all, too, and the peer left input of ours unread.
            return False
        return False


def lost(message: str, cause: Exception | None) -> ConnectionLostError:
    """The error for a connection that ended early; the caller raises it."""
    error = ConnectionLostError(f"{message}: {cause}" if cause else message)
    error.__cause__ = cause
    return error


# -- body framing: each takes received bytes and gives body bytes


def _to_close(exchange: Exchange, data: bytes) -> bytes:  # noqa: ARG001  # one of three that are called alike
    return data


def _by_length(exchange: Exchange, data: bytes) -> bytes:
    left = exchange.left = exchange.left - len(data)
    if left <= 0:
        if left < 0:
            exchange.keep = False
        exchange.finish()
        if left < 0:
            return data[:left]
    return data


def _chunked(exchange: Exchange, buf: bytes) -> bytes:
    """The data of every chunk that is wholly or partly in ``buf``, joined (RFC 9112 section 7.1).

    What is taken begins within a chunk (``left`` bytes to go) or with the CRLF before a size line; the body's first
    size line is lent one. All that happens once per chunk is in the loop below.
    """
    if exchange.rest:
        buf = exchange.rest + buf
        exchange.rest = b""
    size = len(buf)
    pos = exchange.left
    if pos >= size:
        exchange.left = pos - size
        return buf
    exchange.left = 0
    parts = [buf[:pos]] if pos else []
    append = parts.append
    find = buf.find
    sizes = _sizes.get
    while True:
        line = find(b"\r\n", pos + 2)
        if line < 0:
            exchange.rest = rest = buf[pos:]
            if len(rest) > _LINE_LIMIT or not b"\r\n".startswith(rest[:2]):
                raise _bad_chunk(rest)
            break
        key = buf[pos:line]
        chunk = sizes(key) or _chunk_size(key)
        if not chunk:
            if _trailer_section(buf, line):
                exchange.finish()
            else:
                exchange.rest = buf[pos:]
            break
        line += 2
        pos = line + chunk
        if pos > size:
            append(buf[line:])
            exchange.left = pos - size
            break
        append(buf[line:pos])
    return b"".join(parts)


def _chunk_size(line: bytes) -> int:
    match = _CHUNK_LINE.fullmatch(line)
    if match is None or len(line) > _LINE_LIMIT:
        raise _bad_chunk(line)
    size = int(match[1], 16)
    if size and len(line) <= 8 and len(_sizes) < _SIZES_LIMIT:
        _sizes[line] = size
    return size


def _bad_chunk(line: bytes) -> MalformedResponseError:
    return MalformedResponseError(f"where a chunk's end and the next one's size belong, the peer sent {line[:40]!r}")


def _trailer_section(buf: bytes, start: int) -> bool:
    """Whether the trailer section is whole. It starts where the last size line ends; its fields are dropped."""
    end = buf.find(b"\r\n\r\n", start)
    if (len(buf) if end < 0 else end) - start > HEAD_LIMIT:
        msg = f"the trailer section is longer than {HEAD_LIMIT} bytes"
        raise MalformedResponseError(msg)
    if end > start:
        parse_fields(buf[start + 2 : end].split(b"\r\n"))
    return end >= 0


def parse_fields(lines: list[bytes]) -> dict[str, str]:
    """Header or trailer fields by their lower-case names, repeated ones joined (RFC 9110 section 5)."""
    fields: dict[str, str] = {}
    for line in lines:
        text = line.decode("utf-8", "surrogateescape")
        name, colon, value = text.partition(":")
        if not colon or not TOKEN.fullmatch(name) or _BAD_VALUE.search(value):
            raise MalformedResponseError(f"the response has a malformed field that begins with {name[:40]!r}")
        name = name.lower()
        value = value.strip(" \t")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def frame_body(exchange: Exchange, status: int, fields: dict[str, str], minor: str) -> None:
    """How the body ends: RFC 9112 section 6.3, for responses."""
    if status in (204, 304):
        exchange.finish()
        return
    if status == 101:
        return
    coding = fields.get("transfer-encoding", "").lower()
    if coding == "chunked" and minor == "1":
        # It overrides a Content-Length. With one exchange per connection there is no next message to be smuggled.
        exchange.mode = _chunked
        exchange.rest = b"\r\n"
    elif coding:
        raise MalformedResponseError(f"HTTP/1.{minor} response with the transfer coding {coding[:40]!r}")
    elif "content-length" in fields:
        lengths = {length.strip() for length in fields["content-length"].split(",")}
        length = lengths.pop()
        if lengths or not re.fullmatch("[0-9]{1,18}", length):
            raise MalformedResponseError(f"the response's Content-Length is {fields['content-length'][:40]!r}")
        exchange.by_length(int(length))
