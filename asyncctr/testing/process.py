"""One supervised daemon process: its log, its readiness, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

from asyncctr.testing.programs import RuntimeMissing, environment, find

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["DaemonError", "Process", "log_tail"]

_LOG_TAIL = 8_192
_RETRY = 0.02


class DaemonError(Exception):
    """A daemon did not start, did not stay up, or left something that could not be removed. Carries its log's end."""


def log_tail(path: Path, limit: int = _LOG_TAIL) -> str:
    """The last ``limit`` bytes of a log, decoded."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - limit))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return "(no log)"


def settle(future: asyncio.Future[None]) -> None:
    """Give a future its result, unless it has one or was cancelled."""
    if not future.done():
        future.set_result(None)


class Process:
    """A daemon in a session of its own, its output appended to ``log``.

    It belongs to no event loop: one loop may start it, another wait for its end. It gets SIGTERM when the thread that
    started it dies, where that is the main thread, so that a killed test run leaves no daemon.
    """

    def __init__(self, argv: Sequence[str], *, log: Path, env: Mapping[str, str | None] | None = None) -> None:
        words = [find(argv[0]) if "/" not in argv[0] else argv[0], *argv[1:]]
        self.name = os.path.basename(words[0])  # noqa: PTH119 - of a string
        self.log = log
        # The death signal follows the thread, not the process: from any other thread it would come too early.
        if threading.current_thread() is threading.main_thread():
            with contextlib.suppress(RuntimeMissing):
                words = [find("setpriv"), "--pdeathsig", "TERM", "--", *words]
        with log.open("ab") as output:
            self._popen = subprocess.Popen(  # noqa: S603 - no shell, our own words
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(env),
                cwd="/",
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id; of a process that has ended too."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        self._popen.send_signal(number)

    async def wait(self, timeout: float) -> bool:  # noqa: ASYNC109 - a bool tells that it passed, not an exception
        """Wait for its end, ``timeout`` seconds at most; whether it has ended. Reaps it."""
        if not self.running:
            return True
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        descriptor = os.pidfd_open(self.pid)
        try:
            loop.add_reader(descriptor, settle, ended)
            try:
                async with asyncio.timeout(timeout):
                    await ended
            except TimeoutError:
                return False
            finally:
                loop.remove_reader(descriptor)
        finally:
            os.close(descriptor)
        self._popen.wait()
        return True

    async def kill(self, deadline: float = 10.0) -> None:
        """SIGKILL and reap.

        Raises:
            DaemonError: not even that ended it within ``deadline`` seconds (it hangs in the kernel).
        """
        self.send_signal(signal.SIGKILL)
        if not await self.wait(deadline):
            message = f"{self.name} (pid {self.pid}) did not end within {deadline:g} s of SIGKILL"
            raise DaemonError(message)

    async def stop(self, deadline: float) -> bool:
        """SIGTERM, and SIGKILL after ``deadline`` seconds; whether it ended by itself."""
        self.send_signal(signal.SIGTERM)
        if await self.wait(deadline):
            return True
        await self.kill()
        return False

    async def ready(self, probe: Callable[[], Awaitable[bool]], deadline: float) -> None:
        """Wait until ``probe`` gives true; ``OSError`` from it counts as false.

        Raises:
            DaemonError: the process ended first, or ``deadline`` seconds passed; the message has the log's end.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline
        while True:
            try:
                async with asyncio.timeout(max(0.1, end - loop.time())):
                    if await probe():
                        return
            except (OSError, EOFError):  # TimeoutError is an OSError
                pass
            if not self.running:
                message = f"{self.name} ended with {self._popen.returncode} while it started; its log ends:\n{log_tail(self.log)}"
                raise DaemonError(message)
            if loop.time() > end:
                message = f"{self.name} was not ready within {deadline:g} s; its log ends:\n{log_tail(self.log)}"
                raise DaemonError(message)
            # A daemon that is starting gives no event to wait on; its end is noticed at once all the same.
            await self.wait(_RETRY)


async def http_ok(host: str | None, target: str | int, path: str) -> bool:
    """Whether a GET answers 200; over TCP with a host and port, over a unix socket with ``None`` and its path."""
    if host is None:
        reader, writer = await asyncio.open_unix_connection(str(target))
    else:
        reader, writer = await asyncio.open_connection(host, int(target))
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        await writer.drain()
        status = await reader.readline()
    finally:
        writer.close()
    return status.split(b" ")[1:2] == [b"200"]
