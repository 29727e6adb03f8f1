"""What a container's ``NetworkConfig`` asks of the network that it joins, or why that cannot give it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from asyncctr.core.errors import InvalidConfigError, UnsupportedError
from asyncctr.core.network import IPv4Config
from asyncctr.netns.ports import FIELD as _PORTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncctr.core.network import IPv6Config, NetworkConfig, PortMapping
    from asyncctr.netns.conflist import Conflist

__all__ = ["for_container", "port_mappings"]

_IP_CONFIG: Final = "network.ip_config"


def for_container(
    config: NetworkConfig, network: Conflist, names: Iterable[str] = (), *, forwarded: bool = False
) -> tuple[Conflist, dict[str, Any]]:
    """The network's configuration list for one container, and its values at run time but for the published ports.

    Args:
        config: the container's.
        network: that it joins.
        names: under which peers find it.
        forwarded: ports are published by a program, not by portmap.

    Raises:
        InvalidConfigError: an address that the network does not have.
        UnsupportedError: a field that the network cannot honour.
    """
    runtime: dict[str, Any] = {}
    _check_ports(config.port_mappings, network, forwarded=forwarded)
    if forwarded or not config.port_mappings:
        network = network.without("portmap")
    if config.mtu is not None:
        changed = network.with_mtu(config.mtu)
        if changed is None:
            _refuse("network.mtu", f"the plugin {network.plugins[0]['type']} of network {network.name} takes none")
        network = changed
    if fixed := _addresses(config, network):
        runtime["ips"] = fixed
    if config.dns and network.has("dns"):
        runtime["dns"] = {"servers": list(config.dns)}
    aliases = list(dict.fromkeys((*names, *config.aliases)))
    if aliases and network.has("aliases"):
        runtime["aliases"] = {network.name: aliases}
    return network, runtime


def port_mappings(ports: Sequence[PortMapping]) -> list[dict[str, Any]]:
    """The ``portMappings`` at run time (CONVENTIONS.md of the CNI specification)."""
    entries: list[dict[str, Any]] = []
    for port in ports:
        entry = {"hostPort": port.host_port, "containerPort": port.container_port, "protocol": port.protocol}
        # portmap would match the unspecified address literally; without one it matches every address.
        if not ipaddress.ip_address(port.host_ip).is_unspecified:
            entry["hostIP"] = port.host_ip
        entries.append(entry)
    return entries


def _check_ports(ports: Iterable[PortMapping], network: Conflist, *, forwarded: bool) -> None:
    for port in ports:
        if not network.reaches_out:
            _refuse(_PORTS, f"network {network.name} is internal: nothing outside reaches it")
        if forwarded:
            continue
        if not network.has("portMappings"):
            _refuse(_PORTS, f"no plugin of network {network.name} has the capability portMappings")
        address = ipaddress.ip_address(port.host_ip)
        if address.version == 6 and address.is_loopback:
            _refuse(_PORTS, "nothing can be published on ::1, from where the kernel forwards no packets; use 127.0.0.1")
        if address.version == 6 and not any(subnet.version == 6 for subnet in network.subnets):
            _refuse(_PORTS, f"{address} cannot be published: network {network.name} has no IPv6 subnet")


def _addresses(config: NetworkConfig, network: Conflist) -> list[str]:
    asked = config.ip_config
    fixed: list[str] = []
    for family in (asked.ipv4, asked.ipv6) if asked is not None else ():
        if family is None:
            continue
        address = _address(family, network)
        if address and not network.has("ips"):
            _refuse(f"{_field(family)}.address", f"no plugin of network {network.name} has the capability ips")
        fixed += [address] if address else []
    return fixed


def _field(family: IPv4Config | IPv6Config) -> str:
    return f"{_IP_CONFIG}.{'ipv4' if isinstance(family, IPv4Config) else 'ipv6'}"


def _address(family: IPv4Config | IPv6Config, network: Conflist) -> str:
    field = _field(family)
    version = 4 if isinstance(family, IPv4Config) else 6
    subnets = [subnet for subnet in network.subnets if subnet.version == version]
    if version == 6 and not subnets and (family.address or family.gateway):
        _refuse(field, f"network {network.name} has no IPv6 subnet")
    if family.wait_for_dhcp_seconds:
        _refuse(f"{field}.wait_for_dhcp_seconds", "the address is there before the container starts")
    subnet = subnets[0] if subnets else None
    if family.address:
        address = ipaddress.ip_address(family.address)
        holding = [subnet for subnet in subnets if address in subnet]
        if subnets and not holding:
            _wrong(f"{field}.address", f"{address} is not in {', '.join(map(str, subnets))}")
        subnet = holding[0] if holding else None
        if subnet is not None and str(address) in (
            network.gateway(subnet),
            str(subnet.network_address),
            *([str(subnet.broadcast_address)] if version == 4 else []),
        ):
            _wrong(f"{field}.address", f"{address} is the network's own")
    if family.gateway and (
        subnet is None or ipaddress.ip_address(family.gateway) != ipaddress.ip_address(network.gateway(subnet))
    ):
        _refuse(f"{field}.gateway", f"it is the network's{f', {network.gateway(subnet)}' if subnet else ''}")
    netmask = family.netmask if isinstance(family, IPv4Config) else ""
    if netmask and (subnet is None or netmask != str(subnet.netmask)):
        _refuse(f"{field}.netmask", f"it is the network's{f', {subnet.netmask}' if subnet else ''}")
    return family.address


def _refuse(field: str, reason: str) -> NoReturn:
    message = f"{field}: {reason}"
    raise UnsupportedError(message, field=field)


def _wrong(field: str, reason: str) -> NoReturn:
    message = f"{field}: {reason}"
    raise InvalidConfigError(message, field=field)
