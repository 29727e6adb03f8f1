"""How machines' ends are told, where what tells of them cannot be read, says more, or is asked late."""

from __future__ import annotations

import asyncio
import errno
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import asyncctr
from asyncctr import ContainerConfig, NanosBuildInput, NanosConfig, NetworkConfig, NetworkMode
from asyncctr.backends.nanos import exits
from asyncctr.core.errors import ContainerNotFoundError, InvalidStateError, ResourceExhaustedError
from asyncctr.testing.guests import build_guests
from asyncctr.testing.programs import require
from asyncctr.vm.process import VmProcess
from asyncctr.vm.supervisor import OUTPUT, STATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncctr import Client

pytestmark = pytest.mark.anyio

IMAGE = "test/exits:1"


@pytest.fixture
async def client(directory: Path) -> AsyncIterator[Client]:
    require("guests")
    guests = await asyncio.to_thread(build_guests)
    async with asyncctr.connect(NanosConfig(kernel_path=str(guests.kernel), work_dir=str(directory))) as client:
        await client.image(IMAGE).build(NanosBuildInput(program=str(guests.shell)))
        yield client


async def ended(client: Client, directory: Path, script: str) -> tuple[asyncctr.ContainerId, Path]:
    """A machine that has ended, whose end nobody has asked for."""
    backend = client.backend
    config = ContainerConfig(IMAGE, command=["-c", script], network=NetworkConfig(mode=NetworkMode.NONE))
    container_id = await backend.create(config)
    await backend.start(container_id)
    place = directory / "containers" / container_id
    process = VmProcess.adopt(place)
    assert process is not None
    await process.ended()
    process.close()
    return container_id, place


async def test_a_disk_that_cannot_be_read_is_no_empty_one(
    client: Client, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = client.backend
    # QEMU ends with 1, as it does for code 0.
    container_id, place = await ended(client, directory, "exit 128")

    def refuse(number: int) -> None:
        def opened(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(exits, "open_overlay", opened)

    refuse(errno.EMFILE)
    with pytest.raises(ResourceExhaustedError, match="raise the limit of open files"):
        await backend.wait(container_id)
    refuse(errno.EIO)
    with pytest.raises(InvalidStateError, match="ended with 1"):
        await backend.wait(container_id)
    monkeypatch.undo()
    assert (await backend.wait(container_id)).code == 128
    await backend.remove(container_id)
    assert not place.exists()


async def test_a_warning_of_qemu_s_takes_no_code_0_away(client: Client, directory: Path) -> None:
    container_id, place = await ended(client, directory, "exit 0")
    (place / OUTPUT).write_text("qemu-system-x86_64: warning: 9p: Multiple devices detected\n", encoding="ascii")
    assert (await client.backend.wait(container_id)).code == 0


async def test_the_time_of_the_end_is_not_that_of_the_question(client: Client, directory: Path) -> None:
    container_id, place = await ended(client, directory, "exit 3")
    at = datetime(2100, 1, 1, tzinfo=UTC)
    os.utime(place / STATE, (at.timestamp(), at.timestamp()))
    info = await client.backend.inspect(container_id)
    assert (info.exit_code, info.finished_at) == (3, at)


async def test_of_one_that_is_removed_meanwhile_that_is_told(
    client: Client, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container_id, place = await ended(client, directory, "exit 1")

    def half_removed(*_: object, **__: object) -> None:
        (place / "state").unlink()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(exits, "open_overlay", half_removed)
    with pytest.raises(ContainerNotFoundError, match="was removed"):
        await client.backend.wait(container_id)
