"""The private containerd for real: started once, shared, left to others by those who die, and gone when nobody uses it."""

# ruff: noqa: ASYNC240 - nothing else runs on these loops

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from asyncctr.backends.containerd.daemon.lease import Lease, ensure_private, join_private
from asyncctr.backends.containerd.daemon.places import Places
from asyncctr.backends.containerd.finding import find
from asyncctr.core.backend_config import ContainerdConfig
from asyncctr.core.errors import BackendUnavailableError, ConflictError
from asyncctr.testing.images import ImageSpec, build_archive
from asyncctr.testing.ordinary import OrdinaryUser, everybodys_devices, ordinary_user
from asyncctr.testing.process import http_ok
from asyncctr.testing.programs import RuntimeMissing, give_up, require, run
from asyncctr.testing.programs import find as find_program
from asyncctr.testing.residue import (
    kill_all,
    mounts_under,
    processes_of,
    remove_shim_traces,
    remove_tree,
    unmount_under,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

pytestmark = [pytest.mark.anyio, pytest.mark.require("containerd"), pytest.mark.timeout(60)]

IMAGE = "asyncctr.test/busybox:latest"
AUTO = ContainerdConfig(auto_start=True)

# Holds a lease until its standard input ends.
HOLDER = """
import asyncio, json, sys
from asyncctr.backends.containerd.daemon.lease import ensure_private
from asyncctr.core.backend_config import ContainerdConfig
from asyncctr.core.errors import AsyncctrError

async def main():
    print("up", flush=True)
    sys.stdin.readline()
    try:
        lease = await ensure_private(ContainerdConfig())
    except AsyncctrError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    async with lease:
        found = lease.endpoint
        rootless = found.rootless and [found.rootless.child_pid, found.rootless.state_dir, found.rootless.api_socket]
        print(json.dumps({"description": str(found), "socket": found.socket, "rootless": rootless}), flush=True)
        print(json.dumps(await lease.ended() if sys.argv[1:] else sys.stdin.read()), flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def environ() -> AsyncIterator[dict[str, str]]:
    """An environment with directories of its own; whatever is left below them ends with the test."""
    directory = Path(tempfile.mkdtemp(prefix="asyncctr-private-", dir="/tmp"))
    yield {
        **os.environ,
        "ASYNCCTR_DATA_DIR": str(directory / "data"),
        "ASYNCCTR_RUN_DIR": str(directory / "run"),
        "ASYNCCTR_IDLE_TIMEOUT": "0.3",
    }
    await clear(directory, directory / "run")


async def clear(directory: Path, *states: Path) -> None:
    await kill_all(supervisors(directory) + processes_of(directory))
    for state in states:
        for run_dir in state.glob("containerd-*"):
            remove_shim_traces(run_dir)
    await unmount_under(directory)
    assert remove_tree(directory) == []


def base(environ: Mapping[str, str]) -> Path:
    return Path(environ["ASYNCCTR_DATA_DIR"]).parent


def supervisors(directory: Path) -> list[int]:
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(b"/supervisor.py") for word in words) and os.fsencode(f"{directory}/") in b" ".join(words):
            found.append(int(path.parent.name))
    return found


def state(pid: int) -> str:
    """One letter (proc(5)); none for a process that is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def all_gone(environ: Mapping[str, str]) -> None:
    """Wait until the supervisor has ended, and see that it left nothing."""
    places = Places.of(environ)
    # A process, for a thread could not be given up.
    await run("flock", f"{places.private}/daemon.lock", "true", timeout=20)
    assert processes_of(base(environ)) == []
    assert mounts_under(base(environ)) == []
    assert list(Path(places.run).iterdir()) == []


def pid_of(lease: Lease) -> int:
    return int(lease.endpoint.description.partition("pid ")[2].partition(",")[0])


def exits(lease: Lease) -> dict[str, str]:
    return {path.name: path.read_text() for path in Path(lease.endpoint.exits_dir, "default").iterdir()}


async def ctr(lease: Lease, *words: str) -> str:
    return (await run("ctr", "--address", lease.endpoint.socket, *words)).text


@asynccontextmanager
async def holder(
    environ: Mapping[str, str], *words: str, python: tuple[str, ...] = (sys.executable,)
) -> AsyncIterator[Any]:
    process = await asyncio.create_subprocess_exec(
        *python, "-c", HOLDER, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environ), cwd="/"
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def tell(process: Any) -> dict[str, Any]:
    process.stdin.write(b"\n")
    return json.loads(await process.stdout.readline())


async def test_eight_processes_start_one_daemon_and_their_death_ends_it(environ: dict[str, str]) -> None:
    async with _crowd(environ, 8) as crowd:
        told = await asyncio.gather(*(tell(process) for process in crowd))
        assert len({one["description"] for one in told}) == 1
        assert len(supervisors(base(environ))) == 1
        for process in crowd[1:]:
            process.kill()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.6):
                await all_gone(environ)
        crowd[0].kill()
        await all_gone(environ)


