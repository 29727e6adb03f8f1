"""Full disks: of the logs, and of containerd itself. Each is its own error, and nothing that was begun is left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import asyncctr
from asyncctr import ContainerConfig, ContainerdConfig, ResourceExhaustedError
from asyncctr.core.network import NetworkConfig
from asyncctr.testing.daemons import Containerd, require
from asyncctr.testing.images import ImageSpec, build_archive
from asyncctr.testing.programs import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncctr.testing.containerd_site import ContainerdSite

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

IMAGE = "asyncctr.test/busybox:latest"
MIB = 1 << 20


def shell(script: str, *, log_limit: int = 64 * MIB) -> ContainerConfig:
    network = NetworkConfig(mode="none")
    return ContainerConfig(IMAGE, command=("sh", "-c", script), network=network, log_limit=log_limit)


@pytest.fixture
async def small(
    site: ContainerdSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[asyncctr.Client]:
    """A client whose own directory is on a disk of 8 MiB."""
    await run("mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(tmp_path))
    try:
        monkeypatch.setenv("ASYNCCTR_DATA_DIR", str(tmp_path))
        async with asyncctr.connect(site.config) as client:
            yield client
    finally:
        await run("umount", "--lazy", str(tmp_path))


async def test_a_full_disk_of_logs_is_told_to_all_who_wait(site: ContainerdSite, small: asyncctr.Client) -> None:
    flood = shell("head -c 30000000 /dev/zero | tr '\\\\0' x; sleep 1000")
    with pytest.raises(ResourceExhaustedError, match="disk"):
        await small.run(flood)
    container = await small.create(flood)
    await container.start()
    outcomes = await asyncio.gather(container.wait(), container.logs().read(), return_exceptions=True)
    assert all(isinstance(outcome, ResourceExhaustedError) for outcome in outcomes), outcomes
    # Another one cannot even be made, or not started.
    with pytest.raises(ResourceExhaustedError):
        await small.run(shell("true"))
    await container.remove(force=True)
    assert (await small.run(shell("echo room"))).stdout == b"room\n"
    await small.backend._janitor.aclose()  # type: ignore[attr-defined]
    await small._janitor.aclose()
    assert not await small.list()
    assert not await site.leftovers()


async def test_a_limit_keeps_a_flood_from_filling_the_disk(site: ContainerdSite, small: asyncctr.Client) -> None:
    # Twice the disk in all, and slowly enough for the keeper, which looks at the sizes once a second at first.
    script = (
        "i=0; while [ $i -lt 60 ]; do head -c 250000 /dev/zero | tr '\\\\0' x; i=$((i+1)); sleep 0.1; done; echo end"
    )
    container = await small.create(shell(script, log_limit=2 * MIB))
    await container.start()
    assert (await container.wait()).code == 0
    stream = await container.logs()
    async with stream:
        held = b"".join([entry.data async for entry in stream])
    assert held.endswith(b"end\n")
    assert stream.lost is not None
    assert len(held) + stream.lost == 60 * 250_000 + 4
    await container.remove()
    assert not await site.leftovers()


class SmallContainerd(Containerd):
    """One whose own data is on a small disk."""

    async def _prepare(self) -> None:
        await super()._prepare()
        self.root.mkdir()
        await run("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(self.root))


@pytest.fixture(params=["debian", "2.x"])
async def daemon(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Containerd]:
    require("containerd" if request.param == "debian" else "containerd2")
    require("image")
    async with SmallContainerd(release=request.param) as started:
        monkeypatch.setenv("ASYNCCTR_DATA_DIR", str(started.dir / "sdk"))
        yield started


async def test_a_full_disk_of_images_leaves_nothing_of_a_load(daemon: Containerd, tmp_path: Path) -> None:
    # The first does not fit packed; the second does, but not unpacked as well.
    for name, padding in (("packed", 40 * MIB), ("unpacked", 13 * MIB)):
        archive = tmp_path / f"{name}.tar"
        await asyncio.to_thread(build_archive, ImageSpec(reference=f"asyncctr.test/{name}", padding=padding), archive)
        async with asyncctr.connect(ContainerdConfig(socket_path=str(daemon.socket))) as client:
            image = client.image(f"asyncctr.test/{name}:latest")
            with pytest.raises(ResourceExhaustedError, match="space"):
                await image.load(archive)
            assert not await image.exists()
        assert not await daemon.leftovers()
        content = await daemon.cli("content", "list", "--quiet", namespace="asyncctr")
        assert not content.lines
    small = tmp_path / "small.tar"
    await asyncio.to_thread(build_archive, ImageSpec(), small)
    async with asyncctr.connect(ContainerdConfig(socket_path=str(daemon.socket))) as client:
        await client.image(IMAGE).load(small)
        assert (await client.run(shell("exit 3"))).exit_code == 3
