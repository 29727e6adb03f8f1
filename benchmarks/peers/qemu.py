"""QEMU alone, with the arguments that asyncctr gives it, but for the monitor that nobody asks."""

# ruff: noqa: ARG002, D102 - the base class says what each method is

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncctr
from asyncctr import NanosConfig
from asyncctr.backends.nanos.machine import Drive, UserNetwork, VirtualMachine, qemu_arguments
from asyncctr.backends.nanos.prepared import Prepared
from asyncctr.backends.nanos.tfs.overlay import write_machine_disk
from asyncctr.transport.places import data_directory
from benchmarks.peers.base import Contender, Job, Output, Ran, UnsupportedQuestionError, in_parallel

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Qemu"]

# What isa-debug-exit makes of a guest's 0.
_ZERO = 1


class Qemu(Contender):
    """A process for each machine; its disk is there before the clock starts, and is used again."""

    async def open(self) -> None:
        self._program = shutil.which("qemu-system-x86_64") or ""
        self._directory = await asyncio.to_thread(tempfile.mkdtemp, prefix="bench-qemu-")
        async with asyncctr.connect(NanosConfig(kernel_path=self.host)) as client:
            self._accelerator = (await client.health_check()).details["accelerator"]
        await asyncio.to_thread(self._write_disks)

    def _write_disks(self) -> None:
        images = Path(data_directory("nanos"), "images")
        # The largest file of the store is the only image's disk.
        base = max((path for path in images.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        tail = Prepared.of(base).tail
        for index in range(self.width):
            path = f"{self._directory}/{index}.qcow2"
            write_machine_disk(path, base=str(base), tail=tail, changes={"debug_exit": "t"})

    async def aclose(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self._directory)

    async def run_all(self, jobs: Sequence[Job]) -> list[Ran]:
        free = list(range(self.width))

        async def one(job: Job) -> Ran:
            index = free.pop()
            try:
                return await self._run(job, f"{self._directory}/{index}")
            finally:
                free.append(index)

        return await in_parallel(one, jobs, self.width)

    async def _run(self, job: Job, path: str) -> Ran:
        console = Path(f"{path}.console")
        machine = VirtualMachine(
            kernel=self.host,
            monitor=f"{path}.qmp",
            console=str(console),
            accelerator=self._accelerator,
            drives=(Drive(path=f"{path}.qcow2", format="qcow2"),),
            network=UserNetwork() if job.network == "bridge" else None,
        )
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(self._program, *qemu_arguments(machine))
        code = await process.wait()
        seconds = time.perf_counter() - began
        output = await asyncio.to_thread(console.read_bytes)
        await asyncio.to_thread(console.unlink)
        return Ran(0 if code == _ZERO else code, output, None, seconds)

    async def start_all(self, jobs: Sequence[Job]) -> list[Ran]:
        """The same: a machine of QEMU alone is started by being run."""
        return await self.run_all(jobs)

    async def run_printing(self, job: Job) -> tuple[int, Output]:
        raise UnsupportedQuestionError("is not asked to")

    async def read_log(self, handle: Any) -> Output:
        raise UnsupportedQuestionError("is not asked to")

    async def handles(self, ids: Sequence[str]) -> list[Any]:
        raise UnsupportedQuestionError("is not asked to")
