"""Run to completion in the fewest calls: output and exit are registered before the start, so that nothing is missed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import attrs

from asyncctr.backends.docker.errors import BACKEND
from asyncctr.backends.docker.exits import begin_exit_wait, exit_wait
from asyncctr.backends.docker.multiplex import ChunkDemuxer, pieces
from asyncctr.core.errors import ClosedError, ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncctr.backends.docker.api import DockerApi, Opening
    from asyncctr.backends.docker.exits import ExitWait
    from asyncctr.core.backend import OutputSink
    from asyncctr.core.status import ContainerId, ExitStatus
    from asyncctr.transport.http1 import HttpStream

__all__ = ["DockerLaunched", "Streams", "attach", "launch"]

# Seconds that a reader has to take what is left of its input when it is closed.
_EOF_GRACE = 5.0


async def begin_attach(api: DockerApi, container_id: str, *, stdin: bool, output: bool = True) -> Opening:
    """Ask to be attached: to output as it comes and, with ``stdin``, to write as well.

    Without an upgrade the engine answers 200 and sends until the container's output ends; both directions need one.
    """
    params: dict[str, str | int | bool] = {"stream": True}
    if output:
        params.update(stdout=True, stderr=True)
    if stdin:
        params["stdin"] = True
    return await api.open(
        "POST",
        f"/containers/{container_id}/attach",
        params=params,
        upgrade="tcp" if stdin else None,
        resource=container_id,
    )


async def attach(api: DockerApi, container_id: str, *, stdin: bool, output: bool = True) -> HttpStream:
    """Attach to a container; see :func:`begin_attach`."""
    return await api.opened(await begin_attach(api, container_id, stdin=stdin, output=output), kind="container")


@attrs.frozen(kw_only=True)
class Streams:
    """The connections of a launched container; ``input`` may be that of the output, and is ``None`` where nothing is written."""

    output: HttpStream
    exit: ExitWait
    input: HttpStream | None


class DockerLaunched:
    """A started container whose output goes to a sink."""

    def __init__(
        self,
        container_id: ContainerId,
        streams: Streams,
        sink: OutputSink,
        *,
        tty: bool,
        input_data: bytes | None,
        status_of: Callable[[ContainerId, int], Awaitable[ExitStatus]],
    ) -> None:
        self._id = container_id
        self._output, self._exit, self._input = streams.output, streams.exit, streams.input
        self._sink = sink
        self._tty = tty
        self._status_of = status_of
        self._demuxer = ChunkDemuxer()
        self._writer: asyncio.Task[None] | None = None
        if input_data is not None and self._input is not None:
            self._writer = asyncio.create_task(self._write(self._input, input_data))
        self._status: ExitStatus | None = None

    @property
    def id(self) -> ContainerId:
        """Its id."""
        return self._id

    async def _drain(self) -> None:
        sink, receive = self._sink, self._output.receive
        if self._tty:
            while data := await receive():
                for piece in pieces(data):
                    sink("stdout", piece)
            return
        feed = self._demuxer.feed
        while data := await receive():
            for name, chunk in feed(data):
                sink(name, chunk)
        self._demuxer.finish()

    @staticmethod
    async def _write(stream: HttpStream, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), 1 << 18):
            await stream.send(bytes(view[start : start + (1 << 18)]))
        await stream.send_eof()

    async def wait(self) -> ExitStatus:
        """How it ended, after the last of its output was given to the sink. Cancelled, it can be called again."""
        if self._status is None:
            # An attach that is cut ends as one that is finished does; the wait, on a connection beside it, tells them apart.
            await self._drain()
            self._status = await self._status_of(self._id, await self._exit.code())
            self._close()
        return self._status

    def _close(self) -> None:
        self._exit.close()
        self._output.close()
        if self._input is not None:
            self._input.close()
        if self._writer is not None:
            self._writer.cancel()

    async def aclose(self) -> None:
        """Stop delivering output and release the connections. The container goes on."""
        self._close()
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)


async def launch(
    api: DockerApi, container_id: ContainerId, *, stdin: bool, apart: bool, start: Callable[[], Awaitable[None]]
) -> Streams:
    """Attach and wait, both under way at once, then start. Whatever fails, the connections are released; the container is the caller's.

    With ``apart``, input has a connection of its own: to an attach whose input cannot be written any more, because the container
    has ended, Podman writes that as if it were output, and breaks off.
    """
    attaching = await begin_attach(api, container_id, stdin=stdin and not apart)
    waiting: Opening | None = None
    input_: HttpStream | None = None
    try:
        waiting = await begin_exit_wait(api, container_id, "next-exit")
        output = await api.opened(attaching, kind="container")
        exit_ = await exit_wait(api, waiting)
        if stdin:
            input_ = await attach(api, container_id, stdin=True, output=False) if apart else output
        await start()
    except BaseException:
        attaching.pending.close()
        if waiting is not None:
            waiting.pending.close()
        if input_ is not None:
            input_.close()
        raise
    return Streams(output=output, exit=exit_, input=input_)


class DockerStdin:
    """A container's standard input, on an attach of its own."""

    def __init__(self, stream: HttpStream) -> None:
        self._stream = stream
        self._ended = False

    async def write(self, data: bytes) -> None:
        """Write, waiting while the reader is behind."""
        if self._ended:
            msg = "standard input was ended"
            raise ClosedError(msg, backend=BACKEND)
        await self._stream.send(data)

    async def send_eof(self) -> None:
        """Tell the reader that no more comes."""
        if not self._ended:
            self._ended = True
            await self._stream.send_eof()

    async def aclose(self) -> None:
        """Release the connection, after ``send_eof``; input that the container does not take within seconds is dropped."""
        try:
            async with asyncio.timeout(_EOF_GRACE):
                await self.send_eof()
        except (TimeoutError, ConnectionLostError):
            # Nobody reads any more.
            pass
        finally:
            self._stream.close()
