"""How containers end: one wait for each container, whoever asks, from any state it is in."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from asyncctr.backends.containerd.api import when
from asyncctr.backends.containerd.cgroups import oom_killed
from asyncctr.backends.containerd.errors import BACKEND, ShimGoneError
from asyncctr.backends.containerd.proto import containers_pb2, tasks_pb2
from asyncctr.backends.containerd.proto.services import Containers, Tasks
from asyncctr.core.errors import InvalidStateError, NotFoundError
from asyncctr.core.status import ExitStatus
from asyncctr.transport.waits import ExitLostError, SharedWaits

if TYPE_CHECKING:
    from asyncctr.backends.containerd.api import ContainerdApi
    from asyncctr.transport.records import Record, Records

__all__ = ["Exits"]

# Seconds between looks for what containerd makes of a shim that was killed.
_SHIM_ENDS = (0.02, 0.1, 0.5, 2.0)


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
        self._waits = SharedWaits(self._watch, backend=BACKEND)

    async def wait(self, container_id: str, *, fresh: bool = False) -> ExitStatus:
        """How a container ended; see :meth:`asyncctr.Backend.wait`. One that is ``fresh`` has just been started, and is still there."""
        record = self._records.of(container_id)
        if not fresh and (status := record.read().exit):
            return status
        return await self._waits.wait(container_id)

    async def _watch(self, container_id: str) -> ExitStatus:
        record = self._records.of(container_id)
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
        await self._waits.aclose()
