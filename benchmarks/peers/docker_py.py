"""docker-py, in a pool of threads."""

# ruff: noqa: D102 - the base class says what each method is

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import docker  # type: ignore[import-untyped]

from benchmarks.peers.base import Contender, Job, Marks, Output, Ran, in_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DockerPy"]


class DockerPy(Contender):
    """``containers.run(detach=True)``, ``wait``, ``logs``, ``remove``, with as many pooled connections as threads."""

    uses_loop = False

    async def open(self) -> None:
        self._docker: Any = docker.DockerClient(base_url=self.host, max_pool_size=max(10, self.width))

    async def aclose(self) -> None:
        self._docker.close()

    def _start(self, job: Job) -> Any:
        return self._docker.containers.run(self.image, list(job.command), detach=True, network_mode=job.network)

    def _run(self, job: Job) -> Ran:
        container = self._start(job)
        answer = container.wait()
        output = container.logs(stdout=True, stderr=True)
        container.remove(force=True)
        return Ran(answer["StatusCode"], output)

    def _run_printing(self, job: Job) -> tuple[int, Output]:
        container = self._start(job)
        output = list(container.logs(stdout=True, stderr=True, stream=True, follow=True))
        answer = container.wait()
        container.remove(force=True)
        return answer["StatusCode"], output

    async def run_all(self, jobs: Sequence[Job]) -> list[Ran]:
        return await in_threads(self._run, jobs, self.width)

    async def run_printing(self, job: Job) -> tuple[int, Output]:
        return (await in_threads(self._run_printing, [job], 1))[0]

    async def handles(self, ids: Sequence[str]) -> list[Any]:
        return await in_threads(self._docker.containers.get, ids, 1)

    async def read_log(self, handle: Any) -> Output:
        return await in_threads(lambda container: container.logs(stdout=True, stderr=True), [handle], 1)

    async def follow_all(self, handles: Sequence[Any], marks: Marks) -> list[Output]:
        def one(numbered: tuple[int, Any]) -> Output:
            index, container = numbered
            parts: list[bytes] = []
            for part in container.logs(stdout=True, stderr=True, stream=True, follow=True):
                marks.has_data(index)
                parts.append(part)
            return parts

        return await in_threads(one, list(enumerate(handles)), len(handles))

    async def wait_all(self, handles: Sequence[Any]) -> list[int]:
        return await in_threads(lambda container: int(container.wait()["StatusCode"]), handles, len(handles))
