"""Input that a container leaves unread, on real engines: its output and exit code are whole, and nothing is added to them."""

from __future__ import annotations

from pathlib import Path

import pytest

import asyncctr
from asyncctr import ContainerConfig, DockerConfig
from asyncctr.testing.daemons import Dockerd, Podman
from asyncctr.testing.images import ImageSpec, build_archive

pytestmark = pytest.mark.anyio

IMAGE = "asyncctr.test/busybox:latest"
# More than pipes and sockets hold on the way.
INPUT = b"x" * 5_000_000


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(Dockerd, marks=pytest.mark.require("docker"), id="dockerd"),
        pytest.param(Podman, marks=pytest.mark.require("podman"), id="podman"),
    ],
)
@pytest.mark.require("image")
async def test_input_that_is_not_read(kind: type[Dockerd | Podman], tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    build_archive(ImageSpec(reference=IMAGE), archive)
    async with kind() as daemon:
        await daemon.load(archive)
        async with asyncctr.connect(DockerConfig(host=daemon.host)) as client:
            for command in ("exit 3", "sleep 0.2; head -c 5; echo err >&2; exit 3") * 3:
                result = await client.run(IMAGE, ["sh", "-c", command], input=INPUT, timeout=30)
                wanted = (b"xxxxx", b"err\n") if "head" in command else (b"", b"")
                assert (result.exit_code, result.stdout, result.stderr) == (3, *wanted)
            # What waits for an end of input gets one, also where none was given.
            reads = ContainerConfig(IMAGE, command=["cat"], stdin=True)
            assert (await client.run(reads, timeout=30)).exit_code == 0
            counted = await client.run(IMAGE, ["wc", "-c"], input=INPUT, timeout=30)
            assert counted.stdout == b"%d\n" % len(INPUT)
