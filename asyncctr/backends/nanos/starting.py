"""Starting machines: QEMU until it answers, the ports, and what is undone when one of them fails."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from asyncctr.backends.nanos.exits import CONSOLE, DISK
from asyncctr.backends.nanos.forwards import add_forwards, forward_conflict, forwards_of
from asyncctr.backends.nanos.machine import Drive, SharedDirectory, UserNetwork, VirtualMachine, qemu_arguments
from asyncctr.backends.nanos.published import note_ports
from asyncctr.backends.nanos.qmp import BACKEND, listening_socket
from asyncctr.backends.nanos.volumes import check_volumes, volume_conflict
from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    ConnectionLostError,
    InvalidStateError,
    StartError,
)
from asyncctr.core.network import NetworkMode
from asyncctr.vm.process import VmProcess, discard, output
from asyncctr.vm.process import start as start_process

if TYPE_CHECKING:
    from asyncctr.backends.nanos.facts import Facts
    from asyncctr.backends.nanos.site import Site
    from asyncctr.core.network import PortMapping
    from asyncctr.transport.records import Record

__all__ = ["start"]


async def start(site: Site, record: Record, facts: Facts) -> None:
    """Start a machine that was made.

    Raises:
        StartError: QEMU did not start, with what it said.
        ConflictError: a host port is taken, or another machine has a volume of its.
        InvalidStateError: it was started before, or a volume of its is not there any more.
        ContainerNotFoundError: it was removed meanwhile.
    """
    with await record.lock(site.config.op_timeout):
        await _check_new(record)
        try:
            await _run(site, record, facts)
        except BaseException as error:
            await _undo(site, record)
            if isinstance(error, StartError):
                record.note_failure(error)
            raise
    site.keeper.register(record.log_files(tty=True), facts.log_limit)


async def _check_new(record: Record) -> None:
    known = record.read()
    before = known.started_at is not None or known.exit is not None
    if not before and (process := VmProcess.adopt(record.directory, backend=BACKEND)) is not None:
        if known.attempted:
            # Whoever began to start it was killed; its guest may have run since.
            before = True
            process.close()
            record.note_start()
        else:
            # Its guest did not run.
            await discard(process)
    if before:
        message = f"container {record.container_id[:12]} was started before"
        raise InvalidStateError(message, backend=BACKEND, resource=record.container_id)


async def _run(site: Site, record: Record, facts: Facts) -> None:
    container_id = record.container_id
    if facts.attached:
        await asyncio.to_thread(check_volumes, site, facts, resource=container_id)
    fixed = [mapping for mapping in facts.network.port_mappings if mapping.host_port]
    picked = [mapping for mapping in facts.network.port_mappings if not mapping.host_port]
    path = site.socket(container_id)
    # Of a start whose process was killed.
    _unlink(path)
    with record.files:
        listener = listening_socket(path)
    try:
        process = await start_process(
            record.directory,
            [site.qemu, *qemu_arguments(_machine(site, record, facts, fixed, listener.fileno()))],
            pass_fds=(listener.fileno(),),
            backend=BACKEND,
            resource=container_id,
        )
    finally:
        listener.close()
    try:
        async with site.monitor(container_id) as monitor:
            # It greets, so that whatever it ends with from now on is its guest's doing; which has not begun yet.
            added = await add_forwards(monitor, picked, guest_address=facts.addresses.ipv4, resource=container_id)
            note_ports(record, [*fixed, *added])
            # Until now it may be tried again, whatever fails, and whoever is killed.
            record.note_attempt()
            await monitor.execute("cont")
            # Before anything else can fail: who waits for the start is waiting for this.
            record.note_start()
    except (BackendUnavailableError, ConnectionLostError) as error:
        if isinstance(error, BackendUnavailableError) and process.running:
            raise
        # Of one that has ended already there is no monitor.
        ended = await process.ended()
        raise await asyncio.to_thread(_start_error, site, record, facts, ended.code) from error
    finally:
        process.close()


def _machine(site: Site, record: Record, facts: Facts, fixed: list[PortMapping], monitor: int) -> VirtualMachine:
    network = None
    if facts.network.mode is not NetworkMode.NONE:
        network = UserNetwork(
            forwards=forwards_of(fixed),
            guest_address=facts.addresses.ipv4,
            prefix=facts.addresses.prefix,
            gateway=facts.addresses.gateway,
            guest_address6=facts.addresses.ipv6,
        )
    return VirtualMachine(
        kernel=facts.kernel,
        monitor=monitor,
        console=record.path(CONSOLE),
        machine="q35" if facts.machine == "q35" else "microvm",
        accelerator=site.accelerator,
        memory=facts.memory,
        cpus=facts.cpus,
        drives=(
            Drive(path=record.path(DISK), format="qcow2"),
            *(Drive(path=site.volumes.disk(volume.name), read_only=volume.read_only) for volume in facts.attached),
        ),
        directories=tuple(SharedDirectory(path=each.source) for each in facts.shared),
        network=network,
        paused=True,
    )


def _start_error(site: Site, record: Record, facts: Facts, code: int | None) -> AsyncctrError:
    said = output(record.directory)
    error = forward_conflict(said, resource=record.container_id)
    error = error or volume_conflict(site, said, facts, resource=record.container_id)
    if error is not None:
        return error
    how = "was killed" if code is None else f"ended with {code}"
    message = f"QEMU {how} before its machine began: {said or 'it said nothing'}"
    return StartError(message, console=said, backend=BACKEND, resource=record.container_id, status=code)


async def _undo(site: Site, record: Record) -> None:
    """Take back what there is of a start that failed; whoever removes the machine does the rest."""
    process = VmProcess.adopt(record.directory, backend=BACKEND)
    if process is not None:
        try:
            await process.end()
        finally:
            process.close()
    _unlink(site.socket(record.container_id))


def _unlink(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108  # a string
    except FileNotFoundError:
        # It did not get so far.
        pass
