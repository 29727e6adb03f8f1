"""The private daemons for real: they start, run containers, survive what tests do to them, and leave nothing."""

# ruff: noqa: ASYNC110, ASYNC240 - nothing else runs on these loops

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from asyncctr.testing import programs
from asyncctr.testing.daemons import (
    Containerd,
    DaemonError,
    Dockerd,
    Leftovers,
    Podman,
    Registry,
    RuntimeMissing,
    require,
)
from asyncctr.testing.distribution import PushError
from asyncctr.testing.images import ImageSpec, build_archive, push
from asyncctr.testing.process import http_ok
from asyncctr.testing.programs import CommandError, run
from asyncctr.testing.residue import cgroup_roots, cgroups_named, mounts_under, processes_of, runtime_states
from asyncctr.testing.traces import host_traces

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.timeout(180)]

_MADE = ("asyncctr", "br-", "cni-podman")
_LOCKS = Path("/run/asyncctr-testing")
_MARK = re.compile(r"asyncctr-testing-(\d+)")
IMAGE = "asyncctr.test/busybox:latest"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("image")
    path = tmp_path_factory.mktemp("image") / "busybox.tar"
    build_archive(ImageSpec(reference=IMAGE), path)
    return path


def _interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex() if not name.startswith("veth")}


def _held() -> set[str]:
    """The address blocks that daemons hold: between our tests, those of other processes."""
    return {path.name for path in _LOCKS.glob("*") if path.read_bytes()}


def _our_rules() -> set[str]:
    """The blocks that have rules in the packet filter."""
    found: set[str] = set()
    for table in ("filter", "nat"):
        words = [programs.find("iptables"), "--wait", "10", "--table", table, "--list-rules"]
        listed = subprocess.run(words, capture_output=True, check=True, timeout=20).stdout.decode()
        found.update(_MARK.findall(listed))
    return found


@pytest.fixture(autouse=True)
def nothing_changes_on_the_machine() -> Iterator[None]:
    """After each test the other daemons' interfaces are there as before, and no interfaces and rules of ours."""
    before, others = _interfaces(), _held()
    yield
    others |= _held()
    after = _interfaces()
    assert {name for name in before if not name.startswith(_MADE)} <= after
    assert {name for name in after if name.startswith("asyncctr")} <= {f"asyncctr{index}" for index in others}
    if not others:
        # Else there is no telling whose these are.
        assert not {name for name in after - before if name.startswith(_MADE)}
    if programs.missing("docker") is None:
        assert _our_rules() <= others


def assert_gone(directory: Path) -> None:
    assert not directory.exists()
    assert mounts_under(directory) == []
    assert processes_of(directory) == []
    assert cgroups_named(directory.name) == []


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [Dockerd, Podman])
async def test_runs_containers_and_leaves_nothing(kind: type[Dockerd | Podman], archive: Path) -> None:
    require(kind.kind)
    async with kind() as daemon:
        assert daemon.dir.stat().st_mode & 0o777 == 0o700
        assert daemon.socket.is_socket()
        assert await http_ok(None, str(daemon.socket), "/_ping")
        await daemon.load(archive)
        ended = await daemon.cli("run", "--rm", "--user", "app", IMAGE, "id")
        assert ended.text == "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)"
        assert await daemon.leftovers() == Leftovers()

        await daemon.cli("network", "create", "--label", "mine=1", "n1")
        await daemon.cli("volume", "create", "v1")
        serve = "echo hello >/tmp/x; exec httpd -f -h /tmp"
        one = (
            await daemon.cli("run", "--detach", "--label", "mine=1", "-p", "127.0.0.1::80", IMAGE, "sh", "-c", serve)
        ).text
        two = (await daemon.cli("run", "--detach", "--network", "n1", IMAGE, "sh", "-c", serve)).text
        found = await daemon.leftovers()
        assert sorted(found.containers) == sorted([one, two])
        assert (found.networks, found.volumes) == (("n1",), ("v1",))
        assert await daemon.leftovers(label="mine=1") == Leftovers(containers=(one,), networks=("n1",))

        # A published port from the host, and one container from another, by address.
        port = int((await daemon.cli("port", one, "80/tcp")).text.rpartition(":")[2])
        assert await http_ok("127.0.0.1", port, "/x")
        (details,) = json.loads((await daemon.cli("inspect", two)).stdout)
        address = details["NetworkSettings"]["Networks"]["n1"]["IPAddress"]
        request = f"printf 'GET /x HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} 80"
        assert "hello" in (await daemon.cli("run", "--rm", "--network", "n1", IMAGE, "sh", "-c", request)).text
        directory = daemon.dir
    assert_gone(directory)
    assert daemon.residue == Leftovers()


