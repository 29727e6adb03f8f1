"""``Container``: the handle of one container, over any backend."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncctr.client.running import remove_at_last
from asyncctr.core.backend import SupportsPause, SupportsStdin
from asyncctr.core.errors import AsyncctrError, UnsupportedError
from asyncctr.core.logs import LazyLogStream
from asyncctr.core.validation import fail, is_number

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime
    from types import TracebackType

    from asyncctr.core.backend import Backend, StdinWriter
    from asyncctr.core.logs import LogStream
    from asyncctr.core.status import ContainerId, ContainerInfo, ExitStatus
    from asyncctr.transport.cleanup import Janitor

__all__ = ["Container", "ContainerScope"]

logger = logging.getLogger(__name__)


class Container:
    """One container. The methods mean what they mean on :class:`asyncctr.Backend`."""

    def __init__(self, backend: Backend, container_id: ContainerId) -> None:
        self._backend = backend
        self._id = container_id

    def __repr__(self) -> str:
        return f"<Container {self._id[:12]} on {self._backend.backend_type}>"

    @property
    def id(self) -> ContainerId:
        """Its full id."""
        return self._id

    async def start(self) -> None:
        """Start it; its published ports are in ``inspect`` when this returns."""
        await self._backend.start(self._id)

    async def stop(self, *, grace: float = 10.0) -> None:
        """Send the stop signal, and kill it after ``grace`` seconds."""
        await self._backend.stop(self._id, grace=grace)

    async def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send a signal."""
        await self._backend.kill(self._id, signal)

    async def wait(self) -> ExitStatus:
        """How it ended."""
        return await self._backend.wait(self._id)

    def logs(
        self,
        *,
        follow: bool = True,
        stdout: bool = True,
        stderr: bool = True,
        since: datetime | None = None,
        tail: int | None = None,
        timestamps: bool = False,
    ) -> LazyLogStream:
        """Its output from the first byte: iterate, enter or await the stream."""

        async def open_stream() -> LogStream:
            return await self._backend.logs(
                self._id, follow=follow, stdout=stdout, stderr=stderr, since=since, tail=tail, timestamps=timestamps
            )

        return LazyLogStream(open_stream)

    async def inspect(self) -> ContainerInfo:
        """What the runtime says of it now."""
        return await self._backend.inspect(self._id)

    async def remove(self, *, force: bool = False) -> None:
        """Remove it and all that belongs to it."""
        await self._backend.remove(self._id, force=force)

    async def stdin(self) -> StdinWriter:
        """The writer of its standard input; the configuration must have ``stdin``."""
        if not isinstance(self._backend, SupportsStdin):
            raise self._unsupported("stdin")
        return await self._backend.stdin(self._id)

    async def pause(self) -> None:
        """Freeze all its processes."""
        if not isinstance(self._backend, SupportsPause):
            raise self._unsupported("pause")
        await self._backend.pause(self._id)

    async def unpause(self) -> None:
        """Let them go on."""
        if not isinstance(self._backend, SupportsPause):
            raise self._unsupported("pause")
        await self._backend.unpause(self._id)

    def _unsupported(self, operation: str) -> UnsupportedError:
        message = f"{operation}: the {self._backend.backend_type} backend does not have it"
        return UnsupportedError(message, field=operation, backend=self._backend.backend_type, resource=self._id)


class ContainerScope:
    """``async with client.container(config)``: created on the way in, removed on the way out, whatever happens."""

    def __init__(
        self, create: Callable[[], Awaitable[Container]], backend: Backend, janitor: Janitor, stop_grace: float | None
    ) -> None:
        if stop_grace is not None and (not is_number(stop_grace) or not 0 <= stop_grace < float("inf")):
            raise fail("stop_grace", f"must be None or a number of seconds, 0 or more, not {stop_grace!r}")
        self._create = create
        self._backend = backend
        self._janitor = janitor
        self._stop_grace = stop_grace
        self._container: Container | None = None

    async def __aenter__(self) -> Container:
        if self._container is not None:
            raise AsyncctrError("this container scope was entered before; client.container() makes a new one")
        self._container = await self._create()
        return self._container

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        container = self._container
        assert container is not None  # noqa: S101  # __aenter__ has set it
        grace = self._stop_grace or 0.0
        held = await self._janitor.finish(self._end(container), f"remove {container.id[:12]}", extra=grace)
        if held is not None and not isinstance(error, asyncio.CancelledError):
            raise held

    async def _end(self, container: Container) -> None:
        try:
            if self._stop_grace is not None:
                # Whatever becomes of the stop, there is time left to remove it.
                async with asyncio.timeout(self._stop_grace + self._janitor.timeout / 2):
                    await self._backend.stop(container.id, grace=self._stop_grace)
        except (AsyncctrError, TimeoutError) as error:
            logger.warning("container %s was not stopped: %s", container.id[:12], error)
        await remove_at_last(self._backend, container.id)
