"""Processes held by descriptors: told apart from later ones with their pids, waited for by the loop, and reaped where they are ours."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from typing import TYPE_CHECKING

from asyncctr.core.errors import ClosedError, InvalidStateError
from asyncctr.transport.ownership import start_time

if TYPE_CHECKING:
    from asyncctr.transport.ownership import Owner

__all__ = ["Pidfd", "readable", "reap_child"]

# Children that are to be reaped by whichever loop runs when they end.
_CHILDREN: dict[int, asyncio.AbstractEventLoop] = {}


class Pidfd:
    """A process that was running when it was looked for. Its descriptor is closed by :meth:`close` and by dropping it."""

    __slots__ = ("_descriptor", "pid")

    def __init__(self, descriptor: int, pid: int) -> None:
        self._descriptor = descriptor
        self.pid = pid

    @classmethod
    def of(cls, process: Owner) -> Pidfd | None:
        """That process; ``None`` once it has ended.

        Raises:
            InvalidStateError: it is one of another pid namespace, which cannot be seen from here.
            OSError: a limit is reached.
        """
        if not process.is_local:
            if process.has_ended:
                # It ran before this boot.
                return None
            message = (
                f"process {process.pid} belongs to another pid namespace, such as that of another container: "
                "only from there can it be watched and ended"
            )
            raise InvalidStateError(message)
        try:
            found = cls(os.pidfd_open(process.pid), process.pid)
        except ProcessLookupError:
            return None
        try:
            # Asked after it was opened: whoever has the pid now had it then.
            if start_time(process.pid) == process.start:
                return found
        except FileNotFoundError:
            pass
        except BaseException:
            found.close()
            raise
        found.close()
        return None

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def fileno(self) -> int:
        """The descriptor that holds it.

        Raises:
            ClosedError: it was let go of.
        """
        if self._descriptor < 0:
            message = f"process {self.pid} was let go of"
            raise ClosedError(message)
        return self._descriptor

    @property
    def has_ended(self) -> bool:
        """Whether it has."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, number: int) -> bool:
        """Send a signal; whether there still was somebody to get it."""
        try:
            signal.pidfd_send_signal(self.fileno(), number)
        except ProcessLookupError:
            return False
        return True

    async def ended(self) -> None:
        """Until it has."""
        # One of its own for each who waits: a loop has one reader for a descriptor, and this one may be closed meanwhile.
        descriptor = os.dup(self.fileno())
        try:
            await readable(descriptor)
            # Where this process is the host's init, or a container's, it inherits what a killed supervisor leaves.
            _wait(descriptor)
        finally:
            os.close(descriptor)


async def readable(descriptor: int) -> None:
    """Until a descriptor, which nobody else waits for, can be read from."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _tell, told)
    try:
        await told
    finally:
        loop.remove_reader(descriptor)


def _tell(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def reap_child(pid: int) -> None:
    """See to it that no zombie stays of a child that was not waited for, whoever else waits for its end, or nobody."""
    try:
        _reap_on_running_loop(os.pidfd_open(pid))
    except ProcessLookupError:
        # This process ignores SIGCHLD, and the kernel did it.
        pass
    # Those whose loops have gone: there is another one now.
    for other in [other for other, loop in _CHILDREN.items() if loop.is_closed()]:
        _reap_on_running_loop(other)


def _reap_on_running_loop(descriptor: int) -> None:
    loop = _CHILDREN[descriptor] = asyncio.get_running_loop()
    loop.add_reader(descriptor, _reap, descriptor)


def _reap(descriptor: int) -> None:
    _CHILDREN.pop(descriptor).remove_reader(descriptor)
    _wait(descriptor)
    os.close(descriptor)


def _wait(descriptor: int) -> None:
    try:
        os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        # It is not ours, or was reaped.
        pass
