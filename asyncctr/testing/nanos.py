"""Nanos as a target of the conformance suite: a directory of machines of its own, and an image of the guests' shell."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from unittest.mock import patch

import attrs

import asyncctr
from asyncctr import NanosConfig
from asyncctr.backends.nanos.pvh import pvh_kernel
from asyncctr.core.build import NanosBuildInput
from asyncctr.testing.conformance import Target
from asyncctr.testing.daemons import Leftovers
from asyncctr.testing.guests import build_guests
from asyncctr.testing.images import ImageSpec, build_archive
from asyncctr.vm.supervisor import read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncctr.testing.daemons import Registry

__all__ = ["NanosTarget", "opened_nanos"]

_IMAGE = "asyncctr.test/shell:latest"
_NO_BOOT = "no root filesystem"
_ZEROS = 1 << 20
_NEVER_ANSWERS = "#!/bin/sh\nexec sleep 60\n"


class NanosTarget(Target):
    """Machines in one directory, which is all that there is of a runtime."""

    def __init__(self, name: str, directory: Path, kernel: Path, registries: dict[str, Registry]) -> None:
        self.name = name
        self.directory = directory
        self.kernel = kernel
        self.image = _IMAGE
        self.archive = str(directory / "container.tar")
        self.registries = registries

    @property
    def logs_over_connection(self) -> bool:
        """They are files."""
        return False

    @property
    def has_daemon(self) -> bool:
        """There is a QEMU for each machine."""
        return False

    @property
    def is_linux(self) -> bool:
        """Nanos has one process, and no shell's tools."""
        return False

    @property
    def most_output(self) -> int:
        """An emulated serial port takes some hundred KiB a second."""
        return 5 << 18

    @property
    def config(self) -> NanosConfig:
        """The configuration of the directory."""
        return NanosConfig(work_dir=str(self.directory / "data"), kernel_path=str(self.kernel))

    def proxied(self) -> NoReturn:
        """See :attr:`has_daemon`."""
        message = "there is no connection to a runtime that a proxy could be in"
        raise NotImplementedError(message)

    @asynccontextmanager
    async def unresponsive(self) -> AsyncIterator[NanosConfig]:
        """A QEMU that does not even tell its version."""
        program = self.directory / "qemu-that-never-answers"
        program.write_text(_NEVER_ANSWERS)
        program.chmod(0o755)
        yield attrs.evolve(self.config, qemu_path=str(program))

    async def restart(self) -> None:
        """See :attr:`has_daemon`."""
        message = "there is no daemon that could be started again"
        raise NotImplementedError(message)

    def machine(self, container_id: str) -> tuple[int, ...]:
        """The supervisor, and QEMU."""
        noted = read(self._machines / container_id)
        if noted is None or noted.supervisor is None or noted.vmm is None:
            return ()
        return noted.supervisor.pid, noted.vmm.pid

    @asynccontextmanager
    async def unbootable(self) -> AsyncIterator[tuple[NanosConfig, str]]:
        """A kernel that complains and resets the machine."""
        kernel = self.directory / "kernel-that-does-not-boot"
        said = b"".join(bytes((0xB0, character, 0xEE)) for character in f"{_NO_BOOT}\n".encode())
        # mov dx, the serial port; the characters by out; lidt of an empty table; ud2, which no handler takes: the machine resets.
        kernel.write_bytes(pvh_kernel(bytes.fromhex("66ba f803") + said + bytes.fromhex("0f01 1d 00000000 0f0b")))
        yield attrs.evolve(self.config, kernel_path=str(kernel)), _NO_BOOT

    @property
    def _machines(self) -> Path:
        return self.directory / "data" / "containers"

    async def leftovers(self) -> Leftovers:
        """Directories and names of machines, sockets, processes."""
        loop = asyncio.get_running_loop()
        end = loop.time() + 10
        while True:
            found = self._left()
            if not found or loop.time() > end:
                return found
            # A supervisor ends a moment after its machine, and tells nobody.
            await asyncio.sleep(0.1)

    def _left(self) -> Leftovers:
        data = self.directory / "data"
        return Leftovers(
            containers=tuple(path.name for path in sorted(self._machines.glob("*"))),
            processes=tuple(f"{pid}" for pid in self._processes()),
            sockets=tuple(path.name for path in sorted((self.directory / "run").rglob("*.qmp"))),
            states=tuple(path.name for path in sorted(data.glob("names/*"))),
        )

    def _processes(self) -> list[int]:
        """What has this directory among its arguments, or works below it; but for this process and its helpers."""
        found: list[int] = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if f"{self.directory}/".encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                # It ended just now.
                continue
        return sorted(found)

    async def image_facts(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        """There is no other tool that knows these images."""
        async with asyncctr.connect(self.config) as client:
            image = client.image(name)
            return (await image.digest(), tuple(await image.tags())) if await image.exists() else None

    def open_files(self) -> int:
        """Of all machines and what watches over them."""
        count = 0
        for pid in self._processes():
            try:
                count += sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
            except (FileNotFoundError, ProcessLookupError):
                continue
        return count


@asynccontextmanager
async def opened_nanos(name: str, kernel: Path | None, registries: dict[str, Registry]) -> AsyncIterator[NanosTarget]:
    """A target with the stand-in for Nanos' kernel, or with another one."""
    directory = Path(tempfile.mkdtemp(prefix="asyncctr-nanos-"))
    try:
        guests = await asyncio.to_thread(build_guests)
        # By this name the shell does what its arguments say: as any other image's, they are all of the command.
        program = directory / "exec"
        shutil.copy(guests.shell, program)
        (directory / "log").mkdir()
        (directory / "filled").mkdir()
        (directory / "filled/file").write_text("the image's")
        # Nanos has no such device.
        (directory / "zero").write_bytes(bytes(_ZEROS))
        target = NanosTarget(name, directory, kernel or guests.kernel, registries)
        await asyncio.to_thread(
            build_archive, ImageSpec(reference="asyncctr.test/busybox:latest"), Path(target.archive)
        )
        # Of this process, so that those that it starts have it, too.
        with patch.dict(os.environ, {"ASYNCCTR_RUN_DIR": str(directory / "run")}):
            async with asyncctr.connect(target.config) as client:
                build = NanosBuildInput(
                    program=str(program),
                    env={"PATH": "/bin"},
                    files={"/bin/sh": str(guests.shell), "/dev/zero": str(directory / "zero")},
                    dirs={
                        **dict.fromkeys(("/var/log", "/tmp", "/data", "/mnt/bound"), str(directory / "log")),  # noqa: S108  # the image's
                        "/filled": str(directory / "filled"),
                    },
                )
                await client.image(target.image).build(build)
            yield target
    finally:
        shutil.rmtree(directory)
