"""asyncctr on containerd."""

# ruff: noqa: D102 - the base class says what each method is

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncctr
from asyncctr import ContainerConfig, ContainerdConfig
from benchmarks.containerd.engine import NAMESPACE
from benchmarks.peers.base import Job, Output
from benchmarks.peers.ours import NETWORKS, Asyncctr

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AsyncctrContainerd"]


class AsyncctrContainerd(Asyncctr):
    """The same calls, with another configuration."""

    async def open(self) -> None:
        self._client = await asyncctr.connect(ContainerdConfig(socket_path=self.host, namespace=NAMESPACE))

    async def run_printing(self, job: Job) -> tuple[int, Output]:
        result = await self._run(job)
        return result.exit_code, [result.stdout, result.stderr]

    async def make(self, command: Sequence[str]) -> asyncctr.Container:
        """A container without network that was not started yet."""
        config = ContainerConfig(image=self.image, command=command, network=NETWORKS["none"])
        return await self._client.create(config)

    async def pull(self, reference: str) -> None:
        await self._client.image(reference).pull()
