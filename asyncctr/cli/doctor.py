"""``asyncctr doctor``: which runtimes answer here, and what is missing for the others."""

from __future__ import annotations

import asyncio
import json
import os
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

import asyncctr
from asyncctr.cli.arguments import CONFIGS, backend_config
from asyncctr.cli.codes import FAILURE
from asyncctr.cli.diagnosis import docker_advice, docker_endpoint
from asyncctr.cli.terminal import one_line, print_line
from asyncctr.client import open_backend
from asyncctr.client.selection import named_config
from asyncctr.core.backend_config import BackendType, DockerConfig
from asyncctr.core.errors import AsyncctrError, InvalidConfigError
from asyncctr.core.registry import available_backend_types
from asyncctr.core.status import Health

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from asyncctr.backends.docker.endpoint import Endpoint
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
        status: ``"ok"``: it works; ``"failed"``: it does not; ``"unsupported"``: this version has no backend for it.
        address: where it was looked for; empty where nothing tells.
        source: what named that place; empty for a default.
        health: what it told of itself.
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
    limits: Sequence[str] = ()
    missing: Sequence[str] = ()
    error: str = ""
    advice: Sequence[str] = ()


async def doctor(args: argparse.Namespace, interrupts: Interrupts) -> int:
    """Ask every runtime, or the one that the options name; 0 when at least one works."""
    chosen = backend_config(args)
    types = list(dict.fromkeys([*CONFIGS, *available_backend_types()]))
    if chosen is not None:
        types = [chosen.backend_type]
    reports = await interrupts.guard(_examine_all(types, chosen))
    choice = _choice(chosen)
    works = any(report.status == "ok" for report in reports)
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
    endpoint: Endpoint | None = None
    if isinstance(config, DockerConfig):
        endpoint = await asyncio.to_thread(docker_endpoint, config.host)
    address = "" if endpoint is None else str(endpoint)
    source = endpoint.source if endpoint is not None and endpoint.explicit else ""
    try:
        async with asyncio.timeout(PATIENCE):
            async with await open_backend(config) as backend:
                health, capabilities = await backend.health_check(), backend.capabilities
    except TimeoutError as error:
        message = str(error) if isinstance(error, AsyncctrError) else f"it did not answer within {PATIENCE:g} s"
        advice: tuple[str, ...] = ("it accepts connections but is stuck: see its log, or restart it",)
        return Report(runtime=name, status="failed", address=address, source=source, error=message, advice=advice)
    except AsyncctrError as error:
        advice = ()
        if isinstance(config, DockerConfig):
            advice = tuple(await asyncio.to_thread(docker_advice, error, endpoint))
        return Report(runtime=name, status="failed", address=address, source=source, error=str(error), advice=advice)
    limits, missing = _limits(capabilities)
    return Report(
        runtime=name, status="ok", address=address, source=source, health=health, limits=limits, missing=missing
    )


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
        return f"the first that answers of: {', '.join(probed)}"
    config, source = named
    return f"{config.backend_type}, as {source} says"


# --- for people


def _print(reports: Sequence[Report], choice: str) -> None:
    machine = f"{platform.system()} {platform.release()} {platform.machine()}"
    print_line(("asyncctr ", "bold"), f"{asyncctr.__version__}, Python {platform.python_version()}, {machine}")
    if choice:
        print_line(("connect() takes ", "dim"), one_line(choice))
    for report in reports:
        _print_report(report)


def _print_report(report: Report) -> None:
    words, style = {
        "ok": ("works", "bold green"),
        "failed": ("does not work", "bold red"),
        "unsupported": ("not supported: ", "dim"),
    }[report.status]
    name = (report.runtime.ljust(_WIDTH), "bold")
    if report.status == "unsupported":
        print_line(name, "  ", (words + report.error, style))
        return
    print_line()
    health = report.health
    if health is None:
        # The rest of the message says what to do, which the advice below knows better.
        reason = report.error.partition(". ")[0] if report.advice else report.error
        print_line(name, "  ", (words, style), ": ", one_line(reason))
    else:
        api = f", API {health.api_version}" if health.api_version else ""
        print_line(name, "  ", (words, style), f": {one_line(health.runtime)}{api}")
    for label, value, value_style in _facts(report):
        print_line(" " * (_WIDTH + 2), (f"{label:<15}", "dim"), (one_line(value), value_style))
    print_line()


def _facts(report: Report) -> list[tuple[str, str, str]]:
    """Label, value and style of what there is to tell."""
    facts: list[tuple[str, str, str]] = []
    if report.address:
        facts.append(("address", report.address + (f" ({report.source})" if report.source else ""), ""))
    if report.health is not None:
        facts.append(("answered in", f"{report.health.latency * 1000:.0f} ms", ""))
        facts += [(label, value, "") for label, value in report.health.details.items() if value]
        without = f"; not {', '.join(report.missing)}" if report.missing else ""
        facts.append(("limits", ", ".join(report.limits) + without, ""))
        facts += [("warning", warning.removeprefix("WARNING: "), "yellow") for warning in report.health.warnings]
    facts += [("to do" if index == 0 else "", advice, "yellow") for index, advice in enumerate(report.advice)]
    return facts


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
        "details": dict(health.details) if health else {},
        "limits": list(report.limits),
        "missing_limits": list(report.missing),
        "warnings": list(health.warnings) if health else [],
        "error": report.error or None,
        "advice": list(report.advice),
    }
