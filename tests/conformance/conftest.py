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

from asyncctr import ContainerdConfig, DockerConfig
from asyncctr.backends.containerd import finding, opening
from asyncctr.backends.containerd.finding import Lease
from asyncctr.testing.as_user import AsUser, run_as_user
from asyncctr.testing.conformance import CASES, FULL, Target, profile_from_environment
from asyncctr.testing.daemons import Containerd, Daemon, Dockerd, Leftovers, Podman, Registry, require
from asyncctr.testing.images import ImageSpec, build_archive
from asyncctr.testing.nanos import NanosTarget, opened_nanos
from asyncctr.testing.private import PrivateContainerd
from asyncctr.testing.programs import RuntimeMissing, give_up
from asyncctr.testing.proxy import BlackHole, FaultProxy
from asyncctr.testing.residue import mounts_under, processes_of
from asyncctr.testing.traces import host_traces

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")

IMAGE = "asyncctr.test/busybox:latest"
NANOS_VARIABLE = "ASYNCCTR_TEST_NANOS_DIR"
EVERYDAY = frozenset((*range(1, 8), 11, 12, 13, 16, 17, 22, 24, 26, 28))
"""The numbers of the cases that a target is given that shares its backend with another one."""
# What a process of another user needs beside this directory.
IMPORTS = """
import asyncctr.testing.conformance, asyncctr.backends.containerd, asyncctr.testing.daemons, asyncctr.testing.private
import asyncctr.testing.traces, asyncctr.testing.as_user, asyncctr.testing.nanos, pytest_timeout, uvloop
"""


def pytest_report_header() -> str:
    profile = profile_from_environment()
    counts = attrs.asdict(profile)
    counts.pop("name")
    return f"conformance profile: {profile.name} ({', '.join(f'{name} {count}' for name, count in counts.items())})"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every case on asyncio, and the cases that ask for it on uvloop as well; without root a sample is enough for every day.

    So is one loop with Podman, which has the same backend as Docker.
    """
    if "case" not in metafunc.fixturenames:
        return
    rootless, full = "rootless_target" in metafunc.fixturenames, profile_from_environment() is FULL
    if rootless:
        metafunc.parametrize(
            "rootless_target", ["debian", "2.x"] if full else ["debian"], indirect=True, scope="module"
        )
    sample = rootless and not full
    params = []
    for case in sorted(CASES, key=lambda case: case.number):
        if sample and case.number not in EVERYDAY:
            continue
        params.append(pytest.param(case, "asyncio", id=str(case)))
        if case.uvloop and not sample and (full or "podman_target" not in metafunc.fixturenames):
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


async def nothing_left(look: Callable[[], Awaitable[Leftovers]]) -> Leftovers:
    """What there is, looked for again for a while: a shim or a clean-up ends a moment after its container, and tells nobody."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 10
    while True:
        found = await look()
        if not found or loop.time() > end:
            return found
        await asyncio.sleep(0.1)


def processes_beside(daemon: Daemon) -> Iterator[str]:
    """The processes of a daemon that are no daemons themselves."""
    for pid in processes_of(daemon.dir):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        name = os.path.basename(words[0].decode(errors="replace"))  # noqa: PTH119 - of a string
        if name not in ("dockerd", "containerd") and pid != daemon.pid:
            yield f"{pid} {name}"


