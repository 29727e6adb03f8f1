"""The ssh dialer against a private sshd on loopback: what arrives, what fails and how, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import attrs
import pytest

from asyncctr.core.errors import BackendUnavailableError, ClosedError, ConnectionLostError, InvalidConfigError
from asyncctr.transport.dial import Dialer
from asyncctr.transport.http1 import open_stream
from asyncctr.transport.ssh import SshDialer, _listens, check_destination

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120), pytest.mark.require("ssh")]

URL = "http://engine/x"
SBIN = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))

# Stands for the docker CLI on the other side: connects to the socket, and ends when the engine does.
FAKE_DOCKER = """#!{python} -IS
import os, socket, sys, threading
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    print(arguments, file=log)
path = {default!r}
if arguments[0] == "--host":
    path = arguments[1].removeprefix("unix://")
    del arguments[:2]
assert arguments == ["system", "dial-stdio"], arguments
engine = socket.socket(socket.AF_UNIX)
try:
    engine.connect(path)
except OSError:
    sys.exit(f"Cannot connect to the Docker daemon at unix://{{path}}. Is the docker daemon running?")
def send():
    while data := os.read(0, 65536):
        engine.sendall(data)
    engine.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := engine.recv(65536):
    while data:
        data = data[os.write(1, data):]
os._exit(0)
"""


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@attrs.frozen
class Sshd:
    """A private ssh server, and the client's configuration for it."""

    folder: Path
    port: int
    pid: int

    @property
    def config(self) -> str:
        return str(self.folder / "ssh_config")

    def dialer(self, host: str = "127.0.0.1", **options: Any) -> SshDialer:
        settings: dict[str, Any] = {"port": self.port, "config_file": self.config} | options
        return SshDialer(host, **settings)

    def calls(self) -> list[str]:
        """The arguments that the docker CLI on the other side was called with."""
        log = self.folder / "calls"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    folder = tmp_path_factory.mktemp("ssh")
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    docker = bin_folder / "docker"
    text = FAKE_DOCKER.format(python=sys.executable, log=str(folder / "calls"), default=str(folder / "engine.sock"))
    docker.write_text(text)
    docker.chmod(0o755)
    for name in ("host", "user", "stranger"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(keygen, check=True, timeout=30)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(f"""
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
SetEnv PATH={bin_folder}:/usr/bin:/bin
""")
    (folder / "ssh_config").write_text(f"""
Host strange
    HostName 127.0.0.1
    IdentityFile {folder}/stranger
Host unknown
    HostName 127.0.0.1
    UserKnownHostsFile /dev/null
Host * !strange
    IdentityFile {folder}/user
Host *
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {folder}/known_hosts
    StrictHostKeyChecking yes
    User {pwd.getpwuid(os.getuid()).pw_name}
""")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it separates its privileges
    program = shutil.which("sshd", path=SBIN)
    assert program is not None
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        deadline = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.02)
        yield Sshd(folder, port, server.pid)
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
async def engine(sshd: Sshd) -> AsyncIterator[Path]:
    """An engine's socket where the docker CLI there looks: a GET is answered, an upgrade echoed to its end."""
    path = sshd.folder / "engine.sock"
    async with serving(path):
        yield path


@contextlib.asynccontextmanager
async def serving(path: Path) -> AsyncIterator[None]:
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"Upgrade: tcp" not in head:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nengine")
                    continue
                writer.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
                writer.write(b"end")
                break
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()
        for writer in writers:
            if not writer.transport.is_closing():
                writer.transport.abort()
        await asyncio.sleep(0.05)
        await asyncio.to_thread(path.unlink, missing_ok=True)


@contextlib.asynccontextmanager
async def closing(dialer: SshDialer) -> AsyncIterator[SshDialer]:
    """The dialer, which must leave no process and no file behind."""
    try:
        yield dialer
        folder = dialer._folder
    finally:
        async with asyncio.timeout(20):
            await dialer.aclose()
    if folder is not None:
        assert not folder.exists()
        await settle(lambda: not processes(str(folder)))