def containerd_of(release: str, runtime: str) -> Containerd:
    require("containerd2" if release == "2.x" else "containerd")
    if runtime == "crun":
        require("crun")
    return Containerd(release=release, runtime=runtime)  # type: ignore[arg-type]


@pytest.mark.anyio
@pytest.mark.parametrize("killed", [False, True])
# ctr 2.x writes a version of the runtime specification that Debian's crun does not know.
@pytest.mark.parametrize(("release", "runtime"), [("debian", "runc"), ("debian", "crun"), ("2.x", "runc")])
async def test_containerd_runs_containers(archive: Path, release: str, runtime: str, killed: bool) -> None:
    async with containerd_of(release, runtime) as daemon:
        major = re.search(r"Server:\s+Version:\s+v?(\d)", (await daemon.cli("version")).text)
        assert major is not None
        assert major[1] == ("2" if release == "2.x" else "1")
        await daemon.load(archive, namespace="testing")
        await daemon.load(archive)
        assert await daemon.leftovers() == Leftovers()
        # The OCI runtime keeps its state by namespace and id for all containerds of the machine.
        name = f"c{secrets.token_hex(4)}"
        await daemon.cli("run", "--detach", IMAGE, name, "sleep", "1000")
        own = (f"default/{name}",)
        assert await daemon.leftovers() == Leftovers(containers=own, tasks=own, snapshots=own)
        assert (await daemon.cli("tasks", "exec", "--exec-id", "e", name, "echo", "hello")).text == "hello"
        assert runtime_states(daemon.dir) == [Path("/run/containerd/runc/default", name)]
        comm = Path(f"/proc/{daemon.pid}/comm").read_text().strip()
        assert comm == "containerd"
        directory = daemon.dir
        if killed:
            await daemon.kill()
    assert_gone(directory)
    assert not runtime_states(directory)
    # A shim outlives its containerd by design; then it was ended by force.
    assert any("sleep" in process for process in daemon.residue.processes) == killed


@pytest.mark.anyio
@pytest.mark.parametrize("release", ["debian", "2.x"])
async def test_containerd_finds_what_is_left(archive: Path, release: str) -> None:
    require("cni")
    async with containerd_of(release, "runc") as daemon:
        await daemon.load(archive, namespace="testing")
        data = daemon.dir / "sdk"
        before = await host_traces(daemon.dir, data)
        await daemon.cli("leases", "create", "--id", "l1", namespace="testing")
        # A snapshot of its own, which no image has.
        chain = (await daemon.cli("snapshots", "list", namespace="testing")).lines[1].split()[0]
        await daemon.cli("snapshots", "prepare", "active", chain, namespace="testing")
        await daemon.cli("snapshots", "prepare", "own", chain, namespace="testing")
        await daemon.cli("snapshots", "commit", "committed", "own", namespace="testing")
        found = await daemon.leftovers()
        assert (found.containers, found.tasks, found.leases) == ((), (), ("testing/l1",))
        assert sorted(found.snapshots) == ["testing/active", "testing/committed"]

        # Names of their own, for others may be at work on this machine.
        mark = secrets.token_hex(4)
        group = next(root for root in cgroup_roots() if os.access(root, os.W_OK)) / f"asyncctr-{8 * mark}"
        netns, veth, socket_file = data / mark, f"veth{mark}", daemon.dir / "state" / "s" / mark
        rule = ("FORWARD", "--source", "192.0.2.9", "--match", "comment")
        rule += ("--comment", f'name: "asyncctr" id: "{mark}"', "--jump", "ACCEPT")
        group.mkdir()
        data.mkdir()
        netns.touch()
        await run("mount", "--bind", "/proc/self/ns/net", netns)
        await run("ip", "link", "add", veth, "type", "veth", "peer", "name", f"peer{mark}")
        await run("iptables", "--wait", "10", "--insert", *rule)
        socket_file.parent.mkdir(exist_ok=True)
        socket_file.touch()
        try:
            traces = (await host_traces(daemon.dir, data)).without(before)
        finally:
            await run("iptables", "--wait", "10", "--delete", *rule)
            await run("ip", "link", "delete", veth)
            await run("umount", netns)
            group.rmdir()
            socket_file.unlink()
        assert str(group) in traces.cgroups
        assert str(netns) in traces.netns
        assert veth in traces.interfaces
        assert len([found for found in traces.rules if mark in found]) == 1
        assert str(socket_file) in traces.sockets
        assert mark not in repr(await host_traces(daemon.dir, data))


