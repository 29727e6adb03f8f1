"""Set-up and tidying of unikernels, by none of the contenders' timed work: a client of its own for each call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncctr
from asyncctr import ContainerId, NanosBuildInput, NanosConfig
from benchmarks.engine import EngineError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from pathlib import Path

    from asyncctr import Client

__all__ = ["HELLO", "Machines"]

HELLO = ("-c", "echo hello")


class Machines:
    """The machines of the directory that the environment names. It blocks: call it from a thread where there is an event loop.

    Attributes:
        kernel: the path of the kernel.
        shell: of a static program that is a shell.
    """

    def __init__(self, kernel: Path, shell: Path) -> None:
        self.kernel = str(kernel)
        self.shell = str(shell)

    def _do(self, work: Callable[[Client], Awaitable[object]]) -> None:
        async def connected() -> None:
            async with asyncctr.connect(NanosConfig(kernel_path=self.kernel)) as client:
                await work(client)

        try:
            asyncio.run(connected())
        except asyncctr.AsyncctrError as error:
            raise EngineError(str(error)) from error

    def build(self, image: str) -> None:
        """The image that machines are made from: the shell, which says hello unless it is told something else."""
        program = NanosBuildInput(program=self.shell, args=HELLO)
        self._do(lambda client: client.image(image).build(program))

    def containers(self) -> set[str]:
        """The ids of all machines."""
        found: set[str] = set()

        async def collect(client: Client) -> None:
            found.update(info.id for info in await client.list(all=True))

        self._do(collect)
        return found

    def remove(self, containers: Collection[str]) -> None:
        """Remove them, running or not."""

        async def remove(client: Client) -> None:
            for container in containers:
                await client.backend.remove(ContainerId(container), force=True)

        if containers:
            self._do(remove)

    def version(self) -> dict[str, str]:
        """What runs the machines."""
        found: dict[str, str] = {}

        async def ask(client: Client) -> None:
            health = await client.health_check()
            found.update({"qemu": health.runtime.rpartition(" ")[2], **health.details})

        self._do(ask)
        return found
