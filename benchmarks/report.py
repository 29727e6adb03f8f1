"""The tables, and the facts about the machine that a number means nothing without."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.results import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Figure

__all__ = ["figure_table", "machine", "show", "versions"]

_PACKAGES = {
    "docker": ("asyncctr", "aiodocker", "aiohttp", "docker", "requests", "urllib3"),
    "containerd": ("asyncctr", "grpclib", "h2", "protobuf", "aiohttp"),
    "nanos": ("asyncctr",),
}
_DIGITS = {"x": 2, "s": 3}


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": model,
        "memory_mib": memory // 1024,
        "kernel": platform.release(),
        "load_average": os.getloadavg(),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def versions(runtime: str, engine: dict[str, str]) -> dict[str, str]:
    """Of the contenders, of what they stand on, and of the daemon."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES[runtime]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    spec = util.find_spec("asyncctr")
    found["asyncctr from"] = str(spec.origin if spec is not None else None)
    if runtime == "docker" and (program := shutil.which("docker")):
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        found["docker CLI"] = done.stdout.strip()
    return found | {f"daemon: {name}": version for name, version in engine.items()}


def figure_table(figures: Sequence[Figure]) -> Table:
    """The figures to reach, with what was measured."""
    rows = []
    for figure in figures:
        digits = _DIGITS.get(figure.unit, 1)
        value = "-" if figure.value is None else f"{figure.value:.{digits}f} {figure.unit}"
        bound = f"{'>=' if figure.at_least else '<='} {figure.wanted:g} {figure.unit}"
        rows.append((figure.name, value, bound, figure.verdict, figure.note))
    notes = ("Ratios are asyncctr's to the one named: the median of the rounds' ratios, then the lowest and highest.",)
    return Table("Figures", ("figure", "measured", "wanted", "", "spread"), tuple(rows), notes)


def show(table: Table) -> None:
    """Print a table, with rich where it is installed."""
    try:
        from rich import box  # noqa: PLC0415  # it need not be installed
        from rich.console import Console  # noqa: PLC0415
        from rich.markup import escape  # noqa: PLC0415
        from rich.table import Table as RichTable  # noqa: PLC0415
    except ImportError:
        _show_plain(table)
        return
    drawn = RichTable(title=table.title, box=box.SIMPLE, title_justify="left", title_style="bold")
    texts = _text_columns(table)
    for index, column in enumerate(table.columns):
        drawn.add_column(escape(column), justify="left" if index in texts else "right", no_wrap=True)
    for previous, row in zip((None, *table.rows), table.rows, strict=False):
        same = previous is not None and previous[0] == row[0]
        if previous is not None and not same and len(texts) > 1 and table.columns[0] == "":
            drawn.add_section()
        styled = [_COLOURS.get(cell, "{}").format(escape(cell)) for cell in row]
        drawn.add_row(*(["", *styled[1:]] if same else styled))
    # Not cut to a pipe's 80 columns.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(drawn)
    for note in table.notes:
        console.print(f"  {note}", markup=False, highlight=False)


_COLOURS = {"ok": "[green]{}[/]", "miss": "[bold red]{}[/]", "not measured": "[bold red]{}[/]"}


def _text_columns(table: Table) -> set[int]:
    """Those whose cells do not all begin like a number."""
    return {
        index
        for index in range(len(table.columns))
        if any(row[index][:1].isalpha() or row[index][:1] in (">", "<", "") for row in table.rows)
    } | {0}


def _show_plain(table: Table) -> None:
    rows = [table.columns, *table.rows]
    widths = [max(len(row[index]) for row in rows) for index in range(len(table.columns))]
    texts = _text_columns(table)
    print(f"\n{table.title}\n")
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(width) if index in texts else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(cells).rstrip())
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))
    for note in table.notes:
        print(f"  {note}")
