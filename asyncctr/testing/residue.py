"""What a daemon leaves on the machine (processes, mounts, control groups), found by its private directory, and its removal."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from asyncctr.testing.process import settle
from asyncctr.testing.programs import CommandError, run

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "cgroup_roots",
    "cgroups_named",
    "cgroups_without_shim",
    "kill_all",
    "mounts_under",
    "processes_of",
    "remove_cgroups",
    "remove_shim_traces",
    "remove_tree",
    "runtime_states",
    "unmount_under",
]

# Only these are taken for a daemon's own; an editor or a pager that shows a log has the directory in its arguments too.
_KEEPERS = (
    "conmon",
    "containerd",
    "docker",
    "podman",
    "runc",
    "crun",
    "setpriv",
    "slirp4netns",
    "fuse-overlayfs",
    "rootlessport",
)
_ESCAPE = re.compile(r"\\([0-7]{3})")


def _cmdline(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _program(pid: int) -> str:
    """The name of its program, as its arguments tell; empty for a kernel thread and one that has ended."""
    words = _cmdline(pid)
    return os.path.basename(words[0]) if words else ""  # noqa: PTH119 - of a string


def _parents() -> dict[int, int]:
    """Every living process's parent; zombies are left out, for only their parents can end those."""
    found: dict[int, int] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - hundreds of strings need not be paths
        if not entry.isdecimal():
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state not in "ZX":
            found[int(entry)] = int(parent)
    return found


def processes_of(directory: Path) -> list[int]:
    """The processes of the daemon that lives in ``directory`` and their descendants (the containers), oldest first."""
    parents = _parents()
    path = str(directory)
    own: set[int] = set()
    for pid in parents:
        words = _cmdline(pid)
        if words and os.path.basename(words[0]).startswith(_KEEPERS) and any(path in word for word in words):  # noqa: PTH119
            own.add(pid)
    own.discard(os.getpid())
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return sorted(own)


async def kill_all(pids: Iterable[int], deadline: float = 10.0) -> list[int]:
    """SIGKILL processes that are not our children, wait for their ends; those still there after ``deadline`` seconds."""
    loop = asyncio.get_running_loop()
    left: list[int] = []
    descriptors: dict[int, int] = {}
    try:
        for pid in pids:
            try:
                descriptors[pid] = os.pidfd_open(pid)
                signal.pidfd_send_signal(descriptors[pid], signal.SIGKILL)
            except ProcessLookupError:
                continue
        end = loop.time() + deadline
        for pid, descriptor in descriptors.items():
            gone: asyncio.Future[None] = loop.create_future()
            loop.add_reader(descriptor, settle, gone)
            try:
                async with asyncio.timeout_at(max(end, loop.time() + 0.1)):
                    await gone
            except TimeoutError:
                left.append(pid)
            finally:
                loop.remove_reader(descriptor)
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
    return left


def mounts_under(directory: Path) -> list[str]:
    """The mount points at and below ``directory``, the last mounted first (proc(5), mountinfo)."""
    prefix = str(directory)
    found: list[str] = []
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), line.split(" ")[4])
        if point == prefix or point.startswith(prefix + "/"):
            found.append(point)
    return found[::-1]


async def unmount_under(directory: Path) -> list[str]:
    """Unmount all at and below ``directory``, lazily where it is busy; the mount points that were there."""
    found = mounts_under(directory)
    for point in found:
        try:
            await run("umount", point, timeout=10)
        except CommandError:
            await run("umount", "--lazy", point, timeout=10, check=False)
    return found


def cgroup_roots() -> list[Path]:
    """Where the hierarchies of control groups are mounted."""
    roots: list[Path] = []
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] in {"cgroup", "cgroup2"}:
            roots.append(Path(fields[4]))
    return roots


def cgroups_named(name: str) -> list[Path]:
    """The directories of the control group ``name``, just below the root, in every hierarchy that is mounted."""
    return [path for root in cgroup_roots() if (path := root / name).is_dir()]


def cgroups_without_shim(groups: Iterable[Path]) -> list[Path]:
    """Those of some control groups in which no process descends from a shim: nobody will remove them."""
    found = sorted(groups)
    if not found:
        return []
    ancestors = _parents()
    shims = {pid for pid in ancestors if _program(pid).startswith("containerd-shim")}

    def cared_for(pid: int) -> bool:
        while pid > 1 and pid not in shims:
            pid = ancestors.get(pid, 0)
        return pid in shims

    left: list[Path] = []
    for group in found:
        try:
            pids = [int(word) for procs in group.rglob("cgroup.procs") for word in procs.read_text().split()]
        except (FileNotFoundError, OSError):  # ENODEV: removed while read
            continue
        if not any(cared_for(pid) for pid in pids):
            left.append(group)
    return left


async def remove_cgroups(name: str) -> list[str]:
    """End what runs in the control group ``name`` and remove it and those below it; the ones that could not be removed."""
    paths = cgroups_named(name)
    pids: set[int] = set()
    for path in paths:
        for procs in path.rglob("cgroup.procs"):
            try:
                pids.update(int(word) for word in procs.read_text().split() if word != "0")
            except (FileNotFoundError, OSError):  # ENODEV: removed while read
                continue
    await kill_all(pids)
    left: list[str] = []
    for path in paths:
        for directory, _, _ in os.walk(path, topdown=False):
            for attempt in reversed(range(20)):
                try:
                    os.rmdir(directory)  # noqa: PTH106 - os.walk gives strings
                except FileNotFoundError:
                    break
                except OSError:
                    # EBUSY: the kernel takes a moment after the last process has been reaped, and tells nobody.
                    if not attempt:
                        left.append(directory)
                    await asyncio.sleep(0.05)
                else:
                    break
    return left


def runtime_states(directory: Path) -> list[Path]:
    """What runc (``state.json``) and crun (``status``) remember of the containers of the containerd in ``directory``."""
    found: list[Path] = []
    for name in ("state.json", "status"):
        for state in Path("/run/containerd/runc").glob(f"*/*/{name}"):
            try:
                if f"{directory}/state/" in state.read_text(errors="replace"):
                    found.append(state.parent)
            except FileNotFoundError:
                continue
    return found


def remove_shim_traces(directory: Path) -> None:
    """Remove what ended shims of the containerd in ``directory`` left in the places that all containerds share.

    These are their sockets in ``/run/containerd/s`` and the OCI runtime's state in ``/run/containerd/runc``, where it would stand
    in the way of the next container of that id.
    """
    for address in (directory / "state").glob("io.containerd.runtime.v2.task/*/*/address"):
        Path(address.read_text().strip().removeprefix("unix://")).unlink(missing_ok=True)
    # 2.x has the address among other things.
    for parameters in (directory / "state").glob("io.containerd.runtime.v2.task/*/*/bootstrap.json"):
        text = json.loads(parameters.read_text()).get("address", "")
        Path(text.removeprefix("unix://")).unlink(missing_ok=True)
    for path in runtime_states(directory):
        remove_tree(path)


def remove_tree(directory: Path) -> list[str]:
    """Remove a directory tree; what could not be removed."""
    left: list[str] = []

    def note(_: object, path: str, error: object) -> None:
        # A process that has just been killed may have removed the file in between.
        if not isinstance(error, tuple) or not isinstance(error[1], FileNotFoundError):
            left.append(path)

    shutil.rmtree(directory, onerror=note)
    return left if directory.exists() else []
