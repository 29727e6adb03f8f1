"""Image layouts, without what ``docker save`` adds, loaded into real engines."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

import asyncctr
from asyncctr import DockerConfig
from asyncctr.testing.daemons import Dockerd, Podman, require
from asyncctr.testing.images import HOST_PLATFORM, ImageSpec, build_archive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

NAME = "asyncctr.test/layout:latest"
OTHER = "linux/s390x"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout of an image for two platforms, with names that begin with ``./`` as ``tar -C layout .`` writes them."""
    require("image")
    folder = tmp_path_factory.mktemp("image")
    build_archive(ImageSpec(reference=NAME, platforms=(OTHER, HOST_PLATFORM)), folder / "saved.tar")
    with tarfile.open(folder / "saved.tar") as saved, tarfile.open(folder / "layout.tar", "w") as pure:
        for member in saved.getmembers():
            if member.name != "manifest.json":
                data = saved.extractfile(member)
                member.name = f"./{member.name}"
                pure.addfile(member, data)
    return folder / "layout.tar"


@pytest.mark.parametrize("kind", [Dockerd, Podman])
async def test_a_pure_layout_loads(kind: type[Dockerd | Podman], layout: Path) -> None:
    require(kind.kind)
    packed = gzip.compress(layout.read_bytes(), compresslevel=1)  # noqa: ASYNC240 - nothing else runs here

    async def arriving() -> AsyncIterator[bytes]:
        stream = io.BytesIO(packed)
        while block := stream.read(100_000):
            yield block

    async with kind() as daemon, asyncctr.connect(DockerConfig(host=daemon.host)) as client:
        await client.image("from.path/box:1").load(layout)
        await client.image("from.bytes/box:2").load(arriving())
        for name in ("from.path/box:1", "from.bytes/box:2", NAME):
            assert await client.image(name).exists()
        (details,) = json.loads((await daemon.cli("image", "inspect", "from.path/box:1")).stdout)
        assert details["Architecture"] == HOST_PLATFORM.split("/")[1]
        ran = await client.run("from.bytes/box:2", ["cat", "/etc/image-platform"], pull="never", timeout=30)
        assert ran.stdout.decode() == f"{HOST_PLATFORM}\n"
