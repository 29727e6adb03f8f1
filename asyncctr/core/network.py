"""How a container is connected: modes, published ports and addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import attrs

from asyncctr.core.validation import (
    FrozenMap,
    check_port,
    check_text,
    check_token,
    checked,
    fail,
    is_a,
    label_key,
    mapping,
    member,
    positive,
    sequence,
)

__all__ = ["IPConfig", "IPv4Config", "IPv6Config", "NetworkConfig", "NetworkMode", "PortMapping"]


class NetworkMode(StrEnum):
    """What a container is connected to."""

    BRIDGE = "bridge"
    """The backend's default bridge, with an address of its own."""
    HOST = "host"
    """The host's own network, without isolation."""
    NONE = "none"
    """Loopback alone."""
    CUSTOM = "custom"
    """The network that ``NetworkConfig.network_name`` names."""


def _address(version: int) -> Any:
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address

    def validate(_: object, attribute: attrs.Attribute[str], value: object) -> None:
        text = check_text(attribute.name, value)
        if text:
            try:
                kind(text)
            except ValueError:
                raise fail(attribute.name, f"must be an IPv{version} address, not {text!r}") from None

    return validate


def _check_protocol(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    if value not in ("tcp", "udp", "sctp"):
        raise fail(attribute.name, f"must be 'tcp', 'udp' or 'sctp', not {value!r}")


def _check_host_ip(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    _ip_text(attribute.name, value)


def _ip_text(field: str, value: object) -> str:
    text = check_text(field, value, empty=False)
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise fail(field, f"must be an IP address, not {text!r}") from None
    return text


@attrs.frozen(kw_only=True)
class PortMapping:
    """One published port.

    Attributes:
        container_port: the port inside, 1 to 65535.
        host_port: the port on the host; 0 lets the backend pick one, which ``inspect`` then tells.
        protocol: ``"tcp"``, ``"udp"`` or ``"sctp"``.
        host_ip: the host address to listen on. Loopback unless told: ``"0.0.0.0"`` or ``"::"`` publishes on every interface.
    """

    container_port: int = attrs.field(validator=checked(check_port))
    host_port: int = attrs.field(default=0, validator=checked(check_port, zero=True))
    protocol: str = attrs.field(default="tcp", validator=_check_protocol)
    host_ip: str = attrs.field(default="127.0.0.1", validator=_check_host_ip)


@attrs.frozen(kw_only=True)
class IPv4Config:
    """A fixed IPv4 address.

    Attributes:
        address: dotted quad; empty asks the backend (or DHCP).
        gateway: the default router; empty for the backend's own.
        netmask: dotted quad, such as ``"255.255.255.0"``; empty for the network's own.
        wait_for_dhcp_seconds: how long the guest waits for DHCP; 0 does not wait.
    """

    address: str = attrs.field(default="", validator=_address(4))
    gateway: str = attrs.field(default="", validator=_address(4))
    netmask: str = attrs.field(default="", validator=_address(4))
    wait_for_dhcp_seconds: int = attrs.field(default=0, validator=checked(positive, minimum=0, required=True))


@attrs.frozen(kw_only=True)
class IPv6Config:
    """A fixed IPv6 address; the fields mean what they mean in :class:`IPv4Config`."""

    address: str = attrs.field(default="", validator=_address(6))
    gateway: str = attrs.field(default="", validator=_address(6))
    wait_for_dhcp_seconds: int = attrs.field(default=0, validator=checked(positive, minimum=0, required=True))


@attrs.frozen(kw_only=True)
class IPConfig:
    """Fixed addresses of a container, per family."""

    ipv4: IPv4Config | None = attrs.field(default=None, validator=is_a(IPv4Config, type(None)))
    ipv6: IPv6Config | None = attrs.field(default=None, validator=is_a(IPv6Config, type(None)))


def _port_mapping(field: str, value: object) -> PortMapping:
    if not isinstance(value, PortMapping):
        raise fail(field, f"must be a PortMapping, not {type(value).__name__}")
    return value


def _mode(value: NetworkMode | str) -> NetworkMode:
    return member("mode", NetworkMode, value)


def _ports(value: Iterable[PortMapping]) -> tuple[PortMapping, ...]:
    return sequence("port_mappings", value, _port_mapping)


def _dns(value: Iterable[str]) -> tuple[str, ...]:
    return sequence("dns", value, _ip_text)


def _aliases(value: Iterable[str]) -> tuple[str, ...]:
    return sequence("aliases", value, check_token)


def _plain(field: str, value: object) -> object:
    try:
        hash(value)
    except TypeError:
        raise fail(field, "must be hashable: use strings, numbers, booleans or tuples of them") from None
    return value


def _options(value: Mapping[str, object]) -> FrozenMap[str, object]:
    return mapping("backend_options", value, label_key, _plain)


@attrs.frozen(kw_only=True)
class NetworkConfig:
    """How a container is connected.

    Attributes:
        mode: see :class:`NetworkMode`.
        port_mappings: the ports to publish; not with modes ``host`` and ``none``.
        dns: name servers for the container's resolv.conf, as addresses.
        aliases: further names under which others on the same custom network find it.
        network_name: the network to join; with mode ``custom`` alone.
        ip_config: fixed addresses.
        mtu: of the container's interface, in bytes; ``None`` for the network's own.
        backend_options: what one backend alone knows; unknown keys are refused.
    """

    mode: NetworkMode = attrs.field(default=NetworkMode.BRIDGE, converter=_mode)
    port_mappings: tuple[PortMapping, ...] = attrs.field(default=(), converter=_ports)
    dns: tuple[str, ...] = attrs.field(default=(), converter=_dns)
    aliases: tuple[str, ...] = attrs.field(default=(), converter=_aliases)
    network_name: str = attrs.field(default="", validator=checked(check_text))
    ip_config: IPConfig | None = attrs.field(default=None, validator=is_a(IPConfig, type(None)))
    mtu: int | None = attrs.field(default=None, validator=checked(positive, minimum=68))
    backend_options: Mapping[str, object] = attrs.field(factory=FrozenMap, converter=_options)

    def __attrs_post_init__(self) -> None:
        if self.mode is NetworkMode.CUSTOM:
            check_token("network_name", self.network_name)
        elif self.network_name:
            raise fail("network_name", f"is for mode 'custom'; the mode is {self.mode.value!r}")
        if self.port_mappings and self.mode in (NetworkMode.HOST, NetworkMode.NONE):
            raise fail("port_mappings", f"cannot be published with network mode {self.mode.value!r}")
        if self.aliases and self.mode is not NetworkMode.CUSTOM:
            raise fail("aliases", "are for mode 'custom': the default bridge has no names")
