"""Every question, every contender, private daemons: prints tables of ratios and writes a JSON file.

``python -P benchmarks/run.py [docker|containerd|nanos ...] [--release debian|2.x] [--quick] [--only lifecycle] [--json PATH]``. Needs
root, the runtimes' programs, and asyncctr, aiodocker and docker-py installed. Exits with 1 when a contender failed in any
round, whatever the figures are.
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

from asyncctr.testing.daemons import DaemonError, RuntimeMissing
from benchmarks.engine import EngineError
from benchmarks.report import figure_table, machine, show, versions
from benchmarks.results import Results
from benchmarks.rounds import measure_cell
from benchmarks.targets import ContainerdTarget, DockerTarget, NanosTarget, Release

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from types import ModuleType

    from benchmarks.results import Figure, Table
    from benchmarks.targets import Target

RESULTS = Path(__file__).with_name("results")
RUNTIMES = ("docker", "containerd", "nanos")
RELEASES: tuple[Release, ...] = ("debian", "2.x")
QUESTIONS = tuple(dict.fromkeys((*DockerTarget.questions, *ContainerdTarget.questions, *NanosTarget.questions)))
_PING_LIMIT = 20.0


def _say(message: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


async def _recover(target: Target) -> bool:
    """Start a daemon again that does not answer any more, as old ones have been seen to; whether that was necessary."""
    try:
        async with asyncio.timeout(_PING_LIMIT):
            await asyncio.to_thread(target.engine.containers)
    except (EngineError, OSError) as error:  # TimeoutError is an OSError
        _say(f"the daemon does not answer ({error}); it is killed and started again")
        await target.restart()
        return True
    return False


async def _measure(target: Target, *, quick: bool) -> tuple[dict[str, Any], list[Figure], list[Table]]:
    """What goes into the file of one daemon, its figures, and the tables to print."""
    places = {name: target.questions[name] for name in target.names}
    modules: dict[str, ModuleType] = {name: import_module(f"benchmarks.{place[0]}") for name, place in places.items()}
    results = {name: Results() for name in modules}
    async with target:
        _say(f"{target.name} runs")
        found: dict[str, Any] = {
            "versions": await asyncio.to_thread(lambda: versions(target.runtime, target.engine.version()))
        }
        for name, module in modules.items():
            for cell in module.cells(quick=quick, seconds=places[name][1 if quick else 2]):
                await measure_cell(
                    module,
                    cell,
                    target=target,
                    found=results[name],
                    recover=lambda: _recover(target),
                    say=_say,
                )
    figures: list[Figure] = []
    tables: list[Table] = []
    for name, module in modules.items():
        tables += [attrs.evolve(table, title=f"{target.name}: {table.title}") for table in module.tables(results[name])]
        figures += [
            attrs.evolve(figure, name=f"{target.name}: {figure.name}") for figure in module.figures(results[name])
        ]
    errors = [
        f"{target.name}: {cell}: {contender}: {error}"
        for results_ in results.values()
        for cell, contenders in results_.errors.items()
        for contender, messages in contenders.items()
        for error in messages
    ]
    found |= {"errors": errors, "questions": {name: results_.as_json() for name, results_ in results.items()}}
    return found, figures, tables


def _targets(
    runtimes: Collection[str], releases: Collection[str], only: Collection[str], directory: Path
) -> list[Target]:
    def names(questions: Collection[str]) -> list[str]:
        return [name for name in questions if not only or name in only]

    targets: list[Target] = []
    if "docker" in runtimes:
        targets.append(DockerTarget(directory, names(DockerTarget.questions)))
    if "containerd" in runtimes:
        chosen = names(ContainerdTarget.questions)
        targets += [ContainerdTarget(directory, chosen, release=release) for release in RELEASES if release in releases]
    if "nanos" in runtimes:
        targets.append(NanosTarget(directory, names(NanosTarget.questions)))
    return [target for target in targets if target.names]


async def _measure_all(targets: Sequence[Target], *, quick: bool) -> tuple[dict[str, Any], list[Table]]:
    document: dict[str, Any] = {"machine": machine(), "figures": [], "errors": [], "runtimes": {}}
    every: list[Figure] = []
    shown: list[Table] = []
    for target in targets:
        found, figures, tables = await _measure(target, quick=quick)
        document["errors"] += found.pop("errors")
        document["runtimes"][target.name] = found
        every += figures
        shown += tables
    document["load_average_at_end"] = machine()["load_average"]
    document["figures"] = [{**attrs.asdict(figure), "verdict": figure.verdict} for figure in every]
    return document, [*shown, figure_table(every)]


def main() -> int:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("runtimes", nargs="*", metavar="RUNTIME", help=f"{' or '.join(RUNTIMES)}; all by default")
    parser.add_argument("--release", choices=RELEASES, help="of containerd; both by default")
    parser.add_argument("--quick", action="store_true", help="few rounds, in about three minutes for each daemon")
    parser.add_argument("--only", action="append", choices=QUESTIONS, help="this question; may be repeated")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where the results go (default: benchmarks/results/)")
    options = parser.parse_args()
    if unknown := set(options.runtimes) - set(RUNTIMES):
        parser.error(f"no such runtime: {', '.join(sorted(unknown))}")
    began, started = time.monotonic(), datetime.now(UTC)
    try:
        with tempfile.TemporaryDirectory(prefix="asyncctr-bench-") as directory:
            releases = (options.release,) if options.release else RELEASES
            targets = _targets(options.runtimes or RUNTIMES, releases, options.only or (), Path(directory))
            found, tables = asyncio.run(_measure_all(targets, quick=options.quick))
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
