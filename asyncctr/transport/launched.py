"""Containers that are made whole or not at all, and started ones whose output, read from their logs, goes to a sink."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from asyncctr.core.errors import ContainerNotFoundError
from asyncctr.transport.cleanup import persist

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from asyncctr.core.backend import OutputSink, StdinWriter
    from asyncctr.core.logs import LogStream
    from asyncctr.core.status import ContainerId, ExitStatus
    from asyncctr.transport.cleanup import Janitor

__all__ = ["LoggedRun", "make_whole"]

T = TypeVar("T")


class LoggedRun:
    """See :class:`asyncctr.core.backend.Launched`. The output is read from the log's files, so nothing holds the container up.

    Args:
        container_id: its id.
        stream: its output; closed when it was delivered, or with this object.
        sink: what takes it.
        status: how it ends; cancelled with this object.
        stdin: its standard input and what it is given; ``None`` for none.
    """

    def __init__(
        self,
        container_id: ContainerId,
        stream: LogStream,
        sink: OutputSink,
        status: asyncio.Future[ExitStatus],
        stdin: tuple[StdinWriter, bytes] | None = None,
    ) -> None:
        self._id = container_id
        self._stream = stream
        self._status = status
        self._draining = asyncio.create_task(self._drain(sink))
        self._feeding = None if stdin is None else asyncio.create_task(self._feed(*stdin))

    @property
    def id(self) -> ContainerId:
        """Its id."""
        return self._id

    async def _drain(self, sink: OutputSink) -> ExitStatus:
        async with self._stream as stream:
            async for entry in stream:
                sink(entry.stream, entry.data)
        return await self._status

    @staticmethod
    async def _feed(writer: StdinWriter, data: bytes) -> None:
        try:
            await writer.write(data)
        finally:
            await writer.aclose()

    async def wait(self) -> ExitStatus:
        """How it ended, after the last of its output was given to the sink. Cancelled, it can be called again."""
        return await asyncio.shield(self._draining)

    async def aclose(self) -> None:
        """Stop delivering output. The container goes on."""
        tasks: list[asyncio.Future[Any]] = [
            task for task in (self._draining, self._feeding, self._status) if task is not None
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def make_whole(
    work: Coroutine[object, object, T],
    remove: Callable[[], Awaitable[object]],
    *,
    janitor: Janitor,
    container_id: ContainerId,
) -> T:
    """Do what makes a container, and may start it, to its end, or leave nothing of it.

    A call that is cut short may still be carried out by the runtime, so none is: whoever cancels waits until it has ended, and
    what was made is removed.

    Args:
        work: makes it; what it gives is closed where nobody takes it any more.
        remove: removes it by force.
        janitor: owns the clean-up.
        container_id: which.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except BaseException as error:
        what = f"remove {container_id[:12]} after a failed create"
        held = await janitor.finish(_discard(task, remove), what)
        if held is not None and not isinstance(error, asyncio.CancelledError):
            raise held from error
        raise


async def _discard(making: asyncio.Task[T], remove: Callable[[], Awaitable[object]]) -> None:
    await asyncio.wait({making})
    await _give_up(making)
    try:
        await persist(remove)
    except ContainerNotFoundError:
        # It came to nothing, or somebody else removed it.
        pass


async def _give_up(making: asyncio.Task[T]) -> None:
    """Close what came of a launch that nobody takes any more."""
    if making.cancelled() or making.exception() is not None:
        return
    launched = making.result()
    if isinstance(launched, LoggedRun):
        await launched.aclose()
