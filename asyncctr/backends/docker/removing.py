"""Removing containers: once however many ask, and not done before they are gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncctr.backends.docker.errors import BACKEND
from asyncctr.backends.docker.exits import open_exit_wait
from asyncctr.core.errors import ConflictError, ContainerNotFoundError, InvalidStateError, OperationTimeoutError

if TYPE_CHECKING:
    from asyncctr.backends.docker.api import DockerApi
    from asyncctr.core.status import ContainerId

__all__ = ["Removals"]

# Seconds between attempts to remove by force what ends at that moment.
_REMOVE_AGAIN = (0.05, 0.2, 0.5)


class Removals:
    """The removals of one backend.

    Args:
        api: the engine.
        changes: limits the calls that change something.
    """

    def __init__(self, api: DockerApi, changes: asyncio.Semaphore) -> None:
        self._api = api
        self._changes = changes
        self._under_way: dict[tuple[str, bool], asyncio.Future[None]] = {}
        # Removed by several at the same time, so that it may be gone before the call of one of them arrives.
        self._shared: set[str] = set()

    async def remove(self, container_id: ContainerId, *, force: bool) -> None:
        """Remove it and its anonymous volumes; see :meth:`asyncctr.Backend.remove`."""
        key = (container_id, force)
        if (container_id, not force) in self._under_way:
            self._shared.add(container_id)
        while (other := self._under_way.get(key)) is not None:
            # One removal serves all who ask for it at the same time.
            await asyncio.wait({other})
            if not other.cancelled():
                if error := other.exception():
                    raise ContainerNotFoundError(
                        str(error), backend=BACKEND, resource=container_id, status=404
                    ) from error
                return
            self._shared.add(container_id)
        done = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            await self._remove(container_id, force=force)
        except ContainerNotFoundError as error:
            if container_id not in self._shared:
                done.set_exception(error)
                # Nobody need be waiting for it.
                done.exception()
                raise
            done.set_result(None)
        except BaseException:
            # Those who wait try for themselves.
            done.cancel()
            raise
        else:
            done.set_result(None)
        finally:
            del self._under_way[key]
            if (container_id, not force) not in self._under_way:
                # Whoever waits for this one adds it again.
                self._shared.discard(container_id)

    async def _remove(self, container_id: ContainerId, *, force: bool) -> None:
        for pause in (*_REMOVE_AGAIN, None):
            try:
                await self._delete(container_id, force=force)
            except InvalidStateError:
                # Podman, of a container that ends by itself while it is being killed; now it has.
                if not force or pause is None:
                    raise
                await asyncio.sleep(pause)
            else:
                return

    async def _delete(self, container_id: ContainerId, *, force: bool) -> None:
        try:
            async with self._changes:
                await self._api.call(
                    "DELETE",
                    f"/containers/{container_id}",
                    params={"force": force, "v": True},
                    kind="container",
                    resource=container_id,
                )
        except ConflictError as error:
            if "already in progress" not in error.message:
                raise
            await self._await_removal(container_id)

    async def _await_removal(self, container_id: ContainerId) -> None:
        try:
            wait = await open_exit_wait(self._api, container_id, "removed")
        except ContainerNotFoundError:
            return
        try:
            async with asyncio.timeout(self._api.op_timeout):
                await wait.code()
        except ContainerNotFoundError:
            # That is what was waited for.
            pass
        except TimeoutError as error:
            message = f"a removal of container {container_id[:12]} takes longer than {self._api.op_timeout:g} s"
            raise OperationTimeoutError(message, backend=BACKEND, resource=container_id) from error
        finally:
            wait.close()
