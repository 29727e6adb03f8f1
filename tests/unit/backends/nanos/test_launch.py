"""A unikernel that is made, started and followed in one call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import asyncctr
from asyncctr import (
    ContainerConfig,
    NanosBuildInput,
    NanosConfig,
    NetworkConfig,
    NetworkMode,
    SupportsLaunch,
    VolumeMount,
)
from asyncctr.backends.nanos.backend import NanosBackend
from asyncctr.core.errors import ConflictError, InvalidConfigError, ResourceExhaustedError, UnsupportedError
from asyncctr.testing.guests import build_guests
from asyncctr.testing.programs import require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncctr import Client

pytestmark = pytest.mark.anyio

IMAGE = "test/launch:1"


@pytest.fixture
async def client(directory: Path) -> AsyncIterator[Client]:
    require("guests")
    guests = await asyncio.to_thread(build_guests)
    async with asyncctr.connect(NanosConfig(kernel_path=str(guests.kernel), work_dir=str(directory))) as client:
        await client.image(IMAGE).build(NanosBuildInput(program=str(guests.shell), dirs={}, mounts={"data": "/data"}))
        yield client


def config(script: str) -> ContainerConfig:
    volume = VolumeMount(source="data", destination="/data", is_volume_name=True)
    return ContainerConfig(
        IMAGE, command=["-c", script], volumes=[volume], network=NetworkConfig(mode=NetworkMode.NONE)
    )


async def test_all_output_is_delivered_before_the_end_is_told(client: Client) -> None:
    backend = client.backend
    assert isinstance(backend, SupportsLaunch)
    assert not backend.removes_behind
    lines: list[bytes] = []
    launched = await backend.launch(config("echo one; echo two; exit 3"), lambda _, data: lines.append(data))
    waiting = asyncio.create_task(launched.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
    # It can be asked again.
    assert (await launched.wait()).code == 3
    assert b"".join(lines) == b"one\ntwo\n"
    await launched.aclose()
    assert (await client.backend.inspect(launched.id)).exit_code == 3
    await client.backend.remove(launched.id)


async def test_one_that_is_let_go_goes_on(client: Client) -> None:
    backend = client.backend
    assert isinstance(backend, SupportsLaunch)
    launched = await backend.launch(config("trap 'exit 5' TERM; echo up; while :; do sleep 1; done"), lambda *_: None)
    await launched.aclose()
    async for line in (await client.backend.logs(launched.id)).lines():
        assert line.text == "up"
        break
    await client.backend.stop(launched.id)
    assert (await client.backend.wait(launched.id)).code == 5
    await client.backend.remove(launched.id)


async def test_what_fails_or_is_cancelled_leaves_nothing(client: Client) -> None:
    backend = client.backend
    assert isinstance(backend, SupportsLaunch)
    holder = await backend.launch(config("sleep 1000"), lambda *_: None)
    await holder.aclose()
    with pytest.raises(ConflictError, match="in use by container"):
        await backend.launch(config("true"), lambda *_: None)
    with pytest.raises(InvalidConfigError, match="stdin=True"):
        await backend.launch(config("true"), lambda *_: None, input=b"x")
    with pytest.raises(UnsupportedError, match="stdin"):
        await backend.launch(ContainerConfig(IMAGE, stdin=True), lambda *_: None, input=b"x")
    assert [info.id for info in await client.list()] == [holder.id]
    await client.backend.remove(holder.id, force=True)
    for turns in (1, 20, 60):
        launching = asyncio.ensure_future(backend.launch(config("sleep 1000"), lambda *_: None))
        for _ in range(turns):
            await asyncio.sleep(0.001)
        launching.cancel()
        await asyncio.wait([launching])
        if not launching.cancelled():
            # It was done already.
            await client.backend.remove(launching.result().id, force=True)
        assert await client.list() == (), turns


async def test_a_full_disk_is_told_while_it_runs(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = client.backend
    assert isinstance(backend, NanosBackend)
    monkeypatch.setattr(backend._site.space, "_reserve", 1 << 60)
    lines: list[bytes] = []
    launched = await backend.launch(config("sleep 1000"), lambda _, data: lines.append(data))
    with pytest.raises(ResourceExhaustedError, match="the disk that holds the logs is full"):
        await launched.wait()
    await launched.aclose()
    with pytest.raises(ResourceExhaustedError, match="the disk that holds the logs is full"):
        await (await backend.logs(launched.id)).read()
    await backend.remove(launched.id, force=True)
