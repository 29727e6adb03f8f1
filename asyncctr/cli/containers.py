"""``asyncctr ps`` and ``asyncctr reap``: which containers there are, and whose."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asyncctr.cli.connecting import connected
from asyncctr.cli.terminal import ago, note, one_line, print_line, print_table
from asyncctr.core.config import Lifetime
from asyncctr.core.errors import AsyncctrError, ContainerNotFoundError
from asyncctr.core.status import ContainerStatus
from asyncctr.transport.ownership import LIFETIME, OWNER, Owner

if TYPE_CHECKING:
    import argparse

    from asyncctr.cli.interrupts import Interrupts
    from asyncctr.cli.terminal import Segment
    from asyncctr.client import Client
    from asyncctr.core.network import PortMapping
    from asyncctr.core.status import ContainerInfo

__all__ = ["find", "ps", "reap"]

_SHORT = 12
_STYLES = {ContainerStatus.RUNNING: "green", ContainerStatus.PAUSED: "yellow", ContainerStatus.EXITED: "dim"}


async def ps(args: argparse.Namespace, interrupts: Interrupts) -> int:
    """List containers, the newest first."""
    async with connected(args, interrupts) as client:
        found = await interrupts.guard(client.list(all=args.all))
    ordered = sorted(found, key=_created, reverse=True)
    if args.json:
        print_line(json.dumps([_document(info) for info in ordered], indent=2))
        return 0
    headers = ("ID", "NAME", "IMAGE", "STATUS", "PORTS", "OWNER")
    print_table(headers, [_row(info) for info in ordered])
    return 0


async def reap(args: argparse.Namespace, interrupts: Interrupts) -> int:
    """Remove what dead owners left, and tell what that was."""
    async with connected(args, interrupts) as client:
        found = await interrupts.guard(
            client.reap(older_than=args.older_than, foreign=args.foreign, dry_run=args.dry_run)
        )
    verb = "would remove" if args.dry_run else "removed"
    for info in sorted(found, key=_created):
        print_line(
            verb, " ", (info.id[:_SHORT], "cyan"), f"  {one_line(info.name)}  {one_line(info.image)}  {_status(info)}"
        )
    number = f"{len(found)} container{'' if len(found) == 1 else 's'}"
    note(f"{verb} {number}" if found else "nothing to remove")
    return 0


async def find(client: Client, word: str) -> ContainerInfo:
    """The container with this id, name, or beginning of an id.

    Raises:
        ContainerNotFoundError: there is none.
        AsyncctrError: the beginning is that of several.
    """
    everyone = await client.list(all=True)
    for matches in (
        [info for info in everyone if word == info.id],
        [info for info in everyone if word == info.name],
        [info for info in everyone if word and info.id.startswith(word)],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            ids = ", ".join(info.id[:_SHORT] for info in matches)
            raise AsyncctrError(f"{word!r} is the beginning of {len(matches)} ids: {ids}", resource=word)
    raise ContainerNotFoundError(
        f"no container has the id or name {word!r}; `asyncctr ps --all` lists them", resource=word
    )


def _created(info: ContainerInfo) -> datetime:
    return info.created_at or info.started_at or datetime.min.replace(tzinfo=UTC)


def _status(info: ContainerInfo) -> str:
    since = info.finished_at if info.status is ContainerStatus.EXITED else info.started_at or info.created_at
    words = info.status.value
    if info.exit_code is not None:
        words += f" ({info.exit_code}{', out of memory' if info.oom_killed else ''})"
    if since is None:
        return words
    length = ago(max(0.0, (datetime.now(UTC) - since).total_seconds()))
    return f"{words} {length}" + ("" if info.status is ContainerStatus.RUNNING else " ago")


def _owner(info: ContainerInfo) -> Segment:
    lifetime = info.labels.get(LIFETIME)
    if lifetime is None:
        return "not asyncctr's", "dim"
    if lifetime == Lifetime.DETACHED:
        return "detached", ""
    owner = Owner.parse(info.labels.get(OWNER, ""))
    if owner is None:
        return "unknown", "yellow"
    if not owner.is_local:
        return "elsewhere", ""
    return ("gone: reap it", "yellow") if owner.is_gone else (f"pid {owner.pid}", "")


def _port(port: PortMapping) -> str:
    host = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    return f"{host}:{port.host_port}->{port.container_port}/{port.protocol}"


def _row(info: ContainerInfo) -> tuple[Segment, ...]:
    style = _STYLES.get(info.status, "")
    if info.status is ContainerStatus.EXITED and info.exit_code:
        style = "red"
    return (
        (info.id[:_SHORT], "cyan"),
        (info.name, ""),
        (info.image, ""),
        (_status(info), style),
        (", ".join(map(_port, info.ports)), ""),
        _owner(info),
    )


def _time(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _document(info: ContainerInfo) -> dict[str, Any]:
    limits = info.resources
    return {
        "id": info.id,
        "name": info.name,
        "image": info.image,
        "status": info.status.value,
        "exit_code": info.exit_code,
        "oom_killed": info.oom_killed,
        "created_at": _time(info.created_at),
        "started_at": _time(info.started_at),
        "finished_at": _time(info.finished_at),
        "pid": info.pid,
        "ip_addresses": list(info.ip_addresses),
        "ports": [
            {
                "host_ip": port.host_ip,
                "host_port": port.host_port,
                "container_port": port.container_port,
                "protocol": port.protocol,
            }
            for port in info.ports
        ],
        "resources": {"memory": limits.memory, "cpus": limits.cpus, "pids": limits.pids},
        "owner": _owner(info)[0],
        "labels": dict(info.labels),
    }
