"""How many containers a second run to completion, and what each costs the client: 1, 8 and 32 at a time."""

# ruff: noqa: ARG001 - the questions' functions have one shape, whatever each needs of it

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import Usage
from benchmarks.peers import AIODOCKER, AIODOCKER_README, DOCKER_CLI, DOCKER_PY, OURS
from benchmarks.peers.base import Job, Ran
from benchmarks.results import Cell, Figure, Results, Table, number, times

if TYPE_CHECKING:
    from benchmarks.engine import Engine
    from benchmarks.measuring import WatchedSelector
    from benchmarks.peers.base import Contender

CONTENDERS = (OURS, AIODOCKER, AIODOCKER_README, DOCKER_PY, DOCKER_CLI)
_PEERS = CONTENDERS[1:]

_CODE = 3
_SCRIPT = f'echo "out $0"; echo "err $0" >&2; exit {_CODE}'

# Containers at a time, network, containers in a round (quick, full), the share of the question's time.
_CELLS = (
    (1, "none", 6, 10, 0.18),
    (8, "none", 16, 32, 0.26),
    (32, "none", 32, 64, 0.40),
    (8, "bridge", 12, 24, 0.16),
)


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    return [
        Cell(
            key=f"{width} at a time" + (", bridge" if network == "bridge" else ""),
            contenders=CONTENDERS,
            params={"network": network, "count": few if quick else many},
            width=width,
            rounds=4 if quick else 15,
            seconds=seconds * share,
        )
        for width, network, few, many, share in _CELLS
    ]


def prepare(engine: Engine, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """Nothing is needed."""
    return params


def _check(ran: Ran, token: str) -> None:
    out, err = f"out {token}\n".encode(), f"err {token}\n".encode()
    if ran.stderr is None:
        right = sorted(ran.stdout.splitlines(keepends=True)) == [err, out]
    else:
        right = (ran.stdout, ran.stderr) == (out, err)
    if not right or ran.code != _CODE:
        raise AssertionError(f"expected {out!r}, {err!r} and {_CODE}, got {ran}")


async def run(contender: Contender, network: str, count: int) -> list[Ran]:
    """Run so many containers, and check what each said."""
    tokens = [uuid.uuid4().hex for _ in range(count)]
    found = await contender.run_all([Job(("sh", "-c", _SCRIPT, token), network) for token in tokens])
    for ran, token in zip(found, tokens, strict=True):
        _check(ran, token)
    return found


async def warm_up(contender: Contender, params: dict[str, Any]) -> None:
    """One container, so that what is imported late is not counted."""
    await run(contender, params["network"], 1)


async def measure(contender: Contender, params: dict[str, Any], _: WatchedSelector) -> dict[str, float]:
    count: int = params["count"]
    before = Usage.now()
    await run(contender, params["network"], count)
    used = Usage.now().since(before)
    return {
        "wall": used["wall"],
        "containers_per_s": count / used["wall"],
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
                    number(found.median(cell, name, "containers_per_s"), 2),
                    times(found.ratio(cell, "containers_per_s", OURS, name)),
                    number(found.median(cell, name, "cpu_ms"), 2),
                    times(found.ratio(cell, "cpu_ms", OURS, name)),
                    number((found.median(cell, name, "peak_kib") or 0) / 1024)
                    + (f" + {child / 1024:.0f} each" if child else ""),
                    str(len(found.values(cell, name, "wall"))),
                )
            )
    columns = ("", "client", "containers/s", "ours/it", "CPU ms each", "ours/it", "peak MiB", "rounds")
    title = "Run to completion: create, start, both outputs, exit code, remove"
    return [Table(title, columns, tuple(rows))]


def figures(found: Results) -> list[Figure]:
    made = []
    for width, network, *_ in _CELLS:
        if network != "none":
            continue
        cell = f"{width} at a time"
        ratios = {name: found.ratio(cell, "containers_per_s", OURS, name) for name in _PEERS}
        known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
        best = min(known, key=lambda name: known[name].median) if known else "a peer"
        made += [
            found.ratio_figure(f"{cell}: containers/s, the best peer ({best})", known.get(best), at_least=0.98),
            found.ratio_figure(f"{cell}: containers/s, {AIODOCKER_README}", ratios[AIODOCKER_README], at_least=1.3),
            found.ratio_figure(f"{cell}: CPU, {AIODOCKER}", found.ratio(cell, "cpu_ms", OURS, AIODOCKER), at_most=0.75),
            found.ratio_figure(f"{cell}: CPU, {DOCKER_PY}", found.ratio(cell, "cpu_ms", OURS, DOCKER_PY), at_most=0.4),
        ]
    return made
