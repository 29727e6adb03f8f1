"""The real command in a process of its own, against a private dockerd."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncctr
from asyncctr.testing import images
from asyncctr.testing.daemons import Dockerd, Registry, require
from asyncctr.testing.images import ImageSpec, build_archive
from asyncctr.testing.programs import find

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.timeout(180)]

IMAGE = "asyncctr.test/busybox:latest"
FOREVER = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"
DEAF = "trap '' TERM; echo up; while :; do sleep 0.1; done"
PATIENCE = 60.0
ESCAPE = b"\x1b"


def listen_to_signals() -> None:
    """As a program under nohup, or in the background of a shell, would not: these tests may run there."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Cli:
    """Runs the command against one daemon."""

    def __init__(self, daemon: Dockerd, runner: asyncio.Runner) -> None:
        self.daemon = daemon
        self.runner = runner

    def environment(self, **changes: str) -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "ASYNCCTR_"))}
        environ.pop("NO_COLOR", None)
        # Where the tests have the package from, whatever the current directory is.
        environ["PYTHONPATH"] = str(Path(asyncctr.__file__).parents[1])
        return {**environ, "DOCKER_HOST": self.daemon.host, "TERM": "xterm", **changes}

    def __call__(
        self, *words: str, stdin: bytes | None = None, program: tuple[str, ...] = ("-m", "asyncctr"), **environ: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, *program, *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.environment(**environ),
            timeout=PATIENCE,
            check=False,
        )

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(
            [sys.executable, "-m", "asyncctr", *words],
            env=self.environment(),
            preexec_fn=listen_to_signals,  # noqa: PLW1509  # no lock is taken in it
            **options,
        )

    def docker(self, *words: str) -> str:
        return self.runner.run(self.daemon.cli(*words)).text

    def containers(self) -> list[str]:
        return self.docker("ps", "--all", "--quiet", "--no-trunc").split()


@pytest.fixture(scope="module")
def daemon_cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    require("docker")
    require("image")
    archive = tmp_path_factory.mktemp("image") / "busybox.tar"
    build_archive(ImageSpec(reference=IMAGE), archive)
    with asyncio.Runner() as runner:
        daemon = Dockerd(config={"max-download-attempts": 1})
        runner.run(daemon.__aenter__())
        try:
            runner.run(daemon.load(archive))
            yield Cli(daemon, runner)
        finally:
            runner.run(daemon.__aexit__(None, None, None))


@pytest.fixture
def cli(daemon_cli: Cli) -> Iterator[Cli]:
    yield daemon_cli
    # Of every test: what it ran is gone, also where it was interrupted.
    left = daemon_cli.containers()
    if left:
        daemon_cli.docker("rm", "--force", *left)
    assert not left


@pytest.fixture(scope="module")
def registry(daemon_cli: Cli) -> Iterator[Registry]:
    require("registry")
    registry = Registry()
    daemon_cli.runner.run(registry.__aenter__())
    try:
        yield registry
    finally:
        daemon_cli.runner.run(registry.__aexit__(None, None, None))


def shell(script: str, *options: str) -> list[str]:
    return ["run", "--network", "none", *options, IMAGE, "sh", "-c", script]


def read_until(descriptor: int, wanted: bytes) -> bytes:
    """What comes until it has ``wanted``; a terminal whose last writer has gone reads as its end."""
    data = b""
    end = time.monotonic() + PATIENCE
    while wanted not in data:
        assert select.select([descriptor], [], [], max(0, end - time.monotonic()))[0], data
        try:
            block = os.read(descriptor, 65_536)
        except OSError:
            block = b""
        assert block, data
        data += block
    return data


def read_terminal(descriptor: int) -> bytes:
    data = b""
    while True:
        assert select.select([descriptor], [], [], PATIENCE)[0], data
        try:
            block = os.read(descriptor, 65_536)
        except OSError:
            return data
        if not block:
            return data
        data += block


# --- run


