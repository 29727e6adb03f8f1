"""Starts that fail, or whose process was killed, before the guest has run: they may be tried again, and say why."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import asyncctr
from asyncctr import ContainerConfig, ContainerStatus, NanosBuildInput, NanosConfig, NetworkConfig, PortMapping
from asyncctr.backends.nanos import starting
from asyncctr.backends.nanos.backend import NanosBackend
from asyncctr.backends.nanos.inspect import container_info
from asyncctr.backends.nanos.qmp import listening_socket
from asyncctr.core.errors import ContainerNotFoundError, InvalidConfigError
from asyncctr.testing.guests import build_guests
from asyncctr.testing.programs import require
from asyncctr.vm.process import VmProcess
from asyncctr.vm.process import start as start_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

IMAGE = "test/starting:1"
# An address for documentation, which no machine has (RFC 5737).
NOWHERE = NetworkConfig(port_mappings=[PortMapping(container_port=80, host_port=8080, host_ip="192.0.2.1")])


@pytest.fixture
async def backend(directory: Path) -> AsyncIterator[NanosBackend]:
    require("guests")
    guests = await asyncio.to_thread(build_guests)
    async with asyncctr.connect(NanosConfig(kernel_path=str(guests.kernel), work_dir=str(directory))) as client:
        await client.image(IMAGE).build(NanosBuildInput(program=str(guests.shell)))
        assert isinstance(client.backend, NanosBackend)
        yield client.backend


async def test_what_fails_before_the_guest_runs_may_be_tried_again(backend: NanosBackend) -> None:
    container_id = await backend.create(ContainerConfig(IMAGE, network=NOWHERE))
    for _ in range(2):
        with pytest.raises(InvalidConfigError, match=r"no address 192\.0\.2\.1"):
            await backend.start(container_id)
        info = await backend.inspect(container_id)
        assert (info.status, info.started_at) == (ContainerStatus.CREATED, None)
    await backend.remove(container_id)


async def test_a_qemu_that_has_failed_before_it_is_asked_says_why(
    backend: NanosBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slowly(*arguments: Any, **named: Any) -> VmProcess:
        process = await start_process(*arguments, **named)
        await process.ended()
        return process

    monkeypatch.setattr(starting, "start_process", slowly)
    container_id = await backend.create(ContainerConfig(IMAGE, network=NOWHERE))
    with pytest.raises(InvalidConfigError, match=r"no address 192\.0\.2\.1"):
        await backend.start(container_id)
    await backend.remove(container_id)


async def test_what_a_killed_start_left_is_in_no_other_s_way(backend: NanosBackend, directory: Path) -> None:
    container_id = await backend.create(ContainerConfig(IMAGE, command=["-c", "exit 3"]))
    left = await start_process(directory / "containers" / container_id, ("sleep", "1000"))
    listening_socket(backend._site.socket(container_id)).close()
    assert (await backend.inspect(container_id)).status is ContainerStatus.CREATED
    await backend.start(container_id)
    assert (await backend.wait(container_id)).code == 3
    assert not left.running
    left.close()
    await backend.remove(container_id)


async def test_one_that_is_removed_while_it_is_looked_at_is_not_shown_as_created(backend: NanosBackend) -> None:
    container_id = await backend.create(ContainerConfig(IMAGE))
    found = backend._site.find(container_id)
    await backend.remove(container_id)
    with pytest.raises(ContainerNotFoundError, match="was removed"):
        await container_info(backend._site, *found)
