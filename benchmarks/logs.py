"""How fast a million lines of 65 bytes arrive, live and from the log of a container that has ended."""

# ruff: noqa: ARG001 - the questions' functions have one shape, whatever each needs of it

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import Usage
from benchmarks.peers import AIODOCKER, AIODOCKER_README, DOCKER_CLI, DOCKER_PY, OURS
from benchmarks.peers.base import Job
from benchmarks.results import Cell, Figure, Results, Table, number, times

if TYPE_CHECKING:
    from benchmarks.engine import Engine
    from benchmarks.measuring import WatchedSelector
    from benchmarks.peers.base import Contender, Output

CONTENDERS = (OURS, AIODOCKER, AIODOCKER_README, DOCKER_PY, DOCKER_CLI)
QUICK_CONTENDERS = CONTENDERS[:3]
LIVE, PAST = "run", "log of an ended one"

LINE = 65
_FIRST = 1_000_001  # so that all numbers have seven digits
_PADDING = " " + "x" * (LINE - 9) + "\n"
_NAMES = {
    (LIVE, OURS): "client.run()",
    (LIVE, AIODOCKER): "attach before start",
    (LIVE, AIODOCKER_README): "log(follow=True)",
    (LIVE, DOCKER_PY): "logs(stream=True)",
    (LIVE, DOCKER_CLI): "docker run --rm",
    (PAST, OURS): "container.logs()",
    (PAST, AIODOCKER): "log()",
    (PAST, AIODOCKER_README): "log(follow=True)",
    (PAST, DOCKER_PY): "logs()",
    (PAST, DOCKER_CLI): "docker logs",
}


def _command(lines: int) -> tuple[str, ...]:
    return ("seq", "-s", _PADDING, str(_FIRST), str(_FIRST + lines - 1))


def _expected(lines: int) -> tuple[int, str]:
    """The output's size and digest. The last line has no padding, but an end."""
    digest = hashlib.sha256()
    size, last = 0, _FIRST + lines - 1
    for start in range(_FIRST, last, 10_000):
        block = "".join(f"{index}{_PADDING}" for index in range(start, min(start + 10_000, last))).encode()
        digest.update(block)
        size += len(block)
    end = f"{last}\n".encode()
    digest.update(end)
    return size + len(end), digest.hexdigest()


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    return [
        Cell(
            key=key,
            contenders=QUICK_CONTENDERS if quick else CONTENDERS,
            params={"question": key, "lines": 1_000_000},
            fresh=True,
            rounds=2 if quick else 7,
            seconds=seconds / 2,
            patience=180.0,
        )
        for key in (LIVE, PAST)
    ]


def prepare(engine: Engine, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """The ended container, once for all contenders, and what its output must be."""
    size, digest = _expected(params["lines"])
    made = {**params, "size": size, "digest": digest}
    if params["question"] == PAST:
        made["container"] = engine.start(image, _command(params["lines"]))
        made["keep"] = [made["container"]]
        engine.wait(made["container"])
    return made


def _check(output: Output, params: dict[str, Any]) -> None:
    digest = hashlib.sha256()
    size = 0
    for piece in output if isinstance(output, list) else [output]:
        data = piece.encode() if isinstance(piece, str) else piece
        digest.update(data)
        size += len(data)
    if (size, digest.hexdigest()) != (params["size"], params["digest"]):
        raise AssertionError(f"the output has {size} bytes instead of {params['size']}, or others")


async def warm_up(contender: Contender, params: dict[str, Any]) -> None:
    """A container that prints one line."""
    code, _ = await contender.run_printing(Job(("echo", "1"), "none"))
    if code:
        raise AssertionError(f"exit code {code}")


async def measure(contender: Contender, params: dict[str, Any], _: WatchedSelector) -> dict[str, float]:
    if params["question"] == LIVE:
        before = Usage.now()
        code, output = await contender.run_printing(Job(_command(params["lines"]), "none"))
        used = Usage.now().since(before)
        if code:
            raise AssertionError(f"exit code {code}")
    else:
        (handle,) = await contender.handles([params["container"]])
        before = Usage.now()
        output = await contender.read_log(handle)
        used = Usage.now().since(before)
    _check(output, params)
    return {"wall": used["wall"], "mb_per_s": params["size"] / used["wall"] / 1e6, "cpu_s": used["cpu"]}


def tables(found: Results) -> list[Table]:
    rows = []
    for cell, contenders in found.rounds.items():
        for name in contenders:
            child = found.median(cell, name, "child_peak_kib") or 0
            rows.append(
                (
                    cell,
                    f"{name.removesuffix(' README')}: {_NAMES[cell, name]}",
                    number(found.median(cell, name, "mb_per_s")),
                    times(found.ratio(cell, "mb_per_s", OURS, name)),
                    number(found.median(cell, name, "cpu_s"), 2),
                    times(found.ratio(cell, "cpu_s", OURS, name)),
                    number((found.median(cell, name, "peak_kib") or 0) / 1024)
                    + (f" + {child / 1024:.0f}" if child else ""),
                    str(len(found.values(cell, name, "wall"))),
                )
            )
    columns = ("", "client", "MB/s", "ours/it", "CPU s", "ours/it", "peak MiB", "rounds")
    notes = [
        "All keep the whole output in memory, as their library gives it. `run` is timed from create to remove, `log` in the reading."
    ]
    if left := [name for name in CONTENDERS if any(name not in contenders for contenders in found.rounds.values())]:
        notes.append(f"Left out with --quick: {', '.join(left)}.")
    return [Table(f"1,000,000 lines of {LINE} bytes", columns, tuple(rows), tuple(notes))]


def figures(found: Results) -> list[Figure]:
    speed = found.median(LIVE, OURS, "mb_per_s")
    # Whichever way of reading it is the faster one.
    ways = [name for name in (AIODOCKER, AIODOCKER_README) if found.median(PAST, name, "mb_per_s")]
    past = max(ways, key=lambda name: found.median(PAST, name, "mb_per_s") or 0, default=AIODOCKER)
    how = _NAMES[PAST, past]
    return [
        Figure(name="client.run(), 1M lines", wanted=30.0, at_least=True, value=speed, unit="MB/s"),
        found.ratio_figure(
            "client.run(): MB/s, aiodocker log(follow=True)",
            found.ratio(LIVE, "mb_per_s", OURS, AIODOCKER_README),
            at_least=2.0,
        ),
        found.ratio_figure(
            "client.run(): CPU, aiodocker log(follow=True)",
            found.ratio(LIVE, "cpu_s", OURS, AIODOCKER_README),
            at_most=0.1,
        ),
        found.ratio_figure(
            f"logs() of an ended one: MB/s, aiodocker {how}", found.ratio(PAST, "mb_per_s", OURS, past), at_least=1.3
        ),
        found.ratio_figure(
            f"logs() of an ended one: CPU, aiodocker {how}", found.ratio(PAST, "cpu_s", OURS, past), at_most=0.5
        ),
    ]
