"""A private containerd for each module of these tests, Debian's and 2.x, with the SDK's own directory beside it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import asyncctr
from asyncctr.testing.containerd_site import ContainerdSite
from asyncctr.testing.daemons import Containerd, require
from asyncctr.testing.images import ImageSpec, build_archive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

IMAGE = "asyncctr.test/busybox:latest"


@pytest.fixture(scope="module", params=["debian", "2.x"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerdSite]:
    """The daemon's processes are children of this thread; nothing about it belongs to an event loop."""
    for name in ("containerd" if request.param == "debian" else "containerd2", "cni", "image"):
        require(name)
    archive = tmp_path_factory.mktemp("image") / "busybox.tar"
    build_archive(ImageSpec(reference=IMAGE), archive)
    daemon = Containerd(release=request.param)
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        runner.run(daemon.__aenter__())
        try:
            data = daemon.dir / "sdk"
            patch.setenv("ASYNCCTR_DATA_DIR", str(data))
            runner.run(daemon.load(archive, namespace=ContainerdSite.namespace))
            yield ContainerdSite(daemon, data, archive)
        finally:
            runner.run(daemon.__aexit__(None, None, None))


@pytest.fixture
async def client(site: ContainerdSite) -> AsyncIterator[asyncctr.Client]:
    async with asyncctr.connect(site.config) as opened:
        yield opened