@pytest.mark.anyio
@pytest.mark.parametrize("release", ["debian", "2.x"])
async def test_containerd_restarted_while_containers_run(archive: Path, release: str) -> None:
    async with containerd_of(release, "runc") as daemon:
        await daemon.load(archive)
        await daemon.cli("run", "--detach", IMAGE, f"c{secrets.token_hex(4)}", "sleep", "1000")
        first = daemon.pid
        await daemon.kill()
        await daemon.start()
        assert daemon.pid != first
        assert "RUNNING" in (await daemon.cli("tasks", "list")).text
        directory = daemon.dir
    assert_gone(directory)


@pytest.mark.anyio
async def test_two_dockers_and_a_podman_side_by_side(archive: Path) -> None:
    require("docker")
    require("podman")
    async with AsyncExitStack() as stack:
        daemons: list[Dockerd | Podman] = []
        for daemon in (Dockerd(), Dockerd(), Podman()):
            daemons.append(await stack.enter_async_context(daemon))  # noqa: PERF401 - each is up before the next starts
        assert len({daemon.bridge for daemon in daemons}) == 3
        for daemon in daemons:
            await daemon.load(archive)
            await daemon.cli("network", "create", "same")
        ports: list[int] = []
        for daemon in daemons:
            serve = "echo hello >/tmp/x; exec httpd -f -h /tmp"
            for network in ((), ("--network", "same")):
                name = (await daemon.cli("run", "-d", "-p", "127.0.0.1::80", *network, IMAGE, "sh", "-c", serve)).text
                ports.append(int((await daemon.cli("port", name, "80/tcp")).text.rpartition(":")[2]))
        # All at the end: starting one must not take the others' networks away.
        assert [await http_ok("127.0.0.1", port, "/x") for port in ports] == [True] * 6
        directories = [daemon.dir for daemon in daemons]
    for directory in directories:
        assert_gone(directory)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["restart", "kill"])
@pytest.mark.parametrize("live_restore", [False, True])
async def test_docker_restarted(archive: Path, how: str, live_restore: bool) -> None:
    require("docker")
    async with Dockerd(live_restore=live_restore) as daemon:
        await daemon.load(archive)
        await daemon.cli("run", "--detach", "--init", IMAGE, "sleep", "1000")
        first = daemon.pid
        if how == "restart":
            await daemon.restart()
        else:
            await daemon.kill()
            assert not daemon.running
            with pytest.raises(OSError):  # noqa: PT011 - refused or not found
                await http_ok(None, str(daemon.socket), "/_ping")
            await daemon.start()
        assert daemon.pid != first
        assert len((await daemon.cli("ps", "--quiet")).lines) == int(live_restore)
        # Networks work afterwards, new ones too.
        await daemon.cli("network", "create", "later")
        await daemon.cli("run", "--rm", "--network", "later", IMAGE, "true")
        directory = daemon.dir
    assert_gone(directory)
    assert daemon.residue.interfaces == ()


@pytest.mark.anyio
async def test_podman_restarted_while_containers_run(archive: Path) -> None:
    require("podman")
    async with Podman() as daemon:
        await daemon.load(archive)
        await daemon.cli("run", "--detach", IMAGE, "sleep", "1000")
        await daemon.restart()
        await daemon.kill()
        assert len((await daemon.cli("ps", "--quiet")).lines) == 1
        await daemon.start()
        assert await http_ok(None, str(daemon.socket), "/_ping")
        directory = daemon.dir
    assert_gone(directory)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [Dockerd, Podman])
async def test_exit_after_a_kill_cleans_up_by_force(kind: type[Dockerd | Podman], archive: Path) -> None:
    require(kind.kind)
    async with kind() as daemon:
        await daemon.load(archive)
        await daemon.cli("network", "create", "n1")
        await daemon.cli("run", "--detach", "--network", "n1", IMAGE, "sleep", "1000")
        await daemon.kill()
        directory = daemon.dir
    assert_gone(directory)
    if kind is Dockerd:
        # Podman's containers are removed by its command line; Docker's only by force.
        assert any("sleep" in process for process in daemon.residue.processes)
        assert daemon.residue.mounts
        assert daemon.residue.interfaces


