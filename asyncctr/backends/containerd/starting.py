"""Starting containers: the network, the task, and what is undone when one of them fails."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from asyncctr.backends.containerd.ending import delete_task, end_task
from asyncctr.backends.containerd.errors import BACKEND, raise_for_start
from asyncctr.backends.containerd.proto import tasks_pb2
from asyncctr.backends.containerd.proto.services import Tasks
from asyncctr.core.errors import (
    AsyncctrError,
    ConflictError,
    InvalidStateError,
    NotFoundError,
    StartError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.any_pb2 import Any

    from asyncctr.backends.containerd.facts import Facts
    from asyncctr.backends.containerd.proto import types_pb2
    from asyncctr.backends.containerd.site import Site
    from asyncctr.transport.records import Record

__all__ = ["start"]

logger = logging.getLogger(__name__)


async def start(
    site: Site,
    container_id: str,
    facts: Facts,
    mounts: Sequence[types_pb2.Mount],
    options: Any | None,
) -> None:
    """Start a container that was made.

    Args:
        site: where.
        container_id: which.
        facts: what it was made with.
        mounts: its root filesystem's.
        options: of its runtime.

    Raises:
        StartError: the process could not be started.
        ConflictError: a host port is taken.
        InvalidStateError: it was started before.
        ContainerNotFoundError: it was removed meanwhile.
    """
    record = site.records.of(container_id)
    with await record.lock(site.api.op_timeout):
        await _check_new(site, record, container_id)
        record.note_attempt()
        try:
            await _connect(site, container_id, facts)
            await _run(site, container_id, facts, mounts, options)
            # Before anything else can fail: who waits for the start is waiting for this.
            record.note_start()
        except BaseException as error:
            # A task that somebody else has made of it is not ours to end.
            await _undo(site, container_id, task=not isinstance(error, InvalidStateError))
            if isinstance(error, StartError):
                record.note_failure(error)
            elif isinstance(error, UnsupportedError):
                # Who waits for the start is told what became of it, which is the same each time.
                record.note_failure(StartError(error.message, status=error.status))
            raise
    site.keeper.register(record.log_files(tty=facts.tty), facts.log_limit)


async def _check_new(site: Site, record: Record, container_id: str) -> None:
    known = record.read()
    before = known.started_at is not None or known.exit is not None
    if not before and known.attempted:
        # Whoever began to start it was killed.
        try:
            await delete_task(site, container_id)
        except InvalidStateError:
            # But not before it ran.
            record.note_start()
            before = True
        else:
            await site.networks.detach(container_id)
    if before:
        message = f"container {container_id[:12]} was started before"
        raise InvalidStateError(message, backend=BACKEND, resource=container_id)


async def _connect(site: Site, container_id: str, facts: Facts) -> None:
    names = [name for name in (facts.name, container_id[:12]) if name]
    await site.networks.attach(
        container_id, facts.network, hostname=facts.hostname, names=names, extra_hosts=facts.extra_hosts
    )


async def _run(
    site: Site, container_id: str, facts: Facts, mounts: Sequence[types_pb2.Mount], options: Any | None
) -> None:
    record = site.records.of(container_id)
    files = record.log_files(tty=facts.tty)
    request = tasks_pb2.CreateTaskRequest(
        container_id=container_id,
        rootfs=mounts,
        stdin=record.stdin if facts.stdin else "",
        stdout=files.stdout,
        stderr=files.stderr,
        terminal=facts.tty,
    )
    if options is not None:
        request.options.CopyFrom(options)
    try:
        await site.api.call(Tasks.Create, request, resource=container_id, kind="task")
        await site.api.call(
            Tasks.Start, tasks_pb2.StartRequest(container_id=container_id), resource=container_id, kind="task"
        )
    except ConflictError as error:
        message = f"container {container_id[:12]} was started before"
        raise InvalidStateError(message, backend=BACKEND, resource=container_id, status=error.status) from error
    except AsyncctrError as error:
        if isinstance(error, NotFoundError):
            # Raises where it is the container that is not found: somebody else, such as ctr, has removed it.
            await site.container(container_id)
        raise_for_start(error)


async def _undo(site: Site, container_id: str, *, task: bool) -> None:
    """Take back what there is of a start that failed; whoever removes the container does the rest."""
    try:
        if task:
            await end_task(site, container_id)
        await site.networks.detach(container_id)
    except AsyncctrError as error:
        # Why it failed comes first. The record says that it was attempted, so that the next start takes it back.
        logger.warning("what is left of the start of container %s stays: %s", container_id[:12], error)
