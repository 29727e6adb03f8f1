"""Connections to one place, for raw protocols and for aiohttp alike: unix sockets, TCP and TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import aiohttp

from asyncctr.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

    from asyncctr.core.backend_config import TLSConfig

__all__ = ["Dialer", "DialerConnector", "TcpDialer", "UnixDialer", "load_tls"]

KEEPALIVE_INTERVAL: Final = 10.0
"""Seconds between TCP's questions to a silent peer, once it asks."""
KEEPALIVE_COUNT: Final = 3
"""How many of them stay without an answer until the connection counts as lost."""
_POOL_KEEPALIVE: Final = 15.0
_TLS_SHUTDOWN: Final = 2.0
_BUSY_DELAY: Final = 0.001
_BUSY_DELAY_MAX: Final = 0.05


@runtime_checkable
class Dialer(Protocol):
    """Opens connections to one place."""

    async def connect(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol]
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        """A connection on the running loop, with a protocol from ``protocol_factory``.

        Raises:
            OSError: as the system has it; :class:`ssl.SSLError` is one.
            BackendUnavailableError: what carries the connection (ssh) could not be started, and why.
        """
        ...

    def connector(self) -> aiohttp.BaseConnector:
        """A new connector for an :class:`aiohttp.ClientSession`, without a limit, whose connections are made here.

        The host and scheme of a request's URL choose nothing: write ``http://`` and any name, over TLS as well.
        """
        ...

    async def aclose(self) -> None:
        """End what this dialer itself keeps running. Connections and connectors belong to those who asked for them."""
        ...


class DialerConnector(aiohttp.BaseConnector):
    """An aiohttp connector whose every connection comes from a dialer."""

    def __init__(self, dialer: Dialer) -> None:
        super().__init__(limit=0, force_close=False, keepalive_timeout=_POOL_KEEPALIVE)
        self._dialer = dialer

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],  # noqa: ARG002  # aiohttp's signature
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp's signature
    ) -> ResponseHandler:
        # aiohttp's own UnixConnector extends the same method; it is where a connector says how to connect.
        try:
            async with asyncio.timeout(timeout.sock_connect):
                _, protocol = await self._dialer.connect(self._factory)
        except OSError as error:
            if isinstance(error, TimeoutError) and error.errno is None:
                raise
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        return protocol  # type: ignore[return-value]  # what the factory makes


class _DirectDialer:
    """What dialers of plain sockets share: a connector, and nothing to close."""

    def connector(self: Dialer) -> aiohttp.BaseConnector:
        """See :meth:`Dialer.connector`."""
        return DialerConnector(self)

    async def aclose(self) -> None:
        """Do nothing: no connection is kept here."""


class UnixDialer(_DirectDialer):
    """A unix socket, by its path."""

    def __init__(self, path: str) -> None:
        self.path = path

    async def connect(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol]
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        """See :meth:`Dialer.connect`."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            delay = _BUSY_DELAY
            while True:
                try:
                    # Never waits: unix(7) connects at once or says why not. The loops' own connect takes EAGAIN for
                    # "under way" (asyncio, which then has a socket that is not connected) or for a failure (uvloop).
                    sock.connect(self.path)
                    break
                except BlockingIOError:
                    # The listener's queue is full. Nothing tells when it has room again; the caller has a deadline.
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, _BUSY_DELAY_MAX)
            return await asyncio.get_running_loop().create_unix_connection(protocol_factory, sock=sock)
        except BaseException:  # a cancellation, too
            sock.close()
            raise


class TcpDialer(_DirectDialer):
    """A TCP port, with TLS where a context is given.

    Args:
        host: a name or address; the server's certificate must be for it.
        port: its number.
        tls: from :func:`load_tls`; ``None`` for plain TCP.
        keepalive_idle: seconds of silence after which TCP asks whether the peer is still there (whole seconds, at
            least 1). A peer that vanished is noticed 30 s after that; data it does not acknowledge, as late.
    """

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None, keepalive_idle: float = 30.0
    ) -> None:
        self.host = host
        self.port = port
        self.tls = tls
        self.keepalive_idle = keepalive_idle

    async def connect(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol]
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        """See :meth:`Dialer.connect`."""
        loop = asyncio.get_running_loop()
        if self.tls is None:
            transport, protocol = await loop.create_connection(protocol_factory, self.host, self.port)
        else:
            transport, protocol = await loop.create_connection(
                protocol_factory,
                self.host,
                self.port,
                ssl=self.tls,
                server_hostname=self.host,
                ssl_shutdown_timeout=_TLS_SHUTDOWN,
            )
        sock = transport.get_extra_info("socket")
        if sock is not None:
            keep_alive(sock, self.keepalive_idle)
        return transport, protocol


def keep_alive(sock: socket.socket, idle: float) -> None:
    """Let TCP notice a peer that vanished, whether or not anything is being sent (tcp(7))."""
    seconds = max(1, round(idle))
    options: list[tuple[int, str, int]] = [
        (socket.IPPROTO_TCP, "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE", seconds),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", round(KEEPALIVE_INTERVAL)),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", KEEPALIVE_COUNT),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", round(1000 * (seconds + KEEPALIVE_INTERVAL * KEEPALIVE_COUNT))),
    ]
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for level, name, value in options:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(level, option, value)


async def load_tls(tls: TLSConfig) -> ssl.SSLContext:
    """A client's TLS context from its files, read in a thread.

    Raises:
        InvalidConfigError: a file is missing, unreadable or not PEM, or the key is encrypted or not the certificate's.
    """
    return await asyncio.to_thread(_load_tls, tls)


def _load_tls(tls: TLSConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        message = f"tls.ca_file: cannot read certificates from {tls.ca_file}: {_reason(error)}"
        raise InvalidConfigError(message, field="tls.ca_file") from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.key_file and not tls.cert_file:
        message = "tls.cert_file: is missing; a key is of use only with its certificate"
        raise InvalidConfigError(message, field="tls.cert_file")
    if tls.cert_file:
        try:
            # The password keeps OpenSSL from asking for one on the terminal.
            context.load_cert_chain(tls.cert_file, tls.key_file or None, password="")
        except (OSError, ssl.SSLError) as error:
            files = " and ".join(filter(None, (tls.cert_file, tls.key_file)))
            message = (
                f"tls.cert_file: cannot use {files}: {_reason(error)}. "
                "They must be PEM, readable, belong together, and the key must not be encrypted"
            )
            raise InvalidConfigError(message, field="tls.cert_file") from error
    return context


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
