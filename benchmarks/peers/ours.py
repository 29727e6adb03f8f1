"""asyncctr."""

# ruff: noqa: D102 - the base class says what each method is

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import asyncctr
from asyncctr import DockerConfig, NetworkConfig, NetworkMode
from benchmarks.peers.base import Contender, Job, Marks, Output, Ran, in_parallel

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NETWORKS", "Asyncctr"]

NETWORKS = {"none": NetworkConfig(mode=NetworkMode.NONE), "bridge": NetworkConfig(mode=NetworkMode.BRIDGE)}


class Asyncctr(Contender):
    """``client.run``, ``container.logs`` and ``container.wait``, as the README has them."""

    async def open(self) -> None:
        self._client = await asyncctr.connect(DockerConfig(host=self.host))

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _run(self, job: Job) -> asyncctr.RunResult:
        return await self._client.run(self.image, job.command, network=NETWORKS[job.network])

    async def run_all(self, jobs: Sequence[Job]) -> list[Ran]:
        async def one(job: Job) -> Ran:
            began = time.perf_counter()
            result = await self._run(job)
            return Ran(result.exit_code, result.stdout, result.stderr, time.perf_counter() - began)

        return await in_parallel(one, jobs, self.width)

    async def run_printing(self, job: Job) -> tuple[int, Output]:
        result = await self._run(job)
        return result.exit_code, [result.stdout]

    async def handles(self, ids: Sequence[str]) -> list[asyncctr.Container]:
        return [await self._client.get(one) for one in ids]

    async def read_log(self, handle: asyncctr.Container) -> Output:
        return [entry.data async for entry in handle.logs()]

    async def follow_all(self, handles: Sequence[asyncctr.Container], marks: Marks) -> list[Output]:
        async def one(index: int, container: asyncctr.Container) -> Output:
            parts: list[bytes] = []
            async with await container.logs() as stream:
                marks.is_open(index)
                async for entry in stream:
                    marks.has_data(index)
                    parts.append(entry.data)
            return parts

        return await asyncio.gather(*(one(index, container) for index, container in enumerate(handles)))

    async def wait_all(self, handles: Sequence[asyncctr.Container]) -> list[int]:
        return [status.code for status in await asyncio.gather(*(container.wait() for container in handles))]
