"""The real command in a process of its own, with unikernels of the tests' own guests."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncctr
from asyncctr import NanosBuildInput, NanosConfig
from asyncctr.testing.daemons import Registry, require
from asyncctr.testing.guests import build_guests
from asyncctr.testing.nanos_images import NanosArtifact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncctr.testing.guests import Guests

pytestmark = [pytest.mark.timeout(120)]

IMAGE = "asyncctr.test/shell:1"
PATIENCE = 60.0


class Cli:
    """Runs the command on one directory of machines."""

    def __init__(self, directory: Path, guests: Guests) -> None:
        self.directory = directory
        self.guests = guests

    def environment(self) -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "ASYNCCTR_"))}
        environ["PYTHONPATH"] = str(Path(asyncctr.__file__).parents[1])
        places = {name: f"{self.directory}/{name[9:12].lower()}" for name in ("ASYNCCTR_DATA_DIR", "ASYNCCTR_RUN_DIR")}
        return {**environ, **places}

    def words(self, command: str, *words: str) -> list[str]:
        choice = ["--backend", "nanos", "--kernel", str(self.guests.kernel)]
        return [sys.executable, "-m", "asyncctr", command, *choice, *words]

    def __call__(self, command: str, *words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.words(command, *words),
            capture_output=True,
            env=self.environment(),
            timeout=PATIENCE,
            check=False,
            **{"stdin": subprocess.DEVNULL, **options},
        )

    def shell(self, script: str, *options: str) -> list[str]:
        return [*options, IMAGE, "-c", script]

    @property
    def config(self) -> NanosConfig:
        return NanosConfig(kernel_path=str(self.guests.kernel))

    async def build(self) -> bytes:
        """Make the image; its disk."""
        async with asyncctr.connect(self.config) as client:
            program = NanosBuildInput(program=str(self.guests.shell), files={"/bin/sh": str(self.guests.shell)})
            await client.image(IMAGE).build(program)
        (disk,) = (path for path in self.directory.rglob("*") if path.is_file() and path.stat().st_size > 12 << 20)
        return disk.read_bytes()

    async def remove(self, container_id: str) -> None:
        async with asyncctr.connect(self.config) as client:
            await client.backend.remove(asyncctr.ContainerId(container_id), force=True)


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Cli, bytes]]:
    require("guests")
    # Short enough for sockets.
    with (
        tempfile.TemporaryDirectory(prefix="asyncctr-cli-", dir="/tmp") as directory,
        pytest.MonkeyPatch.context() as patch,
    ):
        cli = Cli(Path(directory), build_guests())
        for name, value in cli.environment().items():
            patch.setenv(name, value)
        yield cli, asyncio.run(cli.build())


@pytest.fixture
def cli(made: tuple[Cli, bytes]) -> Iterator[Cli]:
    yield made[0]
    assert json.loads(made[0]("ps", "--json").stdout) == []


def test_run(cli: Cli) -> None:
    done = cli("run", *cli.shell("echo $GREETING; exit 7", "-e", "GREETING=from the shell", "-m", "128m"))
    assert (done.returncode, done.stdout, done.stderr) == (7, b"from the shell\n", b"")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pids", "5", IMAGE], b"resources.pids"),
        (["-u", "1000", IMAGE], b"user"),
        (["-i", IMAGE], b"--interactive"),
        (["-m", "16m", IMAGE], b"resources.memory"),
        (["--cpus", "0.5", IMAGE], b"resources.cpu_quota"),
        (["-w", "/no/such/directory", IMAGE], b"workdir"),
        (["--network", "host", IMAGE], b"network.mode.host"),
        (["--pull", "never", "asyncctr.test/absent:1"], b"asyncctr.test/absent:1"),
        (["--kernel", "/no/such/kernel.img", IMAGE], b"/no/such/kernel.img"),
        (["--ops-config", "/no/such.json", IMAGE], b"/no/such.json"),
        (["--host", "unix:///run/x.sock", IMAGE], b"--host"),
    ],
)
def test_an_error_is_one_line_and_a_code(cli: Cli, words: list[str], message: bytes) -> None:
    done = cli("run", *words)
    assert (done.returncode, done.stdout) == (125, b"")
    assert message in done.stderr
    assert done.stderr.startswith(b"asyncctr: ")
    assert done.stderr.count(b"\n") == 1


def test_an_image_is_pulled(cli: Cli, made: tuple[Cli, bytes]) -> None:
    require("registry")

    async def pull() -> None:
        async with Registry() as registry:
            await NanosArtifact.make(made[1], packed=True, program="/sh").push(registry.host, "team/app", "1")
            name = registry.reference("team/app", "1")
            done = await asyncio.to_thread(cli, "run", name, "-c", "exit 3")
            assert (done.returncode, done.stdout) == (3, b"")
            assert re.search(rf"\b{re.escape(name)}\b", done.stderr.decode())
            async with asyncctr.connect(cli.config) as client:
                await client.image(name).remove()

    asyncio.run(pull())


def test_a_port_is_published(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("run", *cli.shell("true", "-p", f"{port}:80"))
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (125, b"", 1)
    assert str(port).encode() in done.stderr
    started = cli("run", *cli.shell("sleep 600", "--detach", "-p", f"{port}:80"))
    container_id = started.stdout.decode().strip()
    try:
        assert f"127.0.0.1:{port}->80/tcp" in cli("ps").stdout.decode()
        # QEMU answers, whoever listens in the guest.
        socket.create_connection(("127.0.0.1", port), 10).close()
    finally:
        asyncio.run(cli.remove(container_id))


def test_detached_listed_read_and_reaped(cli: Cli) -> None:
    started = cli("run", *cli.shell("echo up; sleep 600", "--detach", "--name", "talker"))
    container_id = started.stdout.decode().strip()
    try:
        assert re.fullmatch("[0-9a-f]{64}", container_id), started
        assert re.search(rb"talker .* running .* detached\n", cli("ps").stdout)
        end = time.monotonic() + PATIENCE
        while cli("logs", "--tail", "1", "talker").stdout != b"up\n":
            assert time.monotonic() < end
        refused = cli("logs", "--timestamps", "talker")
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert b"logs.timestamps" in refused.stderr
        assert b"nothing to remove" in cli("reap").stderr
    finally:
        asyncio.run(cli.remove(container_id))


def test_a_killed_command_is_reaped(cli: Cli) -> None:
    words = cli.words("run", *cli.shell("echo up; sleep 600", "--name", "orphan"))
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=cli.environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert cli("reap").stdout == b""
        process.send_signal(signal.SIGKILL)
    assert re.search(rb"orphan .* gone: reap it\n", cli("ps").stdout)
    assert re.fullmatch(rb"removed [0-9a-f]{12}  orphan  .*\n", cli("reap").stdout)


def test_an_interrupt_removes_it(cli: Cli) -> None:
    words = cli.words("run", *cli.shell("trap 'echo bye; exit 3' TERM; echo up; sleep 600"))
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=cli.environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 143


def test_doctor(cli: Cli) -> None:
    done = cli("doctor")
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.search(r"^nanos +works: nanos on QEMU \d+\.\d+", text, re.MULTILINE)
    for expected in (
        rf"kernel +{re.escape(str(cli.guests.kernel))}",
        "accelerator +(kvm|tcg)",
        "kvm +(yes|no): ",
        "machines +microvm",
        "limits +memory, cpu, storage; not memory.swap, pids",
    ):
        assert re.search(expected, text), text
    (document,) = json.loads(cli("doctor", "--json").stdout)["runtimes"]
    assert (document["type"], document["status"]) == ("nanos", "ok")
    assert document["details"]["data"] == f"{cli.directory}/dat/nanos"


def test_doctor_without_a_kernel(cli: Cli) -> None:
    done = cli("doctor", "--kernel", "/no/such/kernel.img")
    assert (done.returncode, done.stderr) == (1, b"")
    text = done.stdout.decode()
    assert re.search(r"^nanos +does not work: .*/no/such/kernel\.img", text, re.MULTILINE)
    assert re.search(r"to do +fetch a kernel", text)
