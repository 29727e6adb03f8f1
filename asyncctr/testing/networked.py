"""The private daemons' hold on an address block, and the rest of a former holder that was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from asyncctr.testing.base import Daemon
from asyncctr.testing.process import DaemonError
from asyncctr.testing.residue import (
    kill_all,
    processes_of,
    remove_cgroups,
    remove_shim_traces,
    remove_tree,
    unmount_under,
)
from asyncctr.testing.subnets import Block

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NetworkedDaemon", "take_block"]


async def take_block(directory: Path) -> Block:
    """A block for the daemon in ``directory``; a killed former holder's processes, mounts and files are removed."""
    block, former = await Block.take(directory)
    # A holder that was killed: its lock is free, so nobody else will do this.
    if former is not None and former.name.startswith("asyncctr-") and former.is_dir() and former != directory:
        await kill_all(processes_of(former))
        await remove_cgroups(former.name)
        remove_shim_traces(former / "containerd")
        await unmount_under(former)
        remove_tree(former)
    return block


class NetworkedDaemon(Daemon):
    """A daemon with a block of addresses, given back at exit."""

    _block: Block | None = None

    @property
    def block(self) -> Block:
        """Its addresses.

        Raises:
            DaemonError: it has not been entered, or has been left.
        """
        if self._block is None:
            raise DaemonError(f"{self!r} has no addresses: it is not entered")
        return self._block

    @property
    def bridge(self) -> str:
        """The name of the interface of its default network."""
        return self.block.bridge

    async def _clean(self) -> list[str]:
        if self._block is None:
            return []
        block, self._block = self._block, None
        self.residue = attrs.evolve(self.residue, interfaces=tuple(await block.close()))
        return []
