"""aiodocker, at its fastest and as its README shows it."""

# ruff: noqa: D102 - the base class says what each method is

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import aiodocker
import aiohttp

from benchmarks.peers.base import Contender, Job, Marks, Output, Ran, in_parallel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiodocker.containers import DockerContainer

__all__ = ["Aiodocker", "AiodockerReadme"]

_STDERR = 2


class Aiodocker(Contender):
    """At its fastest: attached before the start, and without the limit of 100 connections that it has by default."""

    async def open(self) -> None:
        connector = aiohttp.UnixConnector(self.host.removeprefix("unix://"), limit=0)
        self._session = aiohttp.ClientSession(connector=connector)
        # With a connector of one's own, the URL only has to have the shape that it would be given.
        self._docker = aiodocker.Docker(url="unix://localhost", connector=connector, session=self._session)

    async def aclose(self) -> None:
        await self._docker.close()
        await self._session.close()

    async def _create(self, job: Job) -> DockerContainer:
        config: dict[str, Any] = {
            "Image": self.image,
            "Cmd": list(job.command),
            "HostConfig": {"NetworkMode": job.network},
        }
        return await self._docker.containers.create(config)

    async def run_all(self, jobs: Sequence[Job]) -> list[Ran]:
        return await in_parallel(self._run, jobs, self.width)

    async def _run(self, job: Job) -> Ran:
        container = await self._create(job)
        streams: tuple[list[bytes], list[bytes]] = ([], [])
        async with container.attach(stdout=True, stderr=True) as stream:
            await container.start()
            while (message := await stream.read_out()) is not None:
                streams[message.stream == _STDERR].append(message.data)
        answer = await container.wait()
        await container.delete(force=True, v=True)
        return Ran(answer["StatusCode"], b"".join(streams[0]), b"".join(streams[1]))

    async def run_printing(self, job: Job) -> tuple[int, Output]:
        ran = await self._run(job)
        return ran.code, [ran.stdout]

    async def handles(self, ids: Sequence[str]) -> list[DockerContainer]:
        return [self._docker.containers.container(one) for one in ids]

    async def read_log(self, handle: DockerContainer) -> Output:
        return list(await handle.log(stdout=True, stderr=True))

    async def follow_all(self, handles: Sequence[DockerContainer], marks: Marks) -> list[Output]:
        async def one(index: int, container: DockerContainer) -> Output:
            parts: list[str] = []
            async for line in container.log(stdout=True, stderr=True, follow=True):
                marks.has_data(index)
                parts.append(line)
            return parts

        return await asyncio.gather(*(one(index, container) for index, container in enumerate(handles)))

    async def wait_all(self, handles: Sequence[DockerContainer]) -> list[int]:
        answers = await asyncio.gather(*(container.wait() for container in handles))
        return [int(answer["StatusCode"]) for answer in answers]


class AiodockerReadme(Aiodocker):
    """As its README and its users write it: create (or replace, by name), start, wait, log, delete."""

    async def open(self) -> None:
        self._docker = aiodocker.Docker(url=self.host)

    async def aclose(self) -> None:
        await self._docker.close()

    async def _create(self, job: Job) -> DockerContainer:
        config: dict[str, Any] = {
            "Image": self.image,
            "Cmd": list(job.command),
            "HostConfig": {"NetworkMode": job.network},
        }
        return await self._docker.containers.create_or_replace(config=config, name=f"testing-{uuid.uuid4().hex}")

    async def _run(self, job: Job) -> Ran:
        container = await self._create(job)
        await container.start()
        answer = await container.wait()
        lines = await container.log(stdout=True, stderr=True)
        await container.delete(force=True)
        return Ran(answer["StatusCode"], "".join(lines).encode())

    async def run_printing(self, job: Job) -> tuple[int, Output]:
        container = await self._create(job)
        await container.start()
        lines = [line async for line in container.log(stdout=True, stderr=True, follow=True)]
        answer = await container.wait()
        await container.delete(force=True)
        return answer["StatusCode"], lines

    async def read_log(self, handle: DockerContainer) -> Output:
        return [line async for line in handle.log(stdout=True, stderr=True, follow=True)]
