"""How fast a million lines of 65 bytes arrive, half of them on each stream: from a running container, and from one that has ended."""

# ruff: noqa: ARG001 - the questions' functions have one shape, whatever each needs of it

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import Usage
from benchmarks.peers import CTR, OURS
from benchmarks.peers.base import Job
from benchmarks.results import Cell, Figure, Results, Table, number, times

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncctr import Container
    from benchmarks.containerd.engine import Ctr
    from benchmarks.measuring import WatchedSelector
    from benchmarks.peers.base import Contender
    from benchmarks.peers.ours_containerd import AsyncctrContainerd

__all__ = ["LINES_FILE", "cells", "figures", "lines", "measure", "prepare", "tables", "warm_up"]

RUN, LIVE, PAST = "run", "logs() of a running one", "logs() of an ended one"
LINES_FILE = "/lines"
"""Half a million lines in the image, for busybox prints them slower than they are to be read."""

_LINE = 65
_HALF = 500_000
_WANTED = 100.0
_COMMAND = ("sh", "-c", f"cat {LINES_FILE} >&2 & cat {LINES_FILE}; wait")


@cache
def lines() -> bytes:
    """What is in the file."""
    return b"".join(b"%07d %s\n" % (index, b"x" * (_LINE - 9)) for index in range(_HALF))


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    return [
        Cell(
            key=key,
            contenders=(OURS, CTR) if key == RUN else (OURS,),
            params={"question": key},
            fresh=True,
            rounds=3 if quick else 9,
            seconds=seconds / 3,
        )
        for key in (RUN, LIVE, PAST)
    ]


def prepare(engine: Ctr, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """What each stream must be."""
    return {**params, "size": len(lines()), "digest": hashlib.sha256(lines()).hexdigest()}


def _check(params: dict[str, Any], *streams: Iterable[bytes]) -> None:
    for parts in streams:
        digest = hashlib.sha256()
        size = 0
        for part in parts:
            digest.update(part)
            size += len(part)
        if (size, digest.hexdigest()) != (params["size"], params["digest"]):
            raise AssertionError(f"a stream has {size} bytes instead of {params['size']}, or others")


async def warm_up(contender: Contender, params: dict[str, Any]) -> None:
    """A container that prints one line."""
    code, _ = await contender.run_printing(Job(("echo", "1"), "none"))
    if code:
        raise AssertionError(f"exit code {code}")


async def measure(contender: Contender, params: dict[str, Any], _: WatchedSelector) -> dict[str, float]:
    if params["question"] == RUN:
        before = Usage.now()
        code, (stdout, stderr) = await contender.run_printing(Job(_COMMAND, "none"))
        used = Usage.now().since(before)
        if code:
            raise AssertionError(f"exit code {code}")
        _check(params, [_bytes(stdout)], [_bytes(stderr)])
    else:
        used = await _read(contender, params)  # type: ignore[arg-type]  # the only one that has logs
    return {"wall": used["wall"], "mb_per_s": 2 * params["size"] / used["wall"] / 1e6, "cpu_s": used["cpu"]}


def _bytes(piece: str | bytes) -> bytes:
    assert isinstance(piece, bytes)
    return piece


async def _read(contender: AsyncctrContainerd, params: dict[str, Any]) -> dict[str, float]:
    container = await contender.make(_COMMAND)
    try:
        if params["question"] == PAST:
            await container.start()
            await container.wait()
            before = Usage.now()
            streams = await _collect(container)
        else:
            before = Usage.now()
            await container.start()
            streams = await _collect(container)
        used = Usage.now().since(before)
    finally:
        await container.remove(force=True)
    _check(params, streams["stdout"], streams["stderr"])
    return used


async def _collect(container: Container) -> dict[str, list[bytes]]:
    streams: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    async with await container.logs() as log:
        async for entry in log:
            streams[entry.stream].append(entry.data)
    return streams


def tables(found: Results) -> list[Table]:
    rows = []
    for cell, contenders in found.rounds.items():
        for name in contenders:
            child = found.median(cell, name, "child_peak_kib") or 0
            rows.append(
                (
                    cell,
                    name,
                    number(found.median(cell, name, "mb_per_s")),
                    times(found.ratio(cell, "mb_per_s", OURS, name)),
                    number(found.median(cell, name, "cpu_s"), 2),
                    times(found.ratio(cell, "cpu_s", OURS, name)),
                    number((found.median(cell, name, "peak_kib") or 0) / 1024)
                    + (f" + {child / 1024:.0f}" if child and name != OURS else ""),
                    str(len(found.values(cell, name, "wall"))),
                )
            )
    columns = ("", "client", "MB/s", "ours/it", "CPU s", "ours/it", "peak MiB", "rounds")
    note = (
        "All keep the whole output in memory. `run` is timed from create to the result, a running one from its start to the "
        "log's end, and an ended one in the reading alone."
    )
    return [Table(f"1,000,000 lines of {_LINE} bytes, half of them on stderr", columns, tuple(rows), (note,))]


def figures(found: Results) -> list[Figure]:
    return [
        Figure(
            name=f"{cell}: 1M lines",
            wanted=_WANTED,
            at_least=True,
            value=found.median(cell, OURS, "mb_per_s"),
            unit="MB/s",
        )
        for cell in (LIVE, PAST)
    ]
