"""The networks that there are: the default bridge, those that were created here, and the system's."""

from __future__ import annotations

import ipaddress
import json
import secrets
import shutil
from typing import TYPE_CHECKING, Any, Final

import attrs

from asyncctr.core.backend import Network
from asyncctr.core.errors import (
    BackendUnavailableError,
    ConflictError,
    InvalidConfigError,
    NotFoundError,
    UnsupportedError,
)
from asyncctr.core.validation import FrozenMap
from asyncctr.netns.conflist import Conflist, bridge_conflist, conflists_in
from asyncctr.netns.files import write_atomic
from asyncctr.netns.rules import sweep
from asyncctr.netns.subnets import free_subnet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from asyncctr.netns.runner import Runner

__all__ = ["DEFAULT", "Defined", "DefinedNetworks", "check_new_name", "parse_subnet"]

DEFAULT: Final = "bridge"
"""The name of the default network."""
_RESERVED: Final = frozenset({DEFAULT, "default", "host", "none"})
# A key of ours beside those of the specification, which libcni and the plugins do not look at.
_OURS: Final = "dev.asyncctr"
_SUFFIX: Final = ".conflist"
_REMOVED: Final = ".removed"


@attrs.frozen(kw_only=True)
class Defined:
    """A network and how its plugins are configured.

    Attributes:
        id: of its file; the CNI name of one of the system's.
        name: as users know it.
        labels: as it was created with.
        bridge: the interface, for a network of ours; empty for one of the system's.
        conflist: for its plugins.
    """

    id: str
    name: str
    labels: Mapping[str, str] = attrs.field(factory=FrozenMap)
    bridge: str = ""
    conflist: Conflist

    @property
    def value(self) -> Network:
        """As a backend tells it."""
        subnets = tuple(str(subnet) for subnet in self.conflist.subnets)
        return Network(id=self.id, name=self.name, labels=self.labels, subnets=subnets)


