"""The real command in a process of its own, against a private containerd."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncctr
from asyncctr.testing.daemons import Containerd, Leftovers, require
from asyncctr.testing.images import ImageSpec, build_archive

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.timeout(120)]

IMAGE = "asyncctr.test/busybox:latest"
PATIENCE = 60.0


class Cli:
    """Runs the command against one daemon."""

    def __init__(self, daemon: Containerd, runner: asyncio.Runner) -> None:
        self.daemon = daemon
        self.runner = runner

    @property
    def choice(self) -> list[str]:
        return ["--backend", "containerd", "--host", f"unix://{self.daemon.socket}"]

    def environment(self, **changes: str) -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "ASYNCCTR_"))}
        environ["PYTHONPATH"] = str(Path(asyncctr.__file__).parents[1])
        places = {name: f"{self.daemon.dir}/{name[9:12].lower()}" for name in ("ASYNCCTR_DATA_DIR", "ASYNCCTR_RUN_DIR")}
        return {**environ, **places, **changes}

    def words(self, command: str, *words: str) -> list[str]:
        return [sys.executable, "-m", "asyncctr", command, *self.choice, *words]

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
        return ["--network", "none", *options, IMAGE, "sh", "-c", script]

    def left(self) -> Leftovers:
        return self.runner.run(self.daemon.leftovers())


@pytest.fixture(scope="module")
def daemon_cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    require("containerd")
    require("image")
    archive = tmp_path_factory.mktemp("image") / "busybox.tar"
    build_archive(ImageSpec(reference=IMAGE), archive)
    with asyncio.Runner() as runner:
        daemon = Containerd()
        runner.run(daemon.__aenter__())
        try:
            runner.run(daemon.load(archive, namespace="asyncctr"))
            yield Cli(daemon, runner)
        finally:
            runner.run(daemon.__aexit__(None, None, None))


@pytest.fixture
def cli(daemon_cli: Cli) -> Iterator[Cli]:
    yield daemon_cli
    assert daemon_cli.left() == Leftovers()


def test_run(cli: Cli) -> None:
    done = cli("run", *cli.shell("cat; echo warning >&2; exit 7", "-i"), stdin=None, input=b"from the shell\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"from the shell\n", b"warning\n")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([IMAGE, "no-such-program"], 127, b"not found"),
        ([IMAGE, "/no/such/program"], 127, b"no such file"),
        ([IMAGE, "/etc"], 126, b"permission denied"),
        (["--pull", "never", "asyncctr.test/absent:1"], 125, b"asyncctr.test/absent:1"),
        (["-v", "/no/such/path:/x", IMAGE], 125, b"/no/such/path"),
        (["--network", "no-such-network", IMAGE], 125, b"no-such-network"),
    ],
)
def test_an_error_is_one_line_and_a_code(cli: Cli, words: list[str], code: int, message: bytes) -> None:
    done = cli("run", *(words if "--network" in words else ["--network", "none", *words]))
    assert (done.returncode, done.stdout) == (code, b"")
    assert message in done.stderr
    assert done.stderr.startswith(b"asyncctr: ")
    assert done.stderr.count(b"\n") == 1


def test_detached_listed_read_and_reaped(cli: Cli) -> None:
    started = cli("run", *cli.shell("echo up; sleep 600", "--detach", "--name", "talker"))
    container_id = started.stdout.decode().strip()
    try:
        assert re.fullmatch("[0-9a-f]{64}", container_id), started
        assert re.search(rb"talker .* running .* detached\n", cli("ps").stdout)
        assert cli("logs", "--tail", "1", "talker").stdout == b"up\n"
        refused = cli("logs", "--timestamps", "talker")
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert b"logs.timestamps" in refused.stderr
        # Another namespace has none of it.
        assert json.loads(cli("ps", "--namespace", "other", "--json").stdout) == []
        assert b"nothing to remove" in cli("reap").stderr
    finally:
        cli.runner.run(_remove(cli, container_id))


async def _remove(cli: Cli, container_id: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cli.environment().items():
            patch.setenv(name, value)
        async with asyncctr.connect(asyncctr.ContainerdConfig(socket_path=cli.daemon.socket)) as client:
            await client.backend.remove(asyncctr.ContainerId(container_id), force=True)


def test_a_killed_command_is_reaped(cli: Cli) -> None:
    words = cli.words("run", *cli.shell("echo up; sleep 600", "--name", "orphan"))
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=cli.environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert cli("reap").stdout == b""
        process.send_signal(signal.SIGKILL)
    assert re.search(rb"orphan .* gone: reap it\n", cli("ps").stdout)
    assert re.fullmatch(rb"removed [0-9a-f]{12}  orphan  .*\n", cli("reap").stdout)


def test_doctor(cli: Cli) -> None:
    done = cli("doctor")
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.search(r"^containerd +works: containerd 1\.\d+\.", text, re.MULTILINE)
    for expected in (
        rf"address +{re.escape(str(cli.daemon.socket))} \(--host\)",
        "namespace +asyncctr",
        "snapshotter +overlayfs",
        r"cgroup version +[12]",
        "rootless +no",
        "limits +memory, .*; not storage",
        "auto-start +possible, with /",
    ):
        assert re.search(expected, text), text
    (document,) = json.loads(cli("doctor", "--json").stdout)["runtimes"]
    assert (document["type"], document["status"], document["address"]) == ("containerd", "ok", str(cli.daemon.socket))
    assert document["details"]["snapshotter"] == "overlayfs"
    assert document["missing_limits"] == ["storage"]


def test_doctor_where_none_listens(cli: Cli) -> None:
    words = [sys.executable, "-m", "asyncctr", "doctor", "--backend", "containerd", "--host", "/no/such.sock"]
    done = subprocess.run(words, capture_output=True, env=cli.environment(), timeout=PATIENCE, check=False)
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (1, b"")
    assert re.search(r"^containerd +does not work: .*/no/such\.sock .*No such file or directory$", text, re.MULTILINE)
