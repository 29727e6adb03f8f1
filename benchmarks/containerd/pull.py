"""How long an image of 120 MB takes from a registry on this machine, unpacked."""

# ruff: noqa: ARG001 - the questions' functions have one shape, whatever each needs of it

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from benchmarks.containerd.engine import Ctr
from benchmarks.measuring import Usage
from benchmarks.peers import CTR, OURS
from benchmarks.results import Cell, Figure, Results, Table, number, times

if TYPE_CHECKING:
    from benchmarks.measuring import WatchedSelector
    from benchmarks.peers.base import Contender

_KEY = "120 MB"
_RATIO = 1.0


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    return [Cell(key=_KEY, contenders=(OURS, CTR), params={}, rounds=4 if quick else 9, seconds=seconds)]


def prepare(engine: Ctr, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """Which one."""
    return {"reference": engine.pulled}


async def warm_up(contender: Contender, params: dict[str, Any]) -> None:
    """Once, so that the registry has it in memory."""
    await measure(contender, params, None)


async def measure(contender: Contender, params: dict[str, Any], _: WatchedSelector | None) -> dict[str, float]:
    reference: str = params["reference"]
    engine = Ctr(contender.host)
    before = Usage.now()
    await contender.pull(reference)
    used = Usage.now().since(before)
    # Gone with all that it had, so that the next one has everything to do.
    await asyncio.to_thread(engine.remove_image, reference)
    return {"wall": used["wall"], "cpu_s": used["cpu"]}


def tables(found: Results) -> list[Table]:
    rows = []
    for name in found.rounds.get(_KEY, ()):
        child = found.median(_KEY, name, "child_peak_kib") or 0
        rows.append(
            (
                _KEY,
                name,
                number(found.median(_KEY, name, "wall"), 2),
                times(found.ratio(_KEY, "wall", OURS, name)),
                number(found.median(_KEY, name, "cpu_s"), 3),
                times(found.ratio(_KEY, "cpu_s", OURS, name)),
                number((found.median(_KEY, name, "peak_kib") or 0) / 1024)
                + (f" + {child / 1024:.0f}" if child and name != OURS else ""),
                str(len(found.values(_KEY, name, "wall"))),
            )
        )
    columns = ("", "client", "s", "ours/it", "CPU s", "ours/it", "peak MiB", "rounds")
    return [Table("Pull and unpack", columns, tuple(rows))]


def figures(found: Results) -> list[Figure]:
    ratio = found.ratio(_KEY, "wall", OURS, CTR)
    return [found.ratio_figure("pull of 120 MB: time, ctr images pull", ratio, at_most=_RATIO)]
