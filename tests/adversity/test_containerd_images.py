"""Images as others leave them in containerd's store: without their blobs, their snapshots, or a platform that fits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import asyncctr
from asyncctr import ContainerConfig, ImageNotFoundError, VolumeMount
from asyncctr.core.errors import UnsupportedError
from asyncctr.core.network import NetworkConfig
from asyncctr.testing.images import ImageSpec, build_archive

if TYPE_CHECKING:
    from pathlib import Path

    from asyncctr.testing.containerd_site import ContainerdSite

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

IMAGE = "asyncctr.test/busybox:latest"


def config(image: str, *command: str, **fields: object) -> ContainerConfig:
    return ContainerConfig(image, command=command, network=NetworkConfig(mode="none"), **fields)  # type: ignore[arg-type]


async def archive_of(tmp_path: Path, spec: ImageSpec) -> Path:
    path = tmp_path / "image.tar"
    await asyncio.to_thread(build_archive, spec, path)
    return path


async def ctr(site: ContainerdSite, *words: str) -> list[str]:
    return (await site.daemon.cli(*words, namespace=site.namespace)).lines


async def test_an_image_without_snapshots_is_unpacked_when_it_is_needed(
    site: ContainerdSite, client: asyncctr.Client, tmp_path: Path
) -> None:
    name = "asyncctr.test/packed:latest"
    spec = ImageSpec(reference=name, files={"/packed": b"here"}, user="app")
    await ctr(site, "images", "import", "--no-unpack", str(await archive_of(tmp_path, spec)))
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(client.run(config(name, "cat", "/packed"))) for _ in range(4)]
    assert [task.result().stdout for task in runs] == [b"here"] * 4
    assert not await site.leftovers()
    # Kept by the image from then on.
    before = await ctr(site, "snapshots", "list")
    await ctr(site, "content", "prune", "references")
    assert await ctr(site, "snapshots", "list") == before


async def test_an_image_that_lacks_a_blob_is_not_here(
    site: ContainerdSite, client: asyncctr.Client, tmp_path: Path
) -> None:
    name = "asyncctr.test/holes:latest"
    spec = ImageSpec(reference=name, files={"/unique": b"holes"})
    image = await asyncio.to_thread(build_archive, spec, tmp_path / "image.tar")
    await ctr(site, "images", "import", "--no-unpack", str(tmp_path / "image.tar"))
    await ctr(site, "content", "delete", image.layers[-1])
    with pytest.raises(ImageNotFoundError, match="not here whole"):
        await client.create(config(name, "true"), pull="never")
    await ctr(site, "content", "delete", image.image_id)
    async with asyncctr.connect(site.config) as other:
        with pytest.raises(ImageNotFoundError, match="not here whole"):
            await other.create(config(name, "true"), pull="never")
    assert not await client.list()
    # Loaded again, it is whole.
    await client.image(name).load(tmp_path / "image.tar")
    assert (await client.run(config(name, "cat", "/unique"))).stdout == b"holes"
    await client.image(name).remove()
    assert not await site.leftovers()


async def test_an_index_without_this_platform_is_not_here(
    site: ContainerdSite, client: asyncctr.Client, tmp_path: Path
) -> None:
    name = "asyncctr.test/elsewhere:latest"
    spec = ImageSpec(reference=name, platforms=["linux/s390x", "linux/mips64le"])
    await ctr(site, "images", "import", "--all-platforms", "--no-unpack", str(await archive_of(tmp_path, spec)))
    with pytest.raises(ImageNotFoundError, match="s390x"):
        await client.create(config(name, "true"), pull="never")
    await client.image(name).remove()


async def test_names_and_leases_of_others_are_left_alone(
    site: ContainerdSite, client: asyncctr.Client, tmp_path: Path
) -> None:
    theirs = "docker.io/others/own@sha256:" + "0" * 64
    await ctr(site, "images", "tag", IMAGE, theirs)
    await ctr(site, "leases", "create", "--id", "theirs", "--expires", "1h")
    await client.image("asyncctr.test/mine:latest").load(await archive_of(tmp_path, ImageSpec()))
    assert theirs not in await client.image(IMAGE).tags()
    assert (await client.run(config(IMAGE, "true"))).exit_code == 0
    await client.image("asyncctr.test/mine:latest").remove()
    assert any(line.startswith("theirs") for line in await ctr(site, "leases", "list"))
    await ctr(site, "leases", "delete", "theirs")
    await ctr(site, "images", "delete", theirs)


async def test_containers_of_others_can_be_seen_and_removed(site: ContainerdSite, client: asyncctr.Client) -> None:
    await ctr(site, "run", "--detach", "--null-io", IMAGE, "theirs", "sleep", "1000")
    await ctr(site, "containers", "create", IMAGE, "idle", "sleep", "1000")
    assert not await client.list()
    backend = client.backend
    assert {info.id for info in await backend.list(all=True)} == {"theirs", "idle"}
    for container_id in ("theirs", "idle"):
        container = await client.get(container_id)
        for call in (container.start(), container.logs().read()):
            with pytest.raises(asyncctr.InvalidStateError, match="something else than this SDK"):
                await call
    with pytest.raises(asyncctr.InvalidStateError, match="does not run"):
        await (await client.get("idle")).wait()
    running = await client.get("theirs")
    waiting = asyncio.create_task(running.wait())
    await running.stop(grace=0)
    assert (await waiting).code == 137
    await running.remove()
    await (await client.get("idle")).remove()
    assert not await site.leftovers()


async def test_a_new_volume_belongs_to_whom_its_directory_in_the_image_does(
    site: ContainerdSite, client: asyncctr.Client
) -> None:
    volume = VolumeMount(source="homes", destination="/home/app", is_volume_name=True)
    script = "echo mine >/home/app/file; stat -c '%u:%g %a' /home/app"
    first = await client.run(config(IMAGE, "sh", "-c", script, user="app", volumes=[volume]), check=True)
    assert first.stdout.startswith(b"1000:1000 ")
    # One that is there stays as it is.
    other = VolumeMount(source="homes", destination="/tmp", is_volume_name=True)  # a path in the container
    again = await client.run(config(IMAGE, "stat", "-c", "%u:%g", "/tmp", volumes=[other]), check=True)
    assert again.stdout == b"1000:1000\n"
    sticky = VolumeMount(source="sticky", destination="/tmp", is_volume_name=True)  # likewise
    modes = await client.run(config(IMAGE, "stat", "-c", "%a", "/tmp", volumes=[sticky]), check=True)
    assert modes.stdout == b"1777\n"
    absent = VolumeMount(source="absent", destination="/no/such", is_volume_name=True)
    plain = await client.run(config(IMAGE, "stat", "-c", "%u:%g %a", "/no/such", volumes=[absent]), check=True)
    assert plain.stdout == b"0:0 755\n"


async def test_thousands_of_containers_can_be_listed(site: ContainerdSite, client: asyncctr.Client) -> None:
    # More than the 16 MiB that containerd sends in one answer, in few.
    many = config(IMAGE, "true", env={f"V{number}": "x" * 100_000 for number in range(20)})
    for _ in range(10):
        await client.create(many)
    found = await client.list()
    assert len(found) == 10
    await client.health_check()
    for info in found:
        await client.backend.remove(info.id)
    assert not await site.leftovers()


@pytest.mark.parametrize("runtime", ["runsc", "kata", "io.containerd.none.v1"])
async def test_a_runtime_that_is_not_installed(client: asyncctr.Client, runtime: str) -> None:
    with pytest.raises(UnsupportedError, match="install") as caught:
        await client.run(config(IMAGE, "true", runtime=runtime))
    assert caught.value.field == "runtime"
    assert not await client.list()
