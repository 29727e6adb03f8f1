"""The engine's description of a container as a ``ContainerInfo`` and an ``ExitStatus``."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from asyncctr.core.errors import InvalidConfigError
from asyncctr.core.network import PortMapping
from asyncctr.core.resources import ResourceLimits
from asyncctr.core.status import ContainerId, ContainerInfo, ContainerStatus, ExitStatus

__all__ = ["container_info", "exit_status", "parse_time"]

_FRACTION = re.compile(r"\.(\d+)")
_STATUS = {
    "created": ContainerStatus.CREATED,
    "configured": ContainerStatus.CREATED,
    "initialized": ContainerStatus.CREATED,
    "running": ContainerStatus.RUNNING,
    "restarting": ContainerStatus.RUNNING,
    "stopping": ContainerStatus.RUNNING,
    "paused": ContainerStatus.PAUSED,
    "exited": ContainerStatus.EXITED,
    "stopped": ContainerStatus.EXITED,
    "dead": ContainerStatus.EXITED,
}


def parse_time(text: str) -> datetime | None:
    """An aware UTC time from RFC 3339 with up to nine digits of a second; ``None`` for Go's zero time."""
    if not text or text.startswith("0001-"):
        return None
    try:
        # datetime holds microseconds: cut, do not round, so that order is kept.
        short = _FRACTION.sub(lambda match: "." + match.group(1)[:6].ljust(6, "0"), text, count=1)
        return datetime.fromisoformat(short).astimezone(UTC)
    except ValueError:
        return None


def _limit(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _resources(host: dict[str, Any]) -> ResourceLimits:
    memory = _limit(host.get("Memory"))
    swap = host.get("MemorySwap")
    storage = (host.get("StorageOpt") or {}).get("size", "")
    values: dict[str, int | None] = {
        "memory": memory,
        "memory_swap": swap if memory and isinstance(swap, int) and (swap == -1 or swap >= memory) else None,
        "cpu_quota": _limit(host.get("CpuQuota")),
        "cpu_period": _limit(host.get("CpuPeriod")),
        "storage": int(storage) if str(storage).isdecimal() and int(storage) else None,
        "pids": _limit(host.get("PidsLimit")),
    }
    if not values["cpu_quota"] and (nano := _limit(host.get("NanoCpus"))):
        values.update(cpu_quota=nano // 10_000, cpu_period=100_000)
    try:
        return ResourceLimits(**values)
    except InvalidConfigError:
        # Containers made by others may have limits that this package would not set.
        return ResourceLimits(memory=memory, pids=values["pids"])


def _ports(settings: dict[str, Any]) -> tuple[PortMapping, ...]:
    found: dict[PortMapping, None] = {}
    for key, bindings in (settings.get("Ports") or {}).items():
        port, _, protocol = key.partition("/")
        for binding in bindings or ():
            if binding.get("HostPort"):
                mapping = PortMapping(
                    container_port=int(port),
                    host_port=int(binding["HostPort"]),
                    protocol=protocol or "tcp",
                    host_ip=binding.get("HostIp") or "0.0.0.0",  # noqa: S104  # what the engine's empty address means
                )
                found[mapping] = None
    return tuple(sorted(found, key=lambda item: (item.container_port, item.protocol, item.host_ip, item.host_port)))


def _addresses(settings: dict[str, Any]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for network in (settings.get("Networks") or {}).values():
        for key in ("IPAddress", "GlobalIPv6Address"):
            if network.get(key):
                found[network[key]] = None
    for key in ("IPAddress", "GlobalIPv6Address"):
        if settings.get(key):
            found[settings[key]] = None
    return tuple(found)


def container_info(document: dict[str, Any], *, reports_oom: bool) -> ContainerInfo:
    """``GET /containers/{id}/json`` as a value."""
    state, config = document.get("State") or {}, document.get("Config") or {}
    status = _STATUS.get(str(state.get("Status", "")).lower(), ContainerStatus.UNKNOWN)
    exited = status is ContainerStatus.EXITED
    settings = document.get("NetworkSettings") or {}
    return ContainerInfo(
        id=ContainerId(document["Id"]),
        name=str(document.get("Name", "")).removeprefix("/"),
        status=status,
        exit_code=state.get("ExitCode") if exited else None,
        created_at=parse_time(str(document.get("Created") or "")),
        started_at=parse_time(state.get("StartedAt", "")),
        finished_at=parse_time(state.get("FinishedAt", "")) if exited else None,
        oom_killed=bool(state.get("OOMKilled")) if exited and reports_oom else None,
        image=config.get("Image") or document.get("ImageName") or "",
        resources=_resources(document.get("HostConfig") or {}),
        ports=_ports(settings) if not exited else (),
        ip_addresses=_addresses(settings) if not exited else (),
        labels=config.get("Labels") or {},
        pid=state.get("Pid") or None,
    )


def exit_status(document: dict[str, Any], *, reports_oom: bool, code: int | None = None) -> ExitStatus:
    """How the container of an inspect document ended; ``code`` is what a wait said, which goes before the document's."""
    state = document.get("State") or {}
    return ExitStatus.from_code(
        (state.get("ExitCode", 0) if code is None else code) & 0xFF,
        oom_killed=bool(state.get("OOMKilled")) if reports_oom else None,
        finished_at=parse_time(state.get("FinishedAt", "")),
    )
