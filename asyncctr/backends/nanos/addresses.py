"""The addresses of a machine's network card: who decides on them, and what its root tuple says of them.

The configuration has the first word, then the ``RunConfig`` of OPS, then the image; where none of them names an IPv4 address, the
guest asks by DHCP.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.backends.nanos.machine import default_gateway
from asyncctr.backends.nanos.qmp import BACKEND
from asyncctr.core.errors import InvalidConfigError, UnsupportedError
from asyncctr.core.network import NetworkConfig, NetworkMode, PortMapping

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncctr.backends.nanos.ops_config import RunConfig
    from asyncctr.backends.nanos.tfs.values import Value

__all__ = ["CARD", "CARD_KEYS", "FIRST_LEASE", "HOST", "Addresses", "card_changes", "decide_addresses", "network_of"]

CARD: Final = "en1"
"""The kernel's name of the first card; a tuple of that name in the root is read in place of the root's own keys."""
CARD_KEYS: Final = ("ipaddr", "netmask", "gateway", "ip6addr", "mtu")
FIRST_LEASE: Final = "10.0.2.15"
"""The address that QEMU's user network gives its only guest by DHCP."""
HOST: Final = "10.0.2.2"
"""Where QEMU is itself in that network."""
_FIELD: Final = "network.ip_config"
_NETMASK: Final = "255.255.255.0"
_LEAST_PREFIX, _MOST_PREFIX = 4, 30
"""What QEMU's user-mode network can be: the guest, the gateway, a name server and a lease have to differ."""
_LONGEST_WAIT: Final = 180


@attrs.frozen(kw_only=True)
class Addresses:
    """A card's static addresses.

    Attributes:
        ipv4: empty where the guest asks by DHCP, as are the next two then.
        prefix: of the network around it, in bits.
        gateway: where QEMU is in it.
        ipv6: empty for none but those that the guest gives itself.
    """

    ipv4: str = ""
    prefix: int = 0
    gateway: str = ""
    ipv6: str = ""

    @property
    def entries(self) -> dict[str, str]:
        """Those of the root tuple."""
        entries: dict[str, str] = {}
        if self.ipv4:
            netmask = ipaddress.IPv4Network((self.ipv4, self.prefix), strict=False).netmask
            entries |= {"ipaddr": self.ipv4, "netmask": str(netmask), "gateway": self.gateway}
        if self.ipv6:
            entries["ip6addr"] = self.ipv6
        return entries


def network_of(config: NetworkConfig, run: RunConfig) -> NetworkConfig:
    """The configuration with the ports of OPS's file, where it publishes none itself. They are published on loopback alone."""
    if config.port_mappings or config.mode is not NetworkMode.BRIDGE:
        return config
    ports = [
        PortMapping(host_port=host, container_port=guest, protocol=protocol)
        for protocol, pairs in (("tcp", run.ports), ("udp", run.udp_ports))
        for host, guest in pairs
    ]
    return attrs.evolve(config, port_mappings=ports) if ports else config


