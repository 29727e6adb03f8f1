"""asyncctr on Nanos."""

# ruff: noqa: D102 - the base class says what each method is

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import asyncctr
from asyncctr import ContainerConfig, NanosBuildInput, NanosConfig
from benchmarks.peers.base import Job, Ran, in_parallel
from benchmarks.peers.ours import NETWORKS, Asyncctr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["AsyncctrNanos"]


class AsyncctrNanos(Asyncctr):
    """The same calls, with another configuration; an empty command is the image's own."""

    async def open(self) -> None:
        self._client = await asyncctr.connect(NanosConfig(kernel_path=self.host))

    async def start_all(self, jobs: Sequence[Job]) -> list[Ran]:
        """Machines that are made already, from their start to their exit."""

        async def one(job: Job) -> Ran:
            container = await self.make(job.command, network=job.network)
            try:
                began = time.perf_counter()
                await container.start()
                status = await container.wait()
                seconds = time.perf_counter() - began
                output = b"".join([entry.data async for entry in container.logs()])
            finally:
                await container.remove(force=True)
            return Ran(status.code, output, None, seconds)

        return await in_parallel(one, jobs, self.width)

    async def make(self, command: Sequence[str], *, network: str = "none") -> asyncctr.Container:
        """A machine that was not started yet."""
        config = ContainerConfig(image=self.image, command=command, network=NETWORKS[network])
        return await self._client.create(config)

    async def build(self, program: str, directories: Mapping[str, str]) -> float:
        """Build an image, which is removed again; the seconds of the build."""
        image = self._client.image("bench/built:1")
        began = time.perf_counter()
        await image.build(NanosBuildInput(program=program, map_dirs=directories))
        seconds = time.perf_counter() - began
        await image.remove()
        return seconds
