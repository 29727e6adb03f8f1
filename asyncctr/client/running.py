"""Run to completion: output collected, time limited, and nothing left behind, whatever happens."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from asyncctr.core.backend import SupportsLaunch, SupportsStdin
from asyncctr.core.errors import (
    AsyncctrError,
    ContainerNotFoundError,
    ExitError,
    InvalidStateError,
    RunTimeoutError,
    UnsupportedError,
)
from asyncctr.core.logs import LogStream
from asyncctr.core.status import ExitStatus, RunResult
from asyncctr.transport.cleanup import persist

if TYPE_CHECKING:
    from asyncctr.core.backend import Backend, Launched, OutputSink
    from asyncctr.core.config import ContainerConfig
    from asyncctr.core.logs import StreamName
    from asyncctr.core.status import ContainerId
    from asyncctr.transport.cleanup import Janitor

__all__ = ["remove_at_last", "run_to_completion"]

logger = logging.getLogger(__name__)


class _Collector:
    """Keeps the first ``limit`` bytes of each stream and lets the rest go by."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: dict[StreamName, list[bytes]] = {"stdout": [], "stderr": []}
        self._room: dict[StreamName, int] = {"stdout": limit, "stderr": limit}
        self.truncated = False

    def __call__(self, stream: StreamName, data: bytes, /) -> None:
        room = self._room[stream]
        if len(data) > room:
            self.truncated = True
            data = data[:room]
        if data:
            self._room[stream] = room - len(data)
            self._parts[stream].append(data)

    def result(self, status: ExitStatus, duration: float) -> RunResult:
        return RunResult(
            exit_code=status.code,
            status=status,
            stdout=b"".join(self._parts["stdout"]),
            stderr=b"".join(self._parts["stderr"]),
            truncated=self.truncated,
            duration=duration,
        )


async def run_to_completion(
    backend: Backend,
    janitor: Janitor,
    config: ContainerConfig,
    *,
    timeout: float | None,  # noqa: ASYNC109  # counted from the start, not from the call
    check: bool,
    input_data: bytes | None,
    max_output: int,
) -> RunResult:
    """Run a container and remove it; see :meth:`asyncctr.Client.run`."""
    collector = _Collector(max_output)
    launched = await _launch(backend, janitor, config, collector, input_data)
    loop = asyncio.get_running_loop()
    began = loop.time()
    container_id = launched.id
    status: ExitStatus | None = None
    limit = asyncio.timeout(timeout)
    try:
        try:
            async with limit:
                status = await launched.wait()
        except TimeoutError:
            if not limit.expired():
                raise
        duration = loop.time() - began
    except BaseException as error:
        held = await janitor.finish(_discard(backend, launched), f"remove {container_id[:12]}")
        if held is not None and not isinstance(error, asyncio.CancelledError):
            raise held from error
        raise
    if status is None:
        held = await janitor.finish(
            _end(backend, launched, janitor.timeout / 2), f"kill and remove {container_id[:12]}"
        )
        if held is not None:
            raise held
        killed = ExitStatus(code=137, signal=9)
        message = f"container {container_id[:12]} ran longer than {timeout:g} s; it was killed and removed"
        result = collector.result(killed, duration)
        raise RunTimeoutError(message, result=result, backend=backend.backend_type, resource=container_id)
    if isinstance(backend, SupportsLaunch) and backend.removes_behind and not _holds_names(config):
        await janitor.behind(_leave(backend, launched), f"remove {container_id[:12]}")
    else:
        held = await janitor.finish(_discard(backend, launched), f"remove {container_id[:12]}")
        if held is not None:
            raise held
    result = collector.result(status, duration)
    if check and status.code != 0:
        # Where both streams are one, that is stdout.
        said = result.stderr if backend.capabilities.supports_separate_stderr else result.stdout
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        message = f"container {container_id[:12]} exited with code {status.code}" + (f": {last}" if last else "")
        raise ExitError(message, result=result, backend=backend.backend_type, resource=container_id)
    return result


