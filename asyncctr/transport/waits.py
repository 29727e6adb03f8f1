"""Waits for the exits of containers: one for each container, however many ask for it at the same time."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING

from asyncctr.core.errors import ClosedError, InvalidStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from asyncctr.core.status import ExitStatus

__all__ = ["ExitLostError", "SharedWaits"]


class ExitLostError(InvalidStateError):
    """It has ended for certain, and nobody knows how."""


class SharedWaits:
    """The waits of one backend.

    Args:
        watch: waits for a container's exit, by its id. It is cancelled when nobody waits any more.
        backend: its type, for errors.
    """

    def __init__(self, watch: Callable[[str], Coroutine[object, object, ExitStatus]], *, backend: str) -> None:
        self._watch = watch
        self._backend = backend
        # The wait for each container, and how many wait for that.
        self._waits: dict[str, tuple[asyncio.Task[ExitStatus], list[int]]] = {}

    async def wait(self, container_id: str) -> ExitStatus:
        """What ``watch`` gives or raises.

        Raises:
            ClosedError: the backend was closed meanwhile.
        """
        known = self._waits.get(container_id)
        if known is None:
            task = asyncio.create_task(self._watch(container_id), name=f"asyncctr wait: {container_id[:12]}")
            known = self._waits[container_id] = (task, [0])
            task.add_done_callback(lambda task: self._forget(container_id, task))
        task, waiters = known
        waiters[0] += 1
        try:
            # Not the task itself: a cancelled waiter would cancel it for the others.
            await asyncio.wait((task,))
        finally:
            waiters[0] -= 1
            if not waiters[0] and not task.done():
                self._forget(container_id, task)
                task.cancel()
        if task.cancelled():
            message = f"the backend was closed while container {container_id[:12]} was waited for"
            raise ClosedError(message, backend=self._backend, resource=container_id)
        error = task.exception()
        if error is not None:
            # Each waiter raises one of its own, so that tracebacks do not grow together.
            raise copy.copy(error) from error.__cause__
        return task.result()

    def _forget(self, container_id: str, task: asyncio.Task[ExitStatus]) -> None:
        known = self._waits.get(container_id)
        if known is not None and known[0] is task:
            del self._waits[container_id]
        if task.done() and not task.cancelled():
            # Its waiters may have gone; what it raised is nobody's then.
            task.exception()

    async def aclose(self) -> None:
        """End what still waits."""
        tasks = [task for task, _ in self._waits.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
