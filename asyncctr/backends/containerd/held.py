"""The lease of a backend that is open for long: a private containerd that has ended meanwhile is there again at the next call."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.finding import acquire_private
from asyncctr.core.errors import BackendUnavailableError

if TYPE_CHECKING:
    from asyncctr.backends.containerd.daemon.endpoint import Endpoint
    from asyncctr.backends.containerd.daemon.lease import Lease
    from asyncctr.core.backend_config import ContainerdConfig

__all__ = ["Held"]

logger = logging.getLogger(__name__)


class Held:
    """A lease, and another one of the same place when its daemon has ended.

    Args:
        config: what the first one was acquired for.
        lease: the first one.

    Attributes:
        endpoint: where the daemon is; the same for all leases, but for process ids.
    """

    def __init__(self, config: ContainerdConfig, lease: Lease) -> None:
        self.endpoint: Endpoint = lease.endpoint
        self._config = config
        self._lease = lease
        # Of one that is not private nobody tells.
        self._ended = _watch(lease) if lease.endpoint.private else None
        self._renewing = asyncio.Lock()

    async def renew(self) -> None:
        """Do nothing while the daemon lives; else join the one that somebody has started, or start it if that is configured.

        Raises:
            BackendUnavailableError: there is none; the message says why the last one ended.
        """
        if self._ended is None or not self._ended.done():
            return
        async with self._renewing:
            if not self._ended.done():
                return
            reason = self._ended.result()
            logger.warning("the private containerd has ended: %s", reason, extra={"socket": self.endpoint.socket})
            try:
                lease = await acquire_private(self._config)
            except BackendUnavailableError as error:
                message = f"the private containerd has ended ({reason}), and there is no other: {error.message}"
                raise BackendUnavailableError(message, backend=BACKEND, status=error.status) from error
            if lease.endpoint.socket != self.endpoint.socket:
                await lease.aclose()
                message = f"the private containerd has ended ({reason}), and is elsewhere now: {lease.endpoint}. Connect again"
                raise BackendUnavailableError(message, backend=BACKEND)
            before, self._lease = self._lease, lease
            self._ended = _watch(lease)
            await before.aclose()

    async def aclose(self) -> None:
        """Give the daemon up."""
        if self._ended is not None:
            self._ended.cancel()
            await asyncio.gather(self._ended, return_exceptions=True)
        await self._lease.aclose()


def _watch(lease: Lease) -> asyncio.Task[str]:
    return asyncio.create_task(lease.ended(), name="asyncctr containerd lease")
