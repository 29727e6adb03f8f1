"""What containers of a containerd leave on the machine, outside of its directory: networks, rules, control groups, sockets."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING

from asyncctr.core.errors import AsyncctrError, NotFoundError
from asyncctr.netns.networks import Networks
from asyncctr.testing.base import Leftovers
from asyncctr.testing.programs import run
from asyncctr.testing.residue import cgroup_roots, cgroups_without_shim, mounts_under, runtime_states
from asyncctr.testing.subnets import RANGE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["host_traces", "remove_networks"]

_PREFIX = "asyncctr"
_DEFAULT = "bridge"
# Of a daemon that was found, and of the private one.
_NETWORKS = ("*/containerd/*/*/network", "*/containerd/private/sdk/*/network")
_ADDRESS = re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b")
# As CNI's plugins name the host's end; Docker's names have one digit fewer.
_GROUP = re.compile(rf"{_PREFIX}-[0-9a-f]{{64}}")
_VETH = re.compile(r"veth[0-9a-f]{8}")
# Bridges of podmans: the system's, and the private ones', which are named by their blocks.
_OTHERS = re.compile(r"(cni-)?podman\d+|asyncctr\d+")


async def host_traces(directory: Path, data: Path) -> Leftovers:
    """What is there now: subtract what was there before (:meth:`Leftovers.without`), for none of it names its daemon.

    Args:
        directory: the private daemon's.
        data: where the SDK keeps what belongs to containers.
    """
    rules = (await run("iptables-save", timeout=20)).lines
    return await asyncio.to_thread(_traces, directory, data, rules)


async def remove_networks(directory: Path) -> list[str]:
    """Remove the SDK's networks with their bridges, and what is still attached to them, before their state is removed.

    Args:
        directory: in which the data directories are, the SDK's own by ``ASYNCCTR_DATA_DIR``.

    Returns:
        What could not be removed.
    """
    problems: list[str] = []
    for state in await asyncio.to_thread(lambda: [path for places in _NETWORKS for path in directory.glob(places)]):
        networks = Networks(state)
        try:
            for container_id in await networks.list():
                await networks.detach(container_id)
            for name in (_DEFAULT, *(network.name for network in await networks.list_networks())):
                try:
                    await networks.remove_network(name)
                except NotFoundError:
                    # The default one is made when it is first needed.
                    continue
        except AsyncctrError as error:
            problems.append(f"networks in {state}: {error}")
        finally:
            await networks.aclose()
    return problems


def _traces(directory: Path, data: Path, rules: list[str]) -> Leftovers:
    return Leftovers(
        interfaces=tuple(_interfaces()),
        netns=tuple(mounts_under(data)),
        rules=tuple(rule for rule in rules if _is_of_container(rule)),
        cgroups=tuple(map(str, cgroups_without_shim(_groups()))),
        sockets=tuple(_deaf_sockets(directory)),
        states=(
            *map(str, runtime_states(directory)),
            *(str(path) for name in ("containers", "names") for path in sorted(data.glob(f"*/*/*/{name}/*"))),
            *(str(path) for path in sorted(data.glob("*/*/*/network/containers/*"))),
        ),
    )


def _groups() -> list[Path]:
    """The control groups of containers, just below the root of every hierarchy."""
    return [path for root in cgroup_roots() for path in root.glob(f"{_PREFIX}-*") if _GROUP.fullmatch(path.name)]


def _interfaces() -> Iterator[str]:
    """The host's ends of containers' interfaces, but for those on Podman's bridges."""
    for path in sorted(Path("/sys/class/net").iterdir()):
        if not _VETH.fullmatch(path.name):
            continue
        try:
            bridge = (path / "master").readlink().name
        except FileNotFoundError:
            bridge = ""
        if not _OTHERS.fullmatch(bridge):
            yield path.name


def _is_of_container(rule: str) -> bool:
    """Whether a rule is one that CNI's plugins made for one container of the SDK's."""
    if not rule.startswith("-A"):
        return False
    if f"{_PREFIX}-testing-" in rule:
        return False
    if _PREFIX in rule:
        return True
    # The firewall plugin's name nobody: they are told by the container's address.
    addresses = [ipaddress.ip_address(text) for text in _ADDRESS.findall(rule)]
    return rule.startswith("-A CNI-FORWARD ") and bool(addresses) and not any(address in RANGE for address in addresses)


def _deaf_sockets(directory: Path) -> Iterator[str]:
    """Files of shims' sockets whose shims have ended."""
    heard = {line.rpartition(" ")[2] for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()}
    for place in (Path("/run/containerd/s"), directory / "state" / "s"):
        yield from (str(path) for path in sorted(place.glob("*")) if str(path) not in heard)
