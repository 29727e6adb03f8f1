"""Ports of this machine that QEMU's user-mode network forwards to its guest."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.backends.nanos.qmp import BACKEND
from asyncctr.core.errors import AsyncctrError, ConflictError, InvalidConfigError, UnsupportedError
from asyncctr.transport.ports import pick_ports

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncctr.backends.nanos.qmp import Monitor
    from asyncctr.core.network import PortMapping

__all__ = ["Forward", "add_forwards", "forward_conflict", "forward_rule", "forwards_of"]

NETWORK: Final = "n0"
"""The network's id within QEMU."""
_TRIES: Final = 5
_SOCKET_TYPES: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_REFUSED: Final = re.compile(r"host forwarding rule '(tcp|udp):([0-9.]+):(\d+)-")


@attrs.frozen
class Forward:
    """One port.

    Attributes:
        protocol: ``"tcp"`` or ``"udp"``.
        host_ip: the IPv4 address to listen on.
        host_port: 1 to 65535.
        guest_port: 1 to 65535.
    """

    protocol: str
    host_ip: str
    host_port: int
    guest_port: int

    def __str__(self) -> str:
        return f"{self.host_ip}:{self.host_port}/{self.protocol}"


def forwards_of(mappings: Iterable[PortMapping]) -> tuple[Forward, ...]:
    """The forwards for mappings with fixed ports.

    Raises:
        UnsupportedError: QEMU's user-mode network forwards TCP and UDP, and listens on IPv4 alone.
    """
    return tuple(_forward(mapping) for mapping in mappings)


def forward_rule(forward: Forward, guest_address: str = "") -> str:
    """QEMU's ``hostfwd``. A guest with a static address has to be named: without, it means the first that DHCP gives out."""
    return f"{forward.protocol}:{forward.host_ip}:{forward.host_port}-{guest_address}:{forward.guest_port}"


def forward_conflict(message: str, *, resource: str = "") -> AsyncctrError | None:
    """The error for what QEMU says when it cannot listen on a port, at its start or later; ``None`` if it speaks of something else."""
    refused = _REFUSED.search(message)
    if refused is None:
        return None
    protocol, host_ip, host_port = refused[1], refused[2], int(refused[3])
    named = f"{host_ip}:{host_port}/{protocol}"
    # QEMU does not say why: what listening there ourselves meets with does.
    number = _listen_error(protocol, host_ip, host_port)
    common = {"backend": BACKEND, "resource": resource}
    if number == errno.EADDRNOTAVAIL:
        text = f"network.port_mappings: this machine has no address {host_ip} to listen on for {named}"
        return InvalidConfigError(text, field="network.port_mappings", status=number, **common)
    if number in (errno.EACCES, errno.EPERM):
        text = f"host port {named} needs rights that this process has not; name one from 1024 on"
        return AsyncctrError(text, status=number, **common)
    reason = os.strerror(errno.EADDRINUSE if number is None else number)
    text = f"host port {named} cannot be published: {reason}; name another, or stop what has it"
    return ConflictError(text, status=number, **common)


async def add_forwards(
    monitor: Monitor, mappings: Iterable[PortMapping], *, guest_address: str = "", resource: str = ""
) -> tuple[PortMapping, ...]:
    """Publish mappings on a machine that runs, or is about to, and return them with the ports that were picked.

    Raises:
        ConflictError: a host port is taken.
        UnsupportedError: see :func:`forwards_of`.
        AsyncctrError: as :meth:`Monitor.execute`.
    """
    return tuple([await _add(monitor, mapping, guest_address, resource) for mapping in mappings])


async def _add(monitor: Monitor, mapping: PortMapping, guest_address: str, resource: str) -> PortMapping:
    _forward(mapping)
    for attempt in range(_TRIES):
        (picked,), held = pick_ports([mapping])
        try:
            answer = await monitor.human(f"hostfwd_add {NETWORK} {forward_rule(_forward(picked), guest_address)}")
        finally:
            held.release()
        if not answer.strip():
            return picked
        error = forward_conflict(answer, resource=resource)
        if error is None:
            message = f"QEMU did not publish host port {_forward(picked)}: {answer.strip()}"
            raise AsyncctrError(message, backend=BACKEND, resource=resource)
        # Another program, which does not pick as we do, may have taken a picked one.
        if mapping.host_port or not isinstance(error, ConflictError) or attempt == _TRIES - 1:
            raise error
    raise AssertionError


def _forward(mapping: PortMapping) -> Forward:
    if mapping.protocol not in _SOCKET_TYPES:
        message = f"network.port_mappings: the user-mode network forwards tcp and udp, not {mapping.protocol}"
        raise UnsupportedError(message, field="network.port_mappings", backend=BACKEND)
    if ipaddress.ip_address(mapping.host_ip).version != 4:
        message = f"network.port_mappings: the user-mode network listens on IPv4 addresses, not on {mapping.host_ip}"
        raise UnsupportedError(message, field="network.port_mappings", backend=BACKEND)
    return Forward(mapping.protocol, mapping.host_ip, mapping.host_port, mapping.container_port)


def _listen_error(protocol: str, host_ip: str, host_port: int) -> int | None:
    with socket.socket(socket.AF_INET, _SOCKET_TYPES[protocol]) as probe:
        if protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host_ip, host_port))
            if protocol == "tcp":
                probe.listen(1)
        except OSError as error:
            return error.errno
    return None
