"""Host ports for portmap, which asks nobody: it would take the packets of a program that listens, or of another container."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import TYPE_CHECKING, Final

from asyncctr.core.errors import ConflictError, InvalidConfigError, UnsupportedError
from asyncctr.netns.rules import published_ports
from asyncctr.transport.ports import HeldPorts, pick_ports

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from asyncctr.core.network import PortMapping
    from asyncctr.netns.rules import Published
    from asyncctr.netns.runner import Runner

__all__ = ["FIELD", "ClaimedPorts", "claim_ports", "pick_forwarded", "taken"]

FIELD: Final = "network.port_mappings"
_SOCKET_TYPES: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class ClaimedPorts:
    """Ports that nobody else gets until they are published."""

    def __init__(self) -> None:
        self._held: list[HeldPorts] = []
        self._bound: list[socket.socket] = []

    def keep(self, held: HeldPorts) -> None:
        """Release these with the others."""
        self._held.append(held)

    def bind(self, mapping: PortMapping) -> None:
        """Take a port that was named.

        Raises:
            ConflictError: somebody has it.
            InvalidConfigError: the address is none of this host's, or the port is not for this user.
        """
        version = ipaddress.ip_address(mapping.host_ip).version
        holder = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, _SOCKET_TYPES[mapping.protocol])
        self._bound.append(holder)
        try:
            if mapping.protocol == "tcp":
                # As servers do, so that connections of an earlier one that linger are no hindrance.
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((mapping.host_ip, mapping.host_port))
            if mapping.protocol == "tcp":
                holder.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise taken(mapping) from error
            message = f"{FIELD}: {mapping.host_ip} port {mapping.host_port} cannot be used: {error.strerror}"
            raise InvalidConfigError(message, field=FIELD) from error

    def release(self) -> None:
        """They are published by now, or will not be."""
        for held in self._held:
            held.release()
        for holder in self._bound:
            holder.close()
        self._held.clear()
        self._bound.clear()


async def claim_ports(mappings: Sequence[PortMapping], runner: Runner) -> tuple[tuple[PortMapping, ...], ClaimedPorts]:
    """The mappings with a port wherever one has to be picked, and what holds all of them.

    Raises:
        ConflictError: a named one is taken, or there is none left to pick.
        UnsupportedError: one cannot be picked for the protocol.
    """
    wanted = tuple(mappings)
    claimed = ClaimedPorts()
    try:
        for mapping in wanted:
            if mapping.host_port and mapping.protocol in _SOCKET_TYPES:
                claimed.bind(mapping)
        while wanted:
            picked, held = pick_ports(wanted)
            claimed.keep(held)
            # Held first, then looked: whoever had it before has his rules by the time he lets go.
            wanted = _without(await published_ports(runner), picked, mappings)
            if wanted == picked:
                break
    except BaseException:
        claimed.release()
        raise
    return wanted, claimed


def pick_forwarded(mappings: Sequence[PortMapping]) -> tuple[tuple[PortMapping, ...], HeldPorts]:
    """The mappings with a port wherever one has to be picked, for a program that binds them all and so tells which are taken.

    Raises:
        ConflictError: there is none left to pick.
        UnsupportedError: no program forwards the protocol.
    """
    for mapping in mappings:
        if mapping.protocol not in _SOCKET_TYPES:
            message = f"{FIELD}: {mapping.protocol} ports cannot be published without root, only {' and '.join(_SOCKET_TYPES)}"
            raise UnsupportedError(message, field=FIELD)
    return pick_ports(mappings)


def _without(
    published: Collection[Published], picked: Sequence[PortMapping], asked: Sequence[PortMapping]
) -> tuple[PortMapping, ...]:
    """What was picked, with those that are to be picked again as they were asked for."""
    again = list(picked)
    for index, mapping in enumerate(picked):
        if not mapping.host_port:
            message = f"{FIELD}: no host port can be picked for {mapping.protocol}; name one"
            raise UnsupportedError(message, field=FIELD)
        if any(other.meets(mapping) for other in published):
            if asked[index].host_port:
                raise taken(mapping)
            again[index] = asked[index]
    return tuple(again)


def taken(mapping: PortMapping) -> ConflictError:
    """The error for a port that somebody else has."""
    message = (
        f"{mapping.protocol} port {mapping.host_port} on {mapping.host_ip} is taken; "
        "name another, or 0 to have one picked"
    )
    return ConflictError(message, resource=str(mapping.host_port))
