"""Named volumes of unikernels: kept from one machine to the next, had by one writer at a time, and never missing silently; with the
tests' own kernel and, where ``ASYNCCTR_TEST_NANOS_DIR`` names its directory, the real one."""

# ruff: noqa: ASYNC240 - nothing else runs on these loops

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncctr
from asyncctr import (
    ContainerConfig,
    NanosBuildInput,
    NanosConfig,
    NetworkConfig,
    NetworkMode,
    SupportsVolumes,
    VolumeMount,
)
from asyncctr.backends.nanos.backend import NanosBackend
from asyncctr.backends.nanos.volumes import VolumeStore
from asyncctr.core.errors import (
    ConflictError,
    InvalidConfigError,
    InvalidStateError,
    NotFoundError,
)
from asyncctr.testing.guests import build_guests
from asyncctr.testing.programs import require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncctr import Client

pytestmark = pytest.mark.anyio

VARIABLE = "ASYNCCTR_TEST_NANOS_DIR"
IMAGE = "test/volumes:1"
LONG = "a-name-that-is-longer-than-the-label-of-a-filesystem"


@pytest.fixture(params=["own", "nanos"])
async def client(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Client]:
    require("guests")
    require("qemu")
    guests = await asyncio.to_thread(build_guests)
    kernel = str(guests.kernel)
    if request.param == "nanos":
        if VARIABLE not in os.environ:
            pytest.skip(f"{VARIABLE} names no directory with a Nanos kernel")
        kernel = f"{os.environ[VARIABLE]}/kernel.img"
    async with asyncctr.connect(NanosConfig(kernel_path=kernel, work_dir=str(directory))) as client:
        build = NanosBuildInput(program=str(guests.shell), args=["-c"], dirs={}, mounts={"unused": "/vol"})
        await client.image(IMAGE).build(build)
        yield client


def volume(name: str = LONG, path: str = "/vol", **options: Any) -> VolumeMount:
    return VolumeMount(source=name, destination=path, is_volume_name=True, **options)


def config(script: str, *volumes: VolumeMount) -> ContainerConfig:
    return ContainerConfig(
        IMAGE, command=["-c", script], volumes=volumes or [volume()], network=NetworkConfig(mode=NetworkMode.NONE)
    )


def store_of(client: Client) -> VolumeStore:
    backend = client.backend
    assert isinstance(backend, NanosBackend)
    return backend._site.volumes


async def test_data_is_kept_and_read_only_is(client: Client) -> None:
    backend = client.backend
    assert isinstance(backend, SupportsVolumes)
    assert (await client.run(config("echo one > /vol/file"))).exit_code == 0
    assert [each.name for each in await backend.list_volumes()] == [LONG]
    assert (await client.run(config("cat /vol/file; echo two >> /vol/file"))).stdout == b"one\n"
    result = await client.run(config("cat /vol/file; echo three >> /vol/file", volume(read_only=True)))
    assert result.exit_code
    assert result.stdout.startswith(b"one\ntwo\nsh: /vol/file: Read-only file system")
    assert (await client.run(config("cat /vol/file"))).stdout == b"one\ntwo\n"
    # A file of this size takes what was written to it alone.
    assert Path(store_of(client).disk(LONG)).stat().st_blocks * 512 < 4 << 20
    await backend.remove_volume(LONG)
    with pytest.raises(NotFoundError):
        await backend.remove_volume(LONG)


async def test_a_volume_has_one_writer_or_several_readers(client: Client) -> None:
    backend = client.backend
    assert isinstance(backend, SupportsVolumes)
    wait = "trap 'exit 0' TERM; while :; do sleep 1; done"
    async with client.container(config(wait)) as holder, client.container(config("true")) as second:
        await holder.start()
        with pytest.raises(ConflictError, match=f"in use by container {holder.id[:12]}"):
            await second.start()
        async with client.container(config("true", volume(read_only=True))) as reader:
            with pytest.raises(ConflictError, match="in use by"):
                await reader.start()
        with pytest.raises(ConflictError, match="in use"):
            await backend.remove_volume(LONG)
        await holder.kill()
        await holder.wait()
        # It may be tried again, and the volume is free with its holder's end.
        await second.start()
        assert (await second.wait()).code == 0
    async with (
        client.container(config(wait, volume(read_only=True))) as first,
        client.container(config("true", volume(read_only=True))) as other,
    ):
        await first.start()
        await other.start()
        assert (await other.wait()).code == 0
        async with client.container(config("true")) as writer:
            with pytest.raises(ConflictError, match=f"in use by container {first.id[:12]}"):
                await writer.start()
    await backend.remove_volume(LONG)


async def test_no_machine_boots_without_its_volume(client: Client) -> None:
    store = store_of(client)
    # The image itself mounts one.
    with pytest.raises(InvalidConfigError, match="mounts the volume 'unused' at /vol, and there is none"):
        await client.create(ContainerConfig(IMAGE, command=["-c", "true"]))
    assert await client.list() == ()
    async with client.container(config("true")) as container:
        # By hand, as no call here would while a machine has it.
        await store.remove(LONG, used=[])
        for again in (False, True):
            if again:
                store.create(LONG, {})
            with pytest.raises(InvalidStateError, match="was removed: remove the container"):
                await container.start()
        Path(store.disk(LONG)).write_bytes(b"no filesystem".ljust(4096))
        with pytest.raises(InvalidStateError, match="is broken"):
            await container.start()


async def test_the_image_s_own_mounts(client: Client) -> None:
    store = store_of(client)
    store.create("unused", {})
    plain = ContainerConfig(
        IMAGE, command=["-c", "echo x >> /vol/file; cat /vol/file"], network=NetworkConfig(mode=NetworkMode.NONE)
    )
    await client.run(plain)
    assert (await client.run(plain)).stdout == b"x\nx\n"
    assert (await client.run(config("cat /vol/file", volume("unused")))).stdout == b"x\nx\n"
    # Another one in its place.
    assert (await client.run(config("test -e /vol/file || echo none", volume("other")))).stdout == b"none\n"


async def test_what_cannot_be_mounted(client: Client) -> None:
    for volumes, message in (
        ([volume(path="/none")], "no directory '/none'"),
        ([volume(path="/")], "no directory '/'"),
        ([volume(), volume("other", "/vol/.")], "two volumes are mounted at /vol"),
    ):
        with pytest.raises(InvalidConfigError, match=message):
            await client.create(config("true", *volumes))
    assert store_of(client).list({}) == ()
