"""``asyncctr doctor``: which runtimes answer here, and what is missing for the others."""

from __future__ import annotations

import asyncio
import json
import os
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

import asyncctr
from asyncctr.cli.arguments import CONFIGS, backend_config
from asyncctr.cli.codes import FAILURE
from asyncctr.cli.containerd_diagnosis import examine_containerd
from asyncctr.cli.diagnosis import docker_advice, docker_endpoint
from asyncctr.cli.nanos_diagnosis import examine_nanos
from asyncctr.cli.terminal import one_line, print_line
from asyncctr.client import open_backend
from asyncctr.client.selection import may_start, named_config
from asyncctr.core.backend_config import BackendType, ContainerdConfig, DockerConfig, NanosConfig
from asyncctr.core.errors import AsyncctrError, InvalidConfigError
from asyncctr.core.registry import available_backend_types
from asyncctr.core.status import Health

if TYPE_CHECKING:
    import argparse

    from asyncctr.cli.interrupts import Interrupts
    from asyncctr.core.backend_config import BackendConfig
    from asyncctr.core.capabilities import BackendCapabilities

__all__ = ["doctor"]

PATIENCE = 15.0
"""Seconds that a runtime has for all that is asked of it."""
_LIMITS = ("memory", "memory_swap", "cpu", "pids", "storage")
_WIDTH = max(len(name) for name in BackendType)


@attrs.frozen(kw_only=True)
class Report:
    """What was found of one runtime.

    Attributes:
        runtime: its type.
        status: ``"ok"``: it works; ``"startable"``: it does not run, and is started where it is needed; ``"failed"``: it does
            not work; ``"unsupported"``: this version has no backend for it.
        address: where it was looked for; empty where nothing tells.
        source: what named that place; empty for a default.
        health: what it told of itself.
        details: what else is known of it.
        warnings: likewise.
        limits: which limits it keeps.
        missing: which it does not.
        error: why it does not work.
        advice: what to do.
    """

    runtime: str
    status: str
    address: str = ""
    source: str = ""
    health: Health | None = None
    details: Mapping[str, str] = attrs.field(factory=dict)
    warnings: Sequence[str] = ()
    limits: Sequence[str] = ()
    missing: Sequence[str] = ()
    error: str = ""
    advice: Sequence[str] = ()


async def doctor(args: argparse.Namespace, interrupts: Interrupts) -> int:
    """Ask every runtime, or the one that the options name; 0 when at least one works, or would be started."""
    chosen = backend_config(args)
    types = list(dict.fromkeys([*CONFIGS, *available_backend_types()]))
    if chosen is not None:
        types = [chosen.backend_type]
    reports = await interrupts.guard(_examine_all(types, chosen))
    choice = _choice(chosen)
    works = any(report.status in ("ok", "startable") for report in reports)
    if args.json:
        print_line(json.dumps(_document(reports, choice), indent=2))
    else:
        _print(reports, choice)
    return 0 if works else FAILURE


async def _examine_all(types: Sequence[str], chosen: BackendConfig | None) -> list[Report]:
    return list(await asyncio.gather(*(_examine(name, chosen) for name in types)))


async def _examine(name: str, chosen: BackendConfig | None) -> Report:
    if name not in available_backend_types():
        error = f"asyncctr {asyncctr.__version__} has no backend for it"
        return Report(runtime=name, status="unsupported", error=error)
    if name not in CONFIGS:
        error = "a backend of another package; it needs a configuration of its own, so it was not tried"
        return Report(runtime=name, status="unsupported", error=error)
    config = attrs.evolve(CONFIGS[name]() if chosen is None else chosen, op_timeout=PATIENCE / 2)
    report = Report(runtime=name, status="failed")
    try:
        async with asyncio.timeout(PATIENCE):
            if isinstance(config, ContainerdConfig):
                return await _examine_containerd(report, config)
            if isinstance(config, DockerConfig):
                return await _examine_docker(report, config)
            if isinstance(config, NanosConfig):
                return await _examine_nanos(report, config)
            return await _ask(report, config)
    except TimeoutError as error:
        message = str(error) if isinstance(error, AsyncctrError) else f"it did not answer within {PATIENCE:g} s"
        advice = ("it accepts connections but is stuck: see its log, or restart it",)
        return attrs.evolve(report, error=message, advice=advice)
    except AsyncctrError as error:
        return attrs.evolve(report, error=str(error))


async def _ask(report: Report, config: BackendConfig) -> Report:
    async with await open_backend(config) as backend:
        health, capabilities = await backend.health_check(), backend.capabilities
    limits, missing = _limits(capabilities)
    return attrs.evolve(report, status="ok", health=health, limits=limits, missing=missing)


async def _examine_docker(report: Report, config: DockerConfig) -> Report:
    endpoint = await asyncio.to_thread(docker_endpoint, config.host)
    if endpoint is not None:
        source = endpoint.source if endpoint.explicit else ""
        report = attrs.evolve(report, address=str(endpoint), source=source)
    try:
        return await _ask(report, config)
    except TimeoutError:
        raise
    except AsyncctrError as error:
        advice = await asyncio.to_thread(docker_advice, error, endpoint)
        return attrs.evolve(report, error=str(error), advice=advice)


