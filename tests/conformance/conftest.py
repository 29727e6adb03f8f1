"""The targets that the conformance suite runs against, and the cases with their event loops."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import pytest

from asyncctr import DockerConfig
from asyncctr.testing.conformance import CASES, Target, profile_from_environment
from asyncctr.testing.daemons import Dockerd, Leftovers, Podman, Registry, require
from asyncctr.testing.images import ImageSpec, build_archive
from asyncctr.testing.proxy import BlackHole, FaultProxy
from asyncctr.testing.residue import mounts_under, processes_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")

IMAGE = "asyncctr.test/busybox:latest"


def pytest_report_header() -> str:
    profile = profile_from_environment()
    counts = attrs.asdict(profile)
    counts.pop("name")
    return f"conformance profile: {profile.name} ({', '.join(f'{name} {count}' for name, count in counts.items())})"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every case on asyncio, and the cases that ask for it on uvloop as well."""
    if "case" not in metafunc.fixturenames:
        return
    params = []
    for case in sorted(CASES, key=lambda case: case.number):
        params.append(pytest.param(case, "asyncio", id=str(case)))
        if case.uvloop:
            params.append(pytest.param(case, ("asyncio", {"use_uvloop": True}), id=f"{case}-on-uvloop"))
    metafunc.parametrize(("case", "anyio_backend"), params)


@contextmanager
def entered(manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter a context manager on an event loop of its own, whose loop goes on in a thread until the manager is left.

    The tests cannot own the daemons: each has an event loop of its own, some of them uvloop's, while a daemon lasts for a
    module, and the token server beside a registry needs a loop that runs. The loop enters and leaves in the main thread: the
    daemons get their death signal by the thread that started them. Everything else about a daemon belongs to no loop.
    """
    loop = asyncio.new_event_loop()
    try:
        value = loop.run_until_complete(manager.__aenter__())
        thread = threading.Thread(target=loop.run_forever, name="test daemons", daemon=True)
        thread.start()
        try:
            yield value
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.run_until_complete(manager.__aexit__(None, None, None))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class EngineTarget(Target):
    """What Docker and Podman share: one protocol on a unix socket, and a command line that takes the same words."""

    daemon: Dockerd | Podman

    def __init__(self, daemon: Dockerd | Podman, archive: Path, registries: dict[str, Registry]) -> None:
        self.daemon = daemon
        self.image = IMAGE
        self.archive = str(archive)
        self.registries = registries
        self._mounts = set(mounts_under(daemon.dir))

    @property
    def config(self) -> DockerConfig:
        return DockerConfig(host=self.daemon.host)

    @asynccontextmanager
    async def proxied(self) -> AsyncIterator[tuple[FaultProxy, DockerConfig]]:
        async with FaultProxy(self.daemon.host) as proxy:
            yield proxy, DockerConfig(host=proxy.address)

    @asynccontextmanager
    async def unresponsive(self) -> AsyncIterator[DockerConfig]:
        async with BlackHole() as hole:
            yield DockerConfig(host=hole.address)

    async def restart(self) -> None:
        await self.daemon.kill()
        await self.daemon.start()

    async def leftovers(self) -> Leftovers:
        # A shim or a clean-up process ends a moment after its container is gone, and tells nobody.
        for _ in range(50):
            found = attrs.evolve(
                await self.daemon.leftovers(),
                processes=tuple(self._processes()),
                mounts=tuple(self._new_mounts()),
                interfaces=tuple(self._interfaces()),
            )
            if not found:
                break
            await asyncio.sleep(0.1)
        return found

    def _processes(self) -> Iterator[str]:
        for pid in processes_of(self.daemon.dir):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            name = os.path.basename(words[0].decode(errors="replace"))  # noqa: PTH119 - of a string
            if name not in ("dockerd", "containerd") and pid != self.daemon.pid:
                yield f"{pid} {name}"

    def _new_mounts(self) -> Iterator[str]:
        for point in mounts_under(self.daemon.dir):
            # dockerd's handle of the host's own network namespace comes with the first container that has no other, and stays.
            if point not in self._mounts and not point.endswith("/netns/default"):
                yield point

    def _interfaces(self) -> Iterator[str]:
        ports = Path("/sys/class/net", self.daemon.bridge, "brif")
        yield from sorted(path.name for path in ports.iterdir()) if ports.exists() else ()

    async def image_facts(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        done = await self.daemon.cli("image", "inspect", name, check=False)
        if done.returncode:
            return None
        document: dict[str, Any] = json.loads(done.stdout)[0]
        digests = [entry.partition("@")[2] for entry in document.get("RepoDigests") or ()]
        digest = digests[0] if digests else "sha256:" + document["Id"].removeprefix("sha256:")
        return digest, tuple(sorted(document.get("RepoTags") or ()))

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.daemon.pid}/fd").iterdir()))


class DockerdTarget(EngineTarget):
    name = "dockerd"


class PodmanTarget(EngineTarget):
    name = "podman"

    @property
    def ends_builds(self) -> bool:
        # Podman 4.3 cancels the build, but Buildah looks only between steps.
        return False


@asynccontextmanager
async def opened(kind: type[EngineTarget], daemon: Dockerd | Podman, archive: Path) -> AsyncIterator[EngineTarget]:
    async with AsyncExitStack() as stack:
        registries = {
            "plain": await stack.enter_async_context(Registry()),
            "htpasswd": await stack.enter_async_context(Registry(auth="htpasswd")),
            "token": await stack.enter_async_context(Registry(auth="token")),
        }
        await stack.enter_async_context(daemon)
        await daemon.load(archive)
        yield kind(daemon, archive, registries)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test image."""
    require("image")
    path = tmp_path_factory.mktemp("image") / "busybox.tar"
    build_archive(ImageSpec(reference=IMAGE), path)
    return path


@pytest.fixture(scope="module")
def dockerd_target(archive: Path) -> Iterator[EngineTarget]:
    """A private dockerd, for one module."""
    require("docker")
    require("registry")
    # Its default, five attempts with growing pauses, takes most of a minute to report a registry that cuts connections.
    daemon = Dockerd(live_restore=True, config={"max-download-attempts": 1})
    with entered(opened(DockerdTarget, daemon, archive)) as target:
        yield target


@pytest.fixture(scope="module")
def podman_target(archive: Path) -> Iterator[EngineTarget]:
    """A private podman with its Docker-compatible service, for one module."""
    require("podman")
    require("registry")
    with entered(opened(PodmanTarget, Podman(), archive)) as target:
        yield target
