"""What 200 log followers in one process cost."""

# ruff: noqa: ARG001 - the questions' functions have one shape, whatever each needs of it

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from benchmarks import crowds
from benchmarks.followers import SCRIPT, check
from benchmarks.measuring import LagMeter, Usage, resident
from benchmarks.peers import OURS
from benchmarks.peers.base import Marks
from benchmarks.results import Cell, Figure, Results, Table

if TYPE_CHECKING:
    from benchmarks.containerd.engine import Ctr
    from benchmarks.measuring import WatchedSelector
    from benchmarks.peers.ours_containerd import AsyncctrContainerd

_KEY = "200 followers"
_COUNT = 200
_STEADY = 1.5
_LIMIT = 30.0


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    return [
        Cell(
            key=_KEY,
            contenders=(OURS,),
            params={"count": _COUNT},
            width=_COUNT,
            fresh=True,
            rounds=2 if quick else 7,
            seconds=seconds,
            patience=60.0,
        )
    ]


def prepare(engine: Ctr, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """Each round has containers of its own."""
    return params


async def warm_up(contender: AsyncctrContainerd, params: dict[str, Any]) -> None:
    """A follow of a container that ends."""
    container = await contender.make(("sh", "-c", "sleep 0.3; echo line 0; echo end"))
    try:
        await container.start()
        found = await contender.follow_all([container], Marks())
    finally:
        await container.remove(force=True)
    check([container.id], found)


async def measure(contender: AsyncctrContainerd, params: dict[str, Any], _: WatchedSelector) -> dict[str, float]:
    count: int = params["count"]
    made = [await contender.make(("sh", "-c", SCRIPT)) for _ in range(crowds.SOURCES)]
    try:
        await asyncio.gather(*(container.start() for container in made))
        by_id = {str(container.id): container for container in made}
        ids = crowds.spread(list(by_id), count)
        marks = Marks()
        async with LagMeter() as lag:
            lag.phase("before")
            await asyncio.sleep(0.5)
            memory, usage, began = resident(), Usage.now(), time.perf_counter()
            lag.phase("open")
            following = asyncio.create_task(contender.follow_all([by_id[one] for one in ids], marks))
            async with asyncio.timeout(_LIMIT):
                while len(marks.data) < count and not following.done():  # noqa: ASYNC110  # each sets its own
                    await asyncio.sleep(0.005)
            lag.phase("steady")
            await asyncio.sleep(_STEADY)
            if following.done():
                raise AssertionError("the followers ended early")
            lag.phase("")
            each = (resident() - memory) / count
            lag.phase("end")
            await asyncio.gather(*(container.kill("SIGTERM") for container in made))
            found = await following
            lag.phase("")
        used = Usage.now().since(usage)
    finally:
        await asyncio.gather(*(container.remove(force=True) for container in made))
    return {
        "kib_each": each,
        "open_s": max(marks.data.values()) - began,
        "cpu_s": used["cpu"],
        "short": check(ids, found),
        **{f"lag_{name}_ms": value for name, value in lag.worst.items() if name},
    }


def tables(found: Results) -> list[Table]:
    return [crowds.table(found, "200 followers in one process; open means that each has its first line", alone=True)]


def figures(found: Results) -> list[Figure]:
    short = found.values(_KEY, OURS, "short")
    return [
        *crowds.figures(found, _KEY),
        Figure(
            name=f"{_KEY}: not given the end", wanted=0, at_least=False, value=max(short, default=None), unit="of them"
        ),
    ]
