"""Removals at the wrong moment: of a machine, cancelled, it is there with all that it has, or gone; of an image, it is in use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import asyncctr
from asyncctr import ContainerConfig, NanosBuildInput, NanosConfig
from asyncctr.backends.nanos.store import ImageStore, StoredImage
from asyncctr.core.errors import ConflictError, ImageNotFoundError
from asyncctr.testing.guests import build_guests
from asyncctr.testing.programs import require

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

IMAGE = "test/removing:1"


async def test_the_image_of_a_machine_that_is_being_made_stays(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("guests")
    guests = await asyncio.to_thread(build_guests)
    hold = ImageStore.hold
    async with asyncctr.connect(NanosConfig(kernel_path=str(guests.kernel), work_dir=str(directory))) as client:
        image = client.image(IMAGE)
        await image.build(NanosBuildInput(program=str(guests.shell)))

        async def held(store: ImageStore, name: str, user: Path) -> StoredImage:
            stored = await hold(store, name, user)
            with pytest.raises(ConflictError, match="in use by"):
                await image.remove()
            return stored

        monkeypatch.setattr(ImageStore, "hold", held)
        container_id = await client.backend.create(ContainerConfig(IMAGE))
        assert await image.exists()
        await client.backend.remove(container_id)


async def test_a_cancelled_removal_takes_no_half(directory: Path) -> None:
    require("guests")
    guests = await asyncio.to_thread(build_guests)
    config = ContainerConfig(IMAGE, name="one")
    async with asyncctr.connect(NanosConfig(kernel_path=str(guests.kernel), work_dir=str(directory))) as client:
        await client.image(IMAGE).build(NanosBuildInput(program=str(guests.shell)))
        backend = client.backend
        for turns in range(8):
            container_id = await backend.create(config)
            removing = asyncio.ensure_future(backend.remove(container_id))
            for _ in range(turns):
                await asyncio.sleep(0)
            removing.cancel()
            await asyncio.wait([removing])
            if await client.list():
                with pytest.raises(ConflictError, match="'one' is in use"):
                    await backend.create(config)
                with pytest.raises(ConflictError, match="in use by"):
                    await client.image(IMAGE).remove()
                await backend.remove(container_id)


async def test_an_image_that_is_removed_before_it_is_looked_at_is_not_there(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("guests")
    guests = await asyncio.to_thread(build_guests)
    get = ImageStore.get
    async with asyncctr.connect(NanosConfig(kernel_path=str(guests.kernel), work_dir=str(directory))) as client:
        image = client.image(IMAGE)
        await image.build(NanosBuildInput(program=str(guests.shell)))

        async def removed(store: ImageStore, name: str) -> StoredImage:
            stored = await get(store, name)
            monkeypatch.undo()
            await image.remove()
            return stored

        monkeypatch.setattr(ImageStore, "get", removed)
        with pytest.raises(ImageNotFoundError, match="removed meanwhile"):
            await client.backend.create(ContainerConfig(IMAGE))
