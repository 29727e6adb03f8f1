"""What cases measure of this process: descriptors, memory, and how late the event loop is."""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["SLACK", "Lag", "lag_watched", "open_descriptors", "resident"]

SLACK = 16
"""Descriptors that kept connections may take meanwhile, here and in the runtime; some of Podman's stay a while. A leak is one for each turn."""

_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    # The listing has one of its own.
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208  # on the loop: the cheapest there is


def resident() -> int:
    """Bytes of this process in memory (proc(5), ``VmRSS``)."""
    match = _RESIDENT.search(Path("/proc/self/status").read_text())
    assert match is not None  # noqa: S101  # every Linux has it
    return int(match[1]) * 1024


class Lag:
    """How much later than asked the loop woke a task, in seconds, and the most memory seen meanwhile, in bytes."""

    def __init__(self) -> None:
        self.samples: list[float] = []
        self.most_resident = 0

    def percentile(self, share: float) -> float:
        """The lag that ``share`` of the samples, 0 to 1, do not exceed."""
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    @property
    def worst(self) -> float:
        """The longest."""
        return max(self.samples, default=0.0)


@asynccontextmanager
async def lag_watched(interval: float = 0.005) -> AsyncIterator[Lag]:
    """Measure the loop's lag while the block runs, by a task that wakes every ``interval`` seconds."""
    lag = Lag()
    loop = asyncio.get_running_loop()

    async def tick() -> None:
        count = 0
        while True:
            due = loop.time() + interval
            await asyncio.sleep(interval)
            lag.samples.append(loop.time() - due)
            count += 1
            if count % 20 == 0:
                lag.most_resident = max(lag.most_resident, resident())

    ticker = asyncio.create_task(tick())
    try:
        yield lag
    finally:
        ticker.cancel()
        await asyncio.gather(ticker, return_exceptions=True)
