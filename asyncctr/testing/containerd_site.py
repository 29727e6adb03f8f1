"""A private containerd together with the SDK's own directory for it, and what containers leave in either."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

import attrs

from asyncctr.core.backend_config import ContainerdConfig
from asyncctr.testing.base import Leftovers
from asyncctr.testing.containerd import Containerd
from asyncctr.testing.residue import mounts_under

__all__ = ["ContainerdSite"]


@attrs.frozen
class ContainerdSite:
    """A daemon, how to reach it, and where the SDK keeps what belongs to containers."""

    namespace: ClassVar[str] = "asyncctr"

    daemon: Containerd
    data: Path
    archive: Path

    @property
    def config(self) -> ContainerdConfig:
        """With clean-up that has its time on a busy machine."""
        return ContainerdConfig(socket_path=str(self.daemon.socket), namespace=self.namespace, cleanup_timeout=20)

    @property
    def records(self) -> list[Path]:
        """What the SDK keeps of containers, in any of its directories."""
        return sorted(
            path for name in ("containers", "names", "network/containers") for path in self.data.glob(f"*/*/*/{name}/*")
        )

    async def leftovers(self) -> Leftovers:
        """What containers left, looked for until it is gone: a shim ends a moment after its task, and tells nobody.

        Of what others on this machine have as well, such as rules and interfaces, only what is in the SDK's directory is told.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + 10
        while True:
            found = attrs.evolve(
                await self.daemon.leftovers(),
                mounts=tuple(mounts_under(self.data)),
                states=tuple(map(str, self.records)),
            )
            if not found or loop.time() > end:
                return found
            await asyncio.sleep(0.1)