def descriptors_of(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


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
        return await nothing_left(self._left)

    async def _left(self) -> Leftovers:
        return attrs.evolve(
            await self.daemon.leftovers(),
            processes=tuple(processes_beside(self.daemon)),
            mounts=tuple(self._new_mounts()),
            interfaces=tuple(self._interfaces()),
        )

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
        return descriptors_of(self.daemon)


class DockerdTarget(EngineTarget):
    name = "dockerd"


class PodmanTarget(EngineTarget):
    name = "podman"

    @property
    def ends_builds(self) -> bool:
        # Podman 4.3 cancels the build, but Buildah looks only between steps.
        return False


class ContainerdTarget(Target):
    """containerd, with ``ctr`` of the same release to look into it."""

    namespace = "asyncctr"
    logs_over_connection = False

    def __init__(
        self, daemon: Containerd, archive: Path, registries: dict[str, Registry], before: Leftovers, data: Path
    ) -> None:
        self.daemon = daemon
        self.data = data
        self.name = f"containerd {daemon.release}"
        self.image = IMAGE
        self.archive = str(archive)
        self.registries = registries
        self._before = before

    @property
    def config(self) -> ContainerdConfig:
        return ContainerdConfig(socket_path=self.daemon.socket, namespace=self.namespace)

    @asynccontextmanager
    async def proxied(self) -> AsyncIterator[tuple[FaultProxy, ContainerdConfig]]:
        async with FaultProxy(f"unix://{self.daemon.socket}") as proxy:
            yield proxy, attrs.evolve(self.config, socket_path=proxy.path, private=False)

    @asynccontextmanager
    async def unresponsive(self) -> AsyncIterator[ContainerdConfig]:
        async with BlackHole() as hole:
            yield attrs.evolve(self.config, socket_path=hole.path, private=False)

    async def restart(self) -> None:
        await self.daemon.kill()
        await self.daemon.start()

    async def leftovers(self) -> Leftovers:
        return await nothing_left(self._left)

    async def _left(self) -> Leftovers:
        found = await self.daemon.leftovers()
        traces = (await host_traces(self.daemon.dir, self.data)).without(self._before)
        return attrs.evolve(
            traces,
            **attrs.asdict(found, filter=lambda _, value: bool(value)),
            processes=tuple(processes_beside(self.daemon)),
            mounts=tuple(mounts_under(self.daemon.dir)),
        )

    async def image_facts(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        lines = (await self.daemon.cli("images", "list", namespace=self.namespace)).lines[1:]
        digests = {found: digest for found, _, digest, *_ in map(str.split, lines)}
        if name not in digests:
            return None
        # As everywhere, a name by digest is none of the image's names.
        same = sorted(found for found, digest in digests.items() if digest == digests[name] and "@" not in found)
        return digests[name], tuple(same)

    def open_files(self) -> int:
        return descriptors_of(self.daemon)


class RootlessTarget(ContainerdTarget):
    """A containerd without root, started by the SDK: all of it is this user's, in namespaces of rootlesskit."""

    daemon: PrivateContainerd

    def __init__(self, daemon: PrivateContainerd, archive: Path, registries: dict[str, Registry]) -> None:
        super().__init__(daemon, archive, registries, Leftovers(), daemon.dir)
        self.name = f"rootless containerd {daemon.release}"

    @property
    def config(self) -> ContainerdConfig:
        return attrs.evolve(self.daemon.config, namespace=self.namespace)

    @asynccontextmanager
    async def proxied(self) -> AsyncIterator[tuple[FaultProxy, ContainerdConfig]]:
        async with super().proxied() as (proxy, config):
            # The namespaces of a daemon are found by the process that listens, which here is the proxy.
            endpoint = attrs.evolve(self.daemon.lease.endpoint, socket=str(proxy.path))

            async def acquire(asked: ContainerdConfig) -> Lease:
                return Lease(endpoint) if asked.socket_path == str(proxy.path) else await finding.acquire(asked)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(opening, "acquire", acquire)
                yield proxy, config

    @property
    def enter_network(self) -> tuple[str, ...]:
        return self.daemon.enter

    @property
    def survives_restart(self) -> bool:
        # With rootlesskit's pid namespace all that is in it ends.
        return False

    async def _left(self) -> Leftovers:
        found = await self.daemon.leftovers()
        return attrs.evolve(await self.daemon.traces(), **attrs.asdict(found, filter=lambda _, value: bool(value)))

    def open_files(self) -> int:
        return self.daemon.open_files()


@asynccontextmanager
async def running_registries() -> AsyncIterator[dict[str, Registry]]:
    async with AsyncExitStack() as stack:
        yield {
            "plain": await stack.enter_async_context(Registry()),
            "htpasswd": await stack.enter_async_context(Registry(auth="htpasswd")),
            "token": await stack.enter_async_context(Registry(auth="token")),
        }


@asynccontextmanager
async def opened(kind: type[EngineTarget], daemon: Dockerd | Podman, archive: Path) -> AsyncIterator[EngineTarget]:
    async with running_registries() as registries, daemon:
        await daemon.load(archive)
        yield kind(daemon, archive, registries)


@asynccontextmanager
async def opened_containerd(daemon: Containerd, archive: Path) -> AsyncIterator[ContainerdTarget]:
    async with running_registries() as registries, daemon:
        await daemon.load(archive, namespace=ContainerdTarget.namespace)
        # Where the SDK keeps logs, networks and volumes: for this module alone, and its subprocesses.
        data = daemon.dir / "sdk"
        before = await host_traces(daemon.dir, data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ASYNCCTR_DATA_DIR", str(data))
            yield ContainerdTarget(daemon, archive, registries, before, data)


@asynccontextmanager
async def opened_private(daemon: PrivateContainerd, archive: Path) -> AsyncIterator[RootlessTarget]:
    async with running_registries() as registries, daemon:
        await daemon.load(archive, namespace=ContainerdTarget.namespace)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in daemon.environ.items():
                patch.setenv(name, value)
            yield RootlessTarget(daemon, archive, registries)


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


@pytest.fixture(scope="module", params=["debian", "2.x"])
def containerd_target(request: pytest.FixtureRequest, archive: Path) -> Iterator[ContainerdTarget]:
    """A private containerd, for one module: Debian's, then 2.x."""
    require("containerd" if request.param == "debian" else "containerd2")
    require("cni")
    require("registry")
    with entered(opened_containerd(Containerd(release=request.param), archive)) as target:
        yield target


@pytest.fixture(scope="module", params=["stand-in", "real"])
def nanos_target(request: pytest.FixtureRequest) -> Iterator[NanosTarget]:
    """A directory of machines, for one module: with the tests' own guests as the kernel, then with the real one, where there is one."""
    require("guests")
    require("image")
    require("registry")
    kernel = None
    if request.param == "real":
        # No registry has it, so that nobody can be required to have it.
        if not (named := os.environ.get(NANOS_VARIABLE)):
            pytest.skip(f"{NANOS_VARIABLE} names no directory with Nanos' kernel.img, which no registry has")
        kernel = Path(named, "kernel.img")
    with entered(nanos_with_registries(request.param, kernel)) as target:
        yield target


@asynccontextmanager
async def nanos_with_registries(name: str, kernel: Path | None) -> AsyncIterator[NanosTarget]:
    async with running_registries() as registries, opened_nanos(f"nanos, {name}", kernel, registries) as target:
        yield target


@pytest.fixture(scope="module")
def rootless_target(request: pytest.FixtureRequest) -> Iterator[RootlessTarget | AsUser]:
    """The private containerd of an ordinary user: of this one, or of one that is made, where this is root."""
    release = request.param
    if os.geteuid() != 0:
        archive = request.getfixturevalue("archive")
        with entered(opened_private(PrivateContainerd(release=release), archive)) as target:
            yield target
        return
    for runtime in ("rootless", "cni", "image", "registry", "containerd" if release == "debian" else "containerd2"):
        require(runtime)
    names = [item.name for item in request.session.items if item.path == request.path and f"[{release}-" in item.name]
    try:
        results = asyncio.run(run_as_user(request.path, names, imports=IMPORTS))
    except RuntimeMissing as error:
        give_up("rootless", error)
    yield results
