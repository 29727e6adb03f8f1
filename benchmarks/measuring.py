"""What a process has used, and how late its event loop is."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import selectors
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["LagMeter", "Usage", "WatchedSelector", "descriptors", "peak_memory", "resident", "settled"]

_TICK = 0.005
_QUIET = 0.4
_STEP = 0.01
# A sampling step that used less than this was an idle one: the sampler and the ticker cost about a tenth of it.
_IDLE_CPU = 0.002


@attrs.frozen
class Usage:
    """CPU seconds, of this process and of its ended children, user and system, and the wall clock."""

    wall: float
    own: float
    children: float

    @classmethod
    def now(cls) -> Usage:
        """What has been used so far."""
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return cls(time.perf_counter(), own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime)

    def since(self, earlier: Usage) -> dict[str, float]:
        """The seconds used after ``earlier``."""
        own, children = self.own - earlier.own, self.children - earlier.children
        return {"wall": self.wall - earlier.wall, "cpu": own + children, "cpu_children": children}


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise LookupError(field)


def peak_memory() -> dict[str, float]:
    """The most memory that was resident at once, in KiB: of this process, and of the largest of its ended children.

    ``ru_maxrss`` of a process starts with what its parent had (setmax_mm_hiwater_rss in the kernel's exec), so the process's
    own comes from ``VmHWM``. The children's cannot: read it as "at most".
    """
    return {
        "peak_kib": _status("VmHWM"),
        "child_peak_kib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
    }


def resident() -> int:
    """Resident memory in KiB, after a collection."""
    gc.collect()
    return _status("VmRSS")


def descriptors() -> int:
    """How many descriptors are open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # one system call's worth, and no objects


class WatchedSelector(selectors.DefaultSelector):
    """The event loop's selector, which remembers when a descriptor was last ready. Timers do not count."""

    last = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See :class:`selectors.BaseSelector`."""
        ready = super().select(timeout)
        if ready:
            self.last = time.perf_counter()
        return ready


async def settled(selector: WatchedSelector, *, uses_loop: bool, limit: float) -> float:
    """Wait until nothing has happened for a while; the ``perf_counter`` time of the last that did.

    On the event loop that is the last ready descriptor, in threads the last sampling step that used the CPU.

    Raises:
        TimeoutError: it went on for more than ``limit`` seconds.
    """
    last = time.perf_counter()
    used = time.process_time()
    end = last + limit
    while True:
        await asyncio.sleep(_STEP)
        now, cpu = time.perf_counter(), time.process_time()
        if uses_loop:
            last = max(last, selector.last)
        elif cpu - used > _IDLE_CPU:
            last = now
        used = cpu
        if now - last > _QUIET:
            return last
        if now > end:
            raise TimeoutError(f"not quiet within {limit:g} s")


class LagMeter:
    """How late a timer of 5 ms is called, at worst, in milliseconds, while in the ``async with`` block.

    Attributes:
        worst: by phase; see :meth:`phase`.
    """

    def __init__(self) -> None:
        self.worst: dict[str, float] = {}
        self._phase = ""
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def phase(self, name: str) -> None:
        """What follows counts under this name."""
        self._note()
        self._phase = name
        self.worst.setdefault(name, 0.0)

    def _note(self) -> None:
        if self._phase:
            late = (time.perf_counter() - self._due) * 1000
            self.worst[self._phase] = max(self.worst[self._phase], late)

    def _tick(self) -> None:
        self._note()
        self._due = time.perf_counter() + _TICK
        self._handle = asyncio.get_running_loop().call_later(_TICK, self._tick)

    async def __aenter__(self) -> Self:
        self._due = time.perf_counter()
        self._tick()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
