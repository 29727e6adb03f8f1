"""Clean-up that cancellation cannot cut short and that a silent runtime cannot hold up."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from asyncctr.core.errors import BackendUnavailableError, ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

__all__ = ["Janitor", "persist"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Seconds between attempts to reach a runtime that is away.
_RETRY = 0.25
# Clean-ups that may be under way with nobody waiting for them.
_BEHIND = 16


class Janitor:
    """Owns clean-up tasks: each runs in a task of its own, is waited for until a deadline, and is ended at ``aclose``.

    Args:
        timeout: seconds that one clean-up is waited for.
        background: seconds that it may go on then, with nobody waiting: a runtime that is busy with many of them gets through
            in the end. Whoever sets it calls ``aclose``.
    """

    def __init__(self, timeout: float, *, background: float = 0.0) -> None:
        self.timeout = timeout
        self._background = background
        # With the time, on the loop's clock, until which each is waited for.
        self._tasks: dict[asyncio.Task[Any], float] = {}

    def spawn(self, cleanup: Coroutine[Any, Any, object], what: str, *, extra: float = 0.0) -> asyncio.Task[None]:
        """Begin a clean-up that nobody waits for yet. Its failure is logged as ``what`` was given up, and never raised.

        ``extra`` seconds are added to its deadline, for one that was asked to take its time.
        """
        seconds = self.timeout + extra + self._background
        task = asyncio.create_task(self._bounded(cleanup, what, seconds), name=f"asyncctr clean-up: {what}")
        self._tasks[task] = asyncio.get_running_loop().time() + self.timeout + extra
        task.add_done_callback(self._tasks.pop)
        return task

    async def _bounded(self, cleanup: Coroutine[Any, Any, object], what: str, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await cleanup
        except TimeoutError:
            logger.warning("clean-up given up after %.1f s: %s", seconds, what)
        except asyncio.CancelledError:
            logger.warning("clean-up given up at the end: %s", what)
            raise
        except Exception as error:  # noqa: BLE001  # whatever it was, the caller's own result or error comes first
            logger.warning("clean-up given up: %s: %s", what, error)

    async def behind(self, cleanup: Coroutine[Any, Any, object], what: str) -> None:
        """Begin a clean-up that nobody need wait for, unless too many of them are under way: then until one of those is done."""
        self.spawn(cleanup, what)
        # It has begun when this returns, so that what is asked next can take account of it.
        await asyncio.sleep(0)
        while len(self._tasks) > _BEHIND:
            await asyncio.wait(set(self._tasks), return_when=asyncio.FIRST_COMPLETED)

    async def finish(
        self, cleanup: Coroutine[Any, Any, object], what: str, *, extra: float = 0.0
    ) -> asyncio.CancelledError | None:
        """Run a clean-up to its end or deadline, holding cancellation of the caller back until then.

        Returns the first cancellation that came meanwhile, which the caller raises unless one is on its way already. A shield
        of anyio's does not stop a second native ``Task.cancel``, so cancellations are caught here, and a cancelled scope of
        anyio's cancels again on every turn of the loop, so that is shielded off as well.
        """
        task = self.spawn(cleanup, what, extra=extra)
        # Without a background, its own deadline ends it, and what it needs for that is waited for.
        held = await self.wait_for(task, self.timeout + extra if self._background else None)
        if not task.done():
            logger.warning(
                "clean-up takes more than %.1f s and goes on in the background: %s", self.timeout + extra, what
            )
        return held

    async def unbroken(self, work: Coroutine[Any, Any, T], what: str) -> T:
        """Do something that must not be cut short, because half of it would be left behind: who is cancelled waits until it is done."""
        task = asyncio.create_task(work, name=f"asyncctr: {what}")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                await self.finish(_outcome(task), what)
            raise

    @staticmethod
    async def wait_for(task: asyncio.Task[Any], seconds: float | None = None) -> asyncio.CancelledError | None:
        """Wait until ``task`` is done, however it ends, or for ``seconds``. The first cancellation is held back and returned."""
        held: asyncio.CancelledError | None = None
        clock = asyncio.get_running_loop().time
        end = None if seconds is None else clock() + seconds
        with anyio.CancelScope(shield=True):
            while not task.done() and (end is None or clock() < end):
                try:
                    await asyncio.wait({task}, timeout=None if end is None else end - clock())
                except asyncio.CancelledError as error:
                    held = held or error
        return held

    async def aclose(self) -> None:
        """Wait for every clean-up that is under way, until its deadline; those that had theirs get as long once more."""
        now = asyncio.get_running_loop().time()
        ends = [end if end > now else now + self.timeout for end in self._tasks.values()]
        if ends:
            _, late = await asyncio.wait(set(self._tasks), timeout=max(ends) - now)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=self.timeout)


async def _outcome(task: asyncio.Task[Any]) -> None:
    await asyncio.wait({task})
    if not task.cancelled():
        # Nobody asks for it any more.
        task.exception()


async def persist(cleanup: Callable[[], Awaitable[object]]) -> None:
    """Do a part of a clean-up again for as long as the runtime is away, as one that restarts is. The deadline bounds that."""
    while True:
        try:
            await cleanup()
        except (BackendUnavailableError, ConnectionLostError) as error:
            logger.debug("clean-up is tried again: %s", error)
            await asyncio.sleep(_RETRY)
        else:
            return
