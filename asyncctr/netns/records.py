"""What is kept on disk of each attached container: enough for any process to undo it, from before the first plugin runs."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from typing import TYPE_CHECKING, Any, Final

import attrs

from asyncctr.core.errors import ConflictError
from asyncctr.core.network import NetworkMode, PortMapping
from asyncctr.netns.cni import Call
from asyncctr.netns.conflist import Conflist
from asyncctr.netns.files import write_atomic
from asyncctr.transport.filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["HOSTNAME", "HOSTS", "NETNS", "RESOLV_CONF", "Record", "Records"]

NETNS: Final = "netns"
RESOLV_CONF: Final = "resolv.conf"
HOSTS: Final = "hosts"
HOSTNAME: Final = "hostname"
_RECORD: Final = "record.json"
_NEW: Final = ".new-"


def _texts(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class Record:
    """An attachment, from before it is made to after it is undone.

    Attributes:
        container_id: whose.
        mode: with ``host`` and ``none`` there are files alone.
        network_id: of the network in the state directory; the CNI name of one of the system's; empty without one.
        network_name: as the configuration has it.
        conflist: the configuration list of the ADD; ``None`` without a network.
        runtime: its values by capability.
        ports: as published, none of them 0.
        hostname: the container's.
        names: under which peers on the same network find it.
        extra_hosts: addresses by name, for its own hosts file.
        dns: the name servers in its resolv.conf.
        result: the last result of a plugin; empty before the first.
        begun: whether a plugin may have done something.
        attached: whether ADD is done, and DEL has not begun.
    """

    container_id: str
    mode: NetworkMode = attrs.field(converter=NetworkMode)
    network_id: str = ""
    network_name: str = ""
    conflist: Conflist | None = None
    runtime: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    ports: tuple[PortMapping, ...] = ()
    hostname: str = ""
    names: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    extra_hosts: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    dns: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    result: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    begun: bool = False
    attached: bool = False

    def encode(self) -> bytes:
        """As it is kept."""
        fields = attrs.asdict(self, recurse=False)
        fields["conflist"] = self.conflist.document if self.conflist is not None else None
        fields["ports"] = [attrs.asdict(port) for port in self.ports]
        return json.dumps(fields, default=dict).encode()

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """From what was kept.

        Raises:
            ValueError: it is none.
        """
        fields = json.loads(data)
        try:
            conflist = fields.pop("conflist")
            ports = tuple(PortMapping(**port) for port in fields.pop("ports"))
            return cls(**fields, ports=ports, conflist=Conflist(conflist) if conflist else None)
        except (AttributeError, KeyError, TypeError) as error:
            message = "no record of an attachment"
            raise ValueError(message) from error

    def call(self, netns: str) -> Call:
        """The ADD and DEL of one that has a network."""
        if self.conflist is None:
            message = f"container {self.container_id} has no network"
            raise ValueError(message)
        return Call(network=self.conflist, container_id=self.container_id, netns=netns, runtime=self.runtime)

    @property
    def addresses(self) -> tuple[tuple[str, str], ...]:
        """Address with prefix length, and gateway, of each of the interface's addresses (section "ADD Success")."""
        entries = list(self.result.get("ips") or ())
        # Before version 0.3.0.
        entries += [
            {"address": old.get("ip"), "gateway": old.get("gateway")}
            for old in (self.result.get("ip4"), self.result.get("ip6"))
            if old
        ]
        return tuple((str(entry["address"]), str(entry.get("gateway") or "")) for entry in entries)

    @property
    def ips(self) -> tuple[str, ...]:
        """The addresses alone."""
        return tuple(address.partition("/")[0] for address, _ in self.addresses)


class Records:
    """The records of a state directory, a directory for each container. All of it blocks, for milliseconds.

    A container's directory is locked by whoever attaches or detaches it, the plugins that do so included.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def directory(self, container_id: str) -> Path:
        """Where all of a container is."""
        return self._root / container_id

    def create(self, record: Record, files: Mapping[str, bytes]) -> FileLock:
        """Keep a new record, with further files; locked. The caller holds the state directory's lock.

        Raises:
            ConflictError: there is one of that container.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for stale in self._root.glob(f"{_NEW}*"):
            shutil.rmtree(stale)
        final = self.directory(record.container_id)
        if final.exists():
            raise _taken(record.container_id)
        new = self._root / f"{_NEW}{secrets.token_hex(8)}"
        new.mkdir(mode=0o700)
        for name, data in files.items():
            write_atomic(new / name, data, mode=0o644)
        write_atomic(new / _RECORD, record.encode())
        lock = FileLock.take_now(new)
        new.rename(final)
        return lock

    def create_alone(self, record: Record, files: Mapping[str, bytes]) -> None:
        """Keep a new record that has no network, with further files: in less time than a thread takes to begin.

        The record comes last, so that what a process that is killed leaves of it is taken for half of one.

        Raises:
            ConflictError: there is one of that container.
        """
        directory = self.directory(record.container_id)
        try:
            os.mkdir(directory, 0o700)  # noqa: PTH102  # strings, on the hot path
        except FileNotFoundError:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.create_alone(record, files)
            return
        except FileExistsError as error:
            raise _taken(record.container_id) from error
        try:
            with FileLock.take_now(directory):
                for name, data in files.items():
                    _write(f"{directory}/{name}", data, 0o644)
                _write(f"{directory}/{_RECORD}", record.encode(), 0o600)
        except BaseException:
            self.remove(record.container_id)
            raise

    def save(self, record: Record) -> None:
        """Keep the newer state of a record."""
        write_atomic(self.directory(record.container_id) / _RECORD, record.encode())

    def load(self, container_id: str) -> Record | None:
        """A container's record; ``None`` without one."""
        try:
            return Record.decode((self.directory(container_id) / _RECORD).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def ids(self) -> tuple[str, ...]:
        """The containers of which there is something."""
        return tuple(sorted(directory.name for directory in self._root.glob("[!.]*")))

    def all(self) -> Iterator[Record]:
        """Every record."""
        for container_id in self.ids():
            record = self.load(container_id)
            if record is not None:
                yield record

    def remove(self, container_id: str) -> None:
        """Forget a container, whose namespace is gone. Idempotent."""
        directory = self.directory(container_id)
        try:
            for name in (_RECORD, HOSTS, HOSTNAME, RESOLV_CONF):
                os.unlink(f"{directory}/{name}")  # noqa: PTH108  # strings, on the hot path
            os.rmdir(directory)  # noqa: PTH106
        except OSError:
            # There is less than that, or more.
            shutil.rmtree(directory, ignore_errors=True)


def _taken(container_id: str) -> ConflictError:
    message = f"container {container_id} is attached to a network already, or was left half detached: detach it first"
    return ConflictError(message, resource=container_id)


def _write(path: str, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        # Whatever the umask is.
        os.fchmod(descriptor, mode)
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
