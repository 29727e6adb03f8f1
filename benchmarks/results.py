"""What was measured, round by round, and what that says: medians, ratios and figures."""

from __future__ import annotations

import statistics
from typing import Any

import attrs

__all__ = ["Cell", "Figure", "Ratio", "Results", "Table", "number", "times"]


@attrs.frozen(kw_only=True)
class Cell:
    """One thing that every contender is measured at, in rounds.

    Attributes:
        key: its name in the results.
        contenders: in the order of the table.
        params: for the question's ``measure``; plain JSON.
        width: the most things at once.
        fresh: a new process for each round, because a round leaves its mark on the process's memory.
        rounds: the most there are to be.
        seconds: no round begins that would probably end later than this; there is always one.
        patience: seconds until a contender that does not answer is killed.
    """

    key: str
    contenders: tuple[str, ...]
    params: dict[str, Any]
    width: int = 1
    fresh: bool = False
    rounds: int = 1
    seconds: float = 10.0
    patience: float = 120.0


@attrs.frozen
class Ratio:
    """The median of the rounds' ratios, and the lowest and highest of them."""

    median: float
    low: float
    high: float


@attrs.frozen(kw_only=True)
class Figure:
    """A figure to reach.

    Attributes:
        name: what it is of.
        wanted: the bound.
        at_least: whether it is a lower bound.
        value: what was measured; ``None`` when it could not be.
        unit: of both.
        note: what else there is to say, such as the spread.
    """

    name: str
    wanted: float
    at_least: bool
    value: float | None
    unit: str = "x"
    note: str = ""

    @property
    def verdict(self) -> str:
        """``ok``, ``miss``, or ``not measured``."""
        if self.value is None:
            return "not measured"
        reached = self.value >= self.wanted if self.at_least else self.value <= self.wanted
        return "ok" if reached else "miss"


@attrs.frozen
class Table:
    """Rows to print; the first column is text, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


class Results:
    """Rounds by cell and contender. A round that failed is ``None`` there and its reason is in ``errors``."""

    def __init__(self) -> None:
        self.rounds: dict[str, dict[str, list[dict[str, float] | None]]] = {}
        self.errors: dict[str, dict[str, list[str]]] = {}

    def add(self, cell: str, contender: str, found: dict[str, float] | None, error: str = "") -> None:
        """A round's outcome."""
        self.rounds.setdefault(cell, {}).setdefault(contender, []).append(found)
        if error:
            self.errors.setdefault(cell, {}).setdefault(contender, []).append(error)

    def values(self, cell: str, contender: str, metric: str) -> list[float]:
        """A metric in the rounds that have it."""
        rounds = self.rounds.get(cell, {}).get(contender, [])
        return [found[metric] for found in rounds if found is not None and metric in found]

    def median(self, cell: str, contender: str, metric: str) -> float | None:
        """Its median."""
        values = self.values(cell, contender, metric)
        return statistics.median(values) if values else None

    def ratio(self, cell: str, metric: str, one: str, other: str) -> Ratio | None:
        """``one``'s metric over ``other``'s, of the same rounds, so that the machine's drift hits both."""
        return self.ratio_of(cell, (one, metric), (other, metric))

    def ratio_of(self, cell: str, one: tuple[str, str], other: tuple[str, str], other_cell: str = "") -> Ratio | None:
        """The same with metrics of different names, or cells: each a contender and its metric."""
        first = self.rounds.get(cell, {}).get(one[0], [])
        second = self.rounds.get(other_cell or cell, {}).get(other[0], [])
        found = [
            ours[one[1]] / theirs[other[1]]
            for ours, theirs in zip(first, second, strict=False)
            if ours is not None and theirs is not None and theirs.get(other[1])
        ]
        return Ratio(statistics.median(found), min(found), max(found)) if found else None

    def failures(self, contender: str) -> int:
        """How many rounds of a contender failed."""
        return sum(len(errors.get(contender, [])) for errors in self.errors.values())

    def ratio_figure(
        self, name: str, ratio: Ratio | None, *, at_least: float | None = None, at_most: float | None = None
    ) -> Figure:
        """A figure that is a ratio."""
        wanted = at_least if at_least is not None else at_most
        assert wanted is not None
        note = f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio is not None else ""
        value = None if ratio is None else ratio.median
        return Figure(name=name, wanted=wanted, at_least=at_least is not None, value=value, note=note)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            cell: {
                contender: {"rounds": rounds, "errors": self.errors.get(cell, {}).get(contender, [])}
                for contender, rounds in contenders.items()
            }
            for cell, contenders in self.rounds.items()
        }


def number(value: float | None, digits: int = 1) -> str:
    """For a table's cell."""
    return "-" if value is None else f"{value:.{digits}f}"


def times(ratio: Ratio | None) -> str:
    """A ratio for a table's cell."""
    return "-" if ratio is None else f"{ratio.median:.2f}"
