"""Where to mount what a daemon is to see: here, or inside of its own mount namespace (mount_namespaces(7))."""

from __future__ import annotations

import os
import re
import socket
import struct
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncctr.netns.runner import HOST, Runner

if TYPE_CHECKING:
    from asyncctr.backends.containerd.daemon.endpoint import Endpoint, Rootless

__all__ = ["runner_for", "sees_mounts"]

_CREDENTIALS: Final = struct.Struct("3i")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
# What gives mounts on to others, and what gets them from others (proc(5), /proc/pid/mountinfo).
_GROUP: Final = re.compile(r"(?:shared|master):(\d+)")


def runner_for(endpoint: Endpoint, directory: Path) -> Runner:
    """Runs the programs that make what the daemon's containers use. It reads small files.

    Args:
        endpoint: the daemon's.
        directory: where network namespaces are mounted.
    """
    if endpoint.rootless is not None:
        return Runner(_ways_in(endpoint.rootless), partial(_child, endpoint.rootless.state_dir))
    if os.geteuid() == 0:
        listening = partial(_listening, endpoint.socket)
        try:
            if not sees_mounts(listening(), directory):
                return Runner(("-m",), listening)
        except (OSError, ValueError):
            # Its process is not to be seen from here, such as that of another container.
            pass
    return HOST


def sees_mounts(pid: int, directory: Path) -> bool:
    """Whether a process gets what this one mounts in a directory.

    Raises:
        OSError, ValueError: it cannot be told.
    """
    theirs, ours = (Path("/proc", process, "ns/mnt").stat().st_ino for process in (str(pid), "self"))
    if theirs == ours:
        return True
    path = os.path.realpath(directory)
    shared = re.search(r"shared:(\d+)", _propagation("self", path))
    return shared is not None and shared[1] in _GROUP.findall(_propagation(str(pid), path))


def _propagation(process: str, path: str) -> str:
    """The optional fields of what is mounted at a path, or above it."""
    best, found = -1, ""
    for line in Path("/proc", process, "mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        fields = line.split(" ")
        point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4])
        # The later one lies over the earlier one.
        if len(point) >= best and (path + "/").startswith(point.rstrip("/") + "/"):
            best, found = len(point), " ".join(fields[6 : fields.index("-")])
    return found


def _listening(path: str) -> int:
    """The process that listens at a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        connection.connect(path)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[0])


def _child(state_dir: str) -> int:
    return int(Path(state_dir, "child_pid").read_text(encoding="ascii"))


def _ways_in(rootless: Rootless) -> tuple[str, ...]:
    """How nsenter gets to where the daemon is."""
    ways = ("-U", "--preserve-credentials", "-m", "-n")
    # What is mounted from /proc there has to be of a pid namespace that rootlesskit made (--pidns); ours nobody may enter again.
    own = os.readlink(f"/proc/{rootless.child_pid}/ns/pid") != os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # no paths, names
    return (*ways, "-p") if own else ways
