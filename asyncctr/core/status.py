"""What the runtime says of a container, and what a run gave."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import NewType

import attrs

from asyncctr.core.network import PortMapping
from asyncctr.core.resources import ResourceLimits
from asyncctr.core.validation import FrozenMap, texts

__all__ = ["ContainerId", "ContainerInfo", "ContainerStatus", "ExitStatus", "Health", "RunResult"]

ContainerId = NewType("ContainerId", str)
"""A container's full id, as ``create`` gave it; never a name or a prefix."""


class ContainerStatus(StrEnum):
    """The states a container goes through."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class ExitStatus:
    """How a container ended.

    Attributes:
        code: the exit code, 0 to 255; 128 + n for a process that signal n ended.
        signal: that n, read from the code unless the runtime knows better (``capabilities.reports_signal``).
        oom_killed: whether the memory limit ended a process of it; ``None`` where the runtime does not tell.
        finished_at: when, aware; ``None`` where the runtime does not tell.
    """

    code: int
    signal: int | None = None
    oom_killed: bool | None = None
    finished_at: datetime | None = None

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0."""
        return self.code == 0

    @classmethod
    def from_code(cls, code: int, *, oom_killed: bool | None = None, finished_at: datetime | None = None) -> ExitStatus:
        """A status whose signal is the one that 128 + n encodes, for runtimes that report codes alone."""
        signal = code - 128 if 128 < code <= 128 + 64 else None
        return cls(code=code, signal=signal, oom_killed=oom_killed, finished_at=finished_at)


@attrs.frozen(kw_only=True)
class ContainerInfo:
    """A container as the runtime describes it; ``exit_code`` is ``None`` until it has exited, times are aware UTC."""

    id: ContainerId
    name: str = ""
    status: ContainerStatus = ContainerStatus.UNKNOWN
    exit_code: int | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    oom_killed: bool | None = None
    image: str = ""
    resources: ResourceLimits = attrs.field(factory=ResourceLimits)
    ports: tuple[PortMapping, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    labels: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=texts)
    pid: int | None = None


@attrs.frozen(kw_only=True)
class RunResult:
    """What ``run`` gave.

    Attributes:
        exit_code: the same as ``status.code``.
        status: how the container ended.
        stdout: the first ``max_output`` bytes.
        stderr: likewise.
        truncated: whether either stream had more than that.
        duration: seconds from the start of the container to its exit, as the client saw it.
    """

    exit_code: int
    status: ExitStatus
    stdout: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    stderr: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    truncated: bool = False
    duration: float = 0.0


@attrs.frozen(kw_only=True)
class Health:
    """A runtime that answered its health check.

    Attributes:
        runtime: its name and version, such as ``"docker 28.5.2"``.
        api_version: the protocol version spoken; empty where there is none.
        latency: seconds the check took.
        warnings: what the runtime says is wrong with it.
        details: further facts, for people.
    """

    runtime: str
    api_version: str = ""
    latency: float = 0.0
    warnings: tuple[str, ...] = ()
    details: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=texts)
