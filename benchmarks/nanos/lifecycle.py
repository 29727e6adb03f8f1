"""How long a unikernel that says hello takes, from start to exit and by ``run``, beside QEMU alone: 1 and 8 at a time."""

# ruff: noqa: ARG001 - the questions' functions have one shape, whatever each needs of it

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import Usage
from benchmarks.peers import OURS, QEMU
from benchmarks.peers.base import Job
from benchmarks.results import Cell, Figure, Results, Table, number, times

if TYPE_CHECKING:
    from benchmarks.measuring import WatchedSelector
    from benchmarks.nanos.engine import Machines
    from benchmarks.peers.base import Ran

_HELLO = b"hello\n"
_WITHIN = 15.0
# Machines at a time, what is timed, machines in a round (quick, full), the share of the question's time.
_CELLS = (
    (1, "start", 6, 12, 0.3),
    (1, "run", 6, 12, 0.3),
    (8, "run", 16, 32, 0.4),
)


def _key(width: int, part: str) -> str:
    return f"{width} at a time, {'start to exit' if part == 'start' else 'run'}"


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    return [
        Cell(
            key=_key(width, part),
            contenders=(OURS, QEMU),
            params={"part": part, "count": few if quick else many},
            width=width,
            rounds=4 if quick else 15,
            seconds=seconds * share,
        )
        for width, part, few, many, share in _CELLS
    ]


def prepare(engine: Machines, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """Nothing is needed."""
    return params


async def _run(contender: Any, part: str, count: int) -> list[Ran]:
    jobs = [Job((), "none")] * count
    found: list[Ran] = await (contender.start_all(jobs) if part == "start" else contender.run_all(jobs))
    for ran in found:
        # Of QEMU alone the kernel's own lines are there, too.
        if ran.code or not ran.stdout.endswith(_HELLO):
            raise AssertionError(f"expected {_HELLO!r} and 0, got {ran}")
    return found


async def warm_up(contender: Any, params: dict[str, Any]) -> None:
    """One machine, so that what is imported late is not counted."""
    await _run(contender, params["part"], 1)


async def measure(contender: Any, params: dict[str, Any], _: WatchedSelector) -> dict[str, float]:
    before = Usage.now()
    found = await _run(contender, params["part"], params["count"])
    used = Usage.now().since(before)
    return {
        "wall": used["wall"],
        "machines_per_s": params["count"] / used["wall"],
        "p50_ms": statistics.median(ran.seconds or 0 for ran in found) * 1000,
        # QEMU itself is a child of whoever starts it alone, and nobody's here.
        "cpu_ms": (used["cpu"] - used["cpu_children"]) / params["count"] * 1000,
    }


def tables(found: Results) -> list[Table]:
    rows = [
        (
            cell,
            name,
            number(found.median(cell, name, "p50_ms")),
            times(found.ratio(cell, "p50_ms", OURS, name)),
            number(found.median(cell, name, "machines_per_s")),
            times(found.ratio(cell, "machines_per_s", OURS, name)),
            number(found.median(cell, name, "cpu_ms"), 2),
            str(len(found.values(cell, name, "wall"))),
        )
        for cell, contenders in found.rounds.items()
        for name in contenders
    ]
    columns = ("", "client", "p50 ms", "ours/it", "machines/s", "ours/it", "client CPU ms each", "rounds")
    note = "run makes the machine's disk and removes it; QEMU alone is started on one that is there."
    return [Table("A unikernel that says hello", columns, tuple(rows), (note,))]


def figures(found: Results) -> list[Figure]:
    cell = _key(1, "start")
    ours, bare = (found.values(cell, name, "p50_ms") for name in (OURS, QEMU))
    more = [one - other for one, other in zip(ours, bare, strict=False)]
    return [
        Figure(
            name="start to exit beyond QEMU alone",
            wanted=_WITHIN,
            at_least=False,
            value=statistics.median(more) if more else None,
            unit="ms",
            note=f"{min(more):.1f} to {max(more):.1f}" if more else "",
        )
    ]
