"""What CNI plugins have in the packet filter's nat table: the ports that are published, and what a lost container left."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from asyncctr.core.network import PortMapping
    from asyncctr.netns.runner import Runner

__all__ = ["Published", "published_ports", "sweep"]

# As portmap writes them: a chain for each container, with the address only where one was named.
_DNAT: Final = re.compile(
    r"-A CNI-DN-\S+ (?:-d (?P<host>[0-9.]+)(?:/32)? )?-p (?P<protocol>\w+) .*--dport (?P<port>\d+) -j DNAT"
)


@attrs.frozen
class Published:
    """A port of this host that leads to a container; ``host_ip`` is empty for all addresses."""

    protocol: str
    host_ip: str
    host_port: int

    def meets(self, mapping: PortMapping) -> bool:
        """Whether both want the same packets."""
        return (self.protocol, self.host_port) == (mapping.protocol, mapping.host_port) and (
            not self.host_ip or mapping.host_ip in (self.host_ip, "0.0.0.0", "::")  # noqa: S104 - what was asked for
        )


async def published_ports(runner: Runner) -> frozenset[Published]:
    """The ports that portmap has published, for whomever: no socket is bound to them, so the rules alone tell.

    Raises:
        BackendUnavailableError: iptables is missing, or refuses.
    """
    listing = (await runner.check("iptables-save", "-t", "nat")).stdout.decode(errors="replace")
    return frozenset(
        Published(match["protocol"], match["host"] or "", int(match["port"])) for match in _DNAT.finditer(listing)
    )


async def sweep(runner: Runner, name: str, container_id: str = "") -> None:
    """Remove the rules and chains that plugins made for a network, or for one container on it, and could not take back.

    The bridge plugin's DEL leaves its masquerading when the container's namespace is gone. Its rules have a comment that names
    both.
    """
    mark = f'name: "{name}" id: "{container_id}' + ('"' if container_id else "")
    chains: set[str] = set()
    listing = (await runner.check("iptables-save", "-t", "nat")).stdout.decode(errors="replace")
    for line in listing.splitlines():
        words = shlex.split(line) if line.startswith("-A ") else []
        if any(mark in word for word in words):
            target = words[words.index("-j") + 1] if "-j" in words else ""
            chains |= {chain for chain in (words[1], target) if re.fullmatch(r"CNI-(DN-)?[0-9a-f]+", chain)}
            await runner.run("iptables", "-w", "10", "-t", "nat", "-D", *words[1:])
    for chain in chains:
        await runner.run("iptables", "-w", "10", "-t", "nat", "-F", chain)
        await runner.run("iptables", "-w", "10", "-t", "nat", "-X", chain)
