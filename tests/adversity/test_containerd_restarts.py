"""containerd killed and started again, and with it the machine: what was under way is lost for certain, and nothing else is."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest

from asyncctr import ContainerConfig, ContainerStatus
from asyncctr.core.errors import AsyncctrError, BackendUnavailableError, ConnectionLostError, InvalidStateError
from asyncctr.testing.residue import kill_all, processes_of, remove_cgroups, remove_shim_traces, unmount_under

if TYPE_CHECKING:
    import asyncctr
    from asyncctr.testing.containerd_site import ContainerdSite

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

# The first call may be the one that finds the connection broken.
AWAY = (BackendUnavailableError, ConnectionLostError)
IMAGE = "asyncctr.test/busybox:latest"


def shell(script: str) -> ContainerConfig:
    return ContainerConfig(IMAGE, command=("sh", "-c", script))


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_client_lives_through_a_restart(site: ContainerdSite, client: asyncctr.Client, how: str) -> None:
    container = await client.create(shell("trap 'echo last; exit 3' TERM; echo first; while :; do sleep 0.05; done"))
    await container.start()
    stream = await container.logs()
    first = await anext(stream)
    assert first.data == b"first\n"
    waiting = asyncio.create_task(container.wait())
    reading = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.1)
    if how == "kill":
        await site.daemon.kill()
    else:
        await site.daemon.stop()
    with pytest.raises(ConnectionLostError):
        await waiting
    with pytest.raises(ConnectionLostError):
        await reading
    await stream.aclose()
    with pytest.raises(BackendUnavailableError):
        await container.inspect()
    with pytest.raises(BackendUnavailableError):
        await container.wait()
    await site.daemon.start()
    assert (await container.inspect()).status is ContainerStatus.RUNNING
    await container.stop()
    assert (await container.wait()).code == 3
    assert (await container.logs().read()).stdout == b"first\nlast\n"
    await container.remove()
    assert not await site.leftovers()


async def test_an_exit_while_the_daemon_is_away_is_known_afterwards(
    site: ContainerdSite, client: asyncctr.Client
) -> None:
    container = await client.create(
        ContainerConfig(IMAGE, command=("sh", "-c", "echo before; read line; echo $line; exit 5"), stdin=True)
    )
    await container.start()
    writer = await container.stdin()
    await site.daemon.kill()
    await writer.write(b"meanwhile\n")
    (path,) = site.data.glob(f"*/*/*/containers/{container.id}/stdout")
    async with asyncio.timeout(20):
        while path.read_bytes() != b"before\nmeanwhile\n":  # noqa: ASYNC110  # a file, of which no event tells here
            await asyncio.sleep(0.02)
    await site.daemon.start()
    assert (await container.wait()).code == 5
    info = await container.inspect()
    assert (info.status, info.exit_code) == (ContainerStatus.EXITED, 5)
    assert (await container.logs().read()).stdout == b"before\nmeanwhile\n"
    await writer.aclose()
    for left in await client.list():
        await client.backend.remove(left.id, force=True)
    assert not await site.leftovers()


async def test_a_start_without_the_daemon_leaves_it_startable(site: ContainerdSite, client: asyncctr.Client) -> None:
    container = await client.create(shell("exit 4"))
    await site.daemon.kill()
    with pytest.raises(AWAY):
        await container.start()
    with pytest.raises(AWAY):
        await client.run(shell("true"))
    with pytest.raises(AsyncctrError):
        await client.health_check()
    await site.daemon.start()
    await container.start()
    assert (await container.wait()).code == 4
    await container.remove()
    assert not await site.leftovers()


async def test_after_a_reboot_what_ran_has_ended_and_can_be_removed(
    site: ContainerdSite, client: asyncctr.Client
) -> None:
    container = await client.create(shell("echo printed; while :; do sleep 0.05; done"))
    await container.start()
    async for entry in container.logs():
        assert entry.data == b"printed\n"
        break
    await site.daemon.stop()
    await power_off(site, container.id)
    await site.daemon.start()
    info = await container.inspect()
    assert (info.status, info.exit_code) == (ContainerStatus.EXITED, None)
    with pytest.raises(InvalidStateError, match="exit code was lost"):
        await container.wait()
    assert (await container.logs().read()).stdout == b"printed\n"
    await container.stop()
    with pytest.raises(InvalidStateError, match="started before"):
        await container.start()
    await container.remove()
    assert not await site.leftovers()


async def power_off(site: ContainerdSite, container_id: str) -> None:
    """Take away what a reboot does of a container: processes, mounts, and what is kept in memory."""
    await kill_all(processes_of(site.daemon.dir))
    await unmount_under(site.daemon.dir / "state")
    await unmount_under(site.data)
    await remove_cgroups(f"asyncctr-{container_id}")
    await asyncio.to_thread(remove_shim_traces, site.daemon.dir)
    await asyncio.to_thread(shutil.rmtree, site.daemon.dir / "state")