@asynccontextmanager
async def _crowd(environ: Mapping[str, str], count: int) -> AsyncIterator[list[Any]]:
    env = {**environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(holder(env)) for _ in range(count)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("image")
    path = tmp_path_factory.mktemp("image") / "busybox.tar"
    build_archive(ImageSpec(reference=IMAGE), path)
    return path


async def test_containers_survive_a_crash_and_keep_the_daemon(environ: dict[str, str], archive: Path) -> None:
    lease = await ensure_private(AUTO, environ)
    await ctr(lease, "images", "import", str(archive))
    for name in ("c1", "c2"):
        await ctr(lease, "run", "--detach", IMAGE, name, "sh", "-c", "trap 'exit 3' TERM; sleep 1000 & wait")
    tasks = sorted((await ctr(lease, "tasks", "list")).split())

    os.kill(pid_of(lease), signal.SIGKILL)
    assert "was killed by signal 9" in await lease.ended()
    await lease.aclose()
    assert await join_private(AUTO, environ) is None

    async with await ensure_private(AUTO, environ) as lease:
        assert sorted((await ctr(lease, "tasks", "list")).split()) == tasks
        assert tasks.count("RUNNING") == 2
        first = pid_of(lease)
    # Nobody has a lease now.
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.6):
            await all_gone(environ)
    async with await ensure_private(AUTO, environ) as lease:
        assert pid_of(lease) == first
        for name, number in (("c1", "9"), ("c2", "15")):
            await ctr(lease, "tasks", "kill", "--signal", number, name)
    # Ended tasks do not count, nor does a container without one; their codes are kept.
    await all_gone(environ)
    assert exits(lease) == {"c1": "137", "c2": "3"}
    async with await ensure_private(AUTO, environ) as lease:
        assert len((await ctr(lease, "containers", "list", "--quiet")).split()) == 2
    await all_gone(environ)


async def test_a_killed_supervisor_and_stale_sockets(environ: dict[str, str]) -> None:
    lease = await ensure_private(AUTO, environ)
    (supervisor,) = supervisors(base(environ))
    os.kill(supervisor, signal.SIGKILL)
    assert await lease.ended() == "its supervisor has ended"
    await lease.aclose()
    # The socket is there, and nobody listens.
    assert await join_private(AUTO, environ) is None
    again = await ensure_private(AUTO, environ)
    assert pid_of(again) == pid_of(lease)

    (supervisor,) = supervisors(base(environ))
    assert await kill_all([supervisor, pid_of(again)]) == []
    await again.aclose()
    async with await ensure_private(AUTO, environ) as third:
        assert pid_of(third) != pid_of(again)
        assert "Server:" in await ctr(third, "version")
        # Found by those who are told its socket, too.
        assert (await find(ContainerdConfig(socket_path=third.endpoint.socket), environ)).rootless is None
        os.kill(supervisors(base(environ))[0], signal.SIGTERM)
        assert await third.ended() == "the supervisor was asked to stop"
    await all_gone(environ)


def program(directory: Path, text: str) -> Path:
    path = directory / "containerd"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


