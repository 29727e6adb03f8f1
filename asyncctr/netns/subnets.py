"""Which addresses this host uses, and which are free for a further network."""

from __future__ import annotations

import ipaddress
import json
import secrets
from typing import TYPE_CHECKING, Final

from asyncctr.core.errors import ResourceExhaustedError

if TYPE_CHECKING:
    from collections.abc import Collection

    from asyncctr.netns.runner import Runner

__all__ = ["free_subnet", "used_subnets"]

# Private (RFC 1918), and in no default pool of Docker, Podman, Swarm, Kubernetes or libvirt. 4,093 containers in each of 256.
_POOL: Final = ipaddress.IPv4Network("10.160.0.0/12")
_PREFIX: Final = 20


async def used_subnets(runner: Runner) -> tuple[ipaddress.IPv4Network, ...]:
    """The networks that interfaces and routes of this host lead to, the default route apart.

    Raises:
        BackendUnavailableError: ``ip`` is missing.
    """
    used: set[ipaddress.IPv4Network] = set()
    routes = json.loads((await runner.check("ip", "-json", "-4", "route", "show", "table", "all")).stdout or b"[]")
    links = json.loads((await runner.check("ip", "-json", "-4", "address")).stdout or b"[]")
    texts = [str(route.get("dst", "")) for route in routes]
    texts += [
        f"{address['local']}/{address['prefixlen']}"
        for link in links
        for address in link.get("addr_info") or ()
        if "local" in address
    ]
    for text in texts:
        try:
            network = ipaddress.IPv4Network(text, strict=False)
        except ValueError:
            continue
        # Two halves of everything are how a VPN says "default".
        if network.prefixlen > 1:
            used.add(network)
    return tuple(used)


def free_subnet(used: Collection[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """A subnet that meets none of these. At random, so that others who choose at the same time choose another.

    Raises:
        ResourceExhaustedError: there is none left.
    """
    subnets = list(_POOL.subnets(new_prefix=_PREFIX))
    start = secrets.randbelow(len(subnets))
    for subnet in subnets[start:] + subnets[:start]:
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    message = f"no subnet of {_POOL} is free for a network; name one, or remove networks"
    raise ResourceExhaustedError(message)
