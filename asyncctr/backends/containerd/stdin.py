"""Containers' standard inputs: FIFOs that their shims read."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.proto import tasks_pb2
from asyncctr.backends.containerd.proto.services import Tasks
from asyncctr.core.errors import (
    ClosedError,
    ConnectionLostError,
    ContainerNotFoundError,
    InvalidStateError,
    NotFoundError,
)

if TYPE_CHECKING:
    from asyncctr.backends.containerd.api import ContainerdApi
    from asyncctr.backends.containerd.exits import Exits
    from asyncctr.core.status import ExitStatus
    from asyncctr.transport.records import Record, Records

__all__ = ["ContainerdStdin", "Inputs"]


class Inputs:
    """The standard inputs that one backend writes to.

    Args:
        api: the containerd.
        records: of the containers.
        exits: of them: nobody reads what is written then.
    """

    def __init__(self, api: ContainerdApi, records: Records, exits: Exits) -> None:
        self._api = api
        self._records = records
        self._exits = exits
        # Those that were ended before there was anybody to be told, until there is.
        self._ending: set[asyncio.Task[None]] = set()

    def open(self, container_id: str) -> ContainerdStdin:
        """A writer.

        Raises:
            ContainerNotFoundError: there is no such container.
            ResourceExhaustedError: no descriptor is left.
        """
        return ContainerdStdin(self, self._records.of(container_id))

    async def ended(self, container_id: str) -> ExitStatus:
        """Wait for the container's end."""
        return await self._exits.wait(container_id)

    async def end(self, record: Record, descriptor: int) -> None:
        """Close a FIFO, and have its reader find the end. Before the start, what is in it is kept until then, by this process."""
        if _is_to_start(record):
            task = asyncio.create_task(self._end_later(record, descriptor), name="asyncctr stdin: wait for the start")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        else:
            os.close(descriptor)
            await self._close(record.container_id)

    async def _end_later(self, record: Record, descriptor: int) -> None:
        try:
            while _is_to_start(record):
                await record.changed(record.read())
        finally:
            os.close(descriptor)
        await self._close(record.container_id)

    async def _close(self, container_id: str) -> None:
        request = tasks_pb2.CloseIORequest(container_id=container_id, stdin=True)
        try:
            # The shim holds the FIFO open as well; what is in it is still delivered.
            await self._api.call(Tasks.CloseIO, request, resource=container_id, kind="task")
        except (NotFoundError, InvalidStateError):
            # It has ended.
            pass

    async def aclose(self) -> None:
        """End what still waits for a start."""
        tasks = set(self._ending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_to_start(record: Record) -> bool:
    known = record.read()
    return known.started_at is None and known.exit is None and record.exists


class ContainerdStdin:
    """Writes to a container's standard input; see :class:`asyncctr.core.backend.StdinWriter`.

    Args:
        inputs: those of the backend.
        record: the container's.
    """

    def __init__(self, inputs: Inputs, record: Record) -> None:
        self._inputs = inputs
        self._record = record
        self._descriptor = -1
        self._ready: asyncio.Future[None] | None = None
        with record.files:
            try:
                # For both directions, so that this works before the shim has it open, and never breaks.
                self._descriptor = os.open(record.stdin, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError as error:
                message = f"there is no container {self._short} with a standard input"
                raise ContainerNotFoundError(message, backend=BACKEND, resource=record.container_id) from error

    @property
    def _short(self) -> str:
        return self._record.container_id[:12]

    async def write(self, data: bytes) -> None:
        """Write, waiting while the reader is behind.

        Raises:
            ConnectionLostError: the container has ended, and nobody reads any more.
            ClosedError: standard input was ended.
        """
        view = memoryview(data)
        ended: asyncio.Future[ExitStatus] | None = None
        try:
            while view:
                if self._descriptor < 0:
                    raise self._closed()
                try:
                    view = view[os.write(self._descriptor, view) :]
                except BlockingIOError:
                    ended = ended or asyncio.create_task(self._inputs.ended(self._record.container_id))
                    await self._writable(self._descriptor, ended)
                else:
                    # A quick reader is no reason to keep the loop.
                    await asyncio.sleep(0)
        finally:
            if ended is not None:
                ended.cancel()
                await asyncio.gather(ended, return_exceptions=True)

    def _closed(self) -> ClosedError:
        return ClosedError("standard input was ended", backend=BACKEND, resource=self._record.container_id)

    async def _writable(self, descriptor: int, ended: asyncio.Future[ExitStatus]) -> None:
        loop = asyncio.get_running_loop()
        ready = self._ready = loop.create_future()
        loop.add_writer(descriptor, _settle, ready)
        try:
            either: tuple[asyncio.Future[Any], ...] = (ready, ended)
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ready = None
            if self._descriptor == descriptor:
                loop.remove_writer(descriptor)
        if not ready.done():
            message = f"container {self._short} has ended, and reads no more of its standard input"
            raise ConnectionLostError(message, backend=BACKEND, resource=self._record.container_id)

    async def send_eof(self) -> None:
        """Tell the reader that no more comes."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        if self._ready is not None:
            asyncio.get_running_loop().remove_writer(descriptor)
            _settle(self._ready)
        await self._inputs.end(self._record, descriptor)

    async def aclose(self) -> None:
        """Release the FIFO, after ``send_eof``."""
        await self.send_eof()

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", -1)
        if descriptor >= 0:
            os.close(descriptor)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
