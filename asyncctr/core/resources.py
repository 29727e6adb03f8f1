"""Limits on what a container may use."""

from __future__ import annotations

import math

import attrs

from asyncctr.core.validation import checked, fail, positive

__all__ = ["ResourceLimits"]

_DEFAULT_PERIOD = 100_000
# A memory+swap limit below the memory limit has no meaning (Linux cgroup v1 memory.memsw.limit_in_bytes).


@attrs.frozen(kw_only=True)
class ResourceLimits:
    """Limits; ``None`` leaves a resource unlimited.

    Attributes:
        memory: bytes; a process beyond it is killed, and ``ExitStatus.oom_killed`` tells so where the runtime does.
        memory_swap: bytes of memory and swap together; -1 for unlimited swap. Needs ``memory``.
        cpu_quota: microseconds of CPU time in each period (Linux CFS ``cpu.cfs_quota_us``, at least 1000).
        cpu_period: the period in microseconds, 1000 to 1000000; 100000 where it is not given.
        storage: bytes the container may write to its root filesystem.
        pids: processes and threads together.
    """

    memory: int | None = attrs.field(default=None, validator=checked(positive))
    memory_swap: int | None = attrs.field(default=None, validator=checked(positive, minus_one=True))
    cpu_quota: int | None = attrs.field(default=None, validator=checked(positive, minimum=1_000))
    cpu_period: int | None = attrs.field(default=None, validator=checked(positive, minimum=1_000))
    storage: int | None = attrs.field(default=None, validator=checked(positive))
    pids: int | None = attrs.field(default=None, validator=checked(positive))

    def __attrs_post_init__(self) -> None:
        if self.memory_swap is not None:
            if self.memory is None:
                raise fail("memory_swap", "needs a memory limit beside it")
            if self.memory_swap != -1 and self.memory_swap < self.memory:
                raise fail("memory_swap", "is memory and swap together: it cannot be less than memory")
        if self.cpu_period is not None and self.cpu_period > 1_000_000:
            raise fail("cpu_period", f"must be at most 1000000 microseconds, not {self.cpu_period}")

    @property
    def cpus(self) -> float | None:
        """The CPUs that quota and period amount to; ``None`` without a quota."""
        if self.cpu_quota is None:
            return None
        return self.cpu_quota / (self.cpu_period or _DEFAULT_PERIOD)

    @classmethod
    def from_cpus(
        cls,
        cpus: float,
        *,
        memory: int | None = None,
        memory_swap: int | None = None,
        storage: int | None = None,
        pids: int | None = None,
    ) -> ResourceLimits:
        """Limits with a number of CPUs, such as 1.5, in place of quota and period; at least 0.01."""
        if isinstance(cpus, bool) or not isinstance(cpus, (int, float)) or not math.isfinite(cpus) or cpus < 0.01:
            raise fail("cpus", f"must be a number of at least 0.01, not {cpus!r}")
        return cls(
            memory=memory,
            memory_swap=memory_swap,
            cpu_quota=round(cpus * _DEFAULT_PERIOD),
            cpu_period=_DEFAULT_PERIOD,
            storage=storage,
            pids=pids,
        )