def processes(text: str) -> list[int]:
    """The pids of the processes with this text in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


async def settle(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is waited for is outside of the loop
            await asyncio.sleep(0.01)


async def get(dialer: Dialer) -> bytes:
    stream = await open_stream(dialer.connect, "GET", "/", headers={})
    return await stream.receive_all(100)


# -- what works


async def test_raw_and_aiohttp_connections_share_one_authenticated_connection(sshd: Sshd, engine: Path) -> None:
    async with closing(sshd.dialer()) as dialer:
        assert isinstance(dialer, Dialer)
        before = (sshd.folder / "log").read_text().count("Accepted publickey")
        results = await asyncio.gather(*(get(dialer) for _ in range(4)))
        assert results == [b"engine"] * 4
        async with aiohttp.ClientSession(connector=dialer.connector()) as session:
            for _ in range(3):
                async with session.get(URL) as response:
                    assert await response.read() == b"engine"
        assert (sshd.folder / "log").read_text().count("Accepted publickey") == before + 1
        assert dialer._folder is not None
        assert dialer._folder.stat().st_mode & 0o777 == 0o700


async def test_both_directions_back_pressure_and_the_half_close(sshd: Sshd, engine: Path) -> None:
    body = os.urandom(6 << 20)
    async with closing(sshd.dialer()) as dialer:
        stream = await open_stream(dialer.connect, "POST", "/", headers={}, upgrade="tcp")

        async def send() -> None:
            await stream.send(body)
            await stream.send_eof()

        sending = asyncio.create_task(send())
        await asyncio.sleep(0.5)
        assert not sending.done()  # nobody reads the echo: pipes and windows are full
        assert await stream.receive_all(1 << 30) == body + b"end"
        await sending
        await settle(lambda: not dialer._sessions)


async def test_more_connections_than_the_server_lets_share(sshd: Sshd, engine: Path) -> None:
    async with closing(sshd.dialer()) as dialer:
        streams = [await open_stream(dialer.connect, "POST", "/", headers={}, upgrade="tcp") for _ in range(12)]
        for number, stream in enumerate(streams):
            await stream.send(b"%d" % number)
            await stream.send_eof()
            assert await stream.receive_all(100) == b"%dend" % number


@pytest.mark.require("docker-cli")
async def test_the_real_docker_cli_on_the_other_side(sshd: Sshd, tmp_path: Path) -> None:
    docker = shutil.which("docker")
    assert docker is not None
    fake = sshd.folder / "bin/docker"
    kept = fake.read_text()
    fake.unlink()
    fake.symlink_to(docker)
    try:
        async with (
            serving(tmp_path / "real.sock"),
            closing(sshd.dialer(socket_path=str(tmp_path / "real.sock"))) as dialer,
        ):
            assert await get(dialer) == b"engine"
            stream = await open_stream(dialer.connect, "POST", "/", headers={}, upgrade="tcp")
            await stream.send(b"hello ")
            await stream.send_eof()
            assert await stream.receive_all(100) == b"hello end"
    finally:
        fake.unlink()
        fake.write_text(kept)
        fake.chmod(0o755)


@pytest.mark.parametrize("name", ["plain.sock", "a b;c", 'it\'s $(touch pwned) `id` "q" \\ * ~ ! & | > #'])
async def test_the_socket_path_reaches_the_other_side_as_it_is(
    sshd: Sshd, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    path = tmp_path_factory.mktemp("p") / name
    async with serving(path), closing(sshd.dialer(socket_path=str(path))) as dialer:
        assert await get(dialer) == b"engine"
    assert sshd.calls()[-1] == str(["--host", f"unix://{path}", "system", "dial-stdio"])


async def test_a_shared_connection_that_was_killed_is_made_anew(sshd: Sshd, engine: Path) -> None:
    async with closing(sshd.dialer()) as dialer:
        assert await get(dialer) == b"engine"
        first = dialer._master_pid
        os.kill(first, signal.SIGKILL)
        folder = dialer._folder
        assert folder is not None
        await settle(lambda: not _listens(folder / "c"))
        assert await get(dialer) == b"engine"
        assert dialer._master_pid not in (0, first)


# -- what fails


async def test_an_engine_that_does_not_run_there(sshd: Sshd) -> None:
    async with closing(sshd.dialer()) as dialer:
        with pytest.raises(BackendUnavailableError, match=r"Is the docker daemon running\. Try") as caught:
            await get(dialer)
        assert caught.value.status == 1
        assert dialer.last_error is caught.value
        async with aiohttp.ClientSession(connector=dialer.connector()) as session:
            with pytest.raises(BackendUnavailableError, match=r"Is the docker daemon running\. Try"):
                await session.get(URL)


async def test_no_docker_cli_there(sshd: Sshd) -> None:
    (sshd.folder / "bin/docker").rename(sshd.folder / "bin/hidden")
    if shutil.which("docker", path="/usr/bin:/bin"):
        (sshd.folder / "bin/docker").write_text("#!/bin/sh\nexec no-such-docker\n")
        (sshd.folder / "bin/docker").chmod(0o755)
    try:
        async with closing(sshd.dialer()) as dialer:
            with pytest.raises(BackendUnavailableError, match="Install the docker CLI there") as caught:
                await get(dialer)
            assert caught.value.status == 127
    finally:
        (sshd.folder / "bin/hidden").rename(sshd.folder / "bin/docker")


@pytest.mark.parametrize(
    ("host", "text"), [("strange", "Permission denied"), ("unknown", "Host key verification failed")]
)
async def test_ssh_that_does_not_get_in(sshd: Sshd, host: str, text: str) -> None:
    async with closing(sshd.dialer(host)) as dialer:
        with pytest.raises(BackendUnavailableError, match=f"{text}.*BatchMode"):
            await get(dialer)
        async with aiohttp.ClientSession(connector=dialer.connector()) as session:
            with pytest.raises(BackendUnavailableError, match=text):
                await session.get(URL)
        assert not dialer._sessions


async def test_nobody_listens(sshd: Sshd) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with closing(sshd.dialer(port=port)) as dialer:
        with pytest.raises(BackendUnavailableError, match="Connection refused"):
            await get(dialer)


async def test_a_server_that_never_answers_is_given_up(sshd: Sshd) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with closing(sshd.dialer(port=silent.getsockname()[1], connect_timeout=1.0)) as dialer:
            start = time.monotonic()
            with pytest.raises(BackendUnavailableError, match=r"timed out|no connection within"):
                await get(dialer)
            assert time.monotonic() - start < 5


async def test_no_ssh_client() -> None:
    async with closing(SshDialer("h", program="no-such-ssh")) as dialer:
        with pytest.raises(BackendUnavailableError, match="openssh-client"):
            await get(dialer)


async def test_a_connection_that_breaks_is_not_an_end(sshd: Sshd, engine: Path) -> None:
    async with closing(sshd.dialer()) as dialer:
        stream = await open_stream(dialer.connect, "POST", "/", headers={}, upgrade="tcp")
        await stream.send(b"words")
        assert await stream.receive() == b"words"
        assert not stream.delimited  # a plain socket's end would look like the end of the stream
        receiving = asyncio.create_task(stream.receive())
        await asyncio.sleep(0.1)
        os.kill(dialer._master_pid, signal.SIGKILL)
        with pytest.raises(ConnectionLostError):
            await asyncio.wait_for(receiving, 10)
        assert isinstance(dialer.last_error, ConnectionLostError)


@pytest.mark.parametrize(
    "destination",
    [
        {"host": ""},
        {"host": "-oProxyCommand=id"},
        {"host": "h", "user": "-l"},
        {"host": "h;id"},
        {"host": "h", "user": "u$(id)"},
        {"host": "h", "user": "u'"},
        {"host": "a b"},
        {"host": "h\n"},
        {"host": "h", "socket_path": "relative"},
        {"host": "h", "socket_path": "/a\nb"},
        {"host": "h", "socket_path": "/a\0b"},
    ],
)
async def test_refused_destinations(destination: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfigError):
        SshDialer(**destination)
    with pytest.raises(InvalidConfigError) as caught:
        check_destination(**destination, field="DOCKER_HOST")
    assert caught.value.field == "DOCKER_HOST"


# -- what is left


async def test_dropping_or_closing_a_stream_ends_its_process(sshd: Sshd, engine: Path) -> None:
    async with closing(sshd.dialer()) as dialer:
        stream = await open_stream(dialer.connect, "POST", "/", headers={}, upgrade="tcp")
        assert len(dialer._sessions) == 1
        del stream
        await settle(lambda: not dialer._sessions)
        stream = await open_stream(dialer.connect, "POST", "/", headers={}, upgrade="tcp")
        await asyncio.wait_for(stream.aclose(), 5)
        await settle(lambda: not dialer._sessions)


async def test_closing_the_dialer_ends_the_streams(sshd: Sshd, engine: Path) -> None:
    dialer = sshd.dialer()
    async with closing(dialer):
        stream = await open_stream(dialer.connect, "POST", "/", headers={}, upgrade="tcp")
        receiving = asyncio.create_task(stream.receive())
        await asyncio.sleep(0.05)
    with pytest.raises(ConnectionLostError, match="closed"):
        await asyncio.wait_for(receiving, 5)
    with pytest.raises(ClosedError):
        await get(dialer)
    await dialer.aclose()


async def test_a_cancelled_connect_leaves_nothing(sshd: Sshd, engine: Path) -> None:
    async with closing(sshd.dialer()) as dialer:
        for delay in (0, 0.001, 0.005, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3):
            opening = asyncio.create_task(open_stream(dialer.connect, "POST", "/", headers={}, upgrade="tcp"))
            await asyncio.sleep(delay)
            opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await opening).close()
        await settle(lambda: not dialer._sessions)


async def test_a_shared_connection_that_hangs_does_not_hold_the_close(sshd: Sshd, engine: Path) -> None:
    dialer = sshd.dialer()
    async with closing(dialer):
        assert await get(dialer) == b"engine"
        os.kill(dialer._master_pid, signal.SIGSTOP)
        start = time.monotonic()
    assert time.monotonic() - start < 10


def test_the_remote_command_is_quoted() -> None:
    dialer = SshDialer("h", socket_path="/a b")
    assert shlex.split(dialer._command) == ["docker", "--host", "unix:///a b", "system", "dial-stdio"]
