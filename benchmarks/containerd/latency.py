"""How long a line is on its way from the container's write to the reader of its log."""

# ruff: noqa: ARG001 - the questions' functions have one shape, whatever each needs of it

from __future__ import annotations

import asyncio
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import Usage
from benchmarks.peers import OURS
from benchmarks.results import Cell, Figure, Results, Table, number

if TYPE_CHECKING:
    from benchmarks.containerd.engine import Ctr
    from benchmarks.measuring import WatchedSelector
    from benchmarks.peers.ours_containerd import AsyncctrContainerd

_KEY = "write to reader"
_LIMIT = 1.0
_LINES = 500
_PAUSE = 0.004


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    return [Cell(key=_KEY, contenders=(OURS,), params={}, rounds=2 if quick else 5, seconds=seconds)]


def prepare(engine: Ctr, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """Nothing is needed."""
    return params


async def warm_up(contender: AsyncctrContainerd, params: dict[str, Any]) -> None:
    """A few lines."""
    await _measure(contender, 5)


async def measure(contender: AsyncctrContainerd, params: dict[str, Any], _: WatchedSelector) -> dict[str, float]:
    before = Usage.now()
    late = await _measure(contender, _LINES)
    return {
        "p50_ms": statistics.median(late) * 1000,
        "p99_ms": statistics.quantiles(late, n=100)[98] * 1000,
        "cpu_us": Usage.now().since(before)["cpu"] / _LINES * 1e6,
    }


async def _measure(contender: AsyncctrContainerd, count: int) -> list[float]:
    """Write where the container does: into the pipe that is its standard output, and that its shim copies from."""
    container = await contender.make(("sleep", "3600"))
    late: list[float] = []
    try:
        await container.start()
        pid = (await container.inspect()).pid
        pipe = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY | os.O_CLOEXEC)
        try:
            async with await container.logs() as log:
                for index in range(count):
                    await asyncio.sleep(_PAUSE)
                    line = b"line %d\n" % index
                    began = time.perf_counter()
                    os.write(pipe, line)
                    data = b""
                    # A line across the border of two pages is seen in two parts.
                    while not data.endswith(b"\n"):
                        data += (await anext(log)).data
                    late.append(time.perf_counter() - began)
                    if data != line:
                        raise AssertionError(f"the reader got {data!r} for {line!r}")
        finally:
            os.close(pipe)
    finally:
        await container.remove(force=True)
    return late


def tables(found: Results) -> list[Table]:
    rows = [
        (
            _KEY,
            name,
            number(found.median(_KEY, name, "p50_ms"), 3),
            number(found.median(_KEY, name, "p99_ms"), 3),
            number(found.median(_KEY, name, "cpu_us"), 0),
            number((found.median(_KEY, name, "peak_kib") or 0) / 1024),
            str(len(found.values(_KEY, name, "p50_ms"))),
        )
        for name in found.rounds.get(_KEY, ())
    ]
    columns = ("", "client", "p50 ms", "p99 ms", "CPU µs a line", "peak MiB", "rounds")
    return [Table("A line on its way, of 250 a second", columns, tuple(rows))]


def figures(found: Results) -> list[Figure]:
    value = found.median(_KEY, OURS, "p50_ms")
    return [Figure(name=f"{_KEY}, p50", wanted=_LIMIT, at_least=False, value=value, unit="ms")]
