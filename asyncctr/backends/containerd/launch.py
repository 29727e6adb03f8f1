"""A started container whose output goes to a sink."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncctr.backends.containerd.stdin import ContainerdStdin
    from asyncctr.core.backend import OutputSink
    from asyncctr.core.logs import LogStream
    from asyncctr.core.status import ContainerId, ExitStatus

__all__ = ["ContainerdLaunched"]


class ContainerdLaunched:
    """See :class:`asyncctr.core.backend.Launched`. The output is read from the log's files, so nothing holds the container up."""

    def __init__(
        self,
        container_id: ContainerId,
        stream: LogStream,
        sink: OutputSink,
        status: asyncio.Future[ExitStatus],
        stdin: tuple[ContainerdStdin, bytes] | None,
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
    async def _feed(writer: ContainerdStdin, data: bytes) -> None:
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
