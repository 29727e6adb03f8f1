"""How long an image of a 10 MB program takes, one of 400 MB in a file, and one of 18,000 files."""

# ruff: noqa: ARG001 - the questions' functions have one shape, whatever each needs of it

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import Usage
from benchmarks.peers import OURS
from benchmarks.results import Cell, Figure, Results, Table, number

if TYPE_CHECKING:
    from benchmarks.measuring import WatchedSelector
    from benchmarks.nanos.engine import Machines

_PROGRAM, _LARGE, _FILES = "10 MB program", "400 MB file", "18,000 files"
_MEGABYTE = 1_000_000
_COUNT, _QUICK_COUNT, _EACH = 18_000, 18_000, 500
_SECONDS, _RATE = 0.2, 200.0


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    return [
        Cell(key=key, contenders=(OURS,), params={"what": key}, rounds=3 if quick else 10, seconds=seconds / 3)
        for key in (_PROGRAM, _LARGE, _FILES)
    ]


def prepare(engine: Machines, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """The files, in the target's directory, which goes with it."""
    directory = Path(tempfile.mkdtemp(prefix="built-", dir=os.environ["ASYNCCTR_DATA_DIR"]))
    program = directory / "program"
    program.write_bytes(Path(engine.shell).read_bytes())
    contents = directory / "contents"
    contents.mkdir()
    megabytes = 0.0
    if params["what"] == _PROGRAM:
        # Behind its end, as debugging information is.
        with program.open("ab") as file:
            file.write(os.urandom(10 * _MEGABYTE - file.tell()))
        megabytes = 10.0
    elif params["what"] == _LARGE:
        with (contents / "large").open("wb") as file:
            for _ in range(400):
                file.write(os.urandom(_MEGABYTE))
        megabytes = 400.0
    else:
        for number_ in range(_COUNT):
            place = contents / str(number_ // 100)
            place.mkdir(exist_ok=True)
            (place / str(number_)).write_bytes(b"x" * _EACH)
        megabytes = _COUNT * _EACH / _MEGABYTE
    directories = {"/contents": str(contents)} if params["what"] != _PROGRAM else {}
    return {**params, "program": str(program), "directories": directories, "megabytes": megabytes}


async def warm_up(contender: Any, params: dict[str, Any]) -> None:
    """One build: the files are in the page cache from then on."""
    await contender.build(params["program"], params["directories"])


async def measure(contender: Any, params: dict[str, Any], _: WatchedSelector) -> dict[str, float]:
    before = Usage.now()
    seconds = await contender.build(params["program"], params["directories"])
    return {"wall": seconds, "mb_per_s": params["megabytes"] / seconds, "cpu_s": Usage.now().since(before)["cpu"]}


def tables(found: Results) -> list[Table]:
    rows = [
        (
            cell,
            number(found.median(cell, OURS, "wall"), 3),
            number(found.median(cell, OURS, "mb_per_s"), 0),
            number(found.median(cell, OURS, "cpu_s"), 3),
            str(len(found.values(cell, OURS, "wall"))),
        )
        for cell in found.rounds
    ]
    return [Table("Building an image", ("", "s", "MB/s", "CPU s", "rounds"), tuple(rows))]


def figures(found: Results) -> list[Figure]:
    seconds, rate = found.median(_PROGRAM, OURS, "wall"), found.median(_LARGE, OURS, "mb_per_s")
    return [
        Figure(name=f"an image of a {_PROGRAM}", wanted=_SECONDS, at_least=False, value=seconds, unit="s"),
        Figure(name=f"an image with a {_LARGE}", wanted=_RATE, at_least=True, value=rate, unit="MB/s"),
    ]
