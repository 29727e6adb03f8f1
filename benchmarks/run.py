"""Every question, every contender, one private daemon: prints tables of ratios and writes a JSON file.

``python -P benchmarks/run.py [--quick] [--only lifecycle] [--json PATH]``. Needs root, Docker's programs, and asyncctr,
aiodocker and docker-py installed. Exits with 1 when a contender failed in any round, whatever the figures are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

# Last, so that an installed asyncctr is what is measured.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from asyncctr.testing.daemons import DaemonError, Dockerd, RuntimeMissing
from asyncctr.testing.images import ImageSpec, build_archive
from benchmarks.engine import Engine, EngineError
from benchmarks.report import figure_table, machine, show, versions
from benchmarks.results import Results
from benchmarks.rounds import measure_cell

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from benchmarks.results import Figure, Table

IMAGE = "asyncctr.test/busybox:latest"
RESULTS = Path(__file__).with_name("results")
# Seconds for each question: quick, and full.
QUESTIONS = {"lifecycle": (85, 450), "logs": (40, 180), "followers": (14, 70), "waits": (16, 80)}
_PING_LIMIT = 20.0


def _say(message: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


async def _recover(daemon: Dockerd) -> bool:
    """Start a daemon again that does not answer any more, as old ones have been seen to; whether that was necessary."""
    engine = Engine(daemon.host)
    try:
        async with asyncio.timeout(_PING_LIMIT):
            await asyncio.to_thread(engine.containers)
    except (EngineError, OSError) as error:  # TimeoutError is an OSError
        _say(f"the daemon does not answer ({error}); it is killed and started again")
        await daemon.kill()
        await daemon.start()
        return True
    return False


async def _measure(names: Sequence[str], *, quick: bool) -> tuple[dict[str, Any], list[Table]]:
    """What goes into the file, and the tables to print."""
    modules: dict[str, ModuleType] = {name: import_module(f"benchmarks.{name}") for name in names}
    results = {name: Results() for name in names}
    with tempfile.TemporaryDirectory(prefix="asyncctr-bench-") as directory:
        archive = Path(directory, "busybox.tar")
        await asyncio.to_thread(build_archive, ImageSpec(reference=IMAGE), archive)
        async with Dockerd() as daemon:
            await daemon.load(archive)
            facts = {
                "versions": await asyncio.to_thread(lambda: versions(Engine(daemon.host).version())),
                "machine": machine(),
            }
            for name, module in modules.items():
                for cell in module.cells(quick=quick, seconds=QUESTIONS[name][not quick]):
                    await measure_cell(
                        module,
                        cell,
                        host=daemon.host,
                        image=IMAGE,
                        found=results[name],
                        recover=lambda: _recover(daemon),
                        say=_say,
                    )
    figures: list[Figure] = []
    tables: list[Table] = []
    for name, module in modules.items():
        tables += module.tables(results[name])
        figures += module.figures(results[name])
    errors = [
        f"{cell}: {contender}: {error}"
        for found in results.values()
        for cell, contenders in found.errors.items()
        for contender, messages in contenders.items()
        for error in messages
    ]
    document = {
        **facts,
        "load_average_at_end": machine()["load_average"],
        "figures": [{**attrs.asdict(figure), "verdict": figure.verdict} for figure in figures],
        "errors": errors,
        "questions": {name: found.as_json() for name, found in results.items()},
    }
    return document, [*tables, figure_table(figures)]


def main() -> int:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few rounds, in less than three minutes")
    parser.add_argument("--only", action="append", choices=list(QUESTIONS), help="this question; may be repeated")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where the results go (default: benchmarks/results/)")
    options = parser.parse_args()
    began, started = time.monotonic(), datetime.now(UTC)
    try:
        found, tables = asyncio.run(_measure(options.only or list(QUESTIONS), quick=options.quick))
    except (RuntimeMissing, DaemonError) as error:
        print(f"cannot measure here: {error}", file=sys.stderr)
        return 1
    path: Path = options.json or RESULTS / f"{started:%Y%m%dT%H%M%SZ}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {
        "command": [sys.executable, *sys.orig_argv[1:]],
        "started": started.isoformat(),
        "seconds": round(time.monotonic() - began, 1),
        "quick": options.quick,
    }
    path.write_text(json.dumps({**head, **found}, indent=1) + "\n", encoding="utf-8")
    # After the file: a pipe that breaks must not lose the measurements.
    for table in tables:
        show(table)
    for failure in found["errors"]:
        print(f"FAILED  {failure}")
    print(
        f"\n{head['seconds']} s; load average {found['machine']['load_average'][0]:.1f} at the start; written to {path}"
    )
    return 1 if found["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