# A network namespace of its own, so that the docker0 at stake is nobody's.
_DOCKER0 = """
import asyncio, sys
from asyncctr.testing.daemons import Dockerd
from asyncctr.testing.programs import run

async def there():
    return (await run("ip", "link", "show", "docker0", check=False)).returncode == 0

async def main():
    await run("ip", "link", "set", "lo", "up")
    await run("ip", "link", "add", "docker0", "type", "bridge")
    for live_restore in (False, True):
        async with Dockerd(live_restore=live_restore) as daemon:
            await daemon.cli("network", "create", "n1")
            for step in (daemon.restart, daemon.restart, daemon.kill, daemon.start):
                await step()
                assert await there(), (live_restore, step.__name__)
        assert await there(), (live_restore, "exit")
    print("docker0 stayed")

asyncio.run(main())
"""


@pytest.mark.anyio
async def test_docker0_of_another_daemon_stays() -> None:
    require("docker")
    path = os.pathsep.join(entry for entry in sys.path if entry)
    ended = await run("unshare", "--net", sys.executable, "-c", _DOCKER0, env={"PYTHONPATH": path}, timeout=120)
    assert ended.text == "docker0 stayed"


@pytest.mark.parametrize(
    "options",
    [
        {"config": {"bridge": "none"}},
        {"config": {"default-address-pools": []}},
        {"config": {"iptables": True}},
        {"args": ["--bridge=none"]},
        {"args": ["-b", "none"]},
        {"args": ["--default-address-pool", "base=10.0.0.0/8,size=24"]},
    ],
)
def test_options_that_break_other_daemons_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="another Docker daemon"):
        Dockerd(**options)  # type: ignore[arg-type]


@pytest.mark.anyio
@pytest.mark.parametrize("tls", [False, True])
async def test_docker_on_tcp(tls: bool) -> None:
    require("docker")
    async with Dockerd(tcp=not tls, tls=tls) as daemon:
        host = daemon.tcp_host
        files: tuple[str, ...] = ()
        if daemon.certs is not None:
            ca, cert, key = daemon.certs.ca, daemon.certs.client_cert, daemon.certs.client_key
            files = ("--tlsverify", f"--tlscacert={ca}", f"--tlscert={cert}", f"--tlskey={key}")
        for _ in range(2):
            ended = await run("docker", "--host", host, *files, "version", "--format", "{{.Server.Version}}")
            assert ended.text
            await daemon.restart()
            assert daemon.tcp_host == host
        if tls:
            refused = await run("docker", "--host", host, "version", check=False)
            assert refused.returncode != 0


@pytest.mark.anyio
async def test_a_daemon_that_does_not_start_shows_its_log_and_leaves_nothing() -> None:
    require("docker")
    daemon = Dockerd(config={"storage-driver": "nonsense"}, start_timeout=20)
    with pytest.raises(DaemonError, match="nonsense"):
        await daemon.__aenter__()
    assert_gone(daemon.dir)


@pytest.mark.anyio
async def test_cancelled_exit_still_cleans_up(archive: Path) -> None:
    require("docker")
    directory: list[Path] = []

    async def body() -> None:
        async with Dockerd() as daemon:
            await daemon.load(archive)
            await daemon.cli("run", "--detach", IMAGE, "sleep", "1000")
            directory.append(daemon.dir)
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    async with asyncio.timeout(60):
        while not directory:
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_gone(directory[0])


@pytest.mark.anyio
async def test_daemons_of_a_killed_process_end_and_the_next_one_cleans_up(archive: Path) -> None:
    require("docker")
    script = f"""
import asyncio
from asyncctr.testing.daemons import Dockerd
async def main():
    async with Dockerd() as daemon:
        await daemon.load({str(archive)!r})
        await daemon.cli("network", "create", "n1")
        await daemon.cli("run", "--detach", "--network", "n1", {IMAGE!r}, "sleep", "1000")
        print(daemon.dir, daemon.pid, flush=True)
        await asyncio.sleep(100)
asyncio.run(main())
"""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    victim = subprocess.Popen(  # noqa: ASYNC220 - killed below, so not through asyncio
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    assert victim.stdout is not None
    line = await asyncio.to_thread(victim.stdout.readline)
    name, pid = line.decode().split()
    descriptor = os.pidfd_open(int(pid))
    try:
        victim.kill()
        await asyncio.to_thread(victim.wait)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, ended.set)
        # The daemon gets SIGTERM when its starter dies, and takes its containers with it, ten seconds at most.
        async with asyncio.timeout(30):
            await ended.wait()
        asyncio.get_running_loop().remove_reader(descriptor)
    finally:
        os.close(descriptor)
        victim.stdout.close()
    assert Path(name).is_dir()
    # Blocks are taken from the lowest on; with others at work it may take more than one to get to that block.
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(Dockerd())
            if not Path(name).exists():
                break
        assert_gone(Path(name))


