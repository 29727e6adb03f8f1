"""Ending tasks: killed, waited for, deleted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncctr.backends.containerd.errors import ShimGoneError
from asyncctr.backends.containerd.proto import tasks_pb2
from asyncctr.backends.containerd.proto.services import Tasks
from asyncctr.core.errors import InvalidStateError, NotFoundError

if TYPE_CHECKING:
    from asyncctr.backends.containerd.site import Site

__all__ = ["delete_task", "end_task"]

# Seconds between looks for the end of a shim.
_SHIM_ENDS = (0.02, 0.1, 0.4)


async def delete_task(site: Site, container_id: str) -> bool:
    """Delete a task that does not run, if there is one; whether there was, and its runtime has cleaned up after it.

    Raises:
        InvalidStateError: it runs.
    """
    request = tasks_pb2.DeleteTaskRequest(container_id=container_id)
    for pause in (*_SHIM_ENDS, None):
        try:
            await site.api.call(Tasks.Delete, request, resource=container_id, kind="task")
        except NotFoundError:
            return False
        except ShimGoneError:
            # Somebody else has just deleted it, which containerd is about to notice.
            if pause is None:
                raise
            await asyncio.sleep(pause)
        else:
            return True
    return False


async def end_task(site: Site, container_id: str) -> bool:
    """Delete a task, if there is one, whatever it does; whether there was, as :func:`delete_task` tells."""
    try:
        return await delete_task(site, container_id)
    except InvalidStateError:
        # It runs.
        pass
    ended = asyncio.ensure_future(site.exits.of_task(container_id, site.records.of(container_id)))
    try:
        await _kill_task(site, container_id)
        await asyncio.wait({ended}, timeout=site.api.op_timeout)
        return await delete_task(site, container_id)
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)


async def _kill_task(site: Site, container_id: str) -> None:
    """SIGKILL to all processes of a container; one that has ended is none to kill."""
    try:
        await site.api.call(
            Tasks.Kill,
            tasks_pb2.KillRequest(container_id=container_id, signal=9, all=site.kills_all),
            resource=container_id,
            kind="task",
        )
    except (NotFoundError, InvalidStateError):
        pass
