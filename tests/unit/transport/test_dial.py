"""Dialers: raw protocols and aiohttp reach the same place by unix socket, TCP and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import aiohttp
import attrs
import pytest

from asyncctr.core.backend_config import TLSConfig
from asyncctr.core.errors import ConnectionLostError, InvalidConfigError, UnsupportedError
from asyncctr.transport.dial import Dialer, TcpDialer, UnixDialer, load_tls
from asyncctr.transport.http1 import open_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

URL = "http://engine/x"


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server's certificate for localhost, a client's, and an authority that signed neither."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    for name in ("ca", "other"):
        request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        usage = ["-addext", "keyUsage=critical,keyCertSign"]
        openssl(*request, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", *usage)
    for name in ("server", "client"):
        request = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}"]
        openssl(*request, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "ext").write_text("subjectAltName=DNS:localhost\n")
        sign = ["x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        openssl(*sign, "-days", "2", "-extfile", "ext", "-out", f"{name}.pem")
    openssl("ec", "-in", "client.key", "-aes128", "-passout", "pass:hush", "-out", "encrypted.key")
    return folder


@attrs.define
class Server:
    """An HTTP server: a GET answers with the number of its connection, an upgrade echoes and ends."""

    address: str = ""
    port: int = 0
    connections: int = 0
    context: ssl.SSLContext | None = None
    writers: list[asyncio.StreamWriter] = attrs.Factory(list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"Upgrade: tcp" in head:
                    writer.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
                    while data := await reader.read(65536):
                        writer.write(data)
                        await writer.drain()
                    break
                body = b"%d" % number
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def serving(kind: str, tmp_path: Path, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(context=context)
    if kind == "unix":
        server.address = str(tmp_path / "engine.sock")
        listener: asyncio.Server = await asyncio.start_unix_server(server.serve, server.address)
    else:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
        server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for writer in server.writers:
            if not writer.transport.is_closing():
                writer.transport.abort()
        await asyncio.sleep(0.05)


def server_context(certificates: Path, *, ask: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    if ask:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates / "ca.pem")
    return context


@contextlib.asynccontextmanager
async def served(kind: str, tmp_path: Path, certificates: Path) -> AsyncIterator[tuple[Server, Dialer]]:
    async with serving(kind, tmp_path, server_context(certificates) if kind == "tls" else None) as server:
        if kind == "unix":
            yield server, UnixDialer(server.address)
        else:
            tls = await load_tls(TLSConfig(ca_file=str(certificates / "ca.pem"))) if kind == "tls" else None
            yield server, TcpDialer("localhost", server.port, tls=tls)


@pytest.mark.parametrize("kind", ["unix", "tcp", "tls"])
async def test_raw_and_aiohttp_connections_reach_the_same_place(kind: str, tmp_path: Path, certificates: Path) -> None:
    async with served(kind, tmp_path, certificates) as (server, dialer):
        assert isinstance(dialer, Dialer)
        async with aiohttp.ClientSession(connector=dialer.connector()) as session:
            for _ in range(3):  # on one kept connection
                async with session.get(URL) as response:
                    assert await response.text() == "1"
            stream = await open_stream(dialer.connect, "GET", "/", headers={})
            assert await stream.receive_all(100) == b"2"
            stream = await open_stream(dialer.connect, "POST", "/", headers={}, upgrade="tcp")
            body = os.urandom(1 << 20)
            sending = asyncio.create_task(stream.send(body))
            received = b""
            while len(received) < len(body):
                received += await stream.receive()
            await sending
            assert received == body
            if kind == "tls":
                with pytest.raises(UnsupportedError, match="TLS"):
                    await stream.send_eof()
            else:
                await stream.send_eof()
                assert await stream.receive() == b""
            await asyncio.wait_for(stream.aclose(), 5)
        await dialer.aclose()
    assert server.connections == 3


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_the_connector_has_no_limit(kind: str, tmp_path: Path, certificates: Path) -> None:
    async with served(kind, tmp_path, certificates) as (server, dialer), contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=dialer.connector()))
        responses = await asyncio.gather(*(session.get(URL) for _ in range(150)))
        assert server.connections == 150
        for response in responses:
            response.release()


async def test_a_full_queue_of_the_listener_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "busy.sock")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(path)
        listener.listen(1)
        listener.setblocking(False)
        dialing = [asyncio.create_task(UnixDialer(path).connect(asyncio.Protocol)) for _ in range(20)]
        done, _ = await asyncio.wait(dialing, timeout=0.3)
        assert 0 < len(done) < 20
        dialing[-1].cancel()
        for _ in range(19):
            accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
            stack.enter_context(accepted)
            await asyncio.sleep(0.01)
        for transport, _ in await asyncio.wait_for(asyncio.gather(*dialing[:-1]), 5):
            assert transport.get_extra_info("socket").getpeername() == path
            transport.close()


async def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    dialers: list[Dialer] = [UnixDialer(str(tmp_path / "none.sock")), TcpDialer("127.0.0.1", port)]
    for dialer in dialers:
        with pytest.raises(OSError, match=r".") as caught:
            await open_stream(dialer.connect, "GET", "/", headers={})
        async with aiohttp.ClientSession(connector=dialer.connector()) as session:
            with pytest.raises(aiohttp.ClientConnectorError) as wrapped:
                await session.get(URL)
        assert wrapped.value.os_error.errno == caught.value.errno


async def test_a_dial_that_takes_too_long_is_a_timeout(tmp_path: Path) -> None:
    class Slow(UnixDialer):
        async def connect(self, protocol_factory: Any) -> Any:
            await asyncio.sleep(60)

    timeout = aiohttp.ClientTimeout(sock_connect=0.05)
    async with aiohttp.ClientSession(connector=Slow("x").connector(), timeout=timeout) as session:
        with pytest.raises(TimeoutError):
            await session.get(URL)


async def test_tcp_asks_whether_a_silent_peer_is_there(tmp_path: Path, certificates: Path) -> None:
    async with serving("tcp", tmp_path) as server:
        transport, _ = await TcpDialer("127.0.0.1", server.port, keepalive_idle=7).connect(asyncio.Protocol)
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 37_000
        transport.close()


# -- TLS


async def attempt(dialer: Dialer) -> None:
    stream = await open_stream(dialer.connect, "GET", "/", headers={})
    assert await stream.receive_all(10) == b"1"


async def test_the_servers_certificate_is_checked(tmp_path: Path, certificates: Path) -> None:
    async with serving("tls", tmp_path, server_context(certificates)) as server:
        trusting = TLSConfig(ca_file=str(certificates / "ca.pem"))
        for host, config in [
            ("localhost", TLSConfig(ca_file=str(certificates / "other.pem"))),
            ("localhost", TLSConfig()),
            ("127.0.0.1", trusting),
        ]:
            dialer = TcpDialer(host, server.port, tls=await load_tls(config))
            with pytest.raises(ssl.SSLCertVerificationError):
                await attempt(dialer)
            async with aiohttp.ClientSession(connector=dialer.connector()) as session:
                with pytest.raises(aiohttp.ClientConnectorError, match="certificate verify failed"):
                    await session.get(URL)
        server.connections = 0
        await attempt(TcpDialer("localhost", server.port, tls=await load_tls(trusting)))
        server.connections = 0
        await attempt(TcpDialer("127.0.0.1", server.port, tls=await load_tls(TLSConfig(verify=False))))


async def test_the_clients_certificate_is_shown(tmp_path: Path, certificates: Path) -> None:
    async with serving("tls", tmp_path, server_context(certificates, ask=True)) as server:
        config = TLSConfig(
            ca_file=str(certificates / "ca.pem"),
            cert_file=str(certificates / "client.pem"),
            key_file=str(certificates / "client.key"),
        )
        without = attrs.evolve(config, cert_file="", key_file="")
        # TLS 1.3 refuses it after the client's handshake: the read meets the alert, or the close behind it.
        with pytest.raises((ssl.SSLError, ConnectionLostError)):
            await attempt(TcpDialer("localhost", server.port, tls=await load_tls(without)))
        server.connections = 0
        await attempt(TcpDialer("localhost", server.port, tls=await load_tls(config)))


async def test_unusable_tls_files_are_named(certificates: Path) -> None:
    def files(ca_file: str = "", cert_file: str = "", key_file: str = "") -> TLSConfig:
        paths = [str(certificates / name) if name else "" for name in (ca_file, cert_file, key_file)]
        return TLSConfig(ca_file=paths[0], cert_file=paths[1], key_file=paths[2])

    cases = [
        (files(ca_file="missing"), "tls.ca_file", "missing"),
        (files(ca_file="ca.key"), "tls.ca_file", "ca.key"),
        (files(key_file="client.key"), "tls.cert_file", "certificate"),
        (files(cert_file="missing"), "tls.cert_file", "missing"),
        (files(cert_file="client.pem", key_file="server.key"), "tls.cert_file", "belong together"),
        (files(cert_file="client.pem", key_file="encrypted.key"), "tls.cert_file", "encrypted"),
    ]
    for config, field, text in cases:
        with pytest.raises(InvalidConfigError, match=text) as caught:
            await load_tls(config)
        assert caught.value.field == field