def test_streams_are_apart_and_byte_exact(cli: Cli) -> None:
    everything = "".join(f"\\{value:03o}" for value in range(256))
    done = cli(*shell(f"printf '{everything}'; printf 'err{everything}' >&2; exit 7"))
    assert done.returncode == 7
    assert done.stdout == bytes(range(256))
    assert done.stderr == b"err" + bytes(range(256))


def test_output_comes_as_it_is_written(cli: Cli) -> None:
    with cli.popen(*shell("trap 'exit 0' TERM; printf 'prompt> '; while :; do sleep 0.1; done")) as process:
        assert process.stdout is not None
        assert read_until(process.stdout.fileno(), b"prompt> ") == b"prompt> "
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130


def test_a_killed_container_is_128_and_the_signal(cli: Cli) -> None:
    with cli.popen(*shell(DEAF, "--name", "victim")) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"up\n")
        cli.docker("kill", "victim")
        assert process.wait(PATIENCE) == 137


def test_options_are_seen_from_inside(cli: Cli, tmp_path: Path) -> None:
    # Another user reads it.
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "file").write_text("from the host\n")
    script = """
    echo "$GREETING $INHERITED"; pwd; id -u; cat /in/file
    touch /in/x 2>/dev/null || echo read-only
    ls /sys/class/net
    c=/sys/fs/cgroup
    for f in $c/memory/memory.limit_in_bytes $c/memory.max; do [ -r $f ] && cat $f; done
    for f in $c/pids/pids.max $c/pids.max; do [ -r $f ] && cat $f; done
    """
    options = ["-e", "GREETING=hello world", "--env", "INHERITED", "--env", "ABSENT", "-v", f"{shared}:/in:ro"]
    options += ["-w", "/tmp", "--user", "app", "--memory", "64m", "--cpus", "0.5", "--pids", "50", "--name", "named"]
    done = cli(*shell(script, *options), INHERITED="from here")
    expected = ["hello world from here", "/tmp", "1000", "from the host", "read-only", "lo", str(64 << 20), "50"]
    assert (done.stdout.decode().split("\n"), done.stderr) == ([*expected, ""], b"")


def test_entrypoint(cli: Cli) -> None:
    done = cli("run", "--network", "none", "--entrypoint", "/bin/echo", IMAGE, "-n", "--name", "x")
    assert (done.returncode, done.stdout) == (0, b"--name x")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([IMAGE, "no-such-program"], 127, b"not found"),
        ([IMAGE, "/no/such/program"], 127, b"no such file"),
        ([IMAGE, "/etc"], 126, b"permission denied"),
        (["--pull", "never", "asyncctr.test/absent:1"], 125, b"asyncctr.test/absent:1"),
        (["--bogus", IMAGE], 125, b"--bogus"),
        (["--name", "a b", IMAGE], 125, b"name: "),
        (["-v", "/no/such/path:/x", IMAGE], 125, b"/no/such/path"),
        (["--network", "no-such-network", IMAGE], 125, b"no-such-network"),
        (["--detach", "--timeout", "5", IMAGE], 125, b"--timeout"),
        (["--backend", "firecracker", IMAGE], 125, b"firecracker"),
        (["--kernel", "x", IMAGE], 125, b"--backend nanos"),
        (["--namespace", "x", IMAGE], 125, b"--backend containerd"),
    ],
)
def test_an_error_is_one_line_and_a_code(cli: Cli, words: list[str], code: int, message: bytes) -> None:
    done = cli("run", *words)
    assert (done.returncode, done.stdout) == (code, b"")
    assert message in done.stderr
    assert done.stderr.startswith(b"asyncctr: ")
    assert done.stderr.count(b"\n") == 1


