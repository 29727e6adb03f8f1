"""Removals of containers: each is done once, however many ask for it at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncctr.core.errors import ContainerNotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Removals"]


class Removals:
    """The removals of one backend.

    Args:
        remove: removes a container, by its id and whether by force; ``ContainerNotFoundError`` where there is none.
        backend: its type, for errors.
    """

    def __init__(self, remove: Callable[[str, bool], Awaitable[None]], *, backend: str) -> None:
        self._remove = remove
        self._backend = backend
        self._under_way: dict[tuple[str, bool], asyncio.Future[None]] = {}
        # Removed by several at the same time, so that it may be gone before the call of one of them arrives.
        self._shared: set[str] = set()

    async def remove(self, container_id: str, *, force: bool) -> None:
        """Remove it, or wait for a removal that is under way."""
        key = (container_id, force)
        if (container_id, not force) in self._under_way:
            self._shared.add(container_id)
        while (other := self._under_way.get(key)) is not None:
            # One removal serves all who ask for it at the same time.
            await asyncio.wait({other})
            if not other.cancelled():
                if error := other.exception():
                    raise ContainerNotFoundError(
                        str(error), backend=self._backend, resource=container_id, status=getattr(error, "status", None)
                    ) from error
                return
            self._shared.add(container_id)
        done = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            await self._remove(container_id, force)
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