def decide_addresses(config: NetworkConfig, run: RunConfig, image: Mapping[str, Value]) -> Addresses:
    """A card's addresses.

    Args:
        config: of the container.
        run: of OPS's file.
        image: entries of the image's card.

    Raises:
        InvalidConfigError: the addresses do not fit one another.
        UnsupportedError: the network cannot be so small or so large.
    """
    asked = config.ip_config
    if config.mode is NetworkMode.NONE:
        if asked is not None:
            raise _wrong(_FIELD, "there is no card to give an address to with mode 'none'")
        return Addresses()
    ipv6 = asked.ipv6.address if asked is not None and asked.ipv6 is not None else ""
    if asked is not None and asked.ipv6 is not None and asked.ipv6.gateway:
        message = f"{_FIELD}.ipv6.gateway: Nanos has no setting for it, and takes the router that advertises itself"
        raise UnsupportedError(message, field=f"{_FIELD}.ipv6.gateway", backend=BACKEND)
    card = run.nics[0] if run.nics else run
    addresses = Addresses(ipv6=_canonical(ipv6) or card.ipv6_address or _text(image, "ip6addr"))
    if asked is not None and asked.ipv4 is not None:
        given = asked.ipv4
        if given.address:
            return _with_ipv4(addresses, given.address, given.netmask, given.gateway, f"{_FIELD}.ipv4")
        if given.netmask or given.gateway:
            raise _wrong(f"{_FIELD}.ipv4", "a netmask or a gateway needs an address; DHCP tells its own")
    if card.ip_address:
        return _with_ipv4(addresses, card.ip_address, card.netmask, card.gateway, "RunConfig.IPAddress")
    if address := _text(image, "ipaddr"):
        return _with_ipv4(addresses, address, _text(image, "netmask"), _text(image, "gateway"), "image")
    return addresses


def _with_ipv4(addresses: Addresses, address: str, netmask: str, gateway: str, field: str) -> Addresses:
    try:
        around = ipaddress.IPv4Interface(f"{address}/{netmask or _NETMASK}")
        router = ipaddress.IPv4Address(gateway) if gateway else default_gateway(around)
    except ValueError as error:
        raise _wrong(field, f"is no address with a netmask and a gateway: {error}") from error
    network = around.network
    if not _LEAST_PREFIX <= network.prefixlen <= _MOST_PREFIX:
        message = f"{field}: a network has from {_LEAST_PREFIX} to {_MOST_PREFIX} bits, not {network.prefixlen}"
        raise UnsupportedError(message, field=field, backend=BACKEND)
    ends = (network.network_address, network.broadcast_address)
    for name, value in (("address", around.ip), ("gateway", router)):
        if value not in network or value in ends:
            raise _wrong(field, f"{value} is no {name} in the network {network}")
    if around.ip == router:
        raise _wrong(field, f"the guest's address and its gateway are both {router}")
    return attrs.evolve(addresses, ipv4=str(around.ip), prefix=network.prefixlen, gateway=str(router))


def card_changes(
    config: NetworkConfig, addresses: Addresses, image: Mapping[str, Value], *, own: bool
) -> dict[str, Value]:
    """What to change of an image's root tuple for its card.

    Args:
        config: of the container.
        addresses: what was decided.
        image: entries of the image's card.
        own: whether they are in a tuple of its name, which the kernel then reads alone.

    Raises:
        InvalidConfigError: the kernel does not wait for so long.
    """
    if config.mode is NetworkMode.NONE:
        return {}
    entries: dict[str, Value] = {**addresses.entries}
    if config.mtu is not None:
        # Nanos does not ask its interface.
        entries["mtu"] = str(config.mtu)
    families = (config.ip_config.ipv4, config.ip_config.ipv6) if config.ip_config is not None else ()
    for version, family in zip((4, 6), families, strict=False):
        if family is None or not family.wait_for_dhcp_seconds:
            continue
        if family.wait_for_dhcp_seconds > _LONGEST_WAIT:
            raise _wrong(f"{_FIELD}.ipv{version}.wait_for_dhcp_seconds", f"Nanos waits {_LONGEST_WAIT} s at most")
        entries[f"exec_wait_for_ip{version}_secs"] = str(family.wait_for_dhcp_seconds)
    changes = {key: value for key, value in entries.items() if image.get(key) != value}
    return {CARD: {**image, **changes}} if own and changes else changes


def _text(entries: Mapping[str, Value], key: str) -> str:
    value = entries.get(key)
    return value if isinstance(value, str) else ""


def _canonical(address: str) -> str:
    return str(ipaddress.IPv6Address(address)) if address else ""


def _wrong(field: str, what: str) -> InvalidConfigError:
    return InvalidConfigError(f"{field}: {what}", field=field, backend=BACKEND)
