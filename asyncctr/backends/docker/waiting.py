"""Waiting for a container's end, from any state it is in, and telling a failed start from a removal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asyncctr.backends.docker.errors import BACKEND
from asyncctr.backends.docker.exits import describe, open_exit_wait
from asyncctr.backends.docker.inspect import container_info, exit_status
from asyncctr.core.errors import ContainerNotFoundError, StartError
from asyncctr.core.status import ContainerStatus

if TYPE_CHECKING:
    from asyncctr.backends.docker.api import DockerApi
    from asyncctr.core.status import ContainerId, ExitStatus

__all__ = ["Waits"]

# Seconds between looks at a created container, whose start may fail in another process: no event tells that.
_RECHECK = 5.0
# Seconds that the exit of a container that was removed may take to be told.
_REMOVED_GRACE = 0.5


class Waits:
    """The waits of one backend, and what it saw of starts, which engines tell to no waiter.

    Args:
        api: the engine.
        is_podman: whether it is Podman.
        reports_oom: whether its word about out-of-memory kills is good.
    """

    def __init__(self, api: DockerApi, *, is_podman: bool, reports_oom: bool) -> None:
        self._api = api
        self._is_podman = is_podman
        self._reports_oom = reports_oom
        self._waiters: dict[str, set[asyncio.Future[StartError]]] = {}
        self._started: set[str] = set()

    def start_failed(self, container_id: ContainerId, error: StartError) -> None:
        """Tell those who wait for a created container that it will not start."""
        for waiter in self._waiters.get(container_id, ()):
            if not waiter.done():
                waiter.set_result(error)

    def started(self, container_id: ContainerId) -> None:
        """Remember that it was started."""
        self._started.add(container_id)

    def forget(self, container_id: ContainerId) -> None:
        """It was removed."""
        self._started.discard(container_id)

    async def wait(self, container_id: ContainerId) -> ExitStatus:
        """How it ended; see :meth:`asyncctr.Backend.wait`."""
        document = await describe(self._api, container_id)
        status = container_info(document, reports_oom=False).status
        if status is ContainerStatus.EXITED:
            return exit_status(document, reports_oom=self._reports_oom)
        # A wait may last for days, and there may be thousands: none keeps what it need not.
        if status is ContainerStatus.CREATED:
            _raise_failed_start(container_id, document)
            del document
            code = await self._wait_created(container_id)
        else:
            del document
            wait = await open_exit_wait(self._api, container_id, "not-running")
            try:
                code = await wait.code()
            finally:
                wait.close()
        return await self.status(container_id, code)

    async def _wait_created(self, container_id: ContainerId) -> int:
        failure: asyncio.Future[StartError] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(container_id, set()).add(failure)
        waits = [await open_exit_wait(self._api, container_id, "next-exit")]
        code = asyncio.ensure_future(waits[0].code())
        tasks = [code]
        try:
            if self._is_podman:
                # Its wait for the next exit goes on for ever when the container is removed before its start.
                waits.append(await open_exit_wait(self._api, container_id, "removed"))
                tasks.append(asyncio.ensure_future(waits[1].code()))
            while not code.done():
                either: set[asyncio.Future[Any]] = {failure, *(task for task in tasks if not task.done())}
                await asyncio.wait(either, timeout=_RECHECK, return_when=asyncio.FIRST_COMPLETED)
                if failure.done():
                    raise _again(failure.result())
                if not code.done() and tasks[-1].done():
                    # It may have exited as well, which Podman finds out by looking five times a second.
                    await asyncio.wait({code}, timeout=_REMOVED_GRACE)
                if not code.done():
                    # The start may have failed in another process, or been and gone before the wait was registered.
                    document = await describe(self._api, container_id)
                    _raise_failed_start(container_id, document)
                    if container_info(document, reports_oom=False).status is ContainerStatus.EXITED:
                        return int(document["State"]["ExitCode"])
                    del document
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for wait in waits:
                wait.close()
            self._waiters[container_id].discard(failure)
            if not self._waiters[container_id]:
                del self._waiters[container_id]
        if code.result() == 0 and container_id not in self._started:
            # Removing a container that never started completes its waits as well, with 0.
            await describe(self._api, container_id)
        return code.result()

    async def status(self, container_id: ContainerId, code: int) -> ExitStatus:
        """The status of a container whose exit with ``code`` was seen."""
        try:
            document = await describe(self._api, container_id)
        except ContainerNotFoundError:
            # Removed since.
            document = {}
        return exit_status(document, reports_oom=self._reports_oom and bool(document), code=code)


def _raise_failed_start(container_id: ContainerId, document: dict[str, Any]) -> None:
    state = document["State"]
    if state["Status"] == "created" and state.get("Error"):
        raise StartError(state["Error"], backend=BACKEND, resource=container_id, status=state.get("ExitCode"))


def _again(error: StartError) -> StartError:
    # Several waiters may raise it; each gets one of its own, so that tracebacks do not grow together.
    return StartError(
        error.message, console=error.console, backend=error.backend, resource=error.resource, status=error.status
    )
