"""The networking of a backend that has none of its own: what attaches containers, and manages the networks they are on."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.core.errors import AsyncctrError, NotFoundError
from asyncctr.core.network import NetworkConfig, NetworkMode, PortMapping
from asyncctr.core.validation import check_text, check_token, fail, label_key, mapping, positive
from asyncctr.netns.attaching import Attaching
from asyncctr.netns.cni import Cni
from asyncctr.netns.defined import DEFAULT, Defined, DefinedNetworks, check_new_name, parse_subnet
from asyncctr.netns.files import in_thread
from asyncctr.netns.names import RESOLV_CONFS, hosts_file, name_servers, resolv_conf
from asyncctr.netns.ports import claim_ports, pick_forwarded
from asyncctr.netns.records import HOSTNAME, HOSTS, NETNS, RESOLV_CONF, Record
from asyncctr.netns.request import for_container, port_mappings
from asyncctr.netns.runner import HOST, Runner
from asyncctr.netns.subnets import used_subnets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncctr.core.backend import Network
    from asyncctr.netns.forwarding import Forwarder
    from asyncctr.netns.ports import ClaimedPorts
    from asyncctr.transport.ports import HeldPorts

__all__ = ["Address", "Attachment", "Networks", "Place"]

_CONTAINER_ID: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_SYSTEM: Final = Path("/etc/cni/net.d")
_PLUGINS: Final = ("bridge", "host-local", "portmap", "firewall")
_VERSION: Final = "1.0.0"
_NEEDS_ROOT: Final = "networks take root, or a rootless daemon"


@attrs.frozen
class Address:
    """An address of a container's interface.

    Attributes:
        interface: with its prefix length.
        gateway: the router; empty without one.
    """

    interface: str
    gateway: str = ""

    @property
    def ip(self) -> str:
        """The address alone."""
        return self.interface.partition("/")[0]


@attrs.frozen(kw_only=True)
class Place:
    """Where what belongs to a container's network is, on this host's file system.

    Attributes:
        netns: the path of its network namespace; ``None`` with modes ``host`` and ``none``, for which the runtime has its own.
        resolv_conf: to be bound to ``/etc/resolv.conf`` in the container.
        hosts: to be bound to ``/etc/hosts``; written in place as peers come and go.
        hostname: to be bound to ``/etc/hostname``.
    """

    netns: Path | None
    resolv_conf: Path
    hosts: Path
    hostname: Path


@attrs.frozen(kw_only=True)
class Attachment:
    """How a container is connected.

    Attributes:
        container_id: whose.
        network: the name of its network; empty with these modes.
        addresses: of its interface ``eth0``.
        ports: as published, with the ports that were picked.
        name_servers: as in its resolv.conf.
        place: its files.
    """

    container_id: str
    network: str
    addresses: tuple[Address, ...]
    ports: tuple[PortMapping, ...]
    name_servers: tuple[str, ...]
    place: Place

    @property
    def ip_addresses(self) -> tuple[str, ...]:
        """Its addresses, as ``inspect`` tells them."""
        return tuple(address.ip for address in self.addresses)


class Networks:
    """Attaches containers to networks by CNI plugins, and keeps what it takes to undo that.

    Any number of processes may use one state directory; what one of them left half made, another one's :meth:`detach` removes.

    Args:
        directory: of the state; made with mode 0700. Network namespaces are mounted in there, for the daemon to see.
        plugins: directories with CNI plugins, in front of the usual ones.
        runner: whose namespaces everything is made in.
        forwarder: publishes ports where the runner's network namespace is another than this host's; ``None``: portmap does.
        system: directories with configuration lists of networks that ``network_name`` may name beside those created here.
        cleanup_timeout: seconds that a failed or cancelled :meth:`attach` waits for being undone; it then goes on in the
            background, until :meth:`aclose`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        plugins: Sequence[str] = (),
        runner: Runner = HOST,
        forwarder: Forwarder | None = None,
        system: Sequence[Path] = (_SYSTEM,),
        cleanup_timeout: float = 10.0,
    ) -> None:
        leases = directory / "leases"
        self._runner = runner
        self._forwards = forwarder is not None
        self._cni = Cni(plugins, runner)
        self._defined = DefinedNetworks(directory / "networks", leases=leases, system=system)
        self._attaching = Attaching(
            directory,
            defined=self._defined,
            leases=leases,
            cni=self._cni,
            runner=runner,
            forwarder=forwarder,
            cleanup_timeout=cleanup_timeout,
        )
        self._records = self._attaching.records

    # -- containers

    def place(self, container_id: str, mode: NetworkMode) -> Place:
        """Where the files of a container will be once it is attached: known before, for whoever describes it to a runtime."""
        if not _CONTAINER_ID.fullmatch(container_id):
            raise fail("container_id", f"must match {_CONTAINER_ID.pattern}, but is {container_id!r}")
        directory = self._records.directory(container_id)
        own = mode in (NetworkMode.BRIDGE, NetworkMode.CUSTOM)
        return Place(
            netns=directory / NETNS if own else None,
            resolv_conf=directory / RESOLV_CONF,
            hosts=directory / HOSTS,
            hostname=directory / HOSTNAME,
        )

    async def attach(
        self,
        container_id: str,
        config: NetworkConfig,
        *,
        hostname: str,
        names: Sequence[str] = (),
        extra_hosts: Mapping[str, str] | None = None,
    ) -> Attachment:
        """Connect a container that has not been started. Failed or cancelled, it leaves nothing.

        Args:
            container_id: unique in the state directory.
            config: its ``backend_options`` are the caller's to refuse.
            hostname: the container's own.
            names: under which peers on a custom network find it, beside ``config.aliases``.
            extra_hosts: addresses by name, for its hosts file.

        Raises:
            BackendUnavailableError: a plugin or program is missing, or this user may not.
            ConflictError: a host port, the fixed address or the container's id is taken.
            InvalidConfigError: a value that this network does not have.
            NotFoundError: no such network.
            ResourceExhaustedError: the network has no address left.
            StartError: a plugin failed otherwise; ``console`` has what it printed.
            UnsupportedError: a field that this network cannot honour.
        """
        if not _CONTAINER_ID.fullmatch(container_id):
            raise fail("container_id", f"must match {_CONTAINER_ID.pattern}, but is {container_id!r}")
        host = self._host_resolv_conf()
        servers = config.dns or name_servers(host)
        record = Record(
            container_id=container_id,
            mode=config.mode,
            hostname=hostname,
            names=tuple(dict.fromkeys((*names, *config.aliases))),
            extra_hosts=dict(extra_hosts or {}),
            dns=servers,
        )
        hosts = ""
        resolver = resolv_conf(host, servers)
        if config.mode is NetworkMode.HOST:
            # The loopback there is this host's.
            hosts = self._runner.read("/etc/hosts")
            resolver = resolver if config.dns else host.encode()
        files = {RESOLV_CONF: resolver, HOSTNAME: f"{hostname}\n".encode(), HOSTS: hosts_file(record, host=hosts)}
        if config.mode in (NetworkMode.HOST, NetworkMode.NONE):
            return self._attachment(self._attaching.attach_alone(record, files))
        defined = await self._resolve(config)
        conflist, runtime = for_container(config, defined.conflist, record.names, forwarded=self._forwards)
        ports: tuple[PortMapping, ...]
        claimed: HeldPorts | ClaimedPorts
        if self._forwards:
            ports, claimed = pick_forwarded(config.port_mappings)
        else:
            ports, claimed = await claim_ports(config.port_mappings, self._runner)
        try:
            if ports and not self._forwards:
                runtime["portMappings"] = port_mappings(ports)
            record = attrs.evolve(
                record,
                network_id=defined.id,
                network_name=defined.name,
                conflist=conflist,
                runtime=runtime,
                ports=ports,
            )
            return self._attachment(await self._attaching.attach(record, files))
        finally:
            claimed.release()

    async def load(self, container_id: str) -> Attachment | None:
        """How a container is connected, by whichever process; ``None`` when it is not, or only half."""
        record = self._records.load(container_id) if _CONTAINER_ID.fullmatch(container_id) else None
        return self._attachment(record) if record is not None and record.attached else None

    async def list(self) -> Sequence[str]:
        """The ids of all containers of which something is kept, half attached ones included."""
        return await in_thread(self._records.ids)

    async def detach(self, container_id: str) -> None:
        """Undo an attachment, or what there is of one. Idempotent; waits for plugins that a killed process left running.

        Raises:
            AsyncctrError: a plugin failed. What is kept stays, so that it can be tried again.
        """
        if not _CONTAINER_ID.fullmatch(container_id):
            return
        await self._attaching.detach(container_id)

    async def aclose(self) -> None:
        """Wait for what is still being undone, for at most ``cleanup_timeout`` more. Attachments stay."""
        await self._attaching.aclose()

    # -- networks

    async def create_network(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        subnet: str | None = None,
        internal: bool = False,
        mtu: int | None = None,
    ) -> Network:
        """Make a bridge network with an IPv4 subnet; see :meth:`asyncctr.SupportsNetworks.create_network`.

        An ``internal`` one has no way out, no ports, and no address of this host.

        Raises:
            ConflictError: the name or the subnet is taken.
            InvalidConfigError: the subnet or the MTU is none.
            UnsupportedError: an IPv6 subnet.
        """
        check_token("name", name)
        check_new_name(name)
        kept = mapping("labels", labels, label_key, check_text)
        positive("mtu", mtu, minimum=68)
        wanted = parse_subnet(subnet)
        used = await used_subnets(self._runner)

        def create() -> Defined:
            with self._attaching.locked():
                return self._defined.create(name, used, labels=kept, subnet=wanted, internal=internal, mtu=mtu)

        return (await in_thread(create)).value

    async def list_networks(self, *, labels: Mapping[str, str] | None = None) -> Sequence[Network]:
        """The networks that were created here and have all the labels."""
        wanted = dict(labels or {}).items()
        found = await in_thread(lambda: [defined.value for defined in self._defined.all() if defined.name != DEFAULT])
        return tuple(network for network in found if wanted <= dict(network.labels).items())

    async def remove_network(self, name: str) -> None:
        """Remove a network with its bridge; see :meth:`asyncctr.SupportsNetworks.remove_network`.

        The default network may be removed as well, and is made again when it is needed.

        Raises:
            ConflictError: containers are on it, or it is the system's.
            NotFoundError: there is none.
        """
        check_token("name", name)

        def discard() -> None:
            with self._attaching.locked():
                defined = self._defined.find(name)
                wanted = defined.id if defined is not None else ""
                users = (record.container_id for record in self._records.all() if record.network_id == wanted)
                self._defined.discard(name, users)

        await in_thread(discard)
        await self._defined.finish(self._runner)

    def missing(self) -> Sequence[str]:
        """What is not installed for networking here, at a glance: nothing is run, which :meth:`probe` does."""
        problems: list[str] = []
        for kind in _PLUGINS:
            try:
                self._cni.find(kind)
            except AsyncctrError as error:
                problems.append(error.message)
        if not self._runner.enter and os.geteuid() != 0:
            problems.append(_NEEDS_ROOT)
        return tuple(problems)

    async def probe(self) -> Sequence[str]:
        """What is missing for networking here: a sentence each that says what to do. Empty when it works."""
        problems: list[str] = []
        for kind in _PLUGINS:
            try:
                versions = await self._cni.versions(kind)
            except AsyncctrError as error:
                problems.append(error.message)
            else:
                if _VERSION not in versions:
                    problems.append(
                        f"the CNI plugin {kind} is too old: it knows {', '.join(sorted(versions))}, not {_VERSION}"
                    )
        for argv in (
            ("ip", "-json", "link"),
            ("iptables", "-w", "10", "-t", "nat", "-S"),
            ("iptables-save", "-t", "nat"),
        ):
            try:
                await self._runner.check(*argv)
            except AsyncctrError as error:
                problems.append(error.message)
        if not self._runner.enter and os.geteuid() != 0:
            problems.append(_NEEDS_ROOT)
        return tuple(problems)

    # -- inside

    def _attachment(self, record: Record) -> Attachment:
        return Attachment(
            container_id=record.container_id,
            network=record.network_name,
            addresses=tuple(Address(interface, gateway) for interface, gateway in record.addresses),
            ports=record.ports,
            name_servers=record.dns,
            place=self.place(record.container_id, record.mode),
        )

    def _host_resolv_conf(self) -> str:
        first = self._runner.read(RESOLV_CONFS[0])
        if name_servers(first):
            return first
        others = (self._runner.read(path) for path in RESOLV_CONFS[1:])
        return next((text for text in others if name_servers(text)), first)

    async def _resolve(self, config: NetworkConfig) -> Defined:
        """The network that a configuration asks for; the default one is made when it is first needed."""
        if config.mode is NetworkMode.CUSTOM:
            found = await in_thread(lambda: self._defined.find(config.network_name))
            if found is None:
                message = f"there is no network {config.network_name!r}; create it first"
                raise NotFoundError(message, resource=config.network_name)
            return found
        found = await in_thread(self._default)
        if found is not None:
            return found
        used = await used_subnets(self._runner)

        def create() -> Defined:
            with self._attaching.locked():
                return self._default() or self._defined.create(DEFAULT, used, labels={})

        return await in_thread(create)

    def _default(self) -> Defined | None:
        return next((defined for defined in self._defined.all() if defined.name == DEFAULT), None)
