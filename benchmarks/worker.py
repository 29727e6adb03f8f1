"""One contender in a process of its own: told on standard input to measure, it answers in JSON lines.

Started by the runner: ``worker.py SPEC``, a JSON object with ``question``, ``runtime``, ``contender``, ``host``, ``image``,
``width`` and ``params``. It answers ``ready`` when it is warm, and each line that it then reads with one round's measurement.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

# Last, so that an installed asyncctr is what is measured.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import WatchedSelector, peak_memory
from benchmarks.peers import load


async def _answer(spec: dict[str, Any], selector: WatchedSelector, output: Any) -> None:
    def say(message: dict[str, Any]) -> None:
        output.write(json.dumps(message) + "\n")
        output.flush()

    question = import_module(f"benchmarks.{spec['question']}")
    params = spec["params"]
    async with load(spec["runtime"], spec["contender"])(spec["host"], spec["image"], spec["width"]) as contender:
        await question.warm_up(contender, params)
        say({"ready": True})
        while await asyncio.to_thread(sys.stdin.readline):
            try:
                found = await question.measure(contender, params, selector)
            except Exception as error:  # noqa: BLE001  # whatever it was, it is this contender's result
                traceback.print_exc()
                say({"error": f"{type(error).__name__}: {error}"[:500]})
            else:
                say({"found": {**found, **peak_memory()}})


def main() -> None:
    """Serve the runner until it closes standard input."""
    # Whatever a library prints must not come between the answers.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    selector = WatchedSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(_answer(json.loads(sys.argv[1]), selector, output))


if __name__ == "__main__":
    main()
