"""``NanosBackend``: the life of unikernels, each in a QEMU of its own."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Self, TypeVar

from asyncctr.backends.nanos import creating, removing, starting
from asyncctr.backends.nanos.facts import Facts
from asyncctr.backends.nanos.image import NanosImage
from asyncctr.backends.nanos.inspect import container_info, machine_state
from asyncctr.backends.nanos.logs import GATHER, ConsoleStream
from asyncctr.backends.nanos.qmp import BACKEND
from asyncctr.backends.nanos.volumes import users_of
from asyncctr.core.errors import (
    BackendUnavailableError,
    ConnectionLostError,
    ContainerNotFoundError,
    InvalidStateError,
    OperationTimeoutError,
    UnsupportedError,
)
from asyncctr.core.logs import check_log_query
from asyncctr.core.status import ContainerId, ContainerStatus, Health
from asyncctr.core.validation import check_container_id, check_grace, fail, signal_name
from asyncctr.transport.cleanup import Janitor
from asyncctr.transport.launched import LoggedRun, make_whole
from asyncctr.transport.logfile import LogFiles, follow_files
from asyncctr.transport.removals import Removals
from asyncctr.transport.waits import ExitLostError
from asyncctr.vm.process import VmProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from asyncctr.backends.nanos.site import Site
    from asyncctr.core.backend import OutputSink, Volume
    from asyncctr.core.capabilities import BackendCapabilities
    from asyncctr.core.config import ContainerConfig
    from asyncctr.core.logs import LogStream
    from asyncctr.core.status import ContainerInfo, ExitStatus
    from asyncctr.transport.records import Record

__all__ = ["NanosBackend"]

T = TypeVar("T")

_STARTS_AT_ONCE = 8
_SIGNALS = ("SIGKILL", "SIGTERM")


class NanosBackend:
    """Unikernels in one directory."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._changes = asyncio.Semaphore(_STARTS_AT_ONCE)
        self._removals = Removals(self._remove, backend=BACKEND)

    @property
    def backend_type(self) -> str:
        """``"nanos"``."""
        return BACKEND

    @property
    def capabilities(self) -> BackendCapabilities:
        """What works here."""
        return self._site.capabilities

    def image(self, name: str) -> NanosImage:
        """The image of that name."""
        return NanosImage(self._site, name)

    # --- life ---

    async def create(self, config: ContainerConfig) -> ContainerId:
        """Make a machine; see :meth:`asyncctr.Backend.create`."""
        self._site.check_open()
        self.capabilities.refuse(config, backend=BACKEND)
        planned = await creating.plan(self._site, config)
        await self._whole(planned.container_id, creating.make(self._site, planned))
        return planned.container_id

    async def _whole(self, container_id: ContainerId, work: Coroutine[object, object, T]) -> T:
        async with self._changes:
            return await make_whole(
                work,
                lambda: self.remove(container_id, force=True),
                janitor=self._site.janitor,
                container_id=container_id,
            )

    async def start(self, container_id: ContainerId) -> None:
        """Start it; see :meth:`asyncctr.Backend.start`."""
        record, facts = self._find(container_id)
        async with self._changes:
            work = starting.start(self._site, record, facts)
            await self._site.janitor.unbroken(work, f"start {container_id[:12]}")

    @property
    def removes_behind(self) -> bool:
        """No: a directory is all that there is to remove of a machine that has ended."""
        return False

    async def launch(
        self,
        config: ContainerConfig,
        sink: OutputSink,
        *,
        input: bytes | None = None,  # noqa: A002
    ) -> LoggedRun:
        """Create and start; see :meth:`asyncctr.SupportsLaunch.launch`. A unikernel has no standard input."""
        self._site.check_open()
        if input is not None and not config.stdin:
            raise fail("input", "needs a configuration with stdin=True")
        self.capabilities.refuse(config, backend=BACKEND)
        planned = await creating.plan(self._site, config)
        return await self._whole(planned.container_id, self._launch(planned, sink))

    async def _launch(self, planned: creating.Plan, sink: OutputSink) -> LoggedRun:
        site, container_id = self._site, planned.container_id
        facts = await creating.make(site, planned)
        record = site.records.of(container_id)
        await starting.start(site, record, facts)
        status = asyncio.ensure_future(self._ended(container_id))
        try:
            console = await follow_files(
                record.log_files(tty=True),
                exited=lambda: _over(asyncio.shield(status)),
                gather=GATHER,
                backend=BACKEND,
                resource=container_id,
            )
        except BaseException:
            status.cancel()
            await asyncio.gather(status, return_exceptions=True)
            raise
        return LoggedRun(container_id, ConsoleStream(console), sink, status)

    async def stop(self, container_id: ContainerId, *, grace: float = 10.0) -> None:
        """Press the power button, which Nanos gives its program as SIGTERM, then kill it; see :meth:`asyncctr.Backend.stop`."""
        check_grace(grace)
        record, _ = self._find(container_id)
        process = VmProcess.adopt(record.directory, backend=BACKEND)
        if process is None or not process.running:
            return
        ended = asyncio.ensure_future(process.ended())
        try:
            began = asyncio.get_running_loop().time()
            await self._ask_to_end(container_id, grace)
            left = began + grace - asyncio.get_running_loop().time()
            done, _ = await asyncio.wait({ended}, timeout=max(0.0, left))
            if not done:
                process.kill()
                await asyncio.wait({ended}, timeout=self._site.config.op_timeout)
            if not ended.done():
                message = f"container {container_id[:12]} still runs {self._site.config.op_timeout:g} s after SIGKILL"
                raise InvalidStateError(message, backend=BACKEND, resource=container_id)
            await self._settled(record, container_id)
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
            process.close()

    async def _settled(self, record: Record, container_id: ContainerId) -> None:
        try:
            if record.read().started_at is not None:
                await self._site.exits.wait(container_id)
        except (ContainerNotFoundError, ExitLostError):
            # It is stopped either way.
            pass

    async def _power_down(self, container_id: ContainerId) -> None:
        try:
            async with self._site.monitor(container_id) as monitor:
                if await monitor.status() == "paused":
                    await monitor.execute("cont")
                await monitor.execute("system_powerdown")
        except (BackendUnavailableError, ConnectionLostError):
            # It ends by itself.
            pass

    async def _ask_to_end(self, container_id: ContainerId, grace: float) -> None:
        try:
            async with asyncio.timeout(grace):
                await self._power_down(container_id)
        except (TimeoutError, OperationTimeoutError):
            # It is killed then.
            pass

    async def kill(self, container_id: ContainerId, signal: str | int = "SIGKILL") -> None:
        """Send a signal; see :meth:`asyncctr.Backend.kill`. SIGKILL ends the machine, SIGTERM goes to the program, others do not get there."""
        name = signal_name("signal", signal)
        record, _ = self._find(container_id)
        if name not in _SIGNALS:
            message = f"signal: {name} cannot be sent into a unikernel; there are {' and '.join(_SIGNALS)}"
            raise UnsupportedError(message, field="signal", backend=BACKEND, resource=container_id)
        status, _, _ = await machine_state(self._site, record)
        if status not in (ContainerStatus.RUNNING, ContainerStatus.PAUSED):
            raise self._not_running(container_id)
        if name == "SIGTERM":
            await self._power_down(container_id)
            return
        process = VmProcess.adopt(record.directory, backend=BACKEND)
        try:
            if process is None or not process.kill():
                raise self._not_running(container_id)
        finally:
            if process is not None:
                process.close()

    def _not_running(self, container_id: ContainerId) -> InvalidStateError:
        return InvalidStateError(
            f"container {container_id[:12]} is not running", backend=BACKEND, resource=container_id
        )

    async def remove(self, container_id: ContainerId, *, force: bool = False) -> None:
        """Remove it and all that belongs to it; see :meth:`asyncctr.Backend.remove`."""
        check_container_id(container_id)
        await self._removals.remove(container_id, force=force)

    async def _remove(self, container_id: str, force: bool) -> None:
        self._site.check_open(container_id)
        await removing.remove(self._site, container_id, force=force)

    async def pause(self, container_id: ContainerId) -> None:
        """Stop its CPUs."""
        await self._change(container_id, ContainerStatus.RUNNING, "stop")

    async def unpause(self, container_id: ContainerId) -> None:
        """Let them go on."""
        await self._change(container_id, ContainerStatus.PAUSED, "cont")

    async def _change(self, container_id: ContainerId, wanted: ContainerStatus, command: str) -> None:
        record, _ = self._find(container_id)
        status, _, _ = await machine_state(self._site, record)
        if status is not wanted:
            message = f"container {container_id[:12]} is {status.value}, not {wanted.value}"
            raise InvalidStateError(message, backend=BACKEND, resource=container_id)
        async with self._site.monitor(container_id) as monitor:
            await monitor.execute(command)

    # --- what it did ---

    async def wait(self, container_id: ContainerId) -> ExitStatus:
        """How it ended; see :meth:`asyncctr.Backend.wait`."""
        self._find(container_id)
        return await self._ended(container_id)

    async def _ended(self, container_id: str) -> ExitStatus:
        """How it ended, unless the disk that its console goes to is full, on which it would block for ever."""
        return await self._site.space.guard(self._site.exits.wait(container_id))

    async def logs(
        self,
        container_id: ContainerId,
        *,
        follow: bool = True,
        stdout: bool = True,
        stderr: bool = True,
        since: datetime | None = None,
        tail: int | None = None,
        timestamps: bool = False,
    ) -> LogStream:
        """Its output from the first byte; see :meth:`asyncctr.Backend.logs`. Both streams are one here, standard output."""
        check_log_query(stdout=stdout, stderr=stderr, since=since, tail=tail)
        record, _ = self._find(container_id)
        for field, given in (("logs.since", since is not None), ("logs.timestamps", timestamps)):
            if given:
                message = f"{field}: a console has no times"
                raise UnsupportedError(message, field=field, backend=BACKEND, resource=container_id)
        files = record.log_files(tty=True)
        console = await follow_files(
            files,
            stdout=stdout,
            follow=follow,
            exited=lambda: _over(self._ended(container_id)),
            gather=GATHER,
            backend=BACKEND,
            resource=container_id,
        )
        return ConsoleStream(console, tail=tail, present=_size(files))

    async def inspect(self, container_id: ContainerId) -> ContainerInfo:
        """What is known of it now; see :meth:`asyncctr.Backend.inspect`."""
        record, facts = self._find(container_id)
        return await container_info(self._site, record, facts)

    async def list(self, *, labels: Mapping[str, str] | None = None, all: bool = False) -> Sequence[ContainerInfo]:  # noqa: A002
        """All machines of the directory; see :meth:`asyncctr.Backend.list`. Nobody else makes any there."""
        del all
        self._site.check_open()
        wanted = labels or {}
        found: list[ContainerInfo] = []
        for record in await asyncio.to_thread(self._site.records.all):
            facts = Facts.read(record)
            if facts is not None and wanted.items() <= facts.labels.items():
                try:
                    found.append(await container_info(self._site, record, facts))
                except ContainerNotFoundError:
                    # It was removed meanwhile.
                    continue
        return tuple(found)

    def _find(self, container_id: ContainerId) -> tuple[Record, Facts]:
        check_container_id(container_id)
        return self._site.find(container_id)

    # --- volumes ---

    async def create_volume(self, name: str, *, labels: Mapping[str, str] | None = None) -> Volume:
        """Make a volume; see :meth:`asyncctr.SupportsVolumes.create_volume`."""
        self._site.check_open()
        return await asyncio.to_thread(self._site.volumes.create, name, dict(labels or {}))

    async def list_volumes(self, *, labels: Mapping[str, str] | None = None) -> Sequence[Volume]:
        """The volumes that have all the labels."""
        self._site.check_open()
        return await asyncio.to_thread(self._site.volumes.list, dict(labels or {}))

    async def remove_volume(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and its data; see :meth:`asyncctr.SupportsVolumes.remove_volume`."""
        self._site.check_open()
        del force
        users = await asyncio.to_thread(users_of, self._site.records, name)
        await self._site.volumes.remove(name, used=[name] if users else [])

    # --- the backend itself ---

    async def health_check(self) -> Health:
        """See :meth:`asyncctr.Backend.health_check`: QEMU, the kernel and the directories have to be there."""
        site = self._site
        site.check_open()
        began = time.monotonic()
        await asyncio.to_thread(_check_files, site)
        return Health(
            runtime=site.runtime,
            latency=time.monotonic() - began,
            details={"kernel": site.kernel, "accelerator": site.accelerator},
        )

    async def aclose(self) -> None:
        """End what this process waits for, after clean-up that is under way. Machines go on."""
        held = await Janitor(2 * self._site.config.cleanup_timeout).finish(self._end(), "close the Nanos backend")
        if held is not None:
            raise held

    async def _end(self) -> None:
        site = self._site
        if not site.closed:
            await site.janitor.aclose()
            site.closed = True
            await site.exits.aclose()
            await site.keeper.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


async def _over(ending: Awaitable[ExitStatus]) -> None:
    try:
        await ending
    except ExitLostError:
        # Of that alone its output is no less whole.
        pass


def _size(files: LogFiles) -> int:
    try:
        return os.stat(files.stdout).st_size  # noqa: PTH116  # a string
    except FileNotFoundError:
        # It was removed meanwhile, which the reader of it says.
        return 0


def _check_files(site: Site) -> None:
    for path, mode, hint in (
        (site.qemu, os.X_OK, "install qemu-system-x86"),
        (site.kernel, os.R_OK, "name another with kernel_path"),
        (site.run, os.W_OK, "make it writable for this user"),
    ):
        if not os.access(path, mode):
            message = f"{path} is not there any more, or may not be used: {hint}"
            raise BackendUnavailableError(message, backend=BACKEND, resource=path)
