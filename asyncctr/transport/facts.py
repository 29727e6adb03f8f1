"""What a container was made with and is needed after the create, by this process or another one: as JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Self

import attrs

from asyncctr.core.network import NetworkConfig, PortMapping
from asyncctr.core.resources import ResourceLimits

__all__ = ["Facts"]


def _texts(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class Facts:
    """The part of a configuration that is needed later. A backend may add its own.

    Attributes:
        name: unique in the backend; empty for none.
        image: as the configuration names it.
        hostname: as seen inside.
        tty: whether it has a terminal.
        stdin: whether its standard input is kept open.
        stop_signal: its number.
        log_limit: bytes of output kept.
        resources: its limits.
        network: how it is connected.
        extra_hosts: for its hosts file.
        volumes: names of the volumes that it has mounted.
        labels: the user's and ours.
    """

    name: str = ""
    image: str = ""
    hostname: str = ""
    tty: bool = False
    stdin: bool = False
    stop_signal: int = 15
    log_limit: int = 0
    resources: ResourceLimits = attrs.field(factory=ResourceLimits)
    network: NetworkConfig = attrs.field(factory=NetworkConfig)
    extra_hosts: Mapping[str, str] = attrs.field(factory=dict)
    volumes: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    labels: Mapping[str, str] = attrs.field(factory=dict)

    def to_json(self) -> bytes:
        """For :meth:`from_json`."""
        return json.dumps(attrs.asdict(self, value_serializer=_plain)).encode()

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """What :meth:`to_json` gave, of this version or another one.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: it is not that.
        """
        document = json.loads(data)
        return cls(
            **{
                **_known(cls, document),
                "resources": ResourceLimits(**_known(ResourceLimits, document["resources"])),
                "network": _network(document["network"]),
            }
        )


def _known(cls: type[attrs.AttrsInstance], document: dict[str, Any]) -> dict[str, Any]:
    """The fields that there are here: a newer version of this package may have written more."""
    names = attrs.fields_dict(cls)
    return {name: value for name, value in document.items() if name in names}


def _plain(_: object, __: object, value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _network(document: dict[str, Any]) -> NetworkConfig:
    addresses = document["ip_config"]
    if addresses is not None:
        from asyncctr.core.network import IPConfig, IPv4Config, IPv6Config  # noqa: PLC0415  # seldom used

        addresses = IPConfig(
            ipv4=IPv4Config(**addresses["ipv4"]) if addresses["ipv4"] else None,
            ipv6=IPv6Config(**addresses["ipv6"]) if addresses["ipv6"] else None,
        )
    return NetworkConfig(
        **{
            **_known(NetworkConfig, document),
            "port_mappings": [PortMapping(**_known(PortMapping, port)) for port in document["port_mappings"]],
            "ip_config": addresses,
        }
    )