async def _examine_containerd(report: Report, config: ContainerdConfig) -> Report:
    # To look for one is not to start one.
    config = attrs.evolve(config, auto_start=False)
    found = await examine_containerd(config)
    if found is None:
        return await _ask(report, config)
    details = {"auto-start": found.auto_start, **({"log": found.log} if found.log else {})}
    report = attrs.evolve(
        report, address=found.address, source=found.source, details=details, warnings=found.networking
    )
    if found.startable and not (found.address or config.socket_path):
        return attrs.evolve(report, status="startable")
    try:
        return await _ask(report, config)
    except TimeoutError:
        raise
    except AsyncctrError as error:
        # Where none was found, the message goes on with what to do, which the advice knows better.
        cause = error.__cause__ if found.advice and not found.address else None
        return attrs.evolve(report, error=str(cause or error), advice=found.advice)


async def _examine_nanos(report: Report, config: NanosConfig) -> Report:
    found = await examine_nanos(config)
    report = attrs.evolve(report, details=found.details, warnings=found.warnings, advice=found.advice)
    if found.missing:
        return attrs.evolve(report, error="; ".join(found.missing))
    asked = await _ask(report, config)
    told = asked.health.details if asked.health is not None else {}
    return attrs.evolve(asked, details={name: value for name, value in found.details.items() if name not in told})


def _limits(capabilities: BackendCapabilities) -> tuple[list[str], list[str]]:
    have = {name.replace("_", "+"): bool(getattr(capabilities, f"supports_{name}")) for name in _LIMITS}
    return [name for name, kept in have.items() if kept], [name for name, kept in have.items() if not kept]


def _choice(chosen: BackendConfig | None) -> str:
    """Which runtime ``asyncctr.connect()`` takes here, and why."""
    if chosen is not None:
        return ""
    try:
        named = named_config(os.environ)
    except InvalidConfigError as error:
        return f"nothing: {error}"
    if named is None:
        probed = [name for name in (BackendType.DOCKER, BackendType.CONTAINERD) if name in available_backend_types()]
        own = "; else a containerd that it starts" if BackendType.CONTAINERD in probed and may_start() else ""
        return f"the first that answers of: {', '.join(probed)}{own}"
    config, source = named
    return f"{config.backend_type}, as {source} says"


# --- for people


def _print(reports: Sequence[Report], choice: str) -> None:
    machine = f"{platform.system()} {platform.release()} {platform.machine()}"
    print_line(("asyncctr ", "bold"), f"{asyncctr.__version__}, Python {platform.python_version()}, {machine}")
    if choice:
        print_line(("connect() takes ", "dim"), one_line(choice))
    previous = ""
    for report in reports:
        if not report.status == previous == "unsupported":
            print_line()
        _print_report(report)
        previous = report.status


def _print_report(report: Report) -> None:
    words, style = {
        "ok": ("works", "bold green"),
        "startable": ("can be started", "bold green"),
        "failed": ("does not work", "bold red"),
        "unsupported": ("not supported: ", "dim"),
    }[report.status]
    name = (report.runtime.ljust(_WIDTH), "bold")
    if report.status == "unsupported":
        print_line(name, "  ", (words + report.error, style))
        return
    health = report.health
    if report.status == "startable":
        print_line(name, "  ", (words, style), ": none runs, and asyncctr starts one of its own where it is needed")
    elif health is None:
        # The rest of the message says what to do, which the advice below knows better.
        reason = report.error.partition(". ")[0] if report.advice else report.error
        print_line(name, "  ", (words, style), ": ", one_line(reason))
    else:
        api = f", API {health.api_version}" if health.api_version else ""
        print_line(name, "  ", (words, style), f": {one_line(health.runtime)}{api}")
    for label, value, value_style in _facts(report):
        print_line(" " * (_WIDTH + 2), (f"{label:<15}", "dim"), (one_line(value), value_style))


def _facts(report: Report) -> list[tuple[str, str, str]]:
    """Label, value and style of what there is to tell."""
    facts: list[tuple[str, str, str]] = []
    if report.address:
        facts.append(("address", report.address + (f" ({report.source})" if report.source else ""), ""))
    health = report.health
    if health is not None:
        facts.append(("answered in", f"{health.latency * 1000:.0f} ms", ""))
        facts += [(label, value, "") for label, value in health.details.items() if value not in ("", report.address)]
        without = f"; not {', '.join(report.missing)}" if report.missing else ""
        facts.append(("limits", ", ".join(report.limits) + without, ""))
    facts += [(label, value, "") for label, value in report.details.items()]
    facts += [("warning", warning.removeprefix("WARNING: "), "yellow") for warning in _warnings(report)]
    facts += [("to do" if index == 0 else "", advice, "yellow") for index, advice in enumerate(report.advice)]
    return facts


def _warnings(report: Report) -> list[str]:
    """The runtime's own and those of here, each once."""
    return list(dict.fromkeys([*(report.health.warnings if report.health else ()), *report.warnings]))


# --- for programs


def _document(reports: Sequence[Report], choice: str) -> Mapping[str, object]:
    return {
        "asyncctr": asyncctr.__version__,
        "python": platform.python_version(),
        "platform": {"system": platform.system(), "release": platform.release(), "machine": platform.machine()},
        "connect": choice,
        "runtimes": [_report_document(report) for report in reports],
    }


def _report_document(report: Report) -> Mapping[str, object]:
    health = report.health
    return {
        "type": report.runtime,
        "status": report.status,
        "address": report.address or None,
        "source": report.source or None,
        "runtime": health and health.runtime,
        "api_version": health and health.api_version,
        "latency": health and health.latency,
        "details": {**(health.details if health else {}), **report.details},
        "limits": list(report.limits),
        "missing_limits": list(report.missing),
        "warnings": _warnings(report),
        "error": report.error or None,
        "advice": list(report.advice),
    }
