"""CNI network configuration lists: read from a directory, and made for networks of our own (CNI specification 1.0, section 1)."""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING, Any, Final

import attrs

from asyncctr.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Conflist", "Subnet", "bridge_conflist", "conflists_in"]

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_VERSION: Final = "1.0.0"
# Plugins that take an "mtu" for the container's interface.
_WITH_MTU: Final = frozenset({"bridge", "ipvlan", "macvlan", "ptp", "vlan"})
_MAX_FILE: Final = 1 << 20


@attrs.frozen
class Conflist:
    """A network as its configuration list has it.

    Attributes:
        document: the list, JSON as it was read.
    """

    document: Mapping[str, Any] = attrs.field(hash=False)

    @classmethod
    def parse(cls, data: bytes, source: str) -> Conflist:
        """A list, or the one plugin of an older ``.conf`` file as a list.

        Raises:
            InvalidConfigError: it is neither; the message names ``source``.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            message = f"network.network_name: {source} is no JSON"
            raise InvalidConfigError(message, field="network.network_name") from error
        if isinstance(document, dict) and "plugins" not in document and "type" in document:
            keys = ("name", "cniVersion")
            plugin = {key: value for key, value in document.items() if key not in keys}
            document = {**{key: document[key] for key in keys if key in document}, "plugins": [plugin]}
        plugins = document.get("plugins") if isinstance(document, dict) else None
        if (
            not isinstance(plugins, list)
            or not plugins
            or not all(isinstance(plugin, dict) and isinstance(plugin.get("type"), str) for plugin in plugins)
            or not isinstance(document.get("name"), str)
            or not isinstance(document.get("cniVersion", ""), str)
        ):
            message = f"network.network_name: {source} is no CNI network configuration list"
            raise InvalidConfigError(message, field="network.network_name")
        return cls(document)

    @property
    def name(self) -> str:
        """What plugins know the network by."""
        return str(self.document["name"])

    @property
    def version(self) -> str:
        """Of the specification that it was written for; the first one where it does not say."""
        return str(self.document.get("cniVersion") or "0.1.0")

    @property
    def plugins(self) -> tuple[Mapping[str, Any], ...]:
        """The configurations of the plugins, in the order of ADD."""
        return tuple(self.document["plugins"])

    @property
    def subnets(self) -> tuple[Subnet, ...]:
        """What its plugins give addresses from, as far as the configuration tells (host-local)."""
        return tuple(subnet for subnet, _ in self._ranges())

    def gateway(self, subnet: Subnet) -> str:
        """The router of one of its subnets."""
        return next(gateway for found, gateway in self._ranges() if found == subnet)

    @property
    def reaches_out(self) -> bool:
        """Whether there is a way out of it: an internal network of ours has none."""
        return any(plugin.get("isGateway") or plugin["type"] != "bridge" for plugin in self.plugins)

    def has(self, capability: str) -> bool:
        """Whether a plugin takes this at run time (section "Deriving runtimeConfig")."""
        return any((plugin.get("capabilities") or {}).get(capability) for plugin in self.plugins)

    def with_mtu(self, mtu: int) -> Conflist | None:
        """The same with another MTU for one container; ``None`` where its first plugin is not known to take one."""
        first, *others = self.plugins
        if first["type"] not in _WITH_MTU:
            return None
        return Conflist({**self.document, "plugins": [{**first, "mtu": mtu}, *others]})

    def without(self, kind: str) -> Conflist:
        """The same without a chained plugin: one that has nothing to do costs an eighth of a second at DEL all the same."""
        first, *others = self.plugins
        return Conflist({**self.document, "plugins": [first, *(plugin for plugin in others if plugin["type"] != kind)]})

    def _ranges(self) -> Iterator[tuple[Subnet, str]]:
        for plugin in self.plugins:
            ipam = plugin.get("ipam") or {}
            entries = [entry for group in ipam.get("ranges") or () for entry in group]
            for entry in [ipam, *entries] if ipam.get("subnet") else entries:
                try:
                    subnet = ipaddress.ip_network(str(entry["subnet"]), strict=False)
                except (KeyError, ValueError):
                    # The plugin's to refuse.
                    continue
                yield subnet, str(entry.get("gateway") or subnet[1])


def bridge_conflist(
    name: str,
    *,
    bridge: str,
    subnet: ipaddress.IPv4Network,
    leases: Path,
    internal: bool = False,
    mtu: int | None = None,
) -> Conflist:
    """A network of ours: a bridge with addresses of one subnet, published ports, and a way out unless ``internal``."""
    ipam: dict[str, Any] = {
        "type": "host-local",
        "dataDir": str(leases),
        "ranges": [[{"subnet": str(subnet), "gateway": str(subnet[1])}]],
    }
    first: dict[str, Any] = {
        "type": "bridge",
        "bridge": bridge,
        "isGateway": not internal,
        "ipMasq": not internal,
        "hairpinMode": True,
        "capabilities": {"ips": True},
        "ipam": ipam,
    }
    if mtu is not None:
        first["mtu"] = mtu
    plugins = [first]
    if not internal:
        ipam["routes"] = [{"dst": "0.0.0.0/0"}]
        plugins += [{"type": "portmap", "capabilities": {"portMappings": True}}, {"type": "firewall"}]
    return Conflist({"cniVersion": _VERSION, "name": name, "plugins": plugins})


def conflists_in(directory: Path) -> Iterator[Conflist]:
    """The networks of a directory such as ``/etc/cni/net.d``, by file name; what is no configuration is left out."""
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix in (".conflist", ".conf", ".json"))
    except OSError:
        return
    for path in files:
        try:
            if path.stat().st_size <= _MAX_FILE:
                yield Conflist.parse(path.read_bytes(), str(path))
        except (OSError, InvalidConfigError):
            continue
