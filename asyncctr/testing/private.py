"""The private containerd that the SDK starts for this user, in directories of one's own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from asyncctr.backends.containerd.daemon.lease import ensure_private
from asyncctr.core.backend_config import ContainerdConfig
from asyncctr.netns.forwarding import Forwarder
from asyncctr.testing.base import Leftovers
from asyncctr.testing.containerd import Containerd
from asyncctr.testing.golang import CONTAINERD
from asyncctr.testing.process import DaemonError
from asyncctr.testing.programs import CommandError, find, run
from asyncctr.testing.residue import processes_of
from asyncctr.testing.traces import remove_networks

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType
    from typing import Self

    from asyncctr.backends.containerd.daemon.lease import Lease

__all__ = ["PrivateContainerd"]

_PID = re.compile(r"pid (\d+)")


class PrivateContainerd(Containerd):
    """What ``ContainerdConfig(private=True, auto_start=True)`` starts, with a lease of one's own, so that it stays between clients.

    Set :attr:`environ` for all who are to use it. Its end is the SDK's: nothing is removed by force, and what is left fails.

    Args:
        release: as for :class:`Containerd`.
        idle: seconds that it stays without a use.
    """

    def __init__(self, *, release: Literal["debian", "2.x"] = "debian", idle: float = 0.5) -> None:
        super().__init__(release=release)
        self._idle = idle
        self._lease: Lease | None = None

    @property
    def environ(self) -> dict[str, str]:
        """The variables that name its directories."""
        return {
            "ASYNCCTR_DATA_DIR": f"{self.dir}/data",
            "ASYNCCTR_RUN_DIR": f"{self.dir}/run",
            "ASYNCCTR_IDLE_TIMEOUT": str(self._idle),
        }

    @property
    def config(self) -> ContainerdConfig:
        """What it is started with."""
        path = "" if self._programs is None else str(self._programs / "containerd")
        return ContainerdConfig(private=True, auto_start=True, containerd_path=path)

    @property
    def lease(self) -> Lease:
        """Of the daemon that runs."""
        if self._lease is None:
            message = "it does not run"
            raise DaemonError(message)
        return self._lease

    @property
    def socket(self) -> Path:
        """Its gRPC socket."""
        return Path(self.lease.endpoint.socket)

    @property
    def pid(self) -> int | None:
        """Of containerd, or of the rootlesskit that it runs in."""
        found = _PID.search(str(self._lease))
        return int(found[1]) if found else None

    async def start(self) -> None:
        """Start it, or join it."""
        await self._at_home(self._start())

    async def _start(self) -> None:
        self._lease = await ensure_private(self.config, {**os.environ, **self.environ})

    async def let_go(self) -> None:
        """Give it up: it ends when nobody else uses it, until :meth:`start`."""
        await self._at_home(self._let_go())

    async def _let_go(self) -> None:
        lease, self._lease = self.lease, None
        await lease.aclose()

    async def kill(self) -> None:
        """SIGKILL; returns when its end was told."""
        await self._at_home(self._kill())

    async def _kill(self) -> None:
        lease, self._lease = self.lease, None
        found = _PID.search(str(lease))
        if found:
            os.kill(int(found[1]), signal.SIGKILL)
        await lease.ended()
        await lease.aclose()

    async def _at_home(self, work: Coroutine[object, object, None]) -> None:
        """Do it on the loop that it was entered on, which the lease's connection belongs to."""
        if asyncio.get_running_loop() is self._home:
            await work
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._home))

    async def __aenter__(self) -> Self:
        self._home = asyncio.get_running_loop()
        self.dir = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="asyncctr-own-", dir="/tmp"))  # noqa: S108 - mkdtemp
        if self.release == "2.x":
            self._programs = await asyncio.to_thread(CONTAINERD.build)
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lease is not None:
            await self._empty()
            await self._let_go()
        await self.gone()
        if os.geteuid() == 0:
            await remove_networks(self.dir)
            await run("rm", "-rf", self.dir)
        else:
            # Files of images may be subordinate ids'.
            await run("rootlesskit", "rm", "-rf", self.dir)

    async def gone(self) -> None:
        """Wait until it has ended because nobody used it.

        Raises:
            DaemonError: it did not, or left something that runs.
        """
        lock = next(self.dir.glob("data/*/private/daemon.lock"))
        try:
            await run("flock", lock, "true", timeout=30)
        except CommandError as error:
            message = f"{self.kind} does not end"
            raise DaemonError(message) from error
        if left := await asyncio.to_thread(processes_of, self.dir):
            message = f"{self.kind} left processes: {left}"
            raise DaemonError(message)

    @property
    def enter(self) -> tuple[str, ...]:
        """The words in front of a program that run it in the daemon's namespaces."""
        child = self.lease.endpoint.rootless
        if child is None:
            return ()
        return ("nsenter", "-U", "--preserve-credentials", "-m", "-n", "-t", str(child.child_pid))

    async def traces(self) -> Leftovers:
        """What containers have beside the daemon: where it has namespaces of its own, in these."""
        child, enter = self.lease.endpoint.rootless, self.enter
        bridges = [f"actr-{path.stem}" for path in self._kept("network/networks/*.conflist")]
        links = (await run(*enter, find("ip"), "-o", "link")).lines
        rules = (await run(*enter, find("iptables-save"))).lines
        sockets = () if child is None else tuple(await Forwarder(child.api_socket).addresses())
        return Leftovers(
            interfaces=tuple(link for link in links if any(f" master {bridge} " in link for bridge in bridges)),
            rules=tuple(rule for rule in rules if any(f'name: \\"{bridge}\\"' in rule for bridge in bridges)),
            sockets=sockets,
            mounts=tuple(await asyncio.to_thread(self._mounts)),
            states=tuple(await asyncio.to_thread(self._states)),
            processes=tuple(await asyncio.to_thread(self._processes)),
        )

    def _mounts(self) -> list[str]:
        child = self.lease.endpoint.rootless
        table = Path("/proc", "self" if child is None else str(child.child_pid), "mountinfo").read_text()
        return [line.split()[4] for line in table.splitlines() if line.split()[4].startswith(f"{self.dir}/")]

    def _kept(self, pattern: str) -> list[Path]:
        """What the SDK has in its directories for this daemon, for those who know it as their own and for those who do not."""
        return [path for home in ("private/sdk", "[0-9a-f]*") for path in self.dir.glob(f"data/*/{home}/*/{pattern}")]

    def _states(self) -> list[str]:
        found = [*self.dir.glob("data/*/private/exits/*/*"), *self.dir.glob("run/*/state/runc/*/*")]
        for pattern in ("containers/*", "names/*", "network/containers/*", "network/leases/*/[0-9]*"):
            found += self._kept(pattern)
        return sorted(map(str, found))

    def _processes(self) -> list[str]:
        found: list[str] = []
        for pid in processes_of(self.dir):
            try:
                name = os.path.basename(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0])  # noqa: PTH119
            except (FileNotFoundError, ProcessLookupError):
                continue
            if name != "containerd":
                found.append(f"{pid} {name}")
        return found

    def open_files(self) -> int:
        """How many descriptors containerd has open."""
        for pid in processes_of(self.dir):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "containerd":
                return len(list(Path(f"/proc/{pid}/fd").iterdir()))
        message = "it does not run"
        raise DaemonError(message)