@pytest.mark.anyio
@pytest.mark.parametrize("auth", ["none", "htpasswd", "token"])
async def test_registry(auth: str) -> None:
    require("registry")
    async with Registry(auth=auth) as registry:  # type: ignore[arg-type]
        image = await push(ImageSpec(), registry.host, "team/box", "v1", registry.credentials)
        assert registry.blob_path(image.layers[0]).stat().st_size == len(image.blobs[image.layers[0]])
        if registry.credentials is not None:
            user, password = registry.credentials
            for wrong in ((user, password + "x"), ("nobody", password), None):
                with pytest.raises(PushError) as caught:
                    await push(ImageSpec(), registry.host, "team/box", "v2", wrong)
                assert caught.value.status == 401
            assert password.encode() not in b"".join(
                file.read_bytes() for file in registry.dir.iterdir() if file.is_file()
            )
        if registry.tokens is not None:
            # The registry asks for the actions in any order.
            assert {"repository:team/box:pull,push", "repository:team/box:push,pull"} & set(registry.tokens.issued)
            assert registry.tokens.refused == 3
        host = registry.host
        await registry.restart()
        assert registry.host == host
        await push(ImageSpec(padding=1000), registry.host, "team/box", "v3", registry.credentials)
        directory = registry.dir
    assert_gone(directory)
    assert registry.residue == Leftovers()


@pytest.mark.anyio
@pytest.mark.parametrize("auth", ["none", "htpasswd", "token"])
@pytest.mark.parametrize("kind", [Dockerd, Podman])
async def test_daemons_pull_from_the_registry(kind: type[Dockerd | Podman], auth: str) -> None:
    require(kind.kind)
    require("registry")
    async with kind() as daemon, Registry(auth=auth) as registry:  # type: ignore[arg-type]
        spec = ImageSpec(platforms=("linux/amd64", "linux/arm64/v8"), padding=100_000)
        image = await push(spec, registry.host, "team/box", "v1", registry.credentials)
        reference = registry.reference("team/box", "v1")
        if registry.credentials is not None:
            with pytest.raises(CommandError):
                await daemon.cli("pull", reference)
            user, password = registry.credentials
            await daemon.cli("login", "--username", user, "--password-stdin", registry.host, stdin=password.encode())
        await daemon.cli("pull", reference)
        (details,) = json.loads((await daemon.cli("image", "inspect", reference)).stdout)
        assert details["Id"].removeprefix("sha256:") == image.image_id.removeprefix("sha256:")
        assert f"{registry.host}/team/box@{image.digest}" in details["RepoDigests"]


def test_missing_program_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(programs.RUNTIMES, "made-up", ("no-such-program",))
    monkeypatch.setattr(programs, "_PACKAGES", {"no-such-program": "some-package"})
    monkeypatch.setattr(programs, "_WITHOUT_ROOT", frozenset({"made-up"}))
    with pytest.raises(RuntimeMissing, match="apt-get install some-package") as caught:
        programs.find("no-such-program")
    assert (caught.value.program, caught.value.package) == ("no-such-program", "some-package")
    monkeypatch.setenv("ASYNCCTR_REQUIRE", "other")
    with pytest.raises(pytest.skip.Exception, match="some-package"):
        require("made-up")
    for value in ("all", "other, made-up"):
        monkeypatch.setenv("ASYNCCTR_REQUIRE", value)
        with pytest.raises(pytest.fail.Exception, match="some-package"):
            require("made-up")
    with pytest.raises(KeyError):
        require("never heard of")


def test_values_are_attrs() -> None:
    assert not Leftovers()
    assert attrs.evolve(Leftovers(), volumes=("v",))
