"""How containers end: one wait for each container, whoever asks, from any state it is in."""

from __future__ import annotations

import asyncio
import copy
import os
from typing import TYPE_CHECKING

from asyncctr.backends.containerd.api import when
from asyncctr.backends.containerd.cgroups import oom_killed
from asyncctr.backends.containerd.errors import BACKEND, ShimGoneError
from asyncctr.backends.containerd.proto import containers_pb2, tasks_pb2
from asyncctr.backends.containerd.proto.services import Containers, Tasks
from asyncctr.core.errors import ClosedError, InvalidStateError, NotFoundError
from asyncctr.core.status import ExitStatus

if TYPE_CHECKING:
    from asyncctr.backends.containerd.api import ContainerdApi
    from asyncctr.backends.containerd.records import Record, Records

__all__ = ["ExitLostError", "Exits"]

# Seconds between looks for what containerd makes of a shim that was killed.
_SHIM_ENDS = (0.02, 0.1, 0.5, 2.0)


class ExitLostError(InvalidStateError):
    """It has ended for certain, and nobody knows how."""


class Exits:
    """The exits of one backend's containers.

    Args:
        api: the containerd.
        records: where what was seen is written down.
        reports_oom: whether the containers' control groups can be read.
        kept: the directory where a private containerd that was not used any more left the codes of ended tasks; else empty.
    """

    def __init__(self, api: ContainerdApi, records: Records, *, reports_oom: bool, kept: str = "") -> None:
        self._api = api
        self._records = records
        self._reports_oom = reports_oom
        self._kept = kept
        # The wait for each container, and how many wait for that.
        self._waits: dict[str, tuple[asyncio.Task[ExitStatus], list[int]]] = {}

    async def wait(self, container_id: str) -> ExitStatus:
        """How a container ended; see :meth:`asyncctr.Backend.wait`."""
        record = self._records.of(container_id)
        if status := record.read().exit:
            return status
        return await self._shared(container_id, record)

    async def _shared(self, container_id: str, record: Record) -> ExitStatus:
        known = self._waits.get(container_id)
        if known is None:
            task = asyncio.create_task(self._watch(container_id, record), name=f"asyncctr wait: {container_id[:12]}")
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
            raise ClosedError(message, backend=BACKEND, resource=container_id)
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

    async def _watch(self, container_id: str, record: Record) -> ExitStatus:
        looks = iter(_SHIM_ENDS)
        while True:
            try:
                return await self.of_task(container_id, record)
            except ShimGoneError:
                # Killed, which containerd is about to notice: it then knows how the container ended, or forgets it.
                if (pause := next(looks, None)) is None:
                    raise
                await asyncio.sleep(pause)
                continue
            except NotFoundError:
                # No task: it was not started yet, or is deleted.
                pass
            known = record.read()
            if known.exit is not None:
                return known.exit
            await self._check_exists(container_id, record)
            if known.failure is not None:
                raise known.failure
            if known.started_at is not None:
                if status := self.kept(container_id, record):
                    return status
                raise ExitLostError(
                    f"container {container_id[:12]} has ended, and its exit code was lost: containerd, its shim or the host "
                    "was restarted before anyone saw it end",
                    backend=BACKEND,
                    resource=container_id,
                )
            await record.changed(known)

    async def of_task(self, container_id: str, record: Record) -> ExitStatus:
        """Wait for the exit of a task that exists, and write it down.

        Raises:
            NotFoundError: there is no task.
        """
        answer = await self._api.call(
            Tasks.Wait,
            tasks_pb2.WaitRequest(container_id=container_id),
            resource=container_id,
            kind="task",
            timeout=None,
        )
        return self.note(container_id, record, answer)

    def note(self, container_id: str, record: Record, answer: tasks_pb2.WaitResponse | tasks_pb2.Process) -> ExitStatus:
        """The status from what containerd says of an exit, written down while the control group still is there."""
        status = ExitStatus.from_code(
            answer.exit_status,
            oom_killed=oom_killed(container_id) if self._reports_oom else None,
            finished_at=when(answer.exited_at),
        )
        record.note_exit(status)
        return status

    def kept(self, container_id: str, record: Record) -> ExitStatus | None:
        """How a task ended that went with an earlier run of a private containerd, written down; ``None`` where nobody knows."""
        if not self._kept:
            return None
        try:
            with open(f"{self._kept}/{container_id}", encoding="ascii") as file:  # noqa: PTH123  # a string
                code = int(file.read())
        except (OSError, ValueError):
            return None
        status = ExitStatus.from_code(code, oom_killed=None, finished_at=None)
        record.note_exit(status)
        return status

    def forget(self, container_id: str) -> None:
        """Remove what is kept of a container."""
        if not self._kept:
            return
        try:
            os.unlink(f"{self._kept}/{container_id}")  # noqa: PTH108  # a string
        except OSError:
            # Most have none.
            pass

    async def _check_exists(self, container_id: str, record: Record) -> None:
        if record.exists:
            return
        await self._api.call(
            Containers.Get,
            containers_pb2.GetContainerRequest(id=container_id),
            resource=container_id,
            kind="container",
        )
        message = (
            f"container {container_id[:12]} does not run, and nothing is written down of it here: it was made by something "
            "else than this SDK, or with another ASYNCCTR_DATA_DIR"
        )
        raise InvalidStateError(message, backend=BACKEND, resource=container_id)

    async def aclose(self) -> None:
        """End what still waits."""
        tasks = [task for task, _ in self._waits.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
