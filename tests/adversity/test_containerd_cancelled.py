"""Calls cancelled at any moment, and several clients at the same container: nothing is left, and nobody is told what is not so."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import asyncctr
from asyncctr import ContainerConfig, VolumeMount
from asyncctr.core.errors import AsyncctrError, ContainerNotFoundError, InvalidStateError
from asyncctr.core.network import NetworkConfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncctr.testing.containerd_site import ContainerdSite

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(280)]

IMAGE = "asyncctr.test/busybox:latest"
SHARED = VolumeMount(source="shared", destination="/data", is_volume_name=True)
ROUNDS = int(os.environ.get("ASYNCCTR_TEST_CANCELLATIONS", "20"))


def config(*command: str, network: str = "none", **fields: object) -> ContainerConfig:
    return ContainerConfig(IMAGE, command=command, network=NetworkConfig(mode=network), **fields)  # type: ignore[arg-type]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def shim_of(pid: int) -> int:
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert b"containerd-shim" in Path(f"/proc/{parent}/cmdline").read_bytes()
    return parent


async def test_nothing_is_left_of_what_is_cancelled_at_random(site: ContainerdSite) -> None:
    chance = random.Random(7)  # no secret
    async with asyncctr.connect(site.config) as client:

        async def run() -> None:
            await client.run(config("true"))

        async def run_connected() -> None:
            await client.run(config("cat", network="bridge", stdin=True), input=b"x" * 100_000)

        async def create() -> None:
            scope = client.container(config("sleep", "1000", volumes=[SHARED]))
            async with scope as container:
                await container.start()
                await container.stop(grace=0)

        async def load() -> None:
            await client.image("asyncctr.test/other:latest").load(site.archive)

        works: list[Callable[[], Awaitable[None]]] = [run, run_connected, create, load]
        # Each once to its end, so that what is opened once and kept is open.
        for work in works:
            await work()
        before = descriptors(), len(asyncio.all_tasks())
        for _ in range(ROUNDS):
            task = asyncio.ensure_future(chance.choice(works)())
            await asyncio.sleep(chance.random() * 0.3)
            task.cancel()
            await asyncio.sleep(chance.random() * 0.02)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
        await client.backend._janitor.aclose()  # type: ignore[attr-defined]
        await client._janitor.aclose()
        assert not await client.list()
        assert not await site.leftovers()
        assert descriptors() <= before[0] + 2
        assert len(asyncio.all_tasks()) <= before[1]


async def test_a_removal_waits_for_a_start_by_another_client(site: ContainerdSite, client: asyncctr.Client) -> None:
    async with asyncctr.connect(site.config) as other:
        for delay in (0.0, 0.005, 0.01, 0.02, 0.04, 0.06, 0.1):
            container = await client.create(config("sleep", "1000", network="bridge"))
            starting = asyncio.create_task(container.start())
            await asyncio.sleep(delay)
            await other.backend.remove(container.id, force=True)
            try:
                await starting
            except ContainerNotFoundError:
                # The removal was faster.
                pass
            with pytest.raises(ContainerNotFoundError):
                await container.inspect()
    assert not await site.leftovers()


async def test_of_several_starts_one_succeeds(site: ContainerdSite, client: asyncctr.Client) -> None:
    async with asyncctr.connect(site.config) as other:
        container = await client.create(config("sleep", "1000"))
        starts = [backend.start(container.id) for backend in (client.backend, other.backend) * 3]
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
        assert outcomes.count(None) == 1
        assert all(outcome is None or isinstance(outcome, InvalidStateError) for outcome in outcomes)
        stops = [backend.stop(container.id, grace=0) for backend in (client.backend, other.backend) * 2]
        assert await asyncio.gather(*stops) == [None] * 4
        removals = [backend.remove(container.id) for backend in (client.backend, other.backend) * 2]
        for outcome in await asyncio.gather(*removals, return_exceptions=True):
            assert outcome is None or isinstance(outcome, ContainerNotFoundError)
    assert not await site.leftovers()


async def test_a_closed_backend_says_so_everywhere(site: ContainerdSite, client: asyncctr.Client) -> None:
    container = await client.create(config("sleep", "1000"))
    await container.start()
    other = await asyncctr.connect(site.config)
    backend = other.backend
    waiting = asyncio.create_task(backend.wait(container.id))
    reading = asyncio.create_task(anext(await backend.logs(container.id)))
    await asyncio.sleep(0.1)
    await other.aclose()
    calls: list[Awaitable[object]] = [
        waiting,
        reading,
        backend.inspect(container.id),
        backend.list(),
        backend.wait(container.id),
        backend.logs(container.id),
        backend.stop(container.id),
        backend.remove(container.id, force=True),
        backend.create(config("true")),
        backend.health_check(),
        backend.image(IMAGE).exists(),
        backend.image(IMAGE).pull(),
        backend.image(IMAGE).load(site.archive),
        backend.create_volume("closed"),  # type: ignore[attr-defined]
        backend.list_volumes(),  # type: ignore[attr-defined]
        backend.create_network("closed"),  # type: ignore[attr-defined]
        backend.list_networks(),  # type: ignore[attr-defined]
    ]
    for call in calls:
        with pytest.raises(asyncctr.ClosedError):
            await call
    await container.remove(force=True)


async def test_two_loops_in_one_process(site: ContainerdSite, client: asyncctr.Client) -> None:
    async def elsewhere() -> int:
        async with asyncctr.connect(site.config) as other:
            return (await other.run(config("sh", "-c", "exit 6"))).exit_code

    both = await asyncio.gather(
        asyncio.to_thread(lambda: asyncio.run(elsewhere())), client.run(config("sh", "-c", "exit 7"))
    )
    assert (both[0], both[1].exit_code) == (6, 7)


async def test_a_silent_end_of_a_shim(site: ContainerdSite, client: asyncctr.Client) -> None:
    # Killed, as by the kernel for want of memory: the wait ends, and the container can be removed.
    container = await client.create(config("sleep", "1000"))
    await container.start()
    waiting = asyncio.create_task(container.wait())
    pid = (await container.inspect()).pid
    assert pid is not None
    os.kill(shim_of(pid), signal.SIGKILL)
    async with asyncio.timeout(15):
        try:
            assert (await waiting).code == 137
        except AsyncctrError as error:
            assert isinstance(error, InvalidStateError), error  # which one it is depends on the version
    await container.remove(force=True)
    assert not await site.leftovers()