class DefinedNetworks:
    """The networks of a state directory, a configuration list each, and the system's. All of it blocks, for milliseconds.

    Whoever calls what changes something holds the state directory's lock.

    Args:
        root: the directory of our files.
        leases: where host-local keeps the addresses that are in use.
        system: directories with configuration lists of the system's.
    """

    def __init__(self, root: Path, *, leases: Path, system: Sequence[Path]) -> None:
        self._root = root
        self._leases = leases
        self._system = tuple(system)

    def all(self) -> Iterator[Defined]:
        """Ours, the default one included."""
        for path in sorted(self._root.glob(f"[!.]*{_SUFFIX}")):
            try:
                yield _read(path)
            except FileNotFoundError:
                continue

    def find(self, name: str) -> Defined | None:
        """One by its name, ours before the system's."""
        for defined in self.all():
            if defined.name == name:
                return defined
        for directory in self._system:
            for conflist in conflists_in(directory):
                if conflist.name == name:
                    return Defined(id=conflist.name, name=name, conflist=conflist)
        return None

    def create(
        self,
        name: str,
        used: Collection[ipaddress.IPv4Network],
        *,
        labels: Mapping[str, str],
        subnet: ipaddress.IPv4Network | None = None,
        internal: bool = False,
        mtu: int | None = None,
    ) -> Defined:
        """Make a network; its bridge comes with the first container.

        Args:
            name: as users know it; :data:`DEFAULT` is made when it is first needed.
            used: the subnets that this host uses.
            labels: kept with it.
            subnet: ``None`` for a free one.
            internal: without a way out.
            mtu: of its interfaces; ``None`` for the plugins' own choice.

        Raises:
            ConflictError: the name or the subnet is taken.
            ResourceExhaustedError: no subnet is free.
        """
        found = self.find(name)
        # A system's network of the default one's name is another one, and not asked for by mode "bridge".
        if found is not None and (found.bridge or name != DEFAULT):
            message = f"there is a network {name!r} already"
            raise ConflictError(message, resource=name)
        known = [
            *self.all(),
            *(Defined(id=c.name, name=c.name, conflist=c) for d in self._system for c in conflists_in(d)),
        ]
        taken = {
            **{str(other): other for other in used},
            **{
                f"{other} of network {defined.name!r}": other
                for defined in known
                for other in defined.conflist.subnets
                if isinstance(other, ipaddress.IPv4Network)
            },
        }
        if subnet is None:
            subnet = free_subnet(taken.values())
        for text, other in taken.items():
            if subnet.overlaps(other):
                message = f"subnet {subnet} overlaps {text}, which this host uses; name another"
                raise ConflictError(message, resource=name)
        # At random, because several state directories share a host's interfaces and packet filter.
        token = secrets.token_hex(5)
        conflist = bridge_conflist(
            f"actr-{token}",
            bridge=f"actr-{token}",
            subnet=subnet,
            leases=self._leases,
            internal=internal,
            mtu=mtu,
        )
        ours: dict[str, Any] = {"name": name, "labels": dict(labels), "bridge": f"actr-{token}"}
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._root / f"{token}{_SUFFIX}"
        write_atomic(path, json.dumps({**conflist.document, _OURS: ours}, indent=2).encode())
        return _read(path)

    def discard(self, name: str, users: Iterable[str]) -> None:
        """Take a network away from whoever would join it; :meth:`finish` removes what it has on the host.

        Raises:
            ConflictError: ``users``, container ids, are on it, or it is not ours to remove.
            NotFoundError: there is none.
        """
        defined = self.find(name)
        if defined is None:
            message = f"there is no network {name!r}"
            raise NotFoundError(message, resource=name)
        if not defined.bridge:
            message = f"network {name!r} is the system's: its file is in {' or '.join(map(str, self._system))}"
            raise ConflictError(message, resource=name)
        if first := next(iter(users), ""):
            message = f"network {name!r} is in use, by container {first}; remove its containers first"
            raise ConflictError(message, resource=name)
        (self._root / f"{defined.id}{_SUFFIX}").rename(self._root / f"{defined.id}{_REMOVED}")

    async def finish(self, runner: Runner) -> None:
        """Remove the interfaces, rules and leases of networks that were discarded, by this process or one that was killed.

        Raises:
            BackendUnavailableError: an interface could not be removed.
        """
        for path in self._root.glob(f"*{_REMOVED}"):
            try:
                defined = _read(path)
            except FileNotFoundError:
                continue
            finished = await runner.run("ip", "link", "delete", defined.bridge)
            # It comes with the first container, so there may be none.
            if finished.returncode and b"Cannot find device" not in finished.stderr:
                message = f"the bridge {defined.bridge} of network {defined.name!r} cannot be removed: {finished.words}"
                raise BackendUnavailableError(message, resource=defined.name)
            if defined.conflist.reaches_out:
                await sweep(runner, defined.conflist.name)
            shutil.rmtree(self._leases / defined.conflist.name, ignore_errors=True)
            path.unlink(missing_ok=True)


def check_new_name(name: str) -> None:
    """Refuse names that mean something else.

    Raises:
        ConflictError: it is one of them.
    """
    if name in _RESERVED:
        message = f"{name!r} is the name of a network that is always there"
        raise ConflictError(message, resource=name)


def parse_subnet(text: str | None) -> ipaddress.IPv4Network | None:
    """A subnet as it was asked for.

    Raises:
        InvalidConfigError: it is none, or has no room for a gateway and a container.
        UnsupportedError: it is one of IPv6.
    """
    if text is None:
        return None
    try:
        subnet = ipaddress.ip_network(text)
    except ValueError as error:
        message = f"subnet: must be a network such as '10.9.8.0/24', not {text!r}"
        raise InvalidConfigError(message, field="subnet") from error
    if not isinstance(subnet, ipaddress.IPv4Network):
        message = "subnet: networks made here have IPv4 alone; put a configuration list in /etc/cni/net.d for IPv6"
        raise UnsupportedError(message, field="subnet")
    if not 2 <= subnet.prefixlen <= 30:
        message = f"subnet: {subnet} must have a prefix of 2 to 30 bits"
        raise InvalidConfigError(message, field="subnet")
    return subnet


def _read(path: Path) -> Defined:
    document = json.loads(path.read_bytes())
    ours = document.pop(_OURS)
    return Defined(
        id=path.stem,
        name=ours["name"],
        labels=FrozenMap(ours["labels"]),
        bridge=ours["bridge"],
        conflist=Conflist(document),
    )
