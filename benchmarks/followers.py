"""What 200 log followers in one process cost."""

# ruff: noqa: ARG001 - the questions' functions have one shape, whatever each needs of it

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from benchmarks import crowds
from benchmarks.engine import Engine
from benchmarks.measuring import LagMeter, Usage, resident
from benchmarks.peers import OURS
from benchmarks.peers.base import Marks
from benchmarks.results import Cell, Figure, Results, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.measuring import WatchedSelector
    from benchmarks.peers.base import Contender, Output

_KEY = "200 followers"
_COUNT = 200
# A line before the first follower comes, two a second after that, and one at the end.
SCRIPT = (
    "i=0; trap 'echo end; exit 7' TERM; echo line 0; while :; do i=$((i + 1)); sleep 0.5 & wait $!; echo line $i; done"
)
_STEADY = 1.5
_LIMIT = 30.0


def cells(*, quick: bool, seconds: float) -> list[Cell]:
    return [
        Cell(
            key=_KEY,
            contenders=crowds.CONTENDERS,
            params={"count": _COUNT},
            width=_COUNT,
            fresh=True,
            rounds=2 if quick else 7,
            seconds=seconds,
            patience=60.0,
        )
    ]


def prepare(engine: Engine, image: str, params: dict[str, Any]) -> dict[str, Any]:
    """Each round has containers of its own."""
    return params


async def warm_up(contender: Contender, params: dict[str, Any]) -> None:
    """A follow of a container that ends."""
    engine = Engine(contender.host)
    script = "sleep 0.3; echo line 0; echo end"
    (container,) = await asyncio.to_thread(engine.start_many, contender.image, ("sh", "-c", script), 1)
    try:
        found = await contender.follow_all(await contender.handles([container]), Marks())
    finally:
        await asyncio.to_thread(engine.remove, [container])
    check([container], found)


def _text(output: Output) -> str:
    return "".join(piece if isinstance(piece, str) else piece.decode() for piece in output)


def check(sources: Sequence[str], found: Sequence[Output]) -> int:
    """Lines in order, from the first to the end, for all who followed one container; how many were not given the end of theirs.

    A follower that loses the end is counted, not failed: engines of the 20.10 line do that to clients that believe them.
    """
    texts = [_text(output) for output in found]
    whole: dict[str, str] = {}
    for source, text in zip(sources, texts, strict=True):
        whole[source] = max(whole.get(source, ""), text, key=len)
        lines = text.removesuffix("end\n").split("\n")
        if lines != [*(f"line {index}" for index in range(len(lines) - 1)), ""] or len(lines) < 2:
            raise AssertionError(f"a follower got {text[-100:]!r}")
    for source, text in zip(sources, texts, strict=True):
        if not whole[source].startswith(text.removesuffix("end\n")) or (
            text.endswith("end\n") and text != whole[source]
        ):
            raise AssertionError(f"followers of one container got {whole[source][-100:]!r} and {text[-100:]!r}")
    return sum(not text.endswith("end\n") for text in texts)


async def measure(contender: Contender, params: dict[str, Any], _: WatchedSelector) -> dict[str, float]:
    count: int = params["count"]
    engine = Engine(contender.host)
    ids = await asyncio.to_thread(engine.start_many, contender.image, ("sh", "-c", SCRIPT), crowds.SOURCES)
    try:
        handles = crowds.spread(await contender.handles(ids), count)
        marks = Marks()
        async with LagMeter() as lag:
            lag.phase("before")
            await asyncio.sleep(0.5)
            memory, usage, began = resident(), Usage.now(), time.perf_counter()
            lag.phase("open")
            following = asyncio.create_task(contender.follow_all(handles, marks))
            async with asyncio.timeout(_LIMIT):
                while len(marks.data) < count and not following.done():  # noqa: ASYNC110  # threads set it, too
                    await asyncio.sleep(0.005)
            lag.phase("steady")
            await asyncio.sleep(_STEADY)
            if following.done():
                raise AssertionError("the followers ended early")
            lag.phase("")
            each = (resident() - memory) / count
            lag.phase("end")
            for one in ids:
                await asyncio.to_thread(engine.kill, one, "TERM")
            found = await following
            lag.phase("")
        used = Usage.now().since(usage)
    finally:
        await asyncio.to_thread(engine.remove, ids)
    short = check(crowds.spread(ids, count), found)
    made = {
        "kib_each": each,
        "open_s": max(marks.data.values()) - began,
        "cpu_s": used["cpu"],
        "short": short,
        **{f"lag_{name}_ms": value for name, value in lag.worst.items() if name},
    }
    if marks.opened:
        made["registered_s"] = max(marks.opened.values()) - began
    return made


def tables(found: Results) -> list[Table]:
    return [crowds.table(found, "200 followers in one process; open means that each has its first line")]


def figures(found: Results) -> list[Figure]:
    short = found.values(_KEY, OURS, "short")
    return [
        *crowds.figures(found, _KEY),
        Figure(
            name=f"{_KEY}: not given the end", wanted=0, at_least=False, value=max(short, default=None), unit="of them"
        ),
    ]
