"""Set-up and tidying on containerd, by none of the contenders' timed work: with ``ctr``, of the release that PATH has first."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from benchmarks.engine import EngineError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["NAMESPACE", "Ctr"]

NAMESPACE = "bench"
_TIMEOUT = 60.0
_AT_A_TIME = 4
# containerd-shim-runc-v2 has one process for all containers with the same value (runtime/v2/runc/manager).
_GROUP = "io.containerd.runc.v2.group"


class Ctr:
    """The daemon at a socket. It blocks: call it from a thread where there is an event loop.

    Attributes:
        socket: its path.
        pulled: the image to pull, in a registry.
    """

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.pulled = ""

    def call(self, *args: str, check: bool = True) -> str:
        """One command; what it prints.

        Raises:
            EngineError: it failed.
        """
        words = ["ctr", "--address", self.socket, "--namespace", NAMESPACE, *args]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(str(error)) from error
        if done.returncode and check:
            raise EngineError(f"ctr {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def start_idle(self, image: str, names: Sequence[str], *, group: str) -> None:
        """Containers that do nothing, without output, all of them in one shim: each costs a process, and not 10 MB."""

        def start(name: str) -> None:
            self.call("run", "--detach", "--null-io", "--annotation", f"{_GROUP}={group}", image, name, "sleep", "3600")

        # The first one starts the shim.
        start(names[0])
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            list(pool.map(start, names[1:]))

    def pids(self) -> dict[str, int]:
        """The processes of running containers."""
        rows = [line.split() for line in self.call("tasks", "list").splitlines()[1:]]
        return {row[0]: int(row[1]) for row in rows if row[2] == "RUNNING"}

    def containers(self) -> set[str]:
        """The ids of all containers."""
        return set(self.call("containers", "list", "--quiet").split())

    def remove(self, containers: Collection[str]) -> None:
        """Remove them, running or not."""
        if not containers:
            return
        running = self.pids()
        for name in containers:
            if name in running:
                os.kill(running[name], signal.SIGKILL)
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            list(pool.map(self._remove, containers))

    def _remove(self, container: str) -> None:
        self.call("tasks", "delete", "--force", container, check=False)
        self.call("containers", "delete", container, check=False)

    def remove_image(self, name: str) -> None:
        """Remove an image, and wait until its content is gone; one that is not there is no error."""
        self.call("images", "remove", "--sync", name, check=False)

    def version(self) -> dict[str, str]:
        """The version of the daemon and of runc."""
        lines = self.call("version").splitlines()
        server = lines.index("Server:")
        found = {"containerd": lines[server + 1].partition(":")[2].strip()}
        runc = subprocess.run(["runc", "--version"], capture_output=True, text=True, check=False).stdout
        return found | {"runc": runc.partition("\n")[0].rpartition(" ")[2]}
