"""What the containers of the cases run, and what cases await of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asyncctr.core.config import ContainerConfig
from asyncctr.core.network import NetworkConfig, NetworkMode
from asyncctr.core.status import ContainerStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncctr.client import Container
    from asyncctr.testing.conformance.suite import Context

__all__ = ["FOREVER", "PROMPT", "eventually", "exited", "shell", "together"]

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
"""A script that runs until it is asked to stop."""

PROMPT = 3.0
"""Seconds for what has to happen within one, on a machine that does other things as well."""

# Seconds that any single thing may take on a busy machine before a case gives up on it.
PATIENCE = 30.0
# What is done many times is done so many at a time.
CONCURRENCY = 4


def shell(context: Context, script: str, **fields: Any) -> ContainerConfig:
    """A container that runs ``script`` in the image's shell, without a network, which is the quickest to start."""
    fields.setdefault("network", NetworkConfig(mode=NetworkMode.NONE))
    return ContainerConfig(context.image, command=["sh", "-c", script], **fields)


async def exited(container: Container) -> None:
    """Until the runtime says that it has exited; not by ``wait``, which may be what the case is about."""

    async def ended() -> bool:
        return (await container.inspect()).status is ContainerStatus.EXITED

    await eventually(ended, "the container exits")


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, *, seconds: float = PATIENCE) -> None:
    """Ask until it is so, for what no event tells.

    Raises:
        AssertionError: it did not become so in ``seconds``.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not await condition():
        if loop.time() > end:
            message = f"{what}: not within {seconds:g} s"
            raise AssertionError(message)
        await asyncio.sleep(0.05)


async def together(count: int, once: Callable[[], Awaitable[None]]) -> None:
    """Do something ``count`` times, a few at a time."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await once()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(CONCURRENCY, count)):
            group.create_task(worker())
