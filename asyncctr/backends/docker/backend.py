"""``DockerBackend``: the life of containers on an engine."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import attrs

from asyncctr.backends.docker import probe
from asyncctr.backends.docker.api import NOT_MODIFIED, DockerApi, Pending
from asyncctr.backends.docker.create import container_body, signal_text
from asyncctr.backends.docker.endpoint import open_dialer
from asyncctr.backends.docker.errors import BACKEND, raise_for_create, raise_for_start
from asyncctr.backends.docker.exits import describe, open_exit_wait
from asyncctr.backends.docker.image import DockerImage
from asyncctr.backends.docker.inspect import container_info
from asyncctr.backends.docker.launch import DockerLaunched, DockerStdin, attach, launch
from asyncctr.backends.docker.logs import LogQuery, open_logs
from asyncctr.backends.docker.objects import DockerObjects
from asyncctr.backends.docker.podman import check_for_podman, check_platform
from asyncctr.backends.docker.removing import Removing
from asyncctr.backends.docker.waiting import Waits
from asyncctr.core.backend_config import BackendConfig, DockerConfig
from asyncctr.core.errors import (
    AsyncctrError,
    ConnectionLostError,
    ContainerNotFoundError,
    InvalidConfigError,
    InvalidStateError,
    OperationTimeoutError,
    StartError,
    UnsupportedError,
)
from asyncctr.core.logs import check_log_query
from asyncctr.core.status import ContainerId
from asyncctr.core.validation import check_grace, check_text, check_token, fail, label_key, mapping, signal_name
from asyncctr.transport.cleanup import Janitor, persist
from asyncctr.transport.dial import UnixDialer
from asyncctr.transport.ownership import MANAGED, TOKEN, ownership_labels
from asyncctr.transport.ports import HeldPorts, pick_ports
from asyncctr.transport.removals import Removals
from asyncctr.transport.tasks import all_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from asyncctr.core.backend import OutputSink
    from asyncctr.core.capabilities import BackendCapabilities
    from asyncctr.core.config import ContainerConfig
    from asyncctr.core.logs import LogStream
    from asyncctr.core.status import ContainerInfo, ExitStatus, Health
    from asyncctr.transport.dial import Dialer

__all__ = ["DockerBackend", "open_backend"]

logger = logging.getLogger(__name__)

_DISCARDED = "discarded"
_FULL_ID = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[a-zA-Z0-9_.-]+")
# Times the clean-up timeout that a clean-up may go on when nobody waits for it any more.
_BACKGROUND = 6
# Seconds between looks for the container of a create whose answer was lost.
_LOST_CREATE = (0.0, 0.1, 0.2, 0.5, 1.0)


async def open_backend(config: BackendConfig) -> DockerBackend:
    """Connect to the engine that the configuration names, or that the environment does, and learn what it can do.

    Raises:
        BackendUnavailableError: it cannot be reached; the message says what to do.
        UnsupportedError: it speaks no version of the API that this package does.
    """
    if not isinstance(config, DockerConfig):
        message = f"config: must be a DockerConfig, not {type(config).__name__}"
        raise InvalidConfigError(message, field="config")
    endpoint, dialer = await open_dialer(config)
    api = DockerApi(endpoint, dialer, op_timeout=config.op_timeout)
    try:
        facts = await probe.probe(api, wanted=config.api_version, builder=config.builder)
    except BaseException:
        await api.aclose()
        await dialer.aclose()
        raise
    return DockerBackend(config, api, dialer, facts)


class DockerBackend(DockerObjects):
    """Containers on a Docker engine, or on Podman through its Docker-compatible socket."""

    def __init__(self, config: DockerConfig, api: DockerApi, dialer: Dialer, facts: probe.Facts) -> None:
        super().__init__(api)
        self.config = config
        self._dialer = dialer
        self._facts = facts
        self._janitor = Janitor(config.cleanup_timeout, background=_BACKGROUND * config.cleanup_timeout)
        self._changes = asyncio.Semaphore(config.max_concurrency)
        self._removals = Removals(Removing(api, self._changes).remove, backend=BACKEND)
        self._held_ports: dict[ContainerId, HeldPorts] = {}
        capabilities = facts.capabilities
        self._waits = Waits(api, is_podman=facts.engine.is_podman, reports_oom=capabilities.reports_oom)

    @property
    def backend_type(self) -> str:
        """``"docker"``."""
        return BACKEND

    @property
    def capabilities(self) -> BackendCapabilities:
        """What works on this engine."""
        return self._facts.capabilities

    def image(self, name: str) -> DockerImage:
        """The image of that name."""
        return DockerImage(self._api, self._facts.engine, name)

    # --- life ---

    async def create(self, config: ContainerConfig) -> ContainerId:
        """Make a container; see :meth:`asyncctr.Backend.create`."""
        self.capabilities.refuse(config, backend=BACKEND)
        if not self._facts.engine.is_podman:
            return await self._make(config)
        check_for_podman(config)
        if config.platform:
            check_platform(await self.image(config.image).describe(), config.platform, config.image)
        if not isinstance(self._dialer, UnixDialer):
            # Its ports are another machine's.
            return await self._make(config)
        # Podman picks a port when it creates the container, and binds it only when it starts it.
        mappings, held = pick_ports(config.network.port_mappings)
        try:
            network = attrs.evolve(config.network, port_mappings=mappings)
            container_id = await self._make(attrs.evolve(config, network=network))
        except BaseException:
            held.release()
            raise
        self._held_ports[container_id] = held
        return container_id

    async def _make(self, config: ContainerConfig) -> ContainerId:
        labels = ownership_labels(config)
        body = container_body(config, labels, self._facts.engine)
        params = {"name": config.name} if config.name else {}
        if config.platform:
            params["platform"] = config.platform
        try:
            return await self._create(body, params, config.image, labels[TOKEN])
        except AsyncctrError as error:
            raise_for_create(error)

    async def _create(self, body: dict[str, Any], params: Mapping[str, str], image: str, token: str) -> ContainerId:
        async with self._changes:
            pending = await self._api.begin("POST", "/containers/create", params=params, body=body, resource=image)
            try:
                answer = await self._api.answer(pending)
            except asyncio.CancelledError:
                # The engine goes on creating, whoever listens: take its answer, and undo what it did.
                await self._janitor.finish(self._undo_create(pending, token), "undo a cancelled create")
                raise
            except (ConnectionLostError, OperationTimeoutError):
                held = await self._janitor.finish(self._undo_lost(token), "undo a create whose answer was lost")
                if held is not None:
                    raise held from None
                raise
        container_id = ContainerId(answer["Id"])
        # Podman answers with null where there is nothing to say.
        discarded = [warning for warning in answer.get("Warnings") or () if _DISCARDED in str(warning).lower()]
        if discarded:
            await self._janitor.finish(self._discard(container_id), f"remove {container_id[:12]}")
            field = probe.field_of_warning(discarded[0])
            message = f"{field}: {discarded[0]}"
            raise UnsupportedError(message, field=field, backend=BACKEND, resource=container_id)
        return container_id

    async def _undo_create(self, pending: Pending, token: str) -> None:
        try:
            answer = await self._api.answer(pending)
        except (ConnectionLostError, OperationTimeoutError):
            await self._undo_lost(token)
        except AsyncctrError:
            # Refused: there is none.
            return
        else:
            await self._discard(ContainerId(answer["Id"]))

    async def _undo_lost(self, token: str) -> None:
        """Remove the container of a create whose answer was lost; it may be made only after the connection broke."""

        async def undo() -> None:
            for pause in _LOST_CREATE:
                await asyncio.sleep(pause)
                if found := await self._ids({TOKEN: token}):
                    for container_id in found:
                        await self._discard(container_id)
                    return

        await persist(undo)

    async def _discard(self, container_id: ContainerId) -> None:
        try:
            await persist(lambda: self.remove(container_id, force=True))
        except ContainerNotFoundError:
            # Somebody else removed it.
            pass

    async def start(self, container_id: ContainerId) -> None:
        """Start it; see :meth:`asyncctr.Backend.start`."""
        self._check_id(container_id)
        document = await describe(self._api, container_id)
        info = container_info(document, reports_oom=False)
        if info.started_at is not None or info.status.value != "created":
            message = f"container {container_id[:12]} was started before; its state is {info.status.value}"
            raise InvalidStateError(message, backend=BACKEND, resource=container_id)
        await self._start(container_id)

    async def _start(self, container_id: ContainerId) -> None:
        try:
            async with self._changes:
                answer = await self._api.call(
                    "POST", f"/containers/{container_id}/start", kind="container", resource=container_id
                )
        except AsyncctrError as error:
            try:
                raise_for_start(error)
            except StartError as failure:
                self._waits.start_failed(container_id, failure)
                raise
        if answer is NOT_MODIFIED:
            message = f"container {container_id[:12]} was started before"
            raise InvalidStateError(message, backend=BACKEND, resource=container_id, status=304)
        self._release_ports(container_id)
        self._waits.started(container_id)

    def _release_ports(self, container_id: ContainerId) -> None:
        if held := self._held_ports.pop(container_id, None):
            held.release()

    async def stop(self, container_id: ContainerId, *, grace: float = 10.0) -> None:
        """Send the stop signal, then kill it; see :meth:`asyncctr.Backend.stop`."""
        check_grace(grace)
        self._check_id(container_id)
        document = await describe(self._api, container_id)
        if str(document["State"]["Status"]) not in ("running", "paused", "restarting", "stopping"):
            return
        exit_wait = await open_exit_wait(self._api, container_id, "not-running")
        try:
            name = signal_text((document.get("Config") or {}).get("StopSignal"))
            for signal, seconds in ((name, grace), ("SIGKILL", self.config.op_timeout)):
                try:
                    await self.kill(container_id, signal)
                except (InvalidStateError, ContainerNotFoundError):
                    # It ended by itself, or somebody removed it: stopped either way.
                    return
                try:
                    async with asyncio.timeout(seconds):
                        await exit_wait.code()
                except TimeoutError:
                    continue
                return
        finally:
            exit_wait.close()
        message = f"container {container_id[:12]} still runs {self.config.op_timeout:g} s after SIGKILL"
        raise InvalidStateError(message, backend=BACKEND, resource=container_id)

    async def kill(self, container_id: ContainerId, signal: str | int = "SIGKILL") -> None:
        """Send a signal; see :meth:`asyncctr.Backend.kill`."""
        self._check_id(container_id)
        await self._api.call(
            "POST",
            f"/containers/{container_id}/kill",
            params={"signal": signal_name("signal", signal)},
            kind="container",
            resource=container_id,
        )

    async def remove(self, container_id: ContainerId, *, force: bool = False) -> None:
        """Remove it and its anonymous volumes; see :meth:`asyncctr.Backend.remove`."""
        self._check_id(container_id)
        await self._removals.remove(container_id, force=force)
        self._release_ports(container_id)
        self._waits.forget(container_id)

    # --- what it did ---

    async def wait(self, container_id: ContainerId) -> ExitStatus:
        """How it ended; see :meth:`asyncctr.Backend.wait`."""
        self._check_id(container_id)
        return await self._waits.wait(container_id)

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
        self._check_id(container_id)
        check_log_query(stdout=stdout, stderr=stderr, since=since, tail=tail)
        document = await describe(self._api, container_id)
        query = LogQuery(
            follow=follow,
            stdout=stdout,
            stderr=stderr,
            since=since,
            tail=tail,
            timestamps=timestamps,
            tty=bool(document["Config"].get("Tty")),
            is_podman=self._facts.engine.is_podman,
            mends=self._drops_newlines(document),
        )
        return await open_logs(self._api, container_id, query, document)

    def _drops_newlines(self, document: dict[str, Any]) -> bool:
        """Whether the log has the fault that :class:`Mender` mends. An engine that is newer than it says is not harmed."""
        driver = (document.get("HostConfig") or {}).get("LogConfig") or {}
        return not self._facts.engine.is_podman and self._api.version == "1.41" and driver.get("Type") == "local"

    async def inspect(self, container_id: ContainerId) -> ContainerInfo:
        """What the engine says of it now; see :meth:`asyncctr.Backend.inspect`."""
        self._check_id(container_id)
        document = await describe(self._api, container_id)
        return container_info(document, reports_oom=self.capabilities.reports_oom)

    async def list(self, *, labels: Mapping[str, str] | None = None, all: bool = False) -> Sequence[ContainerInfo]:  # noqa: A002
        """Containers of this SDK, or everyone's; see :meth:`asyncctr.Backend.list`."""
        wanted = dict(mapping("labels", labels, label_key, check_text))
        if not all:
            wanted[MANAGED] = "1"

        async def info(container_id: ContainerId) -> ContainerInfo | None:
            try:
                return await self.inspect(container_id)
            except ContainerNotFoundError:
                return None

        described = await all_of([info(container_id) for container_id in await self._ids(wanted)])
        return tuple(found for found in described if found is not None)

    async def _ids(self, labels: Mapping[str, str]) -> Sequence[ContainerId]:
        filters = json.dumps({"label": [f"{key}={value}" for key, value in labels.items()]})
        answer = await self._api.call("GET", "/containers/json", params={"all": True, "filters": filters})
        return tuple(ContainerId(entry["Id"]) for entry in answer)

    @property
    def removes_behind(self) -> bool:
        """No: engines are done soon, and busy with it as long as with anything else."""
        return False

    async def launch(self, config: ContainerConfig, sink: OutputSink, *, input: bytes | None = None) -> DockerLaunched:  # noqa: A002
        """Create, attach, wait and start; see :meth:`asyncctr.SupportsLaunch.launch`."""
        if input is not None and not config.stdin:
            raise fail("input", "needs a configuration with stdin=True")
        container_id = await self.create(config)
        try:
            streams = await launch(
                self._api,
                container_id,
                stdin=input is not None,
                apart=self._facts.engine.is_podman,
                start=lambda: self._start(container_id),
            )
        except BaseException as error:
            held = await self._janitor.finish(
                self._discard(container_id), f"remove {container_id[:12]} after a failed launch"
            )
            if held is not None and not isinstance(error, asyncio.CancelledError):
                raise held from error
            raise
        return DockerLaunched(
            container_id,
            streams,
            sink,
            tty=config.tty,
            input_data=input,
            status_of=self._waits.status,
        )

    async def stdin(self, container_id: ContainerId) -> DockerStdin:
        """The writer of its standard input; see :meth:`asyncctr.SupportsStdin.stdin`."""
        self._check_id(container_id)
        document = await describe(self._api, container_id)
        if not document["Config"].get("OpenStdin"):
            message = f"container {container_id[:12]} was made without stdin=True"
            raise InvalidStateError(message, backend=BACKEND, resource=container_id)
        return DockerStdin(await attach(self._api, container_id, stdin=True, output=False))

    async def pause(self, container_id: ContainerId) -> None:
        """Freeze all its processes."""
        await self._change(container_id, "pause")

    async def unpause(self, container_id: ContainerId) -> None:
        """Let them go on."""
        await self._change(container_id, "unpause")

    async def _change(self, container_id: ContainerId, verb: str) -> None:
        self._check_id(container_id)
        await self._api.call("POST", f"/containers/{container_id}/{verb}", kind="container", resource=container_id)

    async def health_check(self) -> Health:
        """See :meth:`asyncctr.Backend.health_check`: version, storage, networks and containers all have to answer."""
        began = time.monotonic()
        facts = await probe.check(self._api, builder=self.config.builder)
        return probe.health(facts, self._api.version, time.monotonic() - began)

    def _check_id(self, container_id: ContainerId) -> None:
        if isinstance(container_id, str) and _FULL_ID.fullmatch(container_id):
            return
        check_token("container_id", container_id)
        if not _PLAIN.fullmatch(container_id):
            raise fail("container_id", f"must be an id as create() gave it, not {container_id[:100]!r}")
        message = f"no container has the id {container_id!r} (a full id is needed, not a name or prefix)"
        raise ContainerNotFoundError(message, backend=BACKEND, resource=container_id)

    async def aclose(self) -> None:
        """Close every connection, after clean-up that is under way. Containers go on."""
        # Its own clean-up has deadlines of its own; this one bounds the closing of connections.
        held = await Janitor(2 * self.config.cleanup_timeout).finish(self._end(), "close the docker backend")
        if held is not None:
            raise held

    async def _end(self) -> None:
        try:
            await self._janitor.aclose()
        finally:
            for container_id in tuple(self._held_ports):
                self._release_ports(container_id)
            await self._api.aclose()
            await self._dialer.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