async def test_a_start_that_hangs_is_cleared_away(environ: dict[str, str], tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    hanging = program(tmp_path, f"echo $$ >{started}; exec sleep 1000")
    task = asyncio.create_task(ensure_private(ContainerdConfig(containerd_path=hanging), environ))
    pid = int(await asyncio.to_thread(started.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    os.kill(supervisors(base(environ))[0], signal.SIGKILL)
    async with await ensure_private(AUTO, environ) as lease:
        assert "Server:" in await ctr(lease, "version")
        assert state(pid) in {"", "Z"}
    await all_gone(environ)


async def test_a_start_that_fails_tells_why_to_everybody(environ: dict[str, str], tmp_path: Path) -> None:
    failing = ContainerdConfig(containerd_path=program(tmp_path, "echo no database >&2; exit 3"))
    results = await asyncio.gather(*(ensure_private(failing, environ) for _ in range(3)), return_exceptions=True)
    for error in results:
        assert isinstance(error, BackendUnavailableError)
        # Whoever only joined may have met several such starts, and has it from the log.
        assert "it ended with 3 while it started" in str(error)
        assert "no database" in str(error)
    await all_gone(environ)
    # A state that this containerd cannot read is such a failure.
    private = Path(Places.of(environ).private)
    (private / "root/io.containerd.metadata.v1.bolt").mkdir(parents=True)
    (private / "root/io.containerd.metadata.v1.bolt/meta.db").write_bytes(b"x" * 65536)
    with pytest.raises(
        BackendUnavailableError, match=r"(?s)does not start: it ended with 1.*io\.containerd\.metadata\.v1\.bolt"
    ):
        await ensure_private(AUTO, environ)


async def test_another_program_is_noticed(environ: dict[str, str], tmp_path: Path) -> None:
    other = ContainerdConfig(containerd_path=program(tmp_path, f'exec {find_program("containerd")} "$@"'))
    first = await ensure_private(AUTO, environ)
    async with await ensure_private(ContainerdConfig(containerd_path=find_program("containerd")), environ) as second:
        assert pid_of(second) == pid_of(first)
    with pytest.raises(ConflictError, match=r"containerd_path: .* is not what runs, which is the private containerd"):
        await join_private(other, environ)
    with pytest.raises(ConflictError, match="is not what runs"):
        await ensure_private(other, environ)
    await first.aclose()
    async with await ensure_private(other, environ) as third:
        assert third.endpoint.containerd == other.containerd_path
        assert "Server:" in await ctr(third, "version")
    await all_gone(environ)


async def test_an_unwritable_state_is_refused(environ: dict[str, str]) -> None:
    base(environ).joinpath("data").write_text("a file")
    with pytest.raises(BackendUnavailableError, match=r"cannot write to .*data/containerd.*name other places"):
        await ensure_private(AUTO, environ)


# -- without root


@pytest.fixture
async def user() -> AsyncIterator[OrdinaryUser]:
    """Somebody with directories of their own, and devices for networking."""
    require("rootless")
    try:
        async with ordinary_user(HOLDER.partition("async def")[0]) as somebody:
            variables = {
                "ASYNCCTR_DATA_DIR": f"{somebody.directory}/home/data",
                "ASYNCCTR_RUN_DIR": f"{somebody.directory}/home/run",
                "ASYNCCTR_IDLE_TIMEOUT": "0.3",
            }
            user = attrs.evolve(somebody, environ={**somebody.environ, **variables})
            if not Path("/dev/net/tun").stat().st_mode & 0o006:
                async with holder(user.environ, python=user.python) as process:
                    refused = (await tell(process))["error"]
                assert (
                    "  - /dev/net/tun: Permission denied; networking needs it. as root: chmod 666 /dev/net/tun"
                    in refused
                )
            with everybodys_devices():
                yield user
            assert await user.left() == []
            assert mounts_under(user.directory) == []
    except RuntimeMissing as error:
        give_up("rootless", error)


def sleeper(user: OrdinaryUser) -> Path:
    """A runtime specification without a control group, which ctr's own always has."""
    rootfs = user.directory / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    # runc makes what is missing, devices say.
    os.chown(rootfs, user.uid, user.uid)
    (rootfs / "proc").mkdir()
    shutil.copy(find_program("busybox"), rootfs / "bin/sleep")
    spec = {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sleep", "1000"], "cwd": "/"},
        "root": {"path": str(rootfs)},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
    }
    path = user.directory / "spec.json"
    path.write_text(json.dumps(spec))
    return path


async def test_without_root(user: OrdinaryUser) -> None:
    async with holder(user.environ, python=user.python) as process:
        told = await tell(process)
        child, _, api_socket = told["rootless"]
        assert await http_ok(None, api_socket, "/v1/ports")
        inside = ("nsenter", "-U", "--preserve-credentials", "-m", "-n", "-t", str(child), "id", "-u")
        assert (await run(*user.words(*inside))).text == "0"
        assert Path(user.environ["ASYNCCTR_DATA_DIR"], "containerd/private/overlay.found").read_text().split()[0] in {
            "native",
            "none",
        }
        found = await find(
            ContainerdConfig(socket_path=told["socket"]), {"ASYNCCTR_DATA_DIR": f"{user.directory}/ours"}
        )
        assert found.rootless is not None
        assert found.rootless.api_socket == api_socket

        address = ("ctr", "--address", told["socket"])
        await run(*address, "run", "--config", sleeper(user), "--null-io", "--detach", "c1")
        process.kill()
    # What runs keeps it; then its death does not.
    async with holder(user.environ, python=user.python) as process:
        assert (await tell(process))["description"] == told["description"]
        await run(*address, "tasks", "kill", "--signal", "9", "c1")
    await run("flock", Path(user.environ["ASYNCCTR_DATA_DIR"], "containerd/private/daemon.lock"), "true", timeout=20)
    assert await user.left() == []
    assert Path(user.environ["ASYNCCTR_DATA_DIR"], "containerd/private/exits/default/c1").read_text() == "137"

    # The end of rootlesskit is that of all in it.
    async with holder(user.environ, "wait", python=user.python) as process:
        told = await tell(process)
        os.kill(int(told["description"].partition("pid ")[2].partition(",")[0]), signal.SIGKILL)
        assert "was killed by signal 9" in json.loads(await process.stdout.readline())
        await process.wait()
    async with holder(user.environ, python=user.python) as process:
        assert (await tell(process))["rootless"] != told["rootless"]
    await run("flock", Path(user.environ["ASYNCCTR_DATA_DIR"], "containerd/private/daemon.lock"), "true", timeout=20)
