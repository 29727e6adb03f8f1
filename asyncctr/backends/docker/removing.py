"""Removing containers: not done before they are gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncctr.backends.docker.errors import BACKEND
from asyncctr.backends.docker.exits import open_exit_wait
from asyncctr.core.errors import ConflictError, ContainerNotFoundError, InvalidStateError, OperationTimeoutError

if TYPE_CHECKING:
    from asyncctr.backends.docker.api import DockerApi

__all__ = ["Removing"]

# Seconds between attempts to remove by force what ends at that moment.
_REMOVE_AGAIN = (0.05, 0.2, 0.5)


class Removing:
    """How one engine removes a container.

    Args:
        api: the engine.
        changes: limits the calls that change something.
    """

    def __init__(self, api: DockerApi, changes: asyncio.Semaphore) -> None:
        self._api = api
        self._changes = changes

    async def remove(self, container_id: str, force: bool) -> None:
        """Remove it and its anonymous volumes; returns when it is gone."""
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

    async def _delete(self, container_id: str, *, force: bool) -> None:
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

    async def _await_removal(self, container_id: str) -> None:
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
