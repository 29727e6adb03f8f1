"""A bridge and address range for each private daemon, so that several have networks at the same time.

Two Docker daemons that both manage iptables flush each other's chains, and both want ``docker0``. So every daemon gets a block
of addresses and a bridge with names of its own, and the few rules that let its packets through are made here, in front of
whatever a system daemon put there (Docker sets the policy of FORWARD to DROP), and are removed with it.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from asyncctr.testing.programs import run

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RANGE", "Block"]

# Private (RFC 1918), and used neither by Docker's, Podman's nor Swarm's default pools.
RANGE = ipaddress.IPv4Network("10.224.0.0/12")
"""What the blocks are taken from."""
_LOCKS = Path("/run/asyncctr-testing")


class Block:
    """A /18 of private addresses held by this process, with the bridge and the packet filter rules for it.

    Held by a lock on a file, so that the next process can tell a block that is in use from one that a killed process
    left; what was left is removed before the block is used again.

    Attributes:
        index: which block; part of the names.
        bridge: the name of its bridge.
        gateway: the host's address on that bridge, with its prefix length.
        default: the network of that bridge, a /20.
        pool: the range for further networks, a /19.
    """

    def __init__(self, index: int, network: ipaddress.IPv4Network, descriptor: int) -> None:
        self.index = index
        self.network = network
        self.bridge = f"asyncctr{index}"
        self.default = next(network.subnets(new_prefix=20))
        self.pool = list(network.subnets(new_prefix=19))[1]
        self.gateway = ipaddress.ip_interface(f"{self.default[1]}/{self.default.prefixlen}")
        self._descriptor = descriptor

    @property
    def comment(self) -> str:
        """What marks the packet filter rules of this block."""
        return f"asyncctr-testing-{self.index}"

    @classmethod
    async def take(cls, owner: Path) -> tuple[Block, Path | None]:
        """Lock a free block for the daemon in ``owner``; the block, and the directory of a dead former holder.

        Raises:
            RuntimeError: no block is free.
        """
        _LOCKS.mkdir(mode=0o700, exist_ok=True)  # noqa: ASYNC240 - one call
        here = os.readlink("/proc/self/ns/net")  # noqa: PTH115 - no path, net:[number]
        for index, network in enumerate(RANGE.subnets(new_prefix=18)):
            descriptor = os.open(_LOCKS / str(index), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            former, _, namespace = os.read(descriptor, 4096).decode(errors="replace").partition("\n")
            block = cls(index, network, descriptor)
            if former and namespace != here:
                # What it left is in another network namespace, out of reach.
                block._unlock()
                continue
            try:
                if former:
                    await block._remove()
                if await block.interfaces():
                    # Someone else's addresses: not ours to touch.
                    block._unlock()
                    continue
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{owner}\n{here}".encode(), 0)
            except BaseException:
                block._unlock()
                raise
            return block, Path(former) if former else None
        message = f"all blocks of {RANGE} are in use"
        raise RuntimeError(message)

    async def interfaces(self) -> list[str]:
        """The network interfaces of the host with an address in this block, and its bridge."""
        links = json.loads((await run("ip", "-json", "address")).stdout)
        return [
            link["ifname"]
            for link in links
            if link.get("ifname") == self.bridge
            or any(
                ipaddress.ip_address(address["local"]) in self.network
                for address in link.get("addr_info", ())
                if address.get("family") == "inet" and "local" in address
            )
        ]

    async def open(self, *, bridge: bool) -> None:
        """Make the rules, and the bridge when the daemon does not make it itself."""
        if bridge:
            await run("ip", "link", "add", "name", self.bridge, "type", "bridge")
            await run("ip", "address", "add", str(self.gateway), "dev", self.bridge)
            await run("ip", "link", "set", self.bridge, "up")
        for rule in self._rules():
            await run("iptables", "--wait", "10", "--table", rule[0], "--insert", *rule[1:])

    async def close(self) -> list[str]:
        """Remove the rules and interfaces and release the block; the interfaces that a daemon had left besides the bridge."""
        try:
            found = await self._remove()
            os.ftruncate(self._descriptor, 0)
        finally:
            self._unlock()
        return [name for name in found if name != self.bridge]

    def _unlock(self) -> None:
        os.close(self._descriptor)

    async def _remove(self) -> list[str]:
        for rule in self._rules():
            # Until it is refused: a former holder may have been killed at any point.
            for _ in range(4):
                ended = await run("iptables", "--wait", "10", "--table", rule[0], "--delete", *rule[1:], check=False)
                if ended.returncode:
                    break
        found = await self.interfaces()
        for name in found:
            await run("ip", "link", "delete", name, check=False)
        return found

    def _rules(self) -> Iterator[tuple[str, ...]]:
        mark = ("--match", "comment", "--comment", self.comment)
        block = str(self.network)
        # Both directions: between the block's own networks, and out and back.
        yield ("filter", "FORWARD", "--source", block, *mark, "--jump", "ACCEPT")
        yield ("filter", "FORWARD", "--destination", block, *mark, "--jump", "ACCEPT")
        yield ("nat", "POSTROUTING", "--source", block, "!", "--destination", block, *mark, "--jump", "MASQUERADE")
