"""What the questions about many streams in one process share: their containers, their table and their figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import AIODOCKER, DOCKER_CLI, DOCKER_PY, OURS
from benchmarks.results import Figure, Results, Table, number, times

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CONTENDERS", "EXIT_CODE", "SOURCES", "figures", "spread", "table"]

CONTENDERS = (OURS, AIODOCKER, DOCKER_PY)
SOURCES = 10
"""Containers that the streams are spread over. To the client each stream is one of its own, whatever it comes from."""
EXIT_CODE = 7
_MEMORY, _OPEN, _LAG = 15.0, 0.5, 50.0


def spread(ids: Sequence[str], count: int) -> list[str]:
    """``count`` ids, each of the given ones as often as the others."""
    return [ids[index % len(ids)] for index in range(count)]


def table(found: Results, title: str, *, alone: bool = False) -> Table:
    rows = [
        (
            cell,
            name,
            number(found.median(cell, name, "kib_each")),
            times(found.ratio(cell, "kib_each", OURS, name)),
            number(found.median(cell, name, "open_s"), 3),
            *(number(found.median(cell, name, f"lag_{phase}_ms")) for phase in ("before", "open", "steady", "end")),
            number(found.median(cell, name, "cpu_s"), 2),
            times(found.ratio(cell, "cpu_s", OURS, name)),
            number((found.median(cell, name, "peak_kib") or 0) / 1024),
            number(max(found.values(cell, name, "short"), default=None), 0),
            str(len(found.values(cell, name, "kib_each"))),
        )
        for cell, contenders in found.rounds.items()
        for name in contenders
    ]
    columns = (
        "", "client", "KiB each", "ours/it", "open s", "lag ms idle", "opening", "open", "ending", "CPU s", "ours/it", "peak MiB", "cut short",
        "rounds",
    )  # fmt: skip
    peers = "ctr takes a process for each" if alone else f"{DOCKER_CLI} takes a process for each and is left out"
    note = f"{peers}. Lag: a 5 ms timer's worst lateness; `idle` is the machine's own."
    return Table(title, columns, tuple(rows), (note,))


def figures(found: Results, what: str) -> list[Figure]:
    made = []
    for cell in found.rounds or {what: {}}:
        lags = [found.median(cell, OURS, f"lag_{phase}_ms") for phase in ("open", "steady", "end")]
        known = [lag for lag in lags if lag is not None]
        idle = found.median(cell, OURS, "lag_before_ms")
        made += [
            Figure(
                name=f"{cell}: memory each",
                wanted=_MEMORY,
                at_least=False,
                value=found.median(cell, OURS, "kib_each"),
                unit="KiB",
            ),
            Figure(
                name=f"{cell}: all open",
                wanted=_OPEN,
                at_least=False,
                value=found.median(cell, OURS, "open_s"),
                unit="s",
            ),
            Figure(
                name=f"{cell}: loop lag",
                wanted=_LAG,
                at_least=False,
                value=max(known, default=None),
                unit="ms",
                note=f"opening {number(lags[0])}, open {number(lags[1])}, ending {number(lags[2])}; idle {number(idle)}",
            ),
        ]
    return made
