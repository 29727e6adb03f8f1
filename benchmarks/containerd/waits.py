"""What 1,000 waits for 1,000 idle containers in one process cost, and their end at once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from benchmarks import crowds
from benchmarks.containerd.engine import Ctr
from benchmarks.measuring import LagMeter, Usage, resident, settled
from benchmarks.peers import OURS
from benchmarks.results import Cell, Figure, Results, Table

if TYPE_CHECKING:
    from benchmarks.measuring import WatchedSelector
    from benchmarks.peers.base import Contender

_COUNT, _QUICK = 1_000, 200
# In as many shims: one for each container would take 10 GB, and longer to start than all else here takes.
_SHIMS = 10
_STEADY = 0.5
_KILLED = 137


def _key(count: int) -> str:
    return f"{count:,} waits"


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    count = _QUICK if quick else _COUNT
    return [
        Cell(
            key=_key(count),
            contenders=(OURS,),
            params={"count": count},
            width=count,
            fresh=True,
            rounds=1,
            seconds=seconds,
            patience=180.0,
        )
    ]


def prepare(engine: Ctr, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """The containers."""
    each = params["count"] // _SHIMS
    names: list[str] = []
    for shim in range(_SHIMS):
        group = [f"idle-{shim}-{index}" for index in range(each)]
        engine.start_idle(image, group, group=f"bench-{shim}")
        names += group
    return {**params, "containers": names, "keep": names}


async def warm_up(contender: Contender, params: dict[str, Any]) -> None:
    """A wait that is given up, and what asks for containers."""
    handles = await contender.handles(params["containers"][:1])
    waiting = asyncio.create_task(contender.wait_all(handles))
    await asyncio.wait({waiting}, timeout=_STEADY)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def measure(contender: Contender, params: dict[str, Any], selector: WatchedSelector) -> dict[str, float]:
    count: int = params["count"]
    handles = await contender.handles(params["containers"])
    pids = await asyncio.to_thread(Ctr(contender.host).pids)
    async with LagMeter() as lag:
        lag.phase("before")
        await asyncio.sleep(_STEADY)
        memory, usage, began = resident(), Usage.now(), time.perf_counter()
        lag.phase("open")
        waiting = asyncio.create_task(contender.wait_all(handles))
        last = await settled(selector, uses_loop=contender.uses_loop, limit=30)
        lag.phase("steady")
        if waiting.done():
            raise AssertionError("the waits ended early")
        await asyncio.sleep(_STEADY)
        lag.phase("")
        each = (resident() - memory) / count
        lag.phase("end")
        await asyncio.to_thread(_kill, [pids[name] for name in params["containers"]])
        codes = await waiting
        lag.phase("")
    used = Usage.now().since(usage)
    if codes != [_KILLED] * count:
        raise AssertionError(f"exit codes {sorted(set(codes))}, {len(codes)} of them")
    return {
        "kib_each": each,
        "open_s": last - began,
        "cpu_s": used["cpu"],
        **{f"lag_{name}_ms": value for name, value in lag.worst.items() if name},
    }


def _kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def tables(found: Results) -> list[Table]:
    return [
        crowds.table(found, f"Waits for as many containers, which share {_SHIMS} shims, in one process", alone=True)
    ]


def figures(found: Results) -> list[Figure]:
    return crowds.figures(found, _key(_COUNT))
