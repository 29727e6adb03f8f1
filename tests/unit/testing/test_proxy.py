"""The fault proxy and the black hole, against an echo server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from asyncctr.testing.proxy import BlackHole, FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def echo_server(kind: str, directory: Path) -> AsyncIterator[str]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    if kind == "unix":
        server = await asyncio.start_unix_server(echo, path=str(directory / "echo"))
        address = f"unix://{directory}/echo"
    else:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield address
    finally:
        server.close()


@pytest.fixture(params=["unix", "tcp"])
async def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FaultProxy]:
    async with echo_server(request.param, tmp_path) as address, FaultProxy(address) as running:
        yield running


async def connect(address: str) -> Streams:
    if address.startswith("unix://"):
        return await asyncio.open_unix_connection(address.removeprefix("unix://"))
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def ask(streams: Streams, data: bytes) -> bytes:
    streams[1].write(data)
    return await asyncio.wait_for(streams[0].readexactly(len(data)), 5)


async def rest(streams: Streams) -> bytes:
    """What comes until the end; a reset is such an end too."""
    received = b""
    try:
        while data := await asyncio.wait_for(streams[0].read(65536), 5):
            received += data
    except ConnectionError:
        received += b"!"
    return received


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - counters give no event
            await asyncio.sleep(0.005)


async def test_passes_bytes_and_half_closes(proxy: FaultProxy) -> None:
    streams = await connect(proxy.address)
    data = bytes(range(256)) * 4096

    async def send() -> None:
        streams[1].write(data)
        await streams[1].drain()
        streams[1].write_eof()

    _, received = await asyncio.gather(send(), rest(streams))
    assert received == data
    assert proxy.passed == {"up": len(data), "down": len(data)}
    streams[1].close()
    await until(lambda: proxy.open == 0)
    assert proxy.opened == 1


@pytest.mark.parametrize("reset", [False, True])
async def test_cut_ends_all_connections_and_accepts_new_ones(proxy: FaultProxy, reset: bool) -> None:
    clients = [await connect(proxy.address) for _ in range(3)]
    for client in clients:
        assert await ask(client, b"hello") == b"hello"
    assert proxy.open == 3
    assert proxy.cut(reset=reset) == 3
    tcp = proxy.address.startswith("tcp")
    for client in clients:
        assert await rest(client) == (b"!" if reset and tcp else b"")
        client[1].close()
    assert (proxy.open, proxy.opened, proxy.cuts) == (0, 3, 1)
    again = await connect(proxy.address)
    assert await ask(again, b"again") == b"again"
    again[1].close()


@pytest.mark.parametrize("count", [1, 1000, 100_000])
async def test_cut_after_passes_exactly_so_many_bytes(proxy: FaultProxy, count: int) -> None:
    proxy.cut_after(count)
    streams = await connect(proxy.address)
    streams[1].write(b"x" * 200_000)
    assert len(await rest(streams)) == count
    assert proxy.passed["down"] == count
    streams[1].close()
    # Once only.
    again = await connect(proxy.address)
    assert await ask(again, b"y" * 100) == b"y" * 100
    again[1].close()


async def test_cut_after_counts_up_too(proxy: FaultProxy) -> None:
    proxy.cut_after(10, "up")
    streams = await connect(proxy.address)
    assert await ask(streams, b"12345") == b"12345"
    streams[1].write(b"6789012345")
    await rest(streams)
    assert proxy.passed["up"] == 10
    streams[1].close()


async def test_cut_after_wants_a_count(proxy: FaultProxy) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        proxy.cut_after(0)


async def test_stall_holds_and_resume_delivers(proxy: FaultProxy) -> None:
    streams = await connect(proxy.address)
    assert await ask(streams, b"one") == b"one"
    proxy.stall()
    streams[1].write(b"two")
    late = await connect(proxy.address)
    late[1].write(b"three")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(streams[0].read(1), 0.2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(late[0].read(1), 0.05)
    assert proxy.opened == 2
    proxy.resume()
    assert await asyncio.wait_for(streams[0].readexactly(3), 5) == b"two"
    assert await asyncio.wait_for(late[0].readexactly(5), 5) == b"three"
    for writer in (streams[1], late[1]):
        writer.close()


async def test_stall_in_one_direction(proxy: FaultProxy) -> None:
    proxy.stall("down")
    streams = await connect(proxy.address)
    streams[1].write(b"four")
    await until(lambda: proxy.passed["up"] == 4)
    assert proxy.passed["down"] == 0
    proxy.cut()
    assert await rest(streams) == b""
    streams[1].close()


async def test_corrupt(proxy: FaultProxy) -> None:
    streams = await connect(proxy.address)
    proxy.corrupt(lambda data: data.replace(b"a", b"b"))
    assert await ask(streams, b"banana") == b"bbnbnb"
    proxy.corrupt(None)
    assert await ask(streams, b"banana") == b"banana"
    proxy.corrupt(bytes.upper, "up")
    assert await ask(streams, b"banana") == b"BANANA"
    streams[1].close()


async def test_refuse_and_accept_at_the_same_address(proxy: FaultProxy) -> None:
    address = proxy.address
    streams = await connect(address)
    assert await ask(streams, b"x") == b"x"
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect(address)
    assert await ask(streams, b"still") == b"still"
    await proxy.accept()
    assert proxy.address == address
    again = await connect(address)
    assert await ask(again, b"y") == b"y"
    for writer in (streams[1], again[1]):
        writer.close()


async def test_target_that_is_away_closes_the_client(tmp_path: Path) -> None:
    async with FaultProxy(tmp_path / "nothing") as proxy:
        streams = await connect(proxy.address)
        assert await rest(streams) == b""
        streams[1].close()


async def test_unix_target_behind_a_tcp_port(tmp_path: Path) -> None:
    async with echo_server("unix", tmp_path) as address, FaultProxy(address, listen="tcp") as proxy:
        assert proxy.address.startswith("tcp://127.0.0.1:")
        streams = await connect(proxy.address)
        assert await ask(streams, b"x") == b"x"
        streams[1].close()


async def test_exit_ends_connections_and_removes_the_socket(tmp_path: Path) -> None:
    async with echo_server("unix", tmp_path) as address:
        async with FaultProxy(address) as proxy:
            path = proxy.path
            streams = await connect(proxy.address)
            assert await ask(streams, b"x") == b"x"
        assert await rest(streams) in {b"", b"!"}
        assert not path.parent.exists()
        streams[1].close()


@pytest.mark.parametrize(
    "address", ["", "/relative/is/fine/but/no/scheme", "tcp://host", "unix://relative", "ftp://h:1"]
)
def test_addresses_of_other_forms_are_refused(address: str) -> None:
    if address.startswith("/"):
        assert FaultProxy(address)._target == address
        return
    with pytest.raises(ValueError, match="address"):
        FaultProxy(address)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_black_hole_accepts_and_never_answers(kind: str) -> None:
    async with BlackHole(listen="unix" if kind == "unix" else "tcp") as hole:
        streams = await connect(hole.address)
        streams[1].write(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 1_000_000)
        await asyncio.wait_for(streams[1].drain(), 5)
        streams[1].write_eof()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(streams[0].read(1), 0.2)
        assert hole.opened == 1
        second = await connect(hole.address)
        await until(lambda: hole.open == 1 and hole.opened == 2)
        second[1].close()
        await until(lambda: hole.open == 0)
        streams[1].close()


async def test_black_hole_that_does_not_read_blocks_the_writer() -> None:
    async with BlackHole(read=False) as hole:
        streams = await connect(hole.address)
        streams[1].write(b"x" * 8_000_000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(streams[1].drain(), 0.3)
        assert hole.open == 1
    assert await rest(streams) in {b"", b"!"}
    streams[1].close()
