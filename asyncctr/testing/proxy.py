"""A proxy for unix and TCP sockets that cuts, stalls, corrupts and refuses connections when a test says so."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Address", "BlackHole", "Direction", "FaultProxy"]

Address = str
"""``unix:///path/of/socket`` or ``tcp://host:port``."""

Direction = Literal["up", "down"]
"""``up``: from the client to the target. ``down``: from the target to the client."""

_CHUNK = 65_536
# A unix socket's path has at most 107 bytes (unix(7)).
_LONGEST_BASE = 40


def _parse(address: Address) -> str | tuple[str, int]:
    """The path of a unix socket, or host and port.

    Raises:
        ValueError: the address has another form.
    """
    scheme, separator, rest = address.partition("://")
    if separator and scheme == "unix" and rest.startswith("/"):
        return rest
    host, colon, port = rest.rpartition(":")
    if separator and scheme in {"tcp", "http"} and colon and port.isdecimal():
        return host.strip("[]"), int(port)
    message = f"an address is unix:///path or tcp://host:port, not {address!r}"
    raise ValueError(message)


class _Listener:
    """A listening socket whose address stays the same when it stops listening and starts again."""

    def __init__(self, kind: Literal["unix", "tcp"], name: str) -> None:
        self._kind = kind
        self._name = name
        self._directory: Path | None = None
        self._port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self.opened = 0

    @property
    def address(self) -> Address:
        """Where it listens; known once it has been entered."""
        if self._kind == "tcp":
            return f"tcp://127.0.0.1:{self._port}"
        return f"unix://{self.path}"

    @property
    def path(self) -> Path:
        """The unix socket's path.

        Raises:
            ValueError: it listens on TCP, or was not entered.
        """
        if self._directory is None:
            message = "no unix socket: it listens on TCP, or has not been entered"
            raise ValueError(message)
        return self._directory / f"{self._name}.sock"

    @property
    def port(self) -> int:
        """The loopback TCP port; 0 for a unix socket."""
        return self._port

    @property
    def open(self) -> int:
        """How many clients' connections are open now."""
        return len(self._connections)

    async def _listen(self) -> None:
        if self._kind == "unix":
            # asyncio removes no socket that an earlier listener left.
            self.path.unlink(missing_ok=True)
            if sys.version_info >= (3, 13):
                self._server = await asyncio.start_unix_server(self._accept, path=str(self.path), cleanup_socket=False)
            else:
                self._server = await asyncio.start_unix_server(self._accept, path=str(self.path))
        else:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    def _stop_listening(self) -> None:
        if self._server is not None:
            # The socket's file stays, so that connecting is refused rather than finding nothing.
            self._server.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self._connections.add(writer)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            # Ours, from cut or close: this task is asyncio's, which would log it as an error.
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    def _drop(self) -> None:
        """End all connections at once."""
        for writer in tuple(self._connections):
            _end(writer, reset=True)
        self._connections.clear()

    async def __aenter__(self) -> Self:
        if self._kind == "unix":
            base = tempfile.gettempdir()
            self._directory = Path(
                tempfile.mkdtemp(prefix="asyncctr-proxy-", dir=base if len(base) <= _LONGEST_BASE else "/tmp")  # noqa: S108 - mkdtemp
            )
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop_listening()
        self._drop()
        # Lets the transports' own closing callbacks run, which are queued by now.
        await asyncio.sleep(0)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Close a connection: with FIN after what has been written, or at once with RST (TCP)."""
    transport = writer.transport
    if reset:
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX and not transport.is_closing():
            # Linger on, for zero seconds: close sends RST (socket(7)).
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()


class FaultProxy(_Listener):
    """Passes bytes between clients and a target, until told to do worse. An async context manager; runs on the entering loop.

    Half-closes are passed on. A target that cannot be reached closes the client's connection.

    Args:
        target: the address to connect to for each client; a path alone is a unix socket's.
        listen: the kind of socket to listen on; the target's by default.

    Attributes:
        address: where clients connect.
        opened: how many connections clients have made.
        open: how many of them are open now.
        passed: bytes passed on, by direction.
        cuts: how many times connections were cut, by :meth:`cut` or :meth:`cut_after`.
    """

    def __init__(self, target: Address | os.PathLike[str], *, listen: Literal["unix", "tcp"] | None = None) -> None:
        text = os.fspath(target)
        self._target = _parse(text if "://" in text else f"unix://{text}")
        super().__init__(listen or ("unix" if isinstance(self._target, str) else "tcp"), "proxy")
        self._peers: set[asyncio.StreamWriter] = set()
        self._pairs: set[asyncio.Task[None]] = set()
        self._flow: dict[Direction, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._budget: dict[Direction, tuple[int, bool]] = {}
        self._change: dict[Direction, Callable[[bytes], bytes]] = {}
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}
        self.cuts = 0
        self.resume()

    def cut(self, *, reset: bool = False) -> int:
        """Cut all connections on both sides, now; how many there were. New ones are accepted as before.

        With ``reset``, TCP connections end with RST; unix sockets know none, and just lose what was not yet read.
        """
        self.cuts += 1
        number = self.open
        current = asyncio.current_task()
        for task in tuple(self._pairs):
            if task is not current:
                task.cancel()
        for writer in (*self._connections, *self._peers):
            _end(writer, reset=reset)
        self._connections.clear()
        self._peers.clear()
        return number

    def cut_after(self, count: int, direction: Direction = "down", *, reset: bool = False) -> None:
        """Cut all connections once exactly ``count`` more bytes, of all connections together, went in ``direction``. Works once.

        With ``reset`` bytes may be lost on the way: the receiver may see fewer.
        """
        if count < 1:
            message = f"count must be at least 1, not {count}; to cut at once there is cut()"
            raise ValueError(message)
        self._budget[direction] = (count, reset)

    def stall(self, direction: Direction | None = None) -> None:
        """Pass nothing on, in one direction or both, of present and future connections, which are still accepted."""
        for which in self._flow if direction is None else (direction,):
            self._flow[which].clear()

    def resume(self) -> None:
        """Undo :meth:`stall`: what was held back is passed on."""
        for event in self._flow.values():
            event.set()

    def corrupt(self, change: Callable[[bytes], bytes] | None, direction: Direction = "down") -> None:
        """Put every chunk that goes in ``direction`` through ``change``, on all connections; ``None`` stops that."""
        if change is None:
            self._change.pop(direction, None)
        else:
            self._change[direction] = change

    def refuse(self) -> None:
        """Refuse new connections; those that are open stay."""
        self._stop_listening()

    async def accept(self) -> None:
        """Undo :meth:`refuse`, at the same address."""
        if self._server is None:
            await self._listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._pairs.add(task)
        peer: asyncio.StreamWriter | None = None
        pumps: list[asyncio.Task[None]] = []
        try:
            await self._flow["up"].wait()
            try:
                if isinstance(self._target, str):
                    from_target, peer = await asyncio.open_unix_connection(self._target)
                else:
                    from_target, peer = await asyncio.open_connection(*self._target)
            except OSError:
                return
            self._peers.add(peer)
            pumps = [
                asyncio.create_task(self._pump(reader, peer, "up")),
                asyncio.create_task(self._pump(from_target, writer, "down")),
            ]
            self._pairs.update(pumps)
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
            for pump in done:
                if (
                    not pump.cancelled()
                    and isinstance(error := pump.exception(), Exception)
                    and not isinstance(error, OSError)
                ):
                    raise error
        finally:
            for pump in pumps:
                pump.cancel()
            self._pairs.difference_update(pumps)
            if task is not None:
                self._pairs.discard(task)
            if peer is not None:
                self._peers.discard(peer)
                peer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        while data := await reader.read(_CHUNK):
            await self._flow[direction].wait()
            if change := self._change.get(direction):
                data = change(data)
            budget = self._budget.get(direction)
            if budget is not None:
                data = data[: budget[0]]
                self._budget[direction] = (budget[0] - len(data), budget[1])
            writer.write(data)
            self.passed[direction] += len(data)
            if budget is not None and self._budget[direction][0] == 0:
                del self._budget[direction]
                self.cut(reset=budget[1])
                return
            await writer.drain()
        await self._flow[direction].wait()
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()

    def _drop(self) -> None:
        self.cut(reset=True)
        self.cuts -= 1


class BlackHole(_Listener):
    """Accepts connections and never answers: a runtime that hangs. An async context manager.

    Args:
        listen: the kind of socket.
        read: whether it reads what clients send; otherwise their writes block once the socket's buffers are full.

    Attributes:
        address: where clients connect.
        opened: how many connections clients have made.
        open: how many of them their clients have not closed; with ``read=False`` it notices no client's end.
    """

    def __init__(self, *, listen: Literal["unix", "tcp"] = "unix", read: bool = True) -> None:
        super().__init__(listen, "hole")
        self._read = read
        self._ended = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._read:
            transport = writer.transport
            if isinstance(transport, asyncio.ReadTransport):
                transport.pause_reading()
            await self._ended.wait()
        try:
            while await reader.read(_CHUNK):
                pass
        except OSError:
            return
        # Its end of the connection may be half-closed, and an end from here would be an answer: so the socket is kept.
        self._connections.discard(writer)
        await self._ended.wait()
        _end(writer, reset=True)

    def _drop(self) -> None:
        self._ended.set()
        super()._drop()
