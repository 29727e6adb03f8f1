"""What 50 idle machines cost one event loop that waits for all of them and follows their logs."""

# ruff: noqa: ARG001 - the questions' functions have one shape, whatever each needs of it

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import Usage
from benchmarks.peers import OURS
from benchmarks.peers.base import Marks
from benchmarks.results import Cell, Figure, Results, Table, number

if TYPE_CHECKING:
    from benchmarks.measuring import WatchedSelector
    from benchmarks.nanos.engine import Machines

_COUNT, _QUICK = 50, 16
_SECONDS = 5.0
_PERCENT = 1.0
_KILLED = 137


class _Marks(Marks):
    """Tells when the first data of every stream has come."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.complete = asyncio.Event()
        self._count = count

    def has_data(self, index: int) -> None:
        super().has_data(index)
        if len(self.data) == self._count:
            self.complete.set()


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    count = _QUICK if quick else _COUNT
    return [Cell(key=f"{count} machines", contenders=(OURS,), params={"count": count}, width=8, seconds=seconds)]


def prepare(engine: Machines, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """Nothing is needed."""
    return params


async def warm_up(contender: Any, params: dict[str, Any]) -> None:
    """Nothing is needed: the machines are started before the clock."""


async def measure(contender: Any, params: dict[str, Any], _: WatchedSelector) -> dict[str, float]:
    machines = [await contender.make(("-c", "echo up; sleep 3600")) for _ in range(params["count"])]
    try:
        for machine in machines:
            await machine.start()
        marks = _Marks(len(machines))
        waiting = asyncio.gather(contender.wait_all(machines), contender.follow_all(machines, marks))
        async with asyncio.timeout(60):
            await marks.complete.wait()
        before = Usage.now()
        await asyncio.sleep(_SECONDS)
        used = Usage.now().since(before)
        for machine in machines:
            await machine.kill()
        codes, _outputs = await waiting
    finally:
        for machine in machines:
            await machine.remove(force=True)
    if codes != [_KILLED] * len(machines):
        raise AssertionError(f"exit codes {sorted(set(codes))}")
    return {"wall": used["wall"], "core_percent": (used["cpu"] - used["cpu_children"]) / used["wall"] * 100}


def tables(found: Results) -> list[Table]:
    rows = [(cell, number(found.median(cell, OURS, "core_percent"), 3)) for cell in found.rounds]
    return [Table("Waits and logs of idle machines in one process", ("", "% of a core"), tuple(rows))]


def figures(found: Results) -> list[Figure]:
    cell = f"{_COUNT} machines"
    value = found.median(cell, OURS, "core_percent")
    return [Figure(name=f"{cell}, idle: of a core", wanted=_PERCENT, at_least=False, value=value, unit="%")]
