"""Host ports that the SDK picks itself, for runtimes that would not hold on to one between its choice and its use."""

from __future__ import annotations

import errno
import ipaddress
import random
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.core.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncctr.core.network import PortMapping

__all__ = ["HeldPorts", "pick_ports"]

_RANGE_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Linux's own when nobody has set another (ip(7)).
_EPHEMERAL: Final = (32_768, 60_999)
_LAST: Final = 65_535
_LOWEST: Final = 20_000
# Fewer ports above the ephemeral ones than this, and those below are taken.
_ENOUGH: Final = 2_000
_TRIES: Final = 500
_SOCKET_TYPES: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class HeldPorts:
    """Ports that nobody else who picks in this way is given.

    Each is held by an abstract unix socket of its name (unix(7)): it belongs to the same network namespace as the port, is seen by
    every process there, and ends with its process. The port itself is not bound, so that the runtime can.
    """

    def __init__(self) -> None:
        self._holds: list[socket.socket] = []

    def hold(self, protocol: str, host_ip: str) -> int | None:
        """A port that is free on this address; None where that cannot be told, and the runtime has to pick.

        Raises:
            ConflictError: every port that was tried is taken.
        """
        if protocol not in _SOCKET_TYPES or sys.platform != "linux":
            return None
        for number in random.sample(_candidates(), _TRIES):
            hold = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                hold.bind(f"\0asyncctr/port/{protocol}/{number}")
                if not _is_free(protocol, host_ip, number):
                    hold.close()
                    continue
            except OSError as error:
                hold.close()
                if error.errno == errno.EADDRINUSE:
                    continue
                # Such as an address that this machine does not have: the runtime's to tell.
                return None
            self._holds.append(hold)
            return number
        message = (
            f"no free {protocol} port on {host_ip} among {_TRIES} that were tried; name one, or stop what has them"
        )
        raise ConflictError(message)

    def release(self) -> None:
        """Let others have them: the runtime has bound them by now, or nobody will."""
        for hold in self._holds:
            hold.close()
        self._holds.clear()


def pick_ports(mappings: Iterable[PortMapping]) -> tuple[tuple[PortMapping, ...], HeldPorts]:
    """The mappings with a port of this machine wherever one has to be picked, and what holds these.

    Raises:
        ConflictError: there is none to be had.
    """
    held = HeldPorts()
    picked: list[PortMapping] = []
    try:
        for mapping in mappings:
            number = None if mapping.host_port else held.hold(mapping.protocol, mapping.host_ip)
            picked.append(attrs.evolve(mapping, host_port=number) if number else mapping)
    except BaseException:
        held.release()
        raise
    return tuple(picked), held


def _candidates() -> range:
    """Ports that the kernel gives to no outgoing connection, so that none is taken between choice and use."""
    try:
        low, high = (int(part) for part in _RANGE_FILE.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        low, high = _EPHEMERAL
    if _LAST - high >= _ENOUGH:
        return range(high + 1, _LAST + 1)
    if low - _LOWEST >= _ENOUGH:
        return range(_LOWEST, low)
    return range(_LOWEST, _LAST + 1)


def _is_free(protocol: str, host_ip: str, number: int) -> bool:
    family = socket.AF_INET6 if ipaddress.ip_address(host_ip).version == 6 else socket.AF_INET
    with socket.socket(family, _SOCKET_TYPES[protocol]) as probe:
        if protocol == "tcp":
            # As servers do, so that connections of an earlier one that linger are no hindrance.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host_ip, number))
            if protocol == "tcp":
                probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True
