"""The files that a container's names come from: resolv.conf(5), hosts(5) and hostname(5)."""

from __future__ import annotations

import functools
import ipaddress
import os
from typing import TYPE_CHECKING, Final

from asyncctr.core.network import NetworkMode
from asyncctr.netns.records import HOSTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from asyncctr.netns.records import Record, Records

__all__ = ["RESOLV_CONFS", "hosts_file", "name_servers", "resolv_conf", "rewrite", "update_peers"]

RESOLV_CONFS: Final = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
"""This host's, and the one with the servers behind systemd-resolved's own address on the loopback."""
_LOCAL: Final = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


@functools.lru_cache(maxsize=8)
def name_servers(text: str) -> tuple[str, ...]:
    """The servers in a resolv.conf that a container can reach: those on the host's loopback are none of its own."""
    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = ipaddress.ip_address(words[1])
        except ValueError:
            continue
        # A scope such as fe80::1%eth0 names an interface of the host.
        if not address.is_loopback and not address.is_link_local and words[1] not in found:
            found.append(words[1])
    return tuple(found)


def resolv_conf(host: str, servers: Iterable[str]) -> bytes:
    """A container's resolv.conf: these servers, with the search list and options of the host's."""
    kept = [line for line in host.splitlines() if line.split()[:1] in (["search"], ["domain"], ["options"])]
    return "".join(f"{line}\n" for line in (*kept, *(f"nameserver {server}" for server in servers))).encode()


def hosts_file(record: Record, peers: Sequence[Record] = (), *, host: str = "") -> bytes:
    """A container's hosts file: itself, its extra hosts, and the names of its peers.

    ``host`` is this host's own file, which one on the host's network sees instead of the usual beginning.
    """
    lines = [host if record.mode is NetworkMode.HOST and host else _LOCAL]
    # First: the first line that has a name is the one that counts.
    lines += [f"{address}\t{name}\n" for name, address in record.extra_hosts.items()]
    own = (record.hostname, *record.names) if record.hostname else record.names
    lines += _lines(record, own)
    if not record.addresses and record.mode is NetworkMode.NONE and own:
        lines.append(f"127.0.0.1\t{' '.join(dict.fromkeys(own))}\n")
    for peer in peers:
        if peer.container_id != record.container_id:
            lines += _lines(peer, peer.names)
    return "".join(lines).encode()


def _lines(record: Record, names: Iterable[str]) -> list[str]:
    text = " ".join(dict.fromkeys(names))
    return [f"{address.partition('/')[0]}\t{text}\n" for address, _ in record.addresses if text]


def rewrite(path: Path, data: bytes) -> None:
    """Give a file other contents in place: it is bound into a container by its inode."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.pread(descriptor, len(data) + 1, 0) == data:
            return
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def update_peers(records: Records, changed: Record) -> None:
    """Write the hosts files of a container that came or went, and of its peers. The caller holds the state directory's lock.

    Only on custom networks do containers know each other's names.
    """
    if changed.conflist is None:
        return
    peers: list[Record] = []
    if changed.mode is NetworkMode.CUSTOM:
        peers = [
            record
            for record in records.all()
            if record.attached and record.mode is NetworkMode.CUSTOM and record.network_id == changed.network_id
        ]
    for record in peers or ([changed] if changed.attached else []):
        try:
            rewrite(records.directory(record.container_id) / HOSTS, hosts_file(record, peers))
        except FileNotFoundError:
            # It is being detached at this moment.
            continue
