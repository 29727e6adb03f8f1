"""One ssh process as a connection: an asyncio transport whose bytes go through the process's pipes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncctr.core.errors import AsyncctrError

__all__ = ["STDERR_LIMIT", "SshSession", "one_line"]

STDERR_LIMIT: Final = 4096
"""How much of the end of ssh's messages is kept, in bytes."""
_EXIT_TIMEOUT: Final = 2.0
_STDERR_GRACE: Final = 0.2
_STDERR: Final = 2


class Owner(Protocol):
    """Who runs sessions: it keeps them until their process is gone, and knows what an exit means."""

    def add(self, session: SshSession) -> None:
        """Its process runs."""
        ...

    def discard(self, session: SshSession) -> None:
        """Its process is gone."""
        ...

    def failure(self, status: int | None, errors: str) -> AsyncctrError:
        """The error for a process that ended with ``status`` before anything had arrived."""
        ...

    def lost(self, status: int | None, errors: str) -> AsyncctrError:
        """The error for one that ended so later."""
        ...


def one_line(errors: bytes | bytearray) -> str:
    """What ssh said, in one line, without the stop at the end."""
    lines = errors.decode(errors="replace").splitlines()
    return "; ".join(line.strip().rstrip(".") for line in lines if line.strip())


class SshSession(asyncio.SubprocessProtocol):
    """One ssh process, as a connection: its pipes are what the client's protocol reads and writes."""

    def __init__(self, owner: Owner, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        loop = asyncio.get_running_loop()
        self.loop = loop
        self.owner = owner
        self.factory = factory
        self.made: asyncio.Future[None] = loop.create_future()
        self.reaped: asyncio.Future[None] = loop.create_future()
        self.facade = _SessionTransport(self)
        self.client: asyncio.BaseProtocol = cast("asyncio.BaseProtocol", None)
        self.process: asyncio.SubprocessTransport | None = None
        self.stdin: asyncio.WriteTransport = cast("asyncio.WriteTransport", None)
        self.stdout: asyncio.ReadTransport = cast("asyncio.ReadTransport", None)
        self.errors = bytearray()
        self.errors_ended = False
        self.received = False  # anything at all
        self.output_ended = False
        self.exited = False
        self.finished = False  # the client's connection_lost was called
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process runs: its pipes are there, and the client's protocol may have its transport."""
        self.process = process = cast("asyncio.SubprocessTransport", transport)
        self.stdin = cast("asyncio.WriteTransport", process.get_pipe_transport(0))
        self.stdout = cast("asyncio.ReadTransport", process.get_pipe_transport(1))
        self.owner.add(self)
        if self.facade.closing:  # given up while the process was being started
            self.finished = True
            self.end_process()
            return
        self.client = self.factory()
        self.client.connection_made(self.facade)
        if not self.made.done():
            self.made.set_result(None)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Hand the output to the client's protocol, and keep the end of the messages."""
        if fd != 1:
            self.errors += data
            del self.errors[:-STDERR_LIMIT]
            return
        self.received = True
        if self.finished:
            return
        if isinstance(self.client, asyncio.BufferedProtocol):
            view = memoryview(data)
            while view and not self.finished:
                buffer = memoryview(self.client.get_buffer(len(view)))
                count = min(len(buffer), len(view))
                buffer[:count] = view[:count]
                view = view[count:]
                self.client.buffer_updated(count)
        else:
            cast("asyncio.Protocol", self.client).data_received(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Note which pipe has ended."""
        if fd == 1:
            self.output_ended = True
        elif fd == _STDERR:
            self.errors_ended = True
        self.progress()

    def process_exited(self) -> None:
        """The process is reaped."""
        self.exited = True
        self.owner.discard(self)
        if not self.reaped.done():
            self.reaped.set_result(None)
        if self.finished:
            self.end_process()
        self.progress()

    def pause_writing(self) -> None:
        """Pass on that the process does not read."""
        self.client.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that it does again."""
        self.client.resume_writing()

    def progress(self) -> None:
        """End the client's connection once the output has, and it is known why: the status, and the last message."""
        if self.finished or not self.output_ended:
            return
        if self.exited and self.errors_ended:
            self.finish()
        else:
            # A background process may keep stderr open, and ssh may linger without output.
            self.wait_at_most(_STDERR_GRACE if self.exited else _EXIT_TIMEOUT)

    def wait_at_most(self, seconds: float) -> None:
        """Finish after so many seconds, whatever is still missing."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.loop.call_later(seconds, self.finish)

    def finish(self) -> None:
        """End the client's connection as the process ended: with an end of file, or with what went wrong."""
        if self.finished or self.process is None:
            return
        status = self.process.get_returncode()
        error: AsyncctrError | None = None
        if status:
            tell = self.owner.lost if self.received else self.owner.failure
            error = tell(status, one_line(self.errors))
        else:
            cast("asyncio.Protocol", self.client).eof_received()
        self.end(error)

    def end(self, error: Exception | None) -> None:
        """The client's connection is over: so is the process."""
        if self.finished:
            return
        self.facade.closing = True
        if self.process is None:
            return  # connection_made goes on
        self.finished = True
        if self.timer is not None:
            self.timer.cancel()
        self.end_process()
        self.client.connection_lost(error)

    def end_process(self) -> None:
        """Kill the process if it still runs, and close its pipes."""
        if self.process is None:
            return
        if self.exited:
            self.process.close()
        else:
            # Not SubprocessTransport.kill: it may reap the process where asyncio's watcher waits for it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.get_pid(), signal.SIGKILL)
            self.stdin.abort()
            self.stdout.close()


class _SessionTransport(asyncio.Transport):
    """What the client's protocol gets for a transport. Closing it kills the process, without waiting to write the rest."""

    def __init__(self, session: SshSession) -> None:
        super().__init__()
        self.session = session
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.session.client

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.session.client = protocol

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self.session.stdin.is_closing():
            self.session.stdin.write(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.session.stdin.close()  # after what is still to be written

    def get_write_buffer_size(self) -> int:
        return self.session.stdin.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.session.stdin.set_write_buffer_limits(high, low)

    def is_reading(self) -> bool:
        return self.session.stdout.is_reading()

    def pause_reading(self) -> None:
        if not self.session.output_ended:
            self.session.stdout.pause_reading()

    def resume_reading(self) -> None:
        if not self.session.output_ended:
            self.session.stdout.resume_reading()

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            # Not from within: a protocol that aborts does not expect connection_lost before abort returns.
            self.session.loop.call_soon(self.session.end, None)

    def close(self) -> None:
        self.abort()
