"""What containerd and the records say of a container, as ``ContainerInfo``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncctr.backends.containerd.api import when
from asyncctr.backends.containerd.facts import Facts
from asyncctr.backends.containerd.proto import tasks_pb2
from asyncctr.core.status import ContainerId, ContainerInfo, ContainerStatus, ExitStatus

if TYPE_CHECKING:
    from asyncctr.backends.containerd.proto import containers_pb2
    from asyncctr.backends.containerd.site import Site

__all__ = ["container_info"]

_STATES = {
    tasks_pb2.CREATED: ContainerStatus.CREATED,
    tasks_pb2.RUNNING: ContainerStatus.RUNNING,
    tasks_pb2.PAUSED: ContainerStatus.PAUSED,
    tasks_pb2.PAUSING: ContainerStatus.PAUSED,
    tasks_pb2.STOPPED: ContainerStatus.EXITED,
}


async def container_info(
    site: Site, container: containers_pb2.Container, task: tasks_pb2.Process | None
) -> ContainerInfo:
    """The information on one container.

    Args:
        site: where.
        container: as containerd has it.
        task: its task; ``None`` without one.
    """
    facts = Facts.of(container)
    record = site.records.of(container.id)
    known = record.read()
    exit_: ExitStatus | None = known.exit
    if task is not None:
        status = _STATES.get(task.status, ContainerStatus.UNKNOWN)
        if status is ContainerStatus.EXITED and exit_ is None:
            exit_ = site.exits.note(container.id, record, task)
    elif exit_ is not None:
        status = ContainerStatus.EXITED
    else:
        # Started, and nobody saw it end: unless it is kept, its code is lost.
        status = ContainerStatus.CREATED if known.started_at is None else ContainerStatus.EXITED
        exit_ = None if known.started_at is None else site.exits.kept(container.id, record)
    running = status in (ContainerStatus.RUNNING, ContainerStatus.PAUSED)
    attachment = await site.networks.load(container.id)
    exited = exit_ if status is ContainerStatus.EXITED else None
    return ContainerInfo(
        id=ContainerId(container.id),
        name=facts.name,
        status=status,
        exit_code=None if exited is None else exited.code,
        created_at=when(container.created_at),
        started_at=known.started_at,
        finished_at=None if exited is None else exited.finished_at,
        oom_killed=None if exited is None else exited.oom_killed,
        image=container.image,
        resources=facts.resources,
        ports=attachment.ports if attachment is not None and running else (),
        ip_addresses=attachment.ip_addresses if attachment is not None and running else (),
        labels=facts.labels,
        pid=task.pid if task is not None and running else None,
    )
