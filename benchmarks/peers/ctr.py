"""The ``ctr`` program, a process for each run."""

# ruff: noqa: D102 - the base class says what each method is

from __future__ import annotations

import os
import subprocess
import time
import uuid
from typing import TYPE_CHECKING

from benchmarks.containerd.engine import NAMESPACE
from benchmarks.peers.base import Contender, Job, Output, Ran, UnsupportedQuestionError, in_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CtrCli"]


class CtrCli(Contender):
    """``ctr run --rm`` and ``ctr images pull``, started from threads."""

    uses_loop = False

    async def open(self) -> None:
        # Else 2.x has its own words on the daemon's settings in front of the container's on stderr.
        self._env = {**os.environ, "CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS": "1"}
        self._words = ["ctr", "--address", self.host, "--namespace", NAMESPACE]

    async def aclose(self) -> None:
        """Nothing is held between runs."""

    def _ctr(self, *args: str) -> Ran:
        began = time.perf_counter()
        done = subprocess.run([*self._words, *args], capture_output=True, env=self._env, check=False)
        return Ran(done.returncode, done.stdout, done.stderr, time.perf_counter() - began)

    def _run(self, job: Job) -> Ran:
        return self._ctr("run", "--rm", self.image, uuid.uuid4().hex, *job.command)

    async def run_all(self, jobs: Sequence[Job]) -> list[Ran]:
        return await in_threads(self._run, jobs, self.width)

    async def run_printing(self, job: Job) -> tuple[int, Output]:
        (ran,) = await in_threads(self._run, [job], 1)
        return ran.code, [ran.stdout, ran.stderr or b""]

    async def pull(self, reference: str) -> None:
        (ran,) = await in_threads(lambda name: self._ctr("images", "pull", "--plain-http", name), [reference], 1)
        if ran.code:
            raise AssertionError(f"ctr images pull: {ran.stderr!r}")

    async def handles(self, ids: Sequence[str]) -> list[str]:
        return list(ids)

    async def read_log(self, handle: str) -> Output:  # noqa: ARG002  # it has none
        raise UnsupportedQuestionError("keeps no logs")
