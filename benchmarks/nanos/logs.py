"""How many bytes a second come from a unikernel's console, and what they cost the client."""

# ruff: noqa: ARG001 - the questions' functions have one shape, whatever each needs of it

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.measuring import Usage
from benchmarks.peers import OURS
from benchmarks.peers.base import Job
from benchmarks.results import Cell, Figure, Results, Table, number

if TYPE_CHECKING:
    from benchmarks.measuring import WatchedSelector
    from benchmarks.nanos.engine import Machines

_LINES = 100_000
_EXPECTED = b"".join(b"%d\n" % line for line in range(1, _LINES + 1))


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    return [
        Cell(
            key=f"{_LINES:,} lines",
            contenders=(OURS,),
            params={"lines": _LINES},
            rounds=3 if quick else 10,
            seconds=seconds,
        )
    ]


def prepare(engine: Machines, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """Nothing is needed."""
    return params


async def warm_up(contender: Any, params: dict[str, Any]) -> None:
    """One machine, so that what is imported late is not counted."""
    await contender.run_printing(Job(("-c", "echo hello"), "none"))


async def measure(contender: Any, params: dict[str, Any], _: WatchedSelector) -> dict[str, float]:
    before = Usage.now()
    code, output = await contender.run_printing(Job(("-c", f"seq 1 {params['lines']}"), "none"))
    used = Usage.now().since(before)
    if code or b"".join(output) != _EXPECTED:
        raise AssertionError(f"exit code {code}, {sum(map(len, output))} bytes of {len(_EXPECTED)}")
    return {
        "wall": used["wall"],
        "mb_per_s": len(_EXPECTED) / used["wall"] / 1e6,
        "cpu_ms_per_mb": (used["cpu"] - used["cpu_children"]) * 1e9 / len(_EXPECTED),
    }


def tables(found: Results) -> list[Table]:
    rows = [
        (
            cell,
            number(found.median(cell, OURS, "mb_per_s"), 2),
            number(found.median(cell, OURS, "cpu_ms_per_mb"), 1),
            str(len(found.values(cell, OURS, "wall"))),
        )
        for cell in found.rounds
    ]
    note = "The console is a serial port, which the guest writes to byte by byte."
    return [Table("Output of a unikernel", ("", "MB/s", "client CPU ms/MB", "rounds"), tuple(rows), (note,))]


def figures(found: Results) -> list[Figure]:
    """None is wanted."""
    return []
