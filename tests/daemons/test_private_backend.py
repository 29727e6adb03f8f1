"""Clients with a containerd of their own, as root and without: it starts, is shared, dies, is there again, and leaves nothing."""

# ruff: noqa: ASYNC240 - nothing else runs on these loops

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

import asyncctr
from asyncctr import (
    BackendUnavailableError,
    ConflictError,
    ConnectionLostError,
    ContainerConfig,
    ContainerdConfig,
    ContainerNotFoundError,
    ContainerStatus,
    InvalidConfigError,
    InvalidStateError,
    NetworkConfig,
    NetworkMode,
    PortMapping,
    ResourceLimits,
    UnsupportedError,
    VolumeMount,
)
from asyncctr.backends.containerd import finding
from asyncctr.client import selection
from asyncctr.testing.as_user import run_as_user
from asyncctr.testing.golang import CONTAINERD
from asyncctr.testing.images import ImageSpec, build_archive
from asyncctr.testing.private import PrivateContainerd
from asyncctr.testing.programs import RuntimeMissing, give_up, require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

IMAGE = "asyncctr.test/busybox:latest"
IMPORTS = "import asyncctr.backends.containerd, asyncctr.testing.private, asyncctr.testing.as_user, pytest_timeout"
ROOT = os.geteuid() == 0
NONE = NetworkConfig(mode=NetworkMode.NONE)
LIST = """
import asyncio, sys, asyncctr

async def main():
    async with asyncctr.connect(asyncctr.ContainerdConfig(private=True, auto_start=True)) as client:
        print(*[info.id for info in await client.list()], flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("image")
    path = tmp_path_factory.mktemp("image") / "busybox.tar"
    build_archive(ImageSpec(reference=IMAGE), path)
    return path


@pytest.fixture(params=["debian", "2.x"])
async def daemon(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, archive: Path
) -> AsyncIterator[PrivateContainerd]:
    """One that runs, has the image, and ends soon when nobody uses it."""
    if ROOT:
        require("containerd" if request.param == "debian" else "containerd2")
        require("cni")
    elif request.param == "2.x" and not CONTAINERD.ready():
        pytest.skip("containerd 2.x is not built")
    async with PrivateContainerd(release=request.param, idle=0.3) as daemon:
        for name, value in daemon.environ.items():
            monkeypatch.setenv(name, value)
        async with asyncctr.connect(daemon.config) as client:
            await client.image(IMAGE).load(archive)
        yield daemon


def script(text: str, **fields: object) -> ContainerConfig:
    return ContainerConfig(image=IMAGE, command=["sh", "-c", text], **{"network": NONE, **fields})  # type: ignore[arg-type]


async def nothing_left(daemon: PrivateContainerd) -> None:
    """Wait until clean-up in the background has ended, and nothing is there."""
    end = asyncio.get_running_loop().time() + 10
    while (found := (await daemon.leftovers(), await daemon.traces())) and any(found):
        assert asyncio.get_running_loop().time() < end, found
        await asyncio.sleep(0.05)


async def test_a_run_with_a_network_and_ports_leaves_nothing(daemon: PrivateContainerd) -> None:
    network = NetworkConfig(port_mappings=[PortMapping(container_port=80)])
    async with asyncctr.connect(daemon.config) as client:
        result = await client.run(script("echo hello; exit 3", network=network))
        assert (result.exit_code, result.stdout) == (3, b"hello\n")
        async with client.container(script("nc -ll -p 80 -e echo hi", network=network)) as container:
            await container.start()
            port = (await container.inspect()).ports[0].host_port
            said = b""
            while not said:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    said = await reader.read()
                    writer.close()
                except ConnectionError:
                    await asyncio.sleep(0.02)
            assert said == b"hi\n"
            # Not where all containerds of the machine have theirs.
            assert list(Path(daemon.lease.endpoint.runc_root).glob(f"*/{container.id}"))
            assert not ROOT or not Path("/run/containerd/runc/asyncctr", container.id).exists()
    await nothing_left(daemon)


async def test_what_takes_control_groups_is_refused_where_there_are_none(daemon: PrivateContainerd) -> None:
    async with asyncctr.connect(daemon.config) as client:
        found = client.capabilities
        limits = (
            found.supports_memory,
            found.supports_cpu,
            found.supports_pids,
            found.supports_pause,
            found.reports_oom,
        )
        assert limits == (ROOT,) * 5
        if ROOT:
            return
        for limit in (ResourceLimits(memory=1 << 26), ResourceLimits(pids=9), ResourceLimits(cpu_quota=5000)):
            with pytest.raises(UnsupportedError) as caught:
                await client.create(script("true", resources=limit))
            assert caught.value.field in found.refused_fields
        with pytest.raises(UnsupportedError, match="host"):
            await client.create(script("true", network=NetworkConfig(mode=NetworkMode.HOST)))
        async with client.container(script("sleep 1000 & sleep 1000")) as container:
            await container.start()
            with pytest.raises(UnsupportedError, match="control group"):
                await client.backend.pause(container.id)  # type: ignore[attr-defined]
            await container.kill()
            status = await container.wait()
            assert (status.code, status.oom_killed) == (137, None)


async def test_an_exit_that_nobody_waited_for_outlives_the_daemon(daemon: PrivateContainerd) -> None:
    async with asyncctr.connect(daemon.config) as client:
        seen, unseen = [await client.create(script(f"exec sleep 0.{n}"), detached=True) for n in (1, 2)]
        failed = await client.create(script("sleep 0.2; echo out; exit 7"), detached=True)
        for container in (seen, unseen, failed):
            await container.start()
    await daemon.let_go()
    await daemon.gone()
    await daemon.start()
    async with asyncctr.connect(daemon.config) as client:
        assert (await (await client.get(unseen.id)).wait()).code == 0
        again = await client.get(failed.id)
        info = await again.inspect()
        assert (info.status, info.exit_code) == (ContainerStatus.EXITED, 7)
        assert (await again.wait()).code == 7
        assert (await again.logs().read()).stdout == b"out\n"
        for info in await client.list():
            await (await client.get(info.id)).remove()
    await nothing_left(daemon)


async def test_processes_share_one(daemon: PrivateContainerd) -> None:
    async with asyncctr.connect(daemon.config) as client:
        container = await client.create(script("sleep 1000"), detached=True)
        await container.start()
        path = os.pathsep.join(path for path in sys.path if path)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LIST),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert process.stdout is not None
        assert (await process.stdout.readline()).decode().split() == [container.id]
        pid = daemon.pid
        await container.remove(force=True)
    await daemon.let_go()
    # The other one has it still.
    await asyncio.sleep(0.5)
    await daemon.start()
    assert daemon.pid == pid
    await process.communicate(b"")


async def test_the_daemon_dies_under_a_client(daemon: PrivateContainerd, caplog: pytest.LogCaptureFixture) -> None:
    network = NetworkConfig(port_mappings=[PortMapping(container_port=80)])
    async with asyncctr.connect(daemon.config) as client:
        container = await client.create(script("echo begun; sleep 1000", network=network), detached=True)
        await container.start()
        waits = [asyncio.create_task(container.wait()), asyncio.create_task(client.backend.wait(container.id))]
        async for line in container.logs().lines():
            assert line.text == "begun"
            break
        assert daemon.pid is not None
        os.kill(daemon.pid, signal.SIGKILL)
        for wait in waits:
            with pytest.raises(ConnectionLostError):
                await wait
        with caplog.at_level(logging.WARNING):
            # The first call has it started again.
            while True:
                try:
                    (info,) = await client.list()
                    break
                except (BackendUnavailableError, ConnectionLostError):
                    await asyncio.sleep(0.02)
        assert "the private containerd has ended" in caplog.text
        assert info.status is (ContainerStatus.RUNNING if ROOT else ContainerStatus.EXITED)
        if ROOT:
            await container.kill()
            assert (await container.wait()).code == 137
        else:
            with pytest.raises(InvalidStateError, match="exit code was lost"):
                await container.wait()
            assert (await container.inspect()).exit_code is None
        assert (await container.logs(follow=False).read()).stdout == b"begun\n"
        assert (await client.run(script("echo anew", network=network))).stdout == b"anew\n"
        await container.remove()
        with pytest.raises(ContainerNotFoundError):
            await container.inspect()
    await daemon.let_go()
    await daemon.start()
    await nothing_left(daemon)


async def test_one_that_has_ended_is_not_started_again_unasked(daemon: PrivateContainerd) -> None:
    async with asyncctr.connect(attrs.evolve(daemon.config, auto_start=False)) as client:
        await client.health_check()
        await daemon.kill()
        with pytest.raises(BackendUnavailableError, match=r"has ended \(.*killed by signal 9\), and there is no other"):
            while True:
                try:
                    await client.list()
                except ConnectionLostError:
                    # It may die in the midst of an answer.
                    pass
                except BackendUnavailableError as error:
                    if "cannot reach" not in error.message:
                        raise
                await asyncio.sleep(0.02)
        await daemon.start()
        assert await client.list() == ()


async def test_connect_starts_one_where_nothing_runs(
    daemon: PrivateContainerd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(selection, "_PROBED", ("containerd",))
    monkeypatch.setattr(finding, "SYSTEM_SOCKET", str(tmp_path / "none.sock"))
    for name in ("ASYNCCTR_BACKEND", "DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    # What it starts is the first one in the path.
    if path := daemon.config.containerd_path:
        monkeypatch.setenv("PATH", os.pathsep.join([str(Path(path).parent), os.environ["PATH"]]))
    await daemon.let_go()
    await daemon.gone()
    monkeypatch.setenv("ASYNCCTR_AUTO_START", "0")
    with pytest.raises(BackendUnavailableError, match="no container runtime answered"):
        await asyncctr.connect()
    monkeypatch.delenv("ASYNCCTR_AUTO_START")
    async with asyncctr.connect() as client:
        assert client.backend.backend_type == "containerd"
        assert (await client.run(script("echo hello"))).stdout == b"hello\n"
    await daemon.gone()


@pytest.mark.skipif(ROOT, reason="root's ports are portmap's")
async def test_what_rootlesskit_publishes_and_what_it_does_not(daemon: PrivateContainerd) -> None:
    def published(**fields: object) -> ContainerConfig:
        mapping = PortMapping(container_port=80, **fields)  # type: ignore[arg-type]
        return script("sleep 1000", network=NetworkConfig(port_mappings=[mapping]))

    async with asyncctr.connect(daemon.config) as client, client.container(published(host_ip="::1")) as container:
        await container.start()
        (port,) = (await container.inspect()).ports
        _, writer = await asyncio.open_connection("::1", port.host_port)
        writer.close()
        taken = published(host_ip="::1", host_port=port.host_port)
        free = published(host_port=port.host_port)
        wrong = ((taken, ConflictError, "is taken"), (published(host_port=80), InvalidConfigError, "privileged"))
        for config, kind, words in (*wrong, (published(host_port=9, protocol="sctp"), UnsupportedError, "sctp")):
            async with client.container(config) as other:
                with pytest.raises(kind, match=words):
                    await other.start()
        async with client.container(free) as other:
            await other.start()
    await nothing_left(daemon)


async def test_one_that_is_named_by_its_socket(daemon: PrivateContainerd, archive: Path) -> None:
    config = ContainerdConfig(socket_path=str(daemon.socket), namespace="named")
    network = NetworkConfig(port_mappings=[PortMapping(container_port=80)])
    async with asyncctr.connect(config) as client:
        await client.image(IMAGE).load(archive)
        async with client.container(script("sleep 1000", network=network)) as container:
            await container.start()
            (port,) = (await container.inspect()).ports
            assert port.host_port
        assert (await client.run(script("echo hello", network=network))).stdout == b"hello\n"
    await nothing_left(daemon)


@pytest.mark.skipif(ROOT, reason="root has the kernel's overlayfs")
async def test_fuse_overlayfs_takes_the_kernels_place(daemon: PrivateContainerd, archive: Path) -> None:
    (probe,) = daemon.dir.glob("data/*/private/overlay.found")
    probe.write_text(f"none {platform.release()}\n")
    config = attrs.evolve(daemon.config, namespace="fuse")
    async with asyncctr.connect(config) as client:
        await client.image(IMAGE).load(archive)
        result = await client.run(script("grep ' / ' /proc/mounts; echo x >/new; ls -l /new /bin/sh; id -u nobody"))
        assert b" fuse.fuse-overlayfs " in result.stdout
        assert (result.exit_code, result.stderr) == (0, b"")
        volume = VolumeMount(source="filled", destination="/home", is_volume_name=True)
        result = await client.run(script("stat -c '%n %u:%g' /home/*", volumes=[volume]))
        assert result.stdout == b"/home/app 1000:1000\n"
        await client.backend.remove_volume("filled")  # type: ignore[attr-defined]
    await nothing_left(daemon)


@pytest.mark.skipif(not ROOT, reason="that is what runs here")
@pytest.mark.timeout(240)
async def test_all_of_it_without_root(request: pytest.FixtureRequest) -> None:
    for runtime in ("rootless", "cni", "image", "containerd"):
        require(runtime)
    names = [name for name in globals() if name.startswith("test_") and name != request.node.name]
    try:
        results = await run_as_user(request.path, names, imports=IMPORTS)
    except RuntimeMissing as error:
        give_up("rootless", error)
    results.tell_all()
