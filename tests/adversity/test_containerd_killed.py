"""Processes killed in the middle of making, starting and removing a container of containerd: what is left is true, and goes."""

# ruff: noqa: ASYNC110 - files tell nothing when they grow, or when blocks are taken out of them

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

import asyncctr
from asyncctr import ContainerConfig, ContainerStatus
from asyncctr.core.errors import ConflictError, InvalidStateError

if TYPE_CHECKING:
    from asyncctr.testing.containerd_site import ContainerdSite

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

IMAGE = "asyncctr.test/busybox:latest"

# Kills itself before or after its first call of a method; with a name, a volume, a network and a standard input to leave behind.
VICTIM = """
import asyncio, os, signal, sys
import asyncctr
from asyncctr import ContainerConfig, ContainerdConfig, VolumeMount
from asyncctr.transport.grpc import GrpcClient

socket, when, path, lifetime, name = sys.argv[1:]
real = GrpcClient.call

async def call(self, method, request, **options):
    mine = method.path.endswith(path)
    if mine and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    answer = await real(self, method, request, **options)
    if mine:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

async def main():
    async with asyncctr.connect(ContainerdConfig(socket_path=socket)) as client:
        await asyncio.sleep(0)
        GrpcClient.call = call
        config = ContainerConfig("asyncctr.test/busybox:latest", command=("sleep", "1000"), name=name, stdin=True)
        container = await client.create(config, detached=lifetime == "detached")
        print(container.id, flush=True)
        await container.start()
        await container.remove(force=True)

asyncio.run(main())
"""


async def die(site: ContainerdSite, when: str, path: str, lifetime: str = "owned", name: str = "victim") -> str:
    """Have a process killed there; the id of its container, if it got as far as knowing it."""
    words = [sys.executable, "-c", VICTIM, str(site.daemon.socket), when, path, lifetime, name]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL
    return out.decode().strip()


WRITER = """
import asyncio, os, signal, sys
import asyncctr
from asyncctr import ContainerConfig, ContainerdConfig

async def main():
    async with asyncctr.connect(ContainerdConfig(socket_path=sys.argv[1])) as client:
        script = "while true; do head -c 262144 /dev/zero; usleep 20000; done"
        config = ContainerConfig("asyncctr.test/busybox:latest", command=("sh", "-c", script), log_limit=1 << 20)
        container = await client.create(config, detached=True)
        await container.start()
        print(container.id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""

POINTS = [
    ("before", "Containers/Create"),
    ("after", "Containers/Create"),
    ("after", "Snapshots/Prepare"),
    ("before", "Tasks/Create"),
    ("after", "Tasks/Create"),
    ("after", "Tasks/Start"),
    ("before", "Containers/Delete"),
    ("after", "Containers/Delete"),
    ("after", "Snapshots/Remove"),
]


async def test_nothing_is_left_of_what_was_killed(site: ContainerdSite) -> None:
    names = [f"{when}-{path.replace('/', '-')}" for when, path in POINTS]
    await asyncio.gather(*(die(site, *point, name=name) for point, name in zip(POINTS, names, strict=True)))
    async with asyncctr.connect(site.config) as client:
        reaped = await client.reap()
        states = {ContainerStatus.CREATED, ContainerStatus.RUNNING, ContainerStatus.EXITED}
        assert {info.status for info in reaped} <= states
        # The names are free again, at once where there is no container any more.
        for name in names:
            await (await client.create(ContainerConfig(IMAGE, command=("true",), name=name))).remove()
        assert not await client.list()
    assert not await site.leftovers()


async def test_a_living_process_is_left_alone(site: ContainerdSite, client: asyncctr.Client) -> None:
    ready = asyncio.Event()
    go_on = asyncio.Event()
    real = client.backend._api.call  # type: ignore[attr-defined]

    async def held(method: object, *args: object, **options: object) -> object:
        if getattr(method, "path", "").endswith("Containers/Create"):
            ready.set()
            await go_on.wait()
        return await real(method, *args, **options)

    client.backend._api.call = held  # type: ignore[attr-defined]
    making = asyncio.create_task(client.create(ContainerConfig(IMAGE, command=("true",), name="slow")))
    await ready.wait()
    async with asyncctr.connect(site.config) as other:
        with pytest.raises(ConflictError, match="slow"):
            await other.create(ContainerConfig(IMAGE, command=("true",), name="slow"))
        # It has swept when it is closed.
    go_on.set()
    container = await making
    await container.start()
    assert (await container.wait()).code == 0
    await container.remove()
    assert not await site.leftovers()


@pytest.mark.parametrize("point", [("before", "Tasks/Create"), ("after", "Tasks/Create")])
async def test_a_start_that_was_killed_can_be_made_again(
    site: ContainerdSite, client: asyncctr.Client, point: tuple[str, str]
) -> None:
    container_id = await die(site, *point, lifetime="detached")
    container = await client.get(container_id)
    assert (await container.inspect()).status is ContainerStatus.CREATED
    waiting = asyncio.create_task(container.wait())
    await asyncio.sleep(0.05)
    await container.start()
    assert (await container.inspect()).status is ContainerStatus.RUNNING
    # Whatever became of the task that never ran.
    assert not waiting.done()
    await container.kill("SIGKILL")
    assert (await waiting).code == 137
    assert (await container.inspect()).finished_at > (await container.inspect()).started_at  # type: ignore[operator]
    await container.remove()
    assert not await site.leftovers()


async def test_a_start_that_was_killed_when_it_ran_already_runs(site: ContainerdSite, client: asyncctr.Client) -> None:
    container_id = await die(site, "after", "Tasks/Start", lifetime="detached")
    container = await client.get(container_id)
    assert (await container.inspect()).status is ContainerStatus.RUNNING
    with pytest.raises(InvalidStateError, match="started before"):
        await container.start()
    await container.stop(grace=0)
    assert (await container.wait()).code == 137
    assert (await container.inspect()).status is ContainerStatus.EXITED
    await container.remove()
    assert not await site.leftovers()


async def test_a_container_without_a_root_filesystem_says_so(site: ContainerdSite, client: asyncctr.Client) -> None:
    await die(site, "after", "Containers/Create", lifetime="detached")
    (info,) = await client.list()
    container = await client.get(info.id)
    with pytest.raises(InvalidStateError, match="no root filesystem"):
        await container.start()
    await container.remove()
    assert not await site.leftovers()


@pytest.mark.parametrize("how", ["opens a client", "reads the log"])
async def test_the_next_one_keeps_the_log_to_its_limit(site: ContainerdSite, client: asyncctr.Client, how: str) -> None:
    # Past its own sweep.
    await asyncio.gather(*client.backend._janitor._tasks, return_exceptions=True)  # type: ignore[attr-defined]
    words = [sys.executable, "-c", WRITER, str(site.daemon.socket)]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    container_id = asyncctr.ContainerId((await process.communicate())[0].decode().strip())
    (log,) = site.data.glob(f"*/*/*/containers/{container_id}/stdout")

    def held() -> int:
        return log.stat().st_blocks * 512

    async with asyncio.timeout(60), AsyncExitStack() as stack:
        while log.stat().st_size < 4 << 20:
            await asyncio.sleep(0.02)
        assert held() > 3 << 20
        if how == "opens a client":
            await stack.enter_async_context(asyncctr.connect(site.config))
        else:
            await (await client.backend.logs(container_id, tail=1)).aclose()
        while held() > 2 << 20:
            await asyncio.sleep(0.02)
        await client.backend.remove(container_id, force=True)
    assert not await site.leftovers()
