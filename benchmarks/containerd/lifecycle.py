"""How many containers a second run to completion, when each result is out, and what that costs the client: 1, 8 and 32 at a time."""

# ruff: noqa: ARG001 - the questions' functions have one shape, whatever each needs of it

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.lifecycle import run, warm_up
from benchmarks.measuring import Usage
from benchmarks.peers import CTR, OURS
from benchmarks.results import Cell, Figure, Results, Table, number, times

if TYPE_CHECKING:
    from benchmarks.containerd.engine import Ctr
    from benchmarks.measuring import WatchedSelector
    from benchmarks.peers.base import Contender

__all__ = ["cells", "figures", "measure", "prepare", "tables", "warm_up"]

_CPU, _RATIO, _OUT = 6.0, 1.3, 0.65
# Containers at a time, network, containers in a round (quick, full), the share of the question's time.
_CELLS = (
    (1, "none", 10, 16, 0.22),
    (8, "none", 24, 40, 0.25),
    (32, "none", 32, 64, 0.33),
    (8, "bridge", 12, 24, 0.2),
)


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    return [
        Cell(
            key=f"{width} at a time" + (", bridge" if network == "bridge" else ""),
            # ctr's own bridge is whatever the machine's CNI configuration says.
            contenders=(OURS, CTR) if network == "none" else (OURS,),
            params={"network": network, "count": few if quick else many},
            width=width,
            rounds=4 if quick else 15,
            seconds=seconds * share,
        )
        for width, network, few, many, share in _CELLS
    ]


def prepare(engine: Ctr, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """Nothing is needed."""
    return params


async def measure(contender: Contender, params: dict[str, Any], _: WatchedSelector) -> dict[str, float]:
    """Until all of them are removed: a contender that removes behind its results is done with that once it is closed."""
    count: int = params["count"]
    before = Usage.now()
    found = await run(contender, params["network"], count)
    out = Usage.now().since(before)["wall"]
    await contender.aclose()
    used = Usage.now().since(before)
    await contender.open()
    return {
        "wall": used["wall"],
        "containers_per_s": count / used["wall"],
        "results_per_s": count / out,
        "p50_ms": statistics.median(ran.seconds or 0 for ran in found) * 1000,
        "cpu_ms": used["cpu"] / count * 1000,
    }


def tables(found: Results) -> list[Table]:
    rows = []
    for cell, contenders in found.rounds.items():
        for name in contenders:
            child = found.median(cell, name, "child_peak_kib") or 0
            rows.append(
                (
                    cell,
                    name,
                    number(found.median(cell, name, "containers_per_s")),
                    times(found.ratio(cell, "containers_per_s", OURS, name)),
                    number(found.median(cell, name, "p50_ms")),
                    times(found.ratio(cell, "p50_ms", OURS, name)),
                    number(found.median(cell, name, "cpu_ms"), 2),
                    times(found.ratio(cell, "cpu_ms", OURS, name)),
                    number((found.median(cell, name, "peak_kib") or 0) / 1024)
                    + (f" + {child / 1024:.0f} each" if child and name != OURS else ""),
                    str(len(found.values(cell, name, "wall"))),
                )
            )
    columns = (
        "", "client", "containers/s", "ours/it", "result p50 ms", "ours/it", "CPU ms each", "ours/it", "peak MiB", "rounds",
    )  # fmt: skip
    title = "Run to completion: create, start, both outputs, exit code, remove"
    note = "containers/s counts until all are removed; the result is asyncctr's before that, and ctr's after it."
    return [Table(title, columns, tuple(rows), (note,))]


def figures(found: Results) -> list[Figure]:
    made = []
    for width, network, *_ in _CELLS:
        if network != "none":
            continue
        cell = f"{width} at a time"
        speed, out = (found.ratio(cell, metric, OURS, CTR) for metric in ("containers_per_s", "p50_ms"))
        made += [
            found.ratio_figure(f"{cell}: containers/s, ctr run --rm", speed, at_least=_RATIO),
            found.ratio_figure(f"{cell}: result p50, ctr run --rm", out, at_most=_OUT),
            Figure(
                name=f"{cell}: client CPU",
                wanted=_CPU,
                at_least=False,
                value=found.median(cell, OURS, "cpu_ms"),
                unit="ms",
            ),
        ]
    return made
