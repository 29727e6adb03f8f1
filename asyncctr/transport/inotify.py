"""File changes as they happen: one inotify descriptor for each event loop, shared by all that wait for files there.

Linux only, and only once it is used.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from asyncctr.core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Inotify"]

# From <sys/inotify.h>.
_IN_MODIFY: Final = 0x2
_IN_ATTRIB: Final = 0x4
_IN_CLOSE_WRITE: Final = 0x8
_IN_ONESHOT: Final = 0x80000000
_MASK: Final = _IN_MODIFY | _IN_ATTRIB | _IN_CLOSE_WRITE | _IN_ONESHOT
_OVERFLOW: Final = -1
# struct inotify_event, without names: only files are watched, never directories.
_EVENT: Final = struct.Struct("iIII")
_BUFFER: Final = 4_096 * _EVENT.size
_OURS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Inotify]] = WeakKeyDictionary()


class Inotify:
    """The watches of one loop. Each tells once, and has to be set again then.

    So a file that is written to all the time costs its reader one event for each time that it waits, and one that nobody waits
    for costs nothing. The descriptor stays open until the loop goes: to close one takes the kernel some 10 ms.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._descriptor = -1
        try:
            self._libc = ctypes.CDLL(None, use_errno=True)
            init = self._libc.inotify_init1
        except AttributeError as error:
            message = "following a log takes inotify, which this system does not have; it needs Linux"
            raise UnsupportedError(message, field="logs.follow") from error
        self._descriptor = init(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            raise _failure("fs.inotify.max_user_instances or the limit of open files")
        self._wakes: dict[int, list[Callable[[int], None]]] = {}
        loop.add_reader(self._descriptor, self._read)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @classmethod
    def of_running_loop(cls) -> Inotify:
        """That of the running loop, opened on first use.

        Raises:
            OSError: a limit is reached; its text names which.
            UnsupportedError: this is not Linux.
        """
        loop = asyncio.get_running_loop()
        found = _OURS.get(loop)
        if found is None:
            for other in [other for other in _OURS if other.is_closed()]:
                del _OURS[other]
            found = _OURS[loop] = cls(loop)
        return found

    def arm(self, descriptor: int, wake: Callable[[int], None]) -> int:
        """Call ``wake`` with the number that this returns, once, when the open file is written to, closed by a writer or unlinked.

        Raises:
            OSError: a limit is reached; its text names which.
        """
        # By the descriptor, because the name may be gone.
        path = b"/proc/self/fd/%d" % descriptor
        watch: int = self._libc.inotify_add_watch(self._descriptor, path, ctypes.c_uint32(_MASK))
        if watch < 0:
            raise _failure("fs.inotify.max_user_watches")
        # One inode has one watch here, whoever asks.
        self._wakes.setdefault(watch, []).append(wake)
        return watch

    def disarm(self, watch: int, wake: Callable[[int], None]) -> None:
        """Take back one that may or may not have been called yet."""
        wakes = self._wakes.get(watch)
        if wakes is None or wake not in wakes:
            return
        wakes.remove(wake)
        if not wakes:
            del self._wakes[watch]
            # Fails where it has just told, and that is not read yet.
            self._libc.inotify_rm_watch(self._descriptor, watch)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _BUFFER)
        except BlockingIOError:
            return
        # Which of the events it was, the reader finds out from the file itself. Each comes with an IN_IGNORED behind it.
        told = {event[0] for event in _EVENT.iter_unpack(data)}
        if _OVERFLOW in told:
            told = set(self._wakes)
        for watch in told:
            for wake in self._wakes.pop(watch, ()):
                wake(watch)


def _failure(limit: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"inotify: {os.strerror(number)}; see {limit}")
