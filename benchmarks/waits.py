"""What 1,000 waits in one process cost."""

# ruff: noqa: ARG001 - the questions' functions have one shape, whatever each needs of it

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from benchmarks import crowds
from benchmarks.engine import Engine
from benchmarks.measuring import LagMeter, Usage, descriptors, resident, settled
from benchmarks.results import Cell, Figure, Results, Table

if TYPE_CHECKING:
    from benchmarks.measuring import WatchedSelector
    from benchmarks.peers.base import Contender

_KEY = "1,000 waits"
_COUNT = 1_000
_SCRIPT = f"trap 'exit {crowds.EXIT_CODE}' TERM; while :; do sleep 3600 & wait $!; done"
_STEADY = 0.5
# Connections that a library kept from the warm-up, and uses again.
_POOLED = 10


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    return [
        Cell(
            key=_KEY,
            contenders=crowds.CONTENDERS,
            params={"count": _COUNT},
            width=_COUNT,
            fresh=True,
            rounds=2 if quick else 7,
            seconds=seconds,
            patience=60.0,
        )
    ]


def prepare(engine: Engine, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """Each round has containers of its own."""
    return params


async def warm_up(contender: Contender, params: dict[str, Any]) -> None:
    """A wait for a container that has ended."""
    engine = Engine(contender.host)
    (container,) = await asyncio.to_thread(
        engine.start_many, contender.image, ("sh", "-c", f"exit {crowds.EXIT_CODE}"), 1
    )
    try:
        await asyncio.to_thread(engine.wait, container)
        codes = await contender.wait_all(await contender.handles([container]))
    finally:
        await asyncio.to_thread(engine.remove, [container])
    if codes != [crowds.EXIT_CODE]:
        raise AssertionError(f"exit codes {codes}")


async def measure(contender: Contender, params: dict[str, Any], selector: WatchedSelector) -> dict[str, float]:
    count: int = params["count"]
    engine = Engine(contender.host)
    ids = await asyncio.to_thread(engine.start_many, contender.image, ("sh", "-c", _SCRIPT), crowds.SOURCES)
    try:
        handles = crowds.spread(await contender.handles(ids), count)
        async with LagMeter() as lag:
            lag.phase("before")
            await asyncio.sleep(_STEADY)
            files, memory, usage, began = descriptors(), resident(), Usage.now(), time.perf_counter()
            lag.phase("open")
            waiting = asyncio.create_task(contender.wait_all(handles))
            last = await settled(selector, uses_loop=contender.uses_loop, limit=30)
            lag.phase("steady")
            more_files = descriptors() - files
            if waiting.done() or more_files < count - _POOLED:
                raise AssertionError(f"only {more_files} connections are open for {count} waits")
            await asyncio.sleep(_STEADY)
            lag.phase("")
            each = (resident() - memory) / count
            lag.phase("end")
            for one in ids:
                await asyncio.to_thread(engine.kill, one, "TERM")
            codes = await waiting
            lag.phase("")
        used = Usage.now().since(usage)
    finally:
        await asyncio.to_thread(engine.remove, ids)
    if codes != [crowds.EXIT_CODE] * count:
        raise AssertionError(f"exit codes {sorted(set(codes))}, {len(codes)} of them")
    return {
        "kib_each": each,
        "open_s": last - began,
        "cpu_s": used["cpu"],
        **{f"lag_{name}_ms": value for name, value in lag.worst.items() if name},
    }


def tables(found: Results) -> list[Table]:
    return [crowds.table(found, "1,000 waits in one process")]


def figures(found: Results) -> list[Figure]:
    return crowds.figures(found, _KEY)