def test_no_engine(cli: Cli) -> None:
    done = cli("run", IMAGE, DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (125, b"", 1)
    assert b"/nonexistent/docker.sock" in done.stderr
    assert cli("ps", "--host", "unix:///nonexistent/docker.sock").returncode == 1
    # The option goes before the environment.
    assert cli("ps", "--host", cli.daemon.host, DOCKER_HOST="unix:///nonexistent/docker.sock").returncode == 0


def test_standard_input(cli: Cli) -> None:
    data = os.urandom(5_000_000)
    done = cli(*shell("cat", "-i"), stdin=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert cli(*shell("cat; exit 4", "-i"), stdin=b"").returncode == 4
    # It ends first, with input to come.
    assert cli(*shell("head -c 3", "-i"), stdin=data).stdout == data[:3]
    # Not asked for: it is empty.
    assert cli(*shell("cat; exit 5"), stdin=b"data").returncode == 5
    assert cli(*shell("cat"), stdin=b"data").stdout == b""


def test_standard_input_comes_as_it_is_written(cli: Cli) -> None:
    with cli.popen(*shell("while read line; do echo got $line; done", "-i"), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for word in (b"one", b"two"):
            process.stdin.write(word + b"\n")
            process.stdin.flush()
            assert read_until(process.stdout.fileno(), b"\n") == b"got " + word + b"\n"
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_an_exit_does_not_wait_for_input(cli: Cli) -> None:
    with cli.popen(*shell("exit 6", "-i"), stdin=subprocess.PIPE) as process:
        assert process.wait(PATIENCE) == 6


def test_timeout(cli: Cli) -> None:
    began = time.monotonic()
    done = cli(*shell("echo started; exec sleep 600", "--timeout", "1"))
    assert (done.returncode, done.stdout) == (124, b"started\n")
    assert done.stderr == b"asyncctr: the container ran longer than 1 s and was killed\n"
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_and_removes(cli: Cli, number: signal.Signals, code: int) -> None:
    with cli.popen(*shell(FOREVER)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        read_until(process.stdout.fileno(), b"up\n")
        process.send_signal(number)
        # What it prints when it is asked to stop comes out as well.
        assert process.stdout.read() == b"bye\n"
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE) == code


def test_a_second_signal_kills_at_once(cli: Cli) -> None:
    with cli.popen(*shell(DEAF)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        read_until(process.stdout.fileno(), b"up\n")
        process.send_signal(signal.SIGINT)
        # It says so when the first one is not enough.
        read_until(process.stderr.fileno(), b"Ctrl-C kills it\n")
        second = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert time.monotonic() - second < 7


def test_a_signal_before_the_start(cli: Cli) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        host = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with cli.popen("run", "--host", host, IMAGE) as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
            connection.close()
            assert process.stderr is not None
            assert process.stderr.read() == b""


def test_a_reader_that_goes_away_ends_it(cli: Cli) -> None:
    with cli.popen(*shell("exec yes")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == b""


def test_a_slow_reader_costs_no_memory(cli: Cli) -> None:
    size = 200_000_000
    with cli.popen(*shell(f"head -c {size} /dev/zero")) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"\0"
        time.sleep(3)
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert resident is not None
        assert int(resident[1]) < 120_000
        count = 1
        while block := process.stdout.read(1 << 20):
            count += len(block)
        assert (count, process.wait(PATIENCE)) == (size, 0)


def test_output_that_cannot_be_written(cli: Cli) -> None:
    with Path("/dev/full").open("wb") as full:
        process = cli.popen(*shell("exec yes"), stdout=full)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 125
    assert stderr == b"asyncctr: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("words", [("ps",), ("ps", "--json")])
def test_a_list_that_cannot_be_written(cli: Cli, words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        process = cli.popen(*words, stdout=full)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert stderr == b"asyncctr: cannot write the output: No space left on device\n"


def test_closed_standard_streams(cli: Cli) -> None:
    words = [sys.executable, "-m", "asyncctr", *shell("cat; echo out; echo err >&2; exit 3", "-i")]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&-', "sh", *words],
        stderr=subprocess.PIPE,
        env=cli.environment(),
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, b"err\n")


PLAIN_BACKEND = """
import sys
import asyncctr
from asyncctr.backends.docker.backend import DockerBackend
from asyncctr.cli import main

class Plain:
    def __init__(self, backend):
        self.backend = backend
    async def __aenter__(self):
        return self
    async def __aexit__(self, *error):
        await self.backend.aclose()

def delegate(name):
    setattr(Plain, name, property(lambda self: getattr(self.backend, name)))

for name in dir(DockerBackend):
    if not name.startswith("_") and name != "launch":
        delegate(name)

real = asyncctr.get_backend_factory("docker")

async def factory(config):
    backend = Plain(await real(config))
    assert isinstance(backend, asyncctr.SupportsStdin) and not isinstance(backend, asyncctr.SupportsLaunch)
    return backend

asyncctr.register_backend("docker", factory)
sys.exit(main(sys.argv[1:]))
"""


def test_backends_without_launch(cli: Cli) -> None:
    program = ("-c", PLAIN_BACKEND)
    done = cli(*shell("cat; echo err >&2; printf out; exit 7", "-i"), stdin=b"in ", program=program)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"in out", b"err\n")
    assert cli("run", IMAGE, "no-such-program", program=program).returncode == 127
    assert cli(*shell("exec sleep 600", "--timeout", "1"), program=program).returncode == 124


# --- pulls


@pytest.fixture
def reference(cli: Cli, registry: Registry) -> Iterator[str]:
    spec = ImageSpec(padding=20 << 20, compression="none")
    cli.runner.run(images.push(spec, registry.host, "busybox", "latest"))
    name = registry.reference("busybox")
    yield name
    cli.docker("image", "rm", "--force", name)


def test_a_pull_in_plain_lines(cli: Cli, reference: str) -> None:
    done = cli("run", "--network", "none", reference, "echo", "hi")
    assert (done.returncode, done.stdout) == (0, b"hi\n")
    lines = done.stderr.decode().splitlines()
    assert lines[0] == f"asyncctr: pulling {reference}"
    assert re.fullmatch(rf"asyncctr: pulled {reference} in \d+\.\d s", lines[-1])
    assert any(line.endswith("100% of 20 MiB") for line in lines)
    assert ESCAPE not in done.stderr
    # It is here now.
    assert cli("run", "--network", "none", reference, "true").stderr == b""
    assert b"pulling" in cli("run", "--network", "none", "--pull", "always", reference, "true").stderr


def on_terminal(cli: Cli, *words: str, **environ: str) -> bytes:
    """What the command writes to its standard error, and output, when that is a terminal."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, *words], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=cli.environment(**environ)
    ) as process:
        os.close(slave)
        written = read_terminal(master)
        os.close(master)
        assert process.wait(PATIENCE) == 0
    return written


def test_a_pull_on_a_terminal_has_bars(cli: Cli, reference: str) -> None:
    written = on_terminal(cli, "-m", "asyncctr", "run", "--network", "none", reference, "echo", "hi")
    assert "━━━━".encode() in written
    assert re.search(rb"\d\.\d/20\.0 MiB", written)
    assert written.endswith(b"hi\r\n")


def test_colours_and_their_absence(cli: Cli) -> None:
    words = ("-m", "asyncctr", "doctor")
    coloured = re.compile(rb"\x1b\[[0-9;]*3[0-9]")
    assert coloured.search(on_terminal(cli, *words))
    assert not coloured.search(on_terminal(cli, *words, NO_COLOR="1"))
    assert ESCAPE not in on_terminal(cli, *words, TERM="dumb")
    assert ESCAPE not in cli("doctor").stdout


def test_without_rich(cli: Cli, reference: str) -> None:
    start = "import sys; sys.modules['rich'] = None; from asyncctr.cli import main; sys.exit(main(sys.argv[1:]))"
    written = on_terminal(cli, "-c", start, "run", "--network", "none", reference, "echo", "hi")
    assert ESCAPE not in written
    assert b"rich" not in written
    assert b"100% of 20 MiB\r\n" in written
    assert ESCAPE not in on_terminal(cli, "-c", start, "ps")


def test_a_pull_that_fails(cli: Cli, registry: Registry) -> None:
    done = cli("run", registry.reference("busybox", "no-such-tag"))
    assert (done.returncode, done.stdout) == (125, b"")
    first, last = done.stderr.decode().splitlines()
    assert first.startswith("asyncctr: pulling ")
    assert "no-such-tag" in last


# --- ps, logs, reap


@pytest.fixture
def talker(cli: Cli) -> Iterator[str]:
    """A detached container that has printed, and lives on."""
    # Apart in time, or the engine may store them in either order.
    script = "echo one; sleep 0.3; echo two >&2; printf three; touch /done; exec sleep 600"
    done = cli("run", "--detach", "--network", "none", "--name", "talker", IMAGE, "sh", "-c", script)
    assert done.returncode == 0
    container_id = done.stdout.decode().strip()
    assert re.fullmatch("[0-9a-f]{64}", container_id)
    cli.docker("exec", "talker", "sh", "-c", "while ! [ -e /done ]; do sleep 0.1; done")
    yield container_id
    cli.docker("rm", "--force", container_id)


def test_ps(cli: Cli, talker: str) -> None:
    foreign = cli.docker("create", "--name", "foreign", IMAGE)
    try:
        header, line = cli("ps").stdout.decode().splitlines()
        assert header.split() == ["ID", "NAME", "IMAGE", "STATUS", "PORTS", "OWNER"]
        assert line.startswith(talker[:12])
        assert re.search(rf"talker +{IMAGE} +running .* detached$", line)
        everyone = cli("ps", "--all").stdout.decode()
        assert f"{foreign[:12]}  foreign" in everyone
        assert talker[:12] in everyone
        (document,) = json.loads(cli("ps", "--json").stdout)
        expected = {
            "id": talker,
            "name": "talker",
            "image": IMAGE,
            "status": "running",
            "exit_code": None,
            "owner": "detached",
        }
        assert expected.items() <= document.items()
        assert len(json.loads(cli("ps", "--all", "--json").stdout)) == 2
    finally:
        cli.docker("rm", "foreign")


def test_published_ports_are_listed(cli: Cli) -> None:
    words = ["-p", "80", "-p", "127.0.0.1::53/udp", "--name", "ports", IMAGE, "sleep", "600"]
    container_id = cli("run", "--detach", *words).stdout.decode().strip()
    try:
        (document,) = json.loads(cli("ps", "--json").stdout)
        found = {(port["container_port"], port["protocol"], port["host_ip"]) for port in document["ports"]}
        assert found == {(80, "tcp", "127.0.0.1"), (53, "udp", "127.0.0.1")}
        assert all(port["host_port"] for port in document["ports"])
        for port in document["ports"]:
            text = f"127.0.0.1:{port['host_port']}->{port['container_port']}/{port['protocol']}"
            assert text in cli("ps").stdout.decode()
    finally:
        cli.docker("rm", "--force", container_id)


@pytest.mark.parametrize("word", ["talker", "prefix", "id"])
def test_logs(cli: Cli, talker: str, word: str) -> None:
    done = cli("logs", {"prefix": talker[:10], "id": talker}.get(word, word))
    assert (done.returncode, done.stderr) == (0, b"two\n")
    # A running container's last line without an end is not in the engine's log yet.
    assert done.stdout.removesuffix(b"three") == b"one\n"


def test_logs_options(cli: Cli, talker: str) -> None:
    stamped = cli("logs", "-t", "talker")
    stamp = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z "
    assert re.match(stamp + rb"one\n", stamped.stdout)
    assert re.fullmatch(stamp + rb"two\n", stamped.stderr)
    tail = cli("logs", "--tail", "1", "talker")
    assert b"one" not in tail.stdout
    assert tail.stderr in (b"", b"two\n")
    assert cli("logs", "--since", "2999-01-01", "talker").stdout == b""
    assert cli("logs", "--since", "1h", "talker").stdout.startswith(b"one\n")


def test_logs_that_cannot_be_found(cli: Cli, talker: str) -> None:
    done = cli("logs", "nobody")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert b"'nobody'" in done.stderr
    # Sixteen more begin with something that another one has.
    others = [cli.docker("create", IMAGE) for _ in range(16)]
    try:
        prefixes = [identifier[0] for identifier in (talker, *others)]
        shared = next(prefix for prefix in prefixes if prefixes.count(prefix) > 1)
        done = cli("logs", shared)
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
        assert b"is the beginning of" in done.stderr
    finally:
        cli.docker("rm", *others)


def test_following_logs(cli: Cli, talker: str) -> None:
    with cli.popen("logs", "-f", "talker") as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"one\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    with cli.popen("logs", "-f", talker) as process:
        assert process.stdout is not None
        first = read_until(process.stdout.fileno(), b"one\n")
        cli.docker("kill", talker)
        assert first + process.stdout.read() == b"one\nthree"
        assert process.wait(PATIENCE) == 0


def test_logs_into_a_pipe_that_closes(cli: Cli) -> None:
    container_id = cli.docker("create", "--name", "wordy", IMAGE, "head", "-c", "30000000", "/dev/zero")
    try:
        cli.docker("start", "--attach", "wordy")
        with cli.popen("logs", "wordy") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(1)
            process.stdout.close()
            assert process.wait(PATIENCE) == 141
            assert process.stderr.read() == b""
    finally:
        cli.docker("rm", "--force", container_id)


def test_reap(cli: Cli, talker: str) -> None:
    nothing = cli("reap")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, b"", b"asyncctr: nothing to remove\n")
    with cli.popen(*shell(FOREVER, "--name", "orphan")) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"up\n")
        assert re.search(rb"orphan .* pid \d+\n", cli("ps").stdout)
        assert cli("reap").stdout == b""
        process.kill()
    assert re.search(rb"orphan .* gone: reap it\n", cli("ps").stdout)
    assert cli("reap", "--older-than", "1h").stdout == b""
    dry = cli("reap", "--dry-run")
    assert re.fullmatch(rb"would remove [0-9a-f]{12}  orphan  .*running.*\n", dry.stdout)
    assert dry.stderr == b"asyncctr: would remove 1 container\n"
    assert len(cli.containers()) == 2
    done = cli("reap")
    assert re.fullmatch(rb"removed [0-9a-f]{12}  orphan  .*\n", done.stdout)
    # Detached ones outlive their maker.
    assert cli.containers() == [talker]


# --- doctor


def test_doctor(cli: Cli) -> None:
    done = cli("doctor")
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    version = cli.docker("version", "--format", "{{.Server.Version}}")
    assert re.search(rf"^docker +works: docker {re.escape(version)}, API 1\.\d+$", text, re.MULTILINE)
    assert f"address        {cli.daemon.host} (DOCKER_HOST)" in text
    assert f"storage driver {cli.docker('info', '--format', '{{.Driver}}')}" in text
    assert re.search(r"^containerd +(works|can be started|does not work)\b", text, re.MULTILINE)
    assert len(re.findall("^firecracker +not supported: .* has no backend for it$", text, re.MULTILINE)) == 1
    assert re.search(r"^nanos +(works|does not work)\b", text, re.MULTILINE)


def test_doctor_for_programs(cli: Cli) -> None:
    document = json.loads(cli("doctor", "--json").stdout)
    docker, _, firecracker, nanos = document["runtimes"]
    assert document["connect"] == "docker, as DOCKER_HOST says"
    assert (docker["type"], docker["status"], docker["address"], docker["error"]) == (
        "docker",
        "ok",
        cli.daemon.host,
        None,
    )
    assert docker["details"]["cgroup driver"] == cli.docker("info", "--format", "{{.CgroupDriver}}")
    assert (firecracker["type"], firecracker["status"]) == ("firecracker", "unsupported")
    assert (nanos["type"], nanos["status"] in ("ok", "failed")) == ("nanos", True)


def advice(cli: Cli, *words: str, **environ: str) -> tuple[dict[str, Any], str]:
    """What the doctor says of a Docker that does not work."""
    done = cli("doctor", "--backend", "docker", "--json", *words, **environ)
    assert (done.returncode, done.stderr) == (1, b"")
    docker = json.loads(done.stdout)["runtimes"][0]
    assert docker["status"] == "failed"
    assert docker["error"]
    return docker, "\n".join(docker["advice"])


def test_doctor_where_nothing_answers(cli: Cli, tmp_path: Path) -> None:
    docker, text = advice(cli, DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert docker["source"] == "DOCKER_HOST"
    assert "DOCKER_HOST names a socket that is not there" in text
    assert "DOCKER_HOST" in advice(cli, DOCKER_HOST="bogus://x")[1]
    assert "DOCKER_CONTEXT" in advice(cli, DOCKER_HOST="", DOCKER_CONTEXT="no-such", HOME=str(tmp_path))[1]
    plain = cli("doctor", "--backend", "docker", DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert plain.returncode == 1
    assert re.search(rb"^docker +does not work: .*\n +address .*\n +to do +", plain.stdout, re.MULTILINE)

    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
    assert "does not answer" in advice(cli, "--host", f"unix://{dead}")[1]


def test_doctor_where_the_socket_may_not_be_opened(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o660)
        # Somebody's and some group's: daemon's, which is 1 everywhere.
        os.chown(path, 65_534, 1)
        # Root without its capabilities is as good as any user here.
        words = [
            find("setpriv"),
            "--bounding-set=-all",
            "--inh-caps=-all",
            sys.executable,
            "-m",
            "asyncctr",
            "doctor",
            "--backend",
            "docker",
            "--json",
        ]
        environ = cli.environment(DOCKER_HOST=f"unix://{path}")
        done = subprocess.run(words, capture_output=True, env=environ, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
    docker = json.loads(done.stdout)["runtimes"][0]
    assert "Permission denied" in docker["error"]
    assert "sudo usermod -aG daemon root" in docker["advice"][0]


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version").stdout.decode() == f"asyncctr {asyncctr.__version__}\n"
    for words in (["--help"], ["run", "--help"], ["doctor", "--help"]):
        done = cli(*words)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"usage: asyncctr")


@pytest.mark.parametrize("runtime", ["containerd", "docker"])
def test_the_demo(cli: Cli, runtime: str) -> None:
    require(runtime)
    done = cli(*(["--docker"] if runtime == "docker" else []), program=("-m", "asyncctr.testing.demo"))
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    for expected in ("stdout: line 3", "stderr: warning 3", f"{64 << 20} bytes", "oom_killed=True", "exit_code=7"):
        assert expected in text
    for expected in ("RunTimeoutError", "late: tick 1", "containers left in the daemon: 0", "removed"):
        assert expected in text
    if runtime == "containerd":
        assert re.search(r"http://127\.0\.0\.1:\d+/ says: hello from [0-9a-f]{12}\n", text)
        assert "left of it: nothing" in text
    directory = re.search(r"(/tmp/asyncctr-\S+) removed", text)
    assert directory is not None
    assert not Path(directory[1]).exists()
    assert text.count("\n") <= 50
    assert ESCAPE.decode() not in text


def test_the_demo_ends_with_nothing_left(cli: Cli) -> None:
    require("containerd")
    environ = cli.environment()
    with subprocess.Popen(
        [sys.executable, "-m", "asyncctr.testing.demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        preexec_fn=listen_to_signals,  # noqa: PLW1509  # no lock is taken in it
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        text = read_until(process.stdout.fileno(), b"line 1")
        process.send_signal(signal.SIGINT)
        text += process.stdout.read()
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b""
    assert b"containers left in the daemon: 0" in text
    directory = re.search(rb"; in (/tmp/asyncctr-demo-\S+)\n", text)
    assert directory is not None
    assert not Path(directory[1].decode()).exists()
