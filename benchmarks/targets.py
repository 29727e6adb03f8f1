"""What is measured: daemons, each private, or a directory of machines, with the image there, and what sets up and tidies."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self

from asyncctr.testing.daemons import Containerd, Dockerd, Registry
from asyncctr.testing.golang import CONTAINERD
from asyncctr.testing.guests import build_guests
from asyncctr.testing.images import ImageSpec, build_archive, push
from benchmarks.containerd.engine import NAMESPACE, Ctr
from benchmarks.containerd.logs import LINES_FILE, lines
from benchmarks.engine import Engine
from benchmarks.nanos.engine import Machines

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

__all__ = ["ContainerdTarget", "DockerTarget", "Keeper", "NanosTarget", "Release", "Target"]

Release = Literal["debian", "2.x"]
IMAGE = "asyncctr.test/busybox:latest"
_PADDING = 120_000_000


class Keeper(Protocol):
    """What sets up and tidies."""

    def containers(self) -> set[str]:
        """The ids of all containers."""
        ...

    def remove(self, containers: Collection[str]) -> None:
        """Remove them, running or not."""
        ...

    def version(self) -> dict[str, str]:
        """The versions of the daemon and of what it runs."""
        ...


class Target:
    """A daemon, as an async context manager.

    Attributes:
        name: for tables.
        runtime: which contenders there are.
        image: what containers are made from.
        questions: by name, with the module's name and the seconds that it may take: quick, and full.
        host: the daemon, as contenders are told.
        engine: sets up and tidies there.
    """

    name = ""
    runtime = ""
    image = IMAGE
    questions: ClassVar[dict[str, tuple[str, int, int]]]
    host: str
    engine: Keeper

    def __init__(self, directory: Path, names: Collection[str]) -> None:
        self.directory = directory
        self.names = names
        self.stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.stack = stack
            await self.open()
            self.stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stack.aclose()

    async def open(self) -> None:
        """Start it, on :attr:`stack`."""
        raise NotImplementedError

    async def restart(self) -> None:
        """Kill it and start it again."""
        raise NotImplementedError


class DockerTarget(Target):
    """Debian's dockerd."""

    name = "docker"
    runtime = "docker"
    questions: ClassVar = {
        "lifecycle": ("lifecycle", 85, 450),
        "logs": ("logs", 40, 180),
        "followers": ("followers", 14, 70),
        "waits": ("waits", 16, 80),
    }

    async def open(self) -> None:
        """See :meth:`Target.open`."""
        archive = self.directory / "busybox.tar"
        await asyncio.to_thread(build_archive, ImageSpec(reference=IMAGE), archive)
        self._daemon = await self.stack.enter_async_context(Dockerd())
        await self._daemon.load(archive)
        self.host = self._daemon.host
        self.engine = Engine(self.host)

    async def restart(self) -> None:
        """See :meth:`Target.restart`."""
        await self._daemon.kill()
        await self._daemon.start()


class ContainerdTarget(Target):
    """Debian's containerd, or 2.x. Contenders find its ``ctr`` first in PATH, and what asyncctr keeps is in the target's directory."""

    runtime = "containerd"
    questions: ClassVar = {
        "lifecycle": ("containerd.lifecycle", 70, 300),
        "logs": ("containerd.logs", 20, 60),
        "latency": ("containerd.latency", 5, 15),
        "pull": ("containerd.pull", 20, 60),
        "followers": ("containerd.followers", 14, 60),
        "waits": ("containerd.waits", 20, 60),
    }

    def __init__(self, directory: Path, names: Collection[str], *, release: Release) -> None:
        super().__init__(directory, names)
        self.release: Release = release
        self.name = f"containerd {'1.6' if release == 'debian' else release}"

    async def open(self) -> None:
        """See :meth:`Target.open`."""
        self._daemon = await self.stack.enter_async_context(Containerd(release=self.release))
        if self.release == "2.x":
            path = os.environ["PATH"]
            self.stack.callback(os.environ.__setitem__, "PATH", path)
            os.environ["PATH"] = os.pathsep.join((str(CONTAINERD.directory), path))
        os.environ["ASYNCCTR_DATA_DIR"] = str(self.directory / "data")
        os.environ["ASYNCCTR_RUN_DIR"] = str(self._daemon.dir / "sdk")
        self.host = str(self._daemon.socket)
        engine = self.engine = Ctr(self.host)
        archive = self.directory / "busybox.tar"
        files = {LINES_FILE: lines()} if "logs" in self.names else {}
        await asyncio.to_thread(build_archive, ImageSpec(reference=IMAGE, files=files), archive)
        await self._daemon.load(archive, namespace=NAMESPACE)
        if "pull" in self.names:
            registry = await self.stack.enter_async_context(Registry())
            await push(ImageSpec(padding=_PADDING), registry.host, "bench/padded", "latest")
            engine.pulled = registry.reference("bench/padded")

    async def restart(self) -> None:
        """See :meth:`Target.restart`."""
        await self._daemon.kill()
        await self._daemon.start()


class NanosTarget(Target):
    """Unikernels, with the tests' own stand-in for Nanos' kernel, or the real one where ``ASYNCCTR_TEST_NANOS_DIR`` has it."""

    runtime = "nanos"
    image = "bench/hello:1"
    questions: ClassVar = {
        "lifecycle": ("nanos.lifecycle", 30, 120),
        "build": ("nanos.build", 20, 60),
        "logs": ("nanos.logs", 15, 40),
        "idle": ("nanos.idle", 30, 60),
    }

    def __init__(self, directory: Path, names: Collection[str]) -> None:
        super().__init__(directory, names)
        self._real = os.environ.get("ASYNCCTR_TEST_NANOS_DIR", "")
        self.name = "Nanos" if self._real else "Nanos' stand-in"

    async def open(self) -> None:
        """See :meth:`Target.open`."""
        os.environ["ASYNCCTR_DATA_DIR"] = str(self.directory / "data")
        os.environ["ASYNCCTR_RUN_DIR"] = str(self.directory / "run")
        guests = await asyncio.to_thread(build_guests)
        kernel = Path(self._real, "kernel.img") if self._real else guests.kernel
        self.host = str(kernel)
        engine = self.engine = Machines(kernel, guests.shell)
        await asyncio.to_thread(engine.build, self.image)

    async def restart(self) -> None:
        """There is no daemon."""
