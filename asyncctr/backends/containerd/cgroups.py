"""The control groups of containers: their names, what the host has of them, and whether one ran out of memory."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["cgroup_version", "cgroups_path", "oom_killed", "remove_cgroups"]

_ROOT: Final = "/sys/fs/cgroup"
# With version 1 the counter came in Linux 4.13 (memory.txt, "oom_kill"); with version 2 it is in memory.events (cgroup-v2.rst).
_COUNTERS: Final = (f"{_ROOT}/memory{{path}}/memory.oom_control", f"{_ROOT}{{path}}/memory.events")


def cgroup_version() -> int:
    """1 or 2, as a runtime here uses them; a host with both mounted is a 1. 0 where there is none to be seen."""
    if os.path.exists(f"{_ROOT}/cgroup.controllers"):  # noqa: PTH110  # one look
        return 2
    return 1 if os.path.isdir(f"{_ROOT}/memory") else 0  # noqa: PTH112  # one look


def cgroups_path(container_id: str) -> str:
    """Where a container's groups are, below each hierarchy's root: without a parent of ours, which would be left behind."""
    return f"/asyncctr-{container_id}"


def oom_killed(container_id: str) -> bool | None:
    """Whether the memory limit ended a process of it; ``None`` when its group is gone."""
    path = cgroups_path(container_id)
    for counter in _COUNTERS:
        try:
            with open(counter.format(path=path), encoding="ascii") as file:  # noqa: PTH123  # on the hot path
                for line in file:
                    name, _, count = line.partition(" ")
                    if name == "oom_kill":
                        return int(count) > 0
        except OSError:
            # The other version, or removed with its task.
            continue
    return None


def remove_cgroups(container_id: str) -> None:
    """Remove a container's groups where they are still there, and empty.

    containerd kills a runtime whose caller is gone, which leaves those of a container that was just being made.
    """
    path = cgroups_path(container_id)
    try:
        hierarchies = os.listdir(_ROOT)  # noqa: PTH208  # strings
    except OSError:
        # Without any.
        return
    for place in (_ROOT, *(f"{_ROOT}/{name}" for name in hierarchies)):
        try:
            os.rmdir(place + path)  # noqa: PTH106  # strings
        except OSError:
            # Not there, as nearly always; or in use, or another user's.
            continue