def _holds_names(config: ContainerConfig) -> bool:
    """Whether the next run may need what this one has to itself until it is removed."""
    network = config.network
    return bool(config.name or network.ip_config or any(mapping.host_port for mapping in network.port_mappings))


async def _leave(backend: Backend, launched: Launched) -> None:
    # All was delivered, so the removal comes first: the backend knows of it at once.
    try:
        await remove_at_last(backend, launched.id)
    finally:
        await launched.aclose()


async def _discard(backend: Backend, launched: Launched) -> None:
    await launched.aclose()
    await remove_at_last(backend, launched.id)


async def _end(backend: Backend, launched: Launched, seconds: float) -> None:
    # What was printed until the kill belongs to the result, so the output is read to its end first.
    try:
        async with asyncio.timeout(seconds):
            try:
                await backend.kill(launched.id)
            except InvalidStateError:
                # It ended by itself meanwhile.
                pass
            await launched.wait()
    except (AsyncctrError, TimeoutError) as error:
        logger.warning("container %s was not killed: %s", launched.id[:12], error)
    await _discard(backend, launched)


async def remove_at_last(backend: Backend, container_id: ContainerId) -> None:
    """Remove a container in a clean-up: whatever its state, whoever else removes it, and when the runtime comes back."""
    try:
        await persist(lambda: backend.remove(container_id, force=True))
    except ContainerNotFoundError:
        # Somebody else removed it.
        pass


async def _launch(
    backend: Backend, janitor: Janitor, config: ContainerConfig, sink: OutputSink, input_data: bytes | None
) -> Launched:
    if isinstance(backend, SupportsLaunch):
        return await backend.launch(config, sink, input=input_data)
    return await _compose(backend, janitor, config, sink, input_data)


async def _compose(
    backend: Backend, janitor: Janitor, config: ContainerConfig, sink: OutputSink, input_data: bytes | None
) -> Launched:
    """``launch`` from the plain calls, for backends that have none of their own."""
    if input_data is not None and not isinstance(backend, SupportsStdin):
        message = "stdin: this backend cannot write to a container's standard input"
        raise UnsupportedError(message, field="stdin", backend=backend.backend_type)
    container_id = await backend.create(config)
    stream: LogStream | None = None
    try:
        stream = await backend.logs(container_id)
        await backend.start(container_id)
    except BaseException as error:
        if stream is not None:
            await stream.aclose()
        held = await janitor.finish(
            remove_at_last(backend, container_id), f"remove {container_id[:12]} after a failed start"
        )
        if held is not None and not isinstance(error, asyncio.CancelledError):
            raise held from error
        raise
    return _Composed(backend, container_id, stream, sink, input_data)


class _Composed:
    """A launched container made of logs, stdin and wait."""

    def __init__(
        self, backend: Backend, container_id: ContainerId, stream: LogStream, sink: OutputSink, input_data: bytes | None
    ) -> None:
        self._backend = backend
        self._id = container_id
        self._stream = stream
        self._tasks: list[asyncio.Task[Any]] = [asyncio.create_task(self._drain(sink))]
        if input_data is not None:
            self._tasks.append(asyncio.create_task(self._feed(input_data)))

    @property
    def id(self) -> ContainerId:
        return self._id

    async def _drain(self, sink: OutputSink) -> None:
        async with self._stream:
            async for entry in self._stream:
                sink(entry.stream, entry.data)

    async def _feed(self, data: bytes) -> None:
        assert isinstance(self._backend, SupportsStdin)  # noqa: S101  # _compose has checked it
        writer = await self._backend.stdin(self._id)
        try:
            await writer.write(data)
        finally:
            await writer.aclose()

    async def wait(self) -> ExitStatus:
        status = await self._backend.wait(self._id)
        await asyncio.shield(self._tasks[0])
        return status

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
