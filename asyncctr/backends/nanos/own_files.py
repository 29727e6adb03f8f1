"""The files of an image that a machine has its own of: how names are resolved, and what it is called itself."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from asyncctr.backends.nanos.addresses import FIRST_LEASE, HOST
from asyncctr.backends.nanos.machine import name_server
from asyncctr.backends.nanos.manifest import NAME_SERVER, resolv_conf
from asyncctr.core.network import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncctr.backends.nanos.addresses import Addresses
    from asyncctr.core.config import ContainerConfig

__all__ = ["HOSTNAMES", "HOSTS", "OWN_FILES", "RESOLV_CONF", "own_files"]

HOSTNAMES: Final = ("/etc/hostname", "/proc/sys/kernel/hostname")
"""The kernel reads the first for uname(2); programs read either."""
HOSTS: Final = "/etc/hosts"
RESOLV_CONF: Final = "/etc/resolv.conf"
OWN_FILES: Final = (*HOSTNAMES, HOSTS, RESOLV_CONF)
_HOSTS: Final = b"127.0.0.1\tlocalhost\n::1\tlocalhost\n"


def own_files(config: ContainerConfig, addresses: Addresses, image: Mapping[str, bytes]) -> dict[str, bytes]:
    """Content by path; nothing that is as it is in the image.

    Args:
        config: of the container.
        addresses: of its card.
        image: what the image has at :data:`OWN_FILES`.
    """
    files: dict[str, bytes] = {}
    if config.hostname:
        files |= dict.fromkeys(HOSTNAMES, config.hostname.encode())
    lines = [
        f"{(addresses.gateway or HOST) if address == 'host-gateway' else address}\t{name}\n"
        for name, address in config.extra_hosts.items()
    ]
    if config.hostname and config.network.mode is not NetworkMode.NONE:
        lines.append(f"{addresses.ipv4 or FIRST_LEASE}\t{config.hostname}\n")
    if lines:
        known = image.get(HOSTS, _HOSTS)
        ended = known if not known or known.endswith(b"\n") else known + b"\n"
        files[HOSTS] = ended + "".join(lines).encode()
    if config.network.dns:
        files[RESOLV_CONF] = resolv_conf(config.network.dns)
    elif addresses.ipv4 and image.get(RESOLV_CONF) == resolv_conf((NAME_SERVER,)):
        # That of the network in which there is DHCP.
        around = ipaddress.IPv4Interface((addresses.ipv4, addresses.prefix))
        server = name_server(around, ipaddress.IPv4Address(addresses.gateway))
        files[RESOLV_CONF] = resolv_conf((str(server),))
    return files
