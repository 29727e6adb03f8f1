"""The programs that a private containerd takes, and the packages that have them."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Final

from asyncctr.backends.containerd.daemon.endpoint import BACKEND
from asyncctr.core.errors import BackendUnavailableError

__all__ = ["PACKAGES", "SEARCH_PATH", "find_program", "install", "interpreter", "look_for"]

PACKAGES: Final = {
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "ctr": "containerd",
    "fuse-overlayfs": "fuse-overlayfs",
    "mount.fuse3": "fuse3",
    "newgidmap": "uidmap",
    "newuidmap": "uidmap",
    "nsenter": "util-linux",
    "rootlesskit": "rootlesskit",
    "runc": "runc",
    "slirp4netns": "slirp4netns",
}
"""Debian's package for each program."""

# Debian keeps daemons in the sbin directories, which an ordinary user's PATH lacks.
_SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
SEARCH_PATH: Final = os.pathsep.join([*_SBIN, "/usr/local/bin", "/usr/bin", "/bin"])
"""Where programs are looked for after PATH."""


def install(*programs: str) -> str:
    """The command that installs programs on Debian."""
    return "apt-get install " + " ".join(sorted({PACKAGES[program] for program in programs}))


def look_for(program: str, named: str = "") -> str:
    """The absolute path of a program; empty where it is missing. ``named`` is its path or name in a configuration."""
    wanted = named or program
    found = shutil.which(wanted) or ("" if "/" in wanted else shutil.which(wanted, path=SEARCH_PATH))
    return os.path.abspath(found) if found else ""  # noqa: PTH100 - a string


def find_program(program: str, named: str = "", field: str = "") -> str:
    """The absolute path of a program.

    Raises:
        BackendUnavailableError: it is not installed; the message names Debian's package, or the field that names it wrongly.
    """
    if found := look_for(program, named):
        return found
    if named:
        message = f"ContainerdConfig.{field}: there is no program {named!r} that this user may run"
    else:
        message = f"{program} is not installed (Debian, Ubuntu: {install(program)})"
    raise BackendUnavailableError(message, backend=BACKEND, resource=program)


def interpreter() -> str:
    """A Python for programs of this package's own; that of an embedding or frozen program would run the program.

    Raises:
        BackendUnavailableError: there is none.
    """
    if sys.executable and not getattr(sys, "frozen", False):
        return sys.executable
    if found := shutil.which("python3"):
        return found
    message = "python3 is not in PATH, and this program's own interpreter cannot be run: install python3"
    raise BackendUnavailableError(message, backend=BACKEND, resource="python3")
