"""What the records and the process of a machine say of it, as ``ContainerInfo``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from asyncctr.backends.nanos.addresses import FIRST_LEASE
from asyncctr.backends.nanos.published import published_ports
from asyncctr.backends.nanos.qmp import BACKEND
from asyncctr.core.errors import AsyncctrError, ContainerNotFoundError
from asyncctr.core.network import NetworkMode
from asyncctr.core.status import ContainerId, ContainerInfo, ContainerStatus
from asyncctr.transport.waits import ExitLostError
from asyncctr.vm.process import VmProcess

if TYPE_CHECKING:
    from asyncctr.backends.nanos.facts import Facts
    from asyncctr.backends.nanos.site import Site
    from asyncctr.core.status import ExitStatus
    from asyncctr.transport.records import Record

__all__ = ["container_info", "machine_state"]


async def machine_state(site: Site, record: Record) -> tuple[ContainerStatus, int | None, ExitStatus | None]:
    """What a machine does, its process id while it has one, and how it ended, where anybody knows.

    Raises:
        ContainerNotFoundError: it was removed meanwhile.
    """
    known = record.read()
    if known.exit is not None:
        return ContainerStatus.EXITED, None, known.exit
    process = VmProcess.adopt(record.directory, backend=BACKEND)
    try:
        if process is not None and process.running:
            # Of one that is being started nobody has said yet that it was.
            if known.started_at is None:
                return ContainerStatus.CREATED, None, None
            return await _running_state(site, record), process.pid, None
        if known.started_at is None:
            if not record.exists:
                # Of one that was removed nothing is written down, either.
                message = f"container {record.container_id[:12]} was removed"
                raise ContainerNotFoundError(message, backend=BACKEND, resource=record.container_id)
            return ContainerStatus.CREATED, None, None
        try:
            ended = None if process is None else await process.ended()
            return ContainerStatus.EXITED, None, await site.exits.settle(record, ended)
        except ExitLostError:
            return ContainerStatus.EXITED, None, None
    finally:
        if process is not None:
            process.close()


async def _running_state(site: Site, record: Record) -> ContainerStatus:
    try:
        async with site.monitor(record.container_id) as monitor:
            return ContainerStatus.PAUSED if await monitor.status() == "paused" else ContainerStatus.RUNNING
    except AsyncctrError:
        # It ends at this moment, or is busy with somebody else: its process is there.
        return ContainerStatus.RUNNING


def _addresses(facts: Facts) -> tuple[str, ...]:
    """Not by the kernel's lines in the console: its program can print such lines, too, and the oldest of them go first."""
    addresses = facts.addresses
    return (addresses.ipv4 or FIRST_LEASE, *([addresses.ipv6] if addresses.ipv6 else []))


async def container_info(site: Site, record: Record, facts: Facts) -> ContainerInfo:
    """The information on one machine."""
    status, pid, ended = await machine_state(site, record)
    running = status in (ContainerStatus.RUNNING, ContainerStatus.PAUSED)
    networked = running and facts.network.mode is not NetworkMode.NONE
    return ContainerInfo(
        id=ContainerId(record.container_id),
        name=facts.name,
        status=status,
        exit_code=None if ended is None else ended.code,
        created_at=datetime.fromisoformat(facts.created_at),
        started_at=record.read().started_at,
        finished_at=None if ended is None else ended.finished_at,
        oom_killed=None,
        image=facts.image,
        resources=facts.resources,
        ports=published_ports(record) if networked else (),
        ip_addresses=_addresses(facts) if networked else (),
        labels=facts.labels,
        pid=pid,
    )
