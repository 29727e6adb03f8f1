"""``ContainerdBackend``: the life of containers in containerd."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Self, TypeVar

from asyncctr.backends.containerd import creating, removing, starting
from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.facts import EXTENSION, Facts
from asyncctr.backends.containerd.image import ContainerdImage
from asyncctr.backends.containerd.inspect import container_info
from asyncctr.backends.containerd.probe import health
from asyncctr.backends.containerd.proto import containers_pb2, snapshots_pb2, tasks_pb2
from asyncctr.backends.containerd.proto.services import Snapshots, Tasks
from asyncctr.backends.containerd.stdin import ContainerdStdin
from asyncctr.backends.containerd.unpack import mountable
from asyncctr.core.errors import (
    ContainerNotFoundError,
    InvalidStateError,
    NotFoundError,
    ResourceExhaustedError,
    UnsupportedError,
)
from asyncctr.core.logs import check_log_query
from asyncctr.core.status import ContainerId, ContainerStatus
from asyncctr.core.validation import (
    FrozenMap,
    check_container_id,
    check_grace,
    fail,
    signal_name,
    signal_number,
)
from asyncctr.transport.cleanup import Janitor
from asyncctr.transport.launched import LoggedRun, make_whole
from asyncctr.transport.logfile import follow_files
from asyncctr.transport.ownership import MANAGED
from asyncctr.transport.removals import Removals
from asyncctr.transport.waits import ExitLostError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from asyncctr.backends.containerd.held import Held
    from asyncctr.backends.containerd.proto import types_pb2
    from asyncctr.backends.containerd.site import Site
    from asyncctr.core.backend import Network, OutputSink, Volume
    from asyncctr.core.backend_config import ContainerdConfig
    from asyncctr.core.capabilities import BackendCapabilities
    from asyncctr.core.config import ContainerConfig
    from asyncctr.core.logs import LogStream
    from asyncctr.core.status import ContainerInfo, ExitStatus, Health

__all__ = ["ContainerdBackend"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_REMOVES_AT_ONCE = 8


class ContainerdBackend:
    """Containers in one namespace of a containerd."""

    def __init__(self, config: ContainerdConfig, site: Site, lease: Held) -> None:
        self.config = config
        self._lease = lease
        self._site = site
        self._api = site.api
        self._janitor = site.janitor
        self._changes = asyncio.Semaphore(_REMOVES_AT_ONCE)
        self._removals = Removals(self._remove, backend=BACKEND)

    @property
    def backend_type(self) -> str:
        """``"containerd"``."""
        return BACKEND

    @property
    def capabilities(self) -> BackendCapabilities:
        """What works here."""
        return self._site.capabilities

    def image(self, name: str) -> ContainerdImage:
        """The image of that name."""
        return ContainerdImage(self._site, name)

    # --- life ---

    async def create(self, config: ContainerConfig) -> ContainerId:
        """Make a container; see :meth:`asyncctr.Backend.create`."""
        self.capabilities.refuse(config, backend=BACKEND)
        planned = await creating.plan(self._site, config)
        await creating.make_volumes(self._site, planned)
        await self._whole(planned.container_id, creating.make(self._site, planned))
        return planned.container_id

    async def _whole(self, container_id: ContainerId, work: Coroutine[object, object, T]) -> T:
        async with self._changes:
            return await make_whole(
                work,
                lambda: self.remove(container_id, force=True),
                janitor=self._janitor,
                container_id=container_id,
            )

    async def start(self, container_id: ContainerId) -> None:
        """Start it; see :meth:`asyncctr.Backend.start`."""
        container = await self._ours(container_id)
        facts = Facts.of(container)
        try:
            answer = await self._api.call(
                Snapshots.Mounts,
                snapshots_pb2.MountsRequest(snapshotter=container.snapshotter, key=container.snapshot_key),
                resource=container_id,
                kind="snapshot",
            )
        except NotFoundError as error:
            await self._container(container_id)
            message = f"container {container_id[:12]} has no root filesystem: whoever made it was killed. Remove it"
            raise InvalidStateError(message, backend=BACKEND, resource=container_id, status=error.status) from error
        options = container.runtime.options if container.runtime.HasField("options") else None
        mounts = mountable(answer.mounts, self._site.mount_with)
        work = starting.start(self._site, container_id, facts, mounts, options)
        await self._janitor.unbroken(work, f"start {container_id[:12]}")

    @property
    def removes_behind(self) -> bool:
        """Yes: runc and the network plugins take longer to clean up than most programs run."""
        return True

    async def launch(
        self,
        config: ContainerConfig,
        sink: OutputSink,
        *,
        input: bytes | None = None,  # noqa: A002
    ) -> LoggedRun:
        """Create and start; see :meth:`asyncctr.SupportsLaunch.launch`."""
        if input is not None and not config.stdin:
            raise fail("input", "needs a configuration with stdin=True")
        self.capabilities.refuse(config, backend=BACKEND)
        planned = await creating.plan(self._site, config)
        await creating.make_volumes(self._site, planned)
        return await self._whole(planned.container_id, self._launch(planned, sink, input))

    async def _launch(self, planned: creating.Plan, sink: OutputSink, data: bytes | None) -> LoggedRun:
        site, container_id = self._site, planned.container_id
        mounts: Sequence[types_pb2.Mount] = await creating.make(site, planned)
        status: asyncio.Future[ExitStatus] | None = None
        stream: LogStream | None = None
        stdin: ContainerdStdin | None = None
        try:
            files = planned.record.log_files(tty=planned.facts.tty)
            if data is not None:
                stdin = site.inputs.open(container_id)
            await starting.start(site, container_id, planned.facts, mounts, planned.runtime.options)
            # Not earlier: without a task there is nothing to wait for, and an exit stays until the task is deleted.
            status = asyncio.ensure_future(self._ended(container_id, fresh=True))
            stream = await follow_files(files, exited=lambda: _nothing(status), backend=BACKEND, resource=container_id)
        except BaseException:
            if status is not None:
                status.cancel()
                await asyncio.gather(status, return_exceptions=True)
            if stdin is not None:
                await stdin.aclose()
            raise
        feed = None if stdin is None or data is None else (stdin, data)
        return LoggedRun(container_id, stream, sink, status, feed)

    async def _ended(self, container_id: str, *, fresh: bool = False) -> ExitStatus:
        """How it ended, unless the disk that its output goes to is full, on which it would block for ever."""
        return await self._site.space.guard(self._site.exits.wait(container_id, fresh=fresh))

    async def _over(self, container_id: str) -> None:
        try:
            await self._ended(container_id)
        except ExitLostError:
            # Of that alone its output is no less whole.
            pass

    async def stop(self, container_id: ContainerId, *, grace: float = 10.0) -> None:
        """Send the stop signal, then kill it; see :meth:`asyncctr.Backend.stop`."""
        check_grace(grace)
        container = await self._container(container_id)
        task = await self._task(container_id)
        if task is None or task.status not in (tasks_pb2.RUNNING, tasks_pb2.PAUSED, tasks_pb2.PAUSING):
            return
        exited = asyncio.ensure_future(self._site.exits.wait(container_id))
        try:
            if task.status != tasks_pb2.RUNNING:
                # Frozen, it would take no signal.
                await self._resume(container_id)
            for number, seconds in ((Facts.of(container).stop_signal, grace), (9, self.config.op_timeout)):
                try:
                    await self._signal(container_id, number)
                except (InvalidStateError, ContainerNotFoundError):
                    # It ended by itself, or somebody removed it: stopped either way.
                    pass
                done, _ = await asyncio.wait({exited}, timeout=seconds)
                if done:
                    _settled(exited)
                    return
        finally:
            exited.cancel()
            await asyncio.gather(exited, return_exceptions=True)
        message = f"container {container_id[:12]} still runs {self.config.op_timeout:g} s after SIGKILL"
        raise InvalidStateError(message, backend=BACKEND, resource=container_id)

    async def kill(self, container_id: ContainerId, signal: str | int = "SIGKILL") -> None:
        """Send a signal; see :meth:`asyncctr.Backend.kill`."""
        number = signal_number(signal_name("signal", signal))
        await self._container(container_id)
        task = await self._task(container_id)
        if task is None or task.status == tasks_pb2.STOPPED:
            # A shim takes a signal for all processes even where there are none.
            message = f"container {container_id[:12]} is not running"
            raise InvalidStateError(message, backend=BACKEND, resource=container_id)
        await self._signal(container_id, number)

    async def _signal(self, container_id: str, number: int) -> None:
        request = tasks_pb2.KillRequest(
            container_id=container_id,
            signal=number,
            # A process in a pid namespace of its own takes all others with it; this is for those that have none.
            all=number == 9 and self._site.kills_all,
        )
        try:
            await self._api.call(Tasks.Kill, request, resource=container_id, kind="task")
        except (NotFoundError, InvalidStateError) as error:
            await self._container(container_id)
            message = f"container {container_id[:12]} is not running"
            raise InvalidStateError(message, backend=BACKEND, resource=container_id, status=error.status) from error

    async def remove(self, container_id: ContainerId, *, force: bool = False) -> None:
        """Remove it and all that belongs to it; see :meth:`asyncctr.Backend.remove`."""
        check_container_id(container_id)
        await self._removals.remove(container_id, force=force)

    async def _remove(self, container_id: str, force: bool) -> None:
        await removing.remove(self._site, container_id, force=force)

    # --- what it did ---

    async def wait(self, container_id: ContainerId) -> ExitStatus:
        """How it ended; see :meth:`asyncctr.Backend.wait`."""
        check_container_id(container_id)
        return await self._ended(container_id)

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
        """Its output from the first byte; see :meth:`asyncctr.Backend.logs`."""
        check_log_query(stdout=stdout, stderr=stderr, since=since, tail=tail)
        for field, given in (("logs.since", since is not None), ("logs.timestamps", timestamps)):
            if given:
                message = f"{field}: containerd's shims write plain output, without times"
                raise UnsupportedError(message, field=field, backend=BACKEND, resource=container_id)
        facts = Facts.of(await self._ours(container_id))
        record = self._site.records.of(container_id)
        removing.keep_log(self._site, record, facts)
        return await follow_files(
            record.log_files(tty=facts.tty),
            follow=follow,
            stdout=stdout,
            stderr=stderr,
            tail=tail,
            exited=lambda: self._over(container_id),
            backend=BACKEND,
            resource=container_id,
        )

    async def inspect(self, container_id: ContainerId) -> ContainerInfo:
        """What containerd says of it now; see :meth:`asyncctr.Backend.inspect`."""
        container, task = await asyncio.gather(self._container(container_id), self._task(container_id))
        return await container_info(self._site, container, task)

    async def list(self, *, labels: Mapping[str, str] | None = None, all: bool = False) -> Sequence[ContainerInfo]:  # noqa: A002
        """Containers of this SDK, or everyone's; see :meth:`asyncctr.Backend.list`."""
        wanted = dict(labels or {})
        if not all:
            wanted[MANAGED] = "1"
        containers, tasks = await asyncio.gather(
            self._site.containers(*([] if all else [f'labels."{MANAGED}"==1'])),
            self._api.call(Tasks.List, tasks_pb2.ListTasksRequest()),
        )
        by_id = {task.id: task for task in tasks.tasks}
        # What is just being removed here is as good as gone.
        return tuple(
            [
                await container_info(self._site, container, by_id.get(container.id))
                for container in containers
                if wanted.items() <= Facts.of(container).labels.items() and container.id not in self._site.leaving
            ]
        )

    async def _container(self, container_id: str) -> containers_pb2.Container:
        check_container_id(container_id)
        return await self._site.container(container_id)

    async def _ours(self, container_id: str) -> containers_pb2.Container:
        """A container of which the SDK keeps what it needs to start it and to read its output."""
        container = await self._container(container_id)
        if EXTENSION in container.extensions and self._site.records.of(container_id).exists:
            return container
        # It may just have been removed.
        await self._container(container_id)
        message = (
            f"container {container_id[:12]} was made by something else than this SDK, or with another ASYNCCTR_DATA_DIR: "
            "it can be neither started from here, nor its output read"
        )
        raise InvalidStateError(message, backend=BACKEND, resource=container_id)

    async def _task(self, container_id: str) -> tasks_pb2.Process | None:
        try:
            answer = await self._api.call(
                Tasks.Get, tasks_pb2.GetRequest(container_id=container_id), resource=container_id, kind="task"
            )
        except NotFoundError:
            return None
        return answer.process

    # --- interactive ---

    async def stdin(self, container_id: ContainerId) -> ContainerdStdin:
        """The writer of its standard input; see :meth:`asyncctr.SupportsStdin.stdin`."""
        facts = Facts.of(await self._container(container_id))
        if not facts.stdin:
            message = f"container {container_id[:12]} was made without stdin=True"
            raise InvalidStateError(message, backend=BACKEND, resource=container_id)
        return self._site.inputs.open(container_id)

    async def pause(self, container_id: ContainerId) -> None:
        """Freeze all its processes."""
        await self._change(container_id, ContainerStatus.RUNNING)
        await self._api.call(
            Tasks.Pause, tasks_pb2.PauseTaskRequest(container_id=container_id), resource=container_id, kind="task"
        )

    async def unpause(self, container_id: ContainerId) -> None:
        """Let them go on."""
        await self._change(container_id, ContainerStatus.PAUSED)
        await self._resume(container_id)

    async def _resume(self, container_id: str) -> None:
        await self._api.call(
            Tasks.Resume, tasks_pb2.ResumeTaskRequest(container_id=container_id), resource=container_id, kind="task"
        )

    async def _change(self, container_id: ContainerId, wanted: ContainerStatus) -> None:
        if not self.capabilities.supports_pause:
            message = "pause: freezing takes a control group, and none can be made here"
            raise UnsupportedError(message, field="pause", backend=BACKEND, resource=container_id)
        status = (await self.inspect(container_id)).status
        if status is not wanted:
            message = f"container {container_id[:12]} is {status.value}, not {wanted.value}"
            raise InvalidStateError(message, backend=BACKEND, resource=container_id)

    # --- volumes and networks ---

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
        await self._site.settle()
        used = {volume for container in await self._site.containers() for volume in Facts.of(container).volumes}
        await self._site.volumes.remove(name, used=used)

    async def create_network(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        subnet: str | None = None,
        internal: bool = False,
        mtu: int | None = None,
    ) -> Network:
        """Make a bridge network; see :meth:`asyncctr.SupportsNetworks.create_network`."""
        self._site.check_open()
        return await self._site.networks.create_network(
            name, labels=FrozenMap(labels or {}), subnet=subnet, internal=internal, mtu=mtu
        )

    async def list_networks(self, *, labels: Mapping[str, str] | None = None) -> Sequence[Network]:
        """The networks that have all the labels."""
        self._site.check_open()
        return await self._site.networks.list_networks(labels=labels)

    async def remove_network(self, name: str) -> None:
        """Remove a network; see :meth:`asyncctr.SupportsNetworks.remove_network`."""
        self._site.check_open()
        await self._site.settle()
        await self._site.networks.remove_network(name)

    # --- the backend itself ---

    async def health_check(self) -> Health:
        """See :meth:`asyncctr.Backend.health_check`: version, snapshotter and containers all have to answer."""
        self._site.check_open()
        began = time.monotonic()
        return await health(self._site, began)

    async def aclose(self) -> None:
        """Close the connection, after clean-up that is under way. Containers go on."""
        held = await Janitor(2 * self.config.cleanup_timeout).finish(self._end(), "close the containerd backend")
        if held is not None:
            raise held

    async def _end(self) -> None:
        try:
            await self._janitor.aclose()
        finally:
            await self._site.aclose()
            await self._lease.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


async def _nothing(awaitable: object) -> None:
    await awaitable  # type: ignore[misc]


def _settled(task: asyncio.Future[ExitStatus]) -> None:
    """Raise what a wait raised, unless it is that somebody removed the container meanwhile."""
    try:
        task.result()
    except (ContainerNotFoundError, ExitLostError, ResourceExhaustedError):
        pass
