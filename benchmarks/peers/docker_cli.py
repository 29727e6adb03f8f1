"""The ``docker`` program, a process for each run."""

# ruff: noqa: D102 - the base class says what each method is

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.base import Contender, Job, Output, Ran, in_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DockerCli"]


class DockerCli(Contender):
    """``docker run --rm`` and ``docker logs``, started from threads."""

    uses_loop = False

    async def open(self) -> None:
        found = shutil.which("docker")
        if found is None:
            raise FileNotFoundError("there is no docker program in PATH")
        self._program = found
        # A configuration of the user's own could name another context, or plugins to look for.
        # So it is beside the daemon's socket, where there is none, and goes with the daemon.
        config = Path(self.host.removeprefix("unix://")).with_name("bench-cli")
        self._env = {**os.environ, "DOCKER_HOST": self.host, "DOCKER_CONFIG": str(config)}
        self._env.pop("DOCKER_CONTEXT", None)

    async def aclose(self) -> None:
        """Nothing is held between runs."""

    def _docker(self, *args: str) -> Ran:
        done = subprocess.run([self._program, *args], env=self._env, capture_output=True, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    def _run(self, job: Job) -> Ran:
        return self._docker("run", "--rm", "--network", job.network, self.image, *job.command)

    async def run_all(self, jobs: Sequence[Job]) -> list[Ran]:
        return await in_threads(self._run, jobs, self.width)

    async def run_printing(self, job: Job) -> tuple[int, Output]:
        (ran,) = await in_threads(self._run, [job], 1)
        return ran.code, [ran.stdout]

    async def handles(self, ids: Sequence[str]) -> list[str]:
        return list(ids)

    async def read_log(self, handle: str) -> Output:
        (ran,) = await in_threads(lambda one: self._docker("logs", one), [handle], 1)
        return [ran.stdout]
