"""Removing containers: the task, the network, the records, and at last what says that the container exists."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from asyncctr.backends.containerd.cgroups import remove_cgroups
from asyncctr.backends.containerd.ending import delete_task, end_task
from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.facts import Facts
from asyncctr.backends.containerd.layers import remove_snapshot
from asyncctr.backends.containerd.leases import sweep_leases
from asyncctr.backends.containerd.proto import containers_pb2, sandbox_pb2
from asyncctr.backends.containerd.proto.services import Containers, Store
from asyncctr.backends.containerd.site import SANDBOXES
from asyncctr.core.errors import AsyncctrError, ContainerNotFoundError, InvalidStateError, NotFoundError

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from asyncctr.backends.containerd.site import Site
    from asyncctr.transport.grpc import Method
    from asyncctr.transport.records import Record

__all__ = ["keep_log", "remove", "sweep"]

logger = logging.getLogger(__name__)


async def remove(site: Site, container_id: str, *, force: bool) -> None:
    """Remove a container, and all that belongs to it.

    Raises:
        ContainerNotFoundError: there is none.
        InvalidStateError: it is running, without ``force``.
    """
    gone = site.leaving[container_id] = asyncio.Event()
    try:
        await _remove(site, container_id, force=force)
    finally:
        gone.set()
        if site.leaving.get(container_id) is gone:
            del site.leaving[container_id]


async def _remove(site: Site, container_id: str, *, force: bool) -> None:
    record = site.records.of(container_id)
    container: containers_pb2.Container | None
    made = site.made.pop(container_id, None)
    if made is not None and record.exists:
        container, facts = made
    else:
        container = await _container(site, container_id)
        facts = Facts() if container is None else Facts.of(container)
    if container is None and not record.exists:
        message = f"there is no container {container_id[:12]}"
        raise ContainerNotFoundError(message, backend=BACKEND, resource=container_id)
    try:
        lock = await record.lock(site.api.op_timeout)
    except ContainerNotFoundError:
        # Somebody else made it, or just removed it.
        await _remove_all(site, container_id, container, facts, force=force)
        return
    with lock:
        await _remove_all(site, container_id, container, facts, force=force)


async def _remove_all(
    site: Site, container_id: str, container: containers_pb2.Container | None, facts: Facts, *, force: bool
) -> None:
    ended = await end_task(site, container_id) if force else await _delete_task(site, container_id)
    # Both to their ends, whatever becomes of the other.
    done = await asyncio.gather(
        site.networks.detach(container_id), _remove_container(site, container_id, container), return_exceptions=True
    )
    for failure in done:
        if failure is not None:
            raise failure
    await _remove_record(site, container_id, facts, cgroups=not ended)


async def _delete_task(site: Site, container_id: str) -> bool:
    try:
        return await delete_task(site, container_id)
    except InvalidStateError as error:
        message = f"container {container_id[:12]} is running: stop it, or remove it with force"
        raise InvalidStateError(message, backend=BACKEND, resource=container_id, status=error.status) from error


async def _remove_record(site: Site, container_id: str, facts: Facts, *, cgroups: bool) -> None:
    record = site.records.of(container_id)
    if facts.name:
        site.records.release(facts.name, container_id)
    site.keeper.unregister(record.log_files(tty=facts.tty))
    site.exits.forget(container_id)
    await asyncio.to_thread(_remove_files, record, cgroups=cgroups)


def _remove_files(record: Record, *, cgroups: bool) -> None:
    if cgroups:
        remove_cgroups(record.container_id)
    record.remove()


async def sweep(site: Site) -> None:
    """Remove what killed processes left of containers that are half made or half removed: what belongs to none, and to nobody."""
    for record in await asyncio.to_thread(site.records.abandoned):
        try:
            await _sweep_record(site, record)
        except ContainerNotFoundError:
            # Another sweep was faster.
            continue
        except AsyncctrError as error:
            logger.warning("what is left of container %s stays: %s", record.container_id[:12], error)
    for container_id in await site.networks.list():
        # The record goes last, so that nobody is at work on what has none.
        if not site.records.of(container_id).exists and await _container(site, container_id) is None:
            await site.networks.detach(container_id)
    await sweep_leases(site)
    await asyncio.to_thread(site.records.release_all)
    await site.volumes.sweep()


async def _sweep_record(site: Site, record: Record) -> None:
    with await record.lock(site.api.op_timeout):
        # Asked after its maker was seen to have ended: it makes no container any more.
        container = await _container(site, record.container_id)
        if container is None:
            await _remove_all(site, record.container_id, None, Facts(), force=True)
            logger.info("swept what was left of container %s", record.container_id[:12])
        else:
            # Who started it kept its log to the limit until now.
            keep_log(site, record, Facts.of(container))


def keep_log(site: Site, record: Record, facts: Facts) -> None:
    """Keep the log of a container to its limit, if it may still run."""
    known = record.read()
    if facts.log_limit and known.started_at is not None and known.exit is None:
        site.keeper.register(record.log_files(tty=facts.tty), facts.log_limit)


async def _container(site: Site, container_id: str) -> containers_pb2.Container | None:
    try:
        return await site.container(container_id)
    except ContainerNotFoundError:
        return None


async def _remove_container(site: Site, container_id: str, container: containers_pb2.Container | None) -> None:
    calls: list[tuple[Method[Any, Any], Message, str]] = [
        (Containers.Delete, containers_pb2.DeleteContainerRequest(id=container_id), "container")
    ]
    if site.version >= SANDBOXES:
        calls.insert(0, (Store.Delete, sandbox_pb2.StoreDeleteRequest(sandbox_id=container_id), "sandbox"))
    for method, request, kind in calls:
        try:
            await site.api.call(method, request, resource=container_id, kind=kind)
        except NotFoundError:
            # Somebody else did, or it was never made.
            pass
    if container is None:
        await remove_snapshot(site.api, site.snapshotter, container_id)
    elif container.snapshot_key:
        # Of one that somebody else made, it may be kept elsewhere.
        await remove_snapshot(site.api, container.snapshotter, container.snapshot_key)
