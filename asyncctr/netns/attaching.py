"""Attaching and detaching: every step is on disk before it is made, so that any process can undo what another one began."""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import os
from typing import TYPE_CHECKING, Any, Final

import attrs

from asyncctr.core.errors import AsyncctrError, BackendUnavailableError, NotFoundError
from asyncctr.netns.files import in_thread
from asyncctr.netns.names import update_peers
from asyncctr.netns.namespace import make_namespace, remove_namespace
from asyncctr.netns.records import NETNS, Record, Records
from asyncctr.netns.rules import sweep
from asyncctr.transport.cleanup import Janitor
from asyncctr.transport.filelock import FileLock, locked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from asyncctr.netns.cni import Call, Cni
    from asyncctr.netns.defined import DefinedNetworks
    from asyncctr.netns.forwarding import Forwarder
    from asyncctr.netns.runner import Runner

__all__ = ["Attaching"]

_AT_ONCE: Final = 8
"""ADDs, and as many DELs, of one process: each is several programs, and they wait for each other in the kernel."""

_BACKGROUND: Final = 6
"""How many times as long undoing may go on when nobody waits for it any more: of many, the last one's turn comes late."""


class Attaching:
    """Makes and undoes attachments in a state directory.

    Args:
        directory: the state directory.
        defined: the networks there are.
        leases: where host-local keeps the addresses that are in use.
        cni: runs the plugins.
        runner: whose namespaces everything is made in.
        forwarder: publishes ports, where portmap does not.
        cleanup_timeout: seconds that undoing a failed or cancelled attachment is waited for.

    Attributes:
        records: of what is attached.
    """

    def __init__(
        self,
        directory: Path,
        *,
        defined: DefinedNetworks,
        leases: Path,
        cni: Cni,
        runner: Runner,
        forwarder: Forwarder | None = None,
        cleanup_timeout: float,
    ) -> None:
        self.records = Records(directory / "containers")
        self._directory = directory
        self._defined = defined
        self._leases = leases
        self._cni = cni
        self._runner = runner
        self._forwarder = forwarder
        self._janitor = Janitor(cleanup_timeout, background=_BACKGROUND * cleanup_timeout)
        self._adding = asyncio.Semaphore(_AT_ONCE)
        self._deleting = asyncio.Semaphore(_AT_ONCE)
        # Networks whose bridge, and chains for ports, this process has seen made.
        self._warm: set[tuple[str, bool]] = set()

    def locked(self) -> AbstractContextManager[None]:
        """The state directory's lock, for what takes milliseconds, in a thread."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return locked(self._directory / "lock")

    def _register(self, record: Record, files: Mapping[str, bytes]) -> FileLock:
        """Keep a new record, if its network is still there."""
        with self.locked():
            if record.network_id:
                found = self._defined.find(record.network_name)
                if found is None or found.id != record.network_id:
                    message = f"network {record.network_name!r} was removed"
                    raise NotFoundError(message, resource=record.network_name)
            return self.records.create(record, files)

    def attach_alone(self, record: Record, files: Mapping[str, bytes]) -> Record:
        """Keep a new record without a network, with its files: some small files, which no network and no peer need know of."""
        record = attrs.evolve(record, attached=True)
        self.records.create_alone(record, files)
        return record

    async def attach(self, record: Record, files: Mapping[str, bytes]) -> Record:
        """Attach as a new record has it, with its files. Failed or cancelled, nothing is left; the record with the result."""
        locks: list[FileLock] = []
        try:
            await in_thread(lambda: locks.append(self._register(record, files)))
            if record.conflist is not None:
                netns = self.records.directory(record.container_id) / NETNS
                await make_namespace(netns, self._runner)
                record = await self._add(record, record.call(str(netns)), locks[0])
                if self._forwarder is not None and record.ports:
                    await self._forwarder.publish(record.ports, record.ips)
            record = attrs.evolve(record, attached=True)
            await in_thread(lambda: self._announce(record))
        except BaseException:  # a cancellation, too, must leave nothing behind
            if locks:
                undoing = self._undo(record.container_id, locks.pop())
                await self._janitor.finish(undoing, f"network of container {record.container_id}")
            raise
        finally:
            for lock in locks:
                lock.release()
        return record

    async def detach(self, container_id: str) -> None:
        """Undo an attachment, or what there is of one; see :meth:`asyncctr.netns.networks.Networks.detach`."""
        try:
            lock = await FileLock.take(self.records.directory(container_id))
        except FileNotFoundError:
            return
        with lock:
            if not lock.is_orphan:
                await self._detach(container_id, lock)

    async def aclose(self) -> None:
        """Wait for what is still being undone, until its deadline."""
        await self._janitor.aclose()

    async def _undo(self, container_id: str, lock: FileLock) -> None:
        with lock:
            await self._detach(container_id, lock)

    async def _add(self, record: Record, call: Call, lock: FileLock) -> Record:
        async def keep(result: Mapping[str, Any]) -> None:
            nonlocal record
            record = attrs.evolve(record, result=result)
            self.records.save(record)

        # Of several first ones at a time, each would make the same rules; afterwards they are there.
        key = (record.network_id, bool(record.ports))
        async with self._adding:
            with await FileLock.take(self._plugins_lock, shared=key in self._warm):
                self._cni.require(call.network)
                record = attrs.evolve(record, begun=True)
                self.records.save(record)
                await self._cni.add(call, on_result=keep, pass_fds=[lock.fileno()])
        self._warm.add(key)
        return record

    @property
    def _plugins_lock(self) -> Path:
        path = self._directory / "plugins.lock"
        path.touch(mode=0o600)
        return path

    def _announce(self, record: Record) -> None:
        """Keep that a container came or goes, and tell its peers."""
        with self.locked():
            self.records.save(record)
            update_peers(self.records, record)

    async def _detach(self, container_id: str, lock: FileLock) -> None:
        record = self.records.load(container_id)
        if record is not None and record.conflist is not None:
            leases = self._leases / record.conflist.name
            if record.attached:
                record = attrs.evolve(record, attached=False)
                await in_thread(lambda: self._announce(record))
            if self._forwarder is not None and record.ports:
                await self._forwarder.withdraw(record.ips)
            netns = self.records.directory(container_id) / NETNS
            if record.begun:
                async with self._deleting:
                    await self._delete(record.call(str(netns)), record.result, lock)
                await in_thread(lambda: _drop_empty(leases))
            await remove_namespace(netns, self._runner)
        if record is not None and record.conflist is None:
            # As quickly done as it was made.
            self.records.remove(container_id)
        else:
            await in_thread(lambda: self.records.remove(container_id))

    async def _delete(self, call: Call, result: Mapping[str, Any], lock: FileLock) -> None:
        try:
            await self._cni.delete(call, result, pass_fds=[lock.fileno()])
        except BackendUnavailableError:
            raise
        except AsyncctrError:
            # Such as that the namespace went with the machine's last boot. Then plugins undo what they can without it.
            await self._cni.delete(attrs.evolve(call, netns=""), result, pass_fds=[lock.fileno()])
            await sweep(self._runner, call.network.name, call.container_id)


def _drop_empty(leases: Path) -> None:
    """Remove what a host-local that was killed left of a lease: it writes into the file after it has made it."""
    try:
        descriptor = os.open(leases / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for path in leases.iterdir():
            try:
                ipaddress.ip_address(path.name)
            except ValueError:
                continue
            if path.stat().st_size == 0:
                path.unlink()
    finally:
        os.close(descriptor)
