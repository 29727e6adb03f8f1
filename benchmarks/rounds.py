"""Contenders in processes of their own, measured in turn, round by round."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks.engine import EngineError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import ModuleType

    from benchmarks.results import Cell, Results
    from benchmarks.targets import Keeper, Target

__all__ = ["measure_cell"]

_WORKER = Path(__file__).with_name("worker.py")
_START_LIMIT = 60.0
_END_LIMIT = 15.0


class _WorkerError(Exception):
    """A contender's process ended, or did not answer in time."""


class _Worker:
    """A contender's process, in a session of its own, so that it can be killed with all that it started."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, spec: dict[str, Any]) -> Self:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            str(_WORKER),
            json.dumps(spec),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        worker = cls(process)
        try:
            await worker._read(_START_LIMIT)
        except BaseException:
            await worker.kill()
            raise
        return worker

    async def _read(self, limit: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(limit):
                line = await self._process.stdout.readline()
                if not line:
                    raise _WorkerError(f"its process ended with {await self._process.wait()}; see above")
        except TimeoutError:
            raise _WorkerError(f"no answer within {limit:g} s") from None
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def measure(self, limit: float) -> dict[str, Any]:
        """One round."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        return await self._read(limit)

    async def end(self) -> None:
        """Let it end by itself, and kill it if it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_END_LIMIT):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Kill it and what it started."""
        if self._process.returncode is None:
            # It leads its session's only process group, and is not reaped yet: the id is still its own.
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()


class _Turn:
    """One contender's turns in a cell."""

    def __init__(self, cell: Cell, name: str, spec: dict[str, Any], engine: Keeper) -> None:
        self._cell = cell
        self._spec = {**spec, "contender": name}
        self._engine = engine
        self._keep = set(spec["params"].get("keep", ()))
        self._worker: _Worker | None = None

    async def take(self) -> tuple[dict[str, float] | None, str]:
        """A round's measurement, or ``None`` and why there is none."""
        try:
            if self._worker is None:
                self._worker = await _Worker.start(self._spec)
            answer: dict[str, Any] = await self._worker.measure(self._cell.patience)
        except (_WorkerError, OSError) as error:
            await self.end(kill=True)
            answer = {"error": str(error)}
        if self._cell.fresh:
            await self.end()
        try:
            left = await asyncio.to_thread(self.clear)
        except (EngineError, OSError) as error:
            answer.setdefault("error", f"the daemon does not answer after it: {error}")
            left = 0
        if left and "error" not in answer:
            answer["error"] = f"it left {left} containers behind"
        if "error" in answer:
            return None, str(answer["error"])
        found: dict[str, float] = answer["found"]
        return found, ""

    def clear(self) -> int:
        """Remove what is left, so that it burdens nobody else; how many there were."""
        left = self._engine.containers() - self._keep
        self._engine.remove(left)
        return len(left)

    async def end(self, *, kill: bool = False) -> None:
        """End its process."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await (worker.kill() if kill else worker.end())


async def measure_cell(
    question: ModuleType,
    cell: Cell,
    *,
    target: Target,
    found: Results,
    recover: Callable[[], Awaitable[bool]],
    say: Callable[[str], None],
) -> None:
    """Measure every contender in turn, in every round beginning with another one, until rounds or time are used up.

    Args:
        question: the module.
        cell: what to measure.
        target: the daemon, and what containers are made from.
        found: where the measurements go.
        recover: called after a failure; starts a daemon that does not answer again, and tells whether it did.
        say: prints progress.
    """
    engine = target.engine
    params = await asyncio.to_thread(question.prepare, engine, target.image, cell.params)
    spec = {
        "question": question.__name__.removeprefix("benchmarks."),
        "runtime": target.runtime,
        "host": target.host,
        "image": target.image,
        "width": cell.width,
        "params": params,
    }
    turns = {name: _Turn(cell, name, spec, engine) for name in cell.contenders}
    began = time.monotonic()
    try:
        for index in range(cell.rounds):
            at = time.monotonic()
            shift = index % len(turns)
            for name in (*cell.contenders[shift:], *cell.contenders[:shift]):
                measured, error = await turns[name].take()
                found.add(cell.key, name, measured, error)
                if error:
                    say(f"{cell.key}: {name} FAILED: {error}")
                    if await recover():
                        # Their connections are gone, and what was under way is nobody else's fault.
                        for turn in turns.values():
                            await turn.end(kill=True)
                        await asyncio.to_thread(turns[name].clear)
            now = time.monotonic()
            say(f"{cell.key}: round {index + 1} took {now - at:.1f} s")
            if now + (now - at) > began + cell.seconds:
                break
    finally:
        for turn in turns.values():
            await turn.end()
        await asyncio.to_thread(_tidy, engine)


def _tidy(engine: Keeper) -> None:
    try:
        engine.remove(engine.containers())
    except (EngineError, OSError):
        # The daemon is dead: its own exit removes the rest.
        return
