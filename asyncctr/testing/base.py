"""What all private daemons share: a directory of their own, start, stop, kill, and an exit that leaves nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs

from asyncctr.testing.process import DaemonError, Process
from asyncctr.testing.programs import missing
from asyncctr.testing.residue import kill_all, mounts_under, processes_of, remove_tree, unmount_under

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

__all__ = ["SEARCH_PATH", "Daemon", "Leftovers"]

SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
"""The daemons' ``PATH``: an ordinary user's lacks the directories that Debian has their helpers in."""

# A unix socket's path has at most 107 bytes (unix(7)), and some daemons put theirs several levels down.
_LONGEST_BASE = 24

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True, repr=False)
class Leftovers:
    """What is still there: in a daemon, as its own command line tool lists it, or on the machine after its end.

    Attributes:
        containers: full ids, of running and ended ones.
        networks: names; those that the daemon always has are left out.
        volumes: names.
        processes: ids, with the commands, of processes that outlived the daemon.
        mounts: mount points under its directory.
        interfaces: network interfaces in its address range, or of containers.
        tasks: ids of containerd's tasks, and of the sandboxes that 2.x keeps for them.
        snapshots: keys of containerd's snapshots that are no image's.
        leases: ids of containerd's leases.
        ingests: references of uploads into containerd's content store that have not ended.
        netns: names of network namespaces in ``/run/netns``.
        rules: rules of the packet filter, as ``iptables-save`` writes them.
        cgroups: control groups without a shim that would remove them.
        sockets: shims' sockets that nobody listens on.
        states: directories of what the OCI runtime remembers of a container.
    """

    containers: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    leases: tuple[str, ...] = ()
    ingests: tuple[str, ...] = ()
    netns: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    states: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(attrs.astuple(self))

    def __repr__(self) -> str:
        found = attrs.asdict(self, filter=lambda _, value: bool(value))
        return f"Leftovers({', '.join(f'{name}={value!r}' for name, value in found.items())})"

    def without(self, others: Leftovers) -> Leftovers:
        """What is not among the others, such as those from before."""
        kept = {
            name: tuple(entry for entry in found if entry not in getattr(others, name))
            for name, found in attrs.asdict(self).items()
        }
        return Leftovers(**kept)


def _directory(kind: str) -> Path:
    base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix=f"asyncctr-{kind}-", dir=base if len(base) <= _LONGEST_BASE else "/tmp"))  # noqa: S108 - mkdtemp


class Daemon:
    """A daemon of one's own, as an async context manager: entering starts it, leaving stops it and removes all of it.

    Its directory (mode 0700) holds its sockets, data, configuration and log. What a daemon leaves behind at exit is
    removed by force; :attr:`residue` then tells what that was.

    Attributes:
        dir: its directory; gone after exit.
        residue: after exit, what had outlived the daemon and was ended or removed by force. Empty after a clean stop.

    Raises:
        RuntimeMissing: on entering, a program is not installed, or this user may not run it.
        DaemonError: on entering, it did not start (the message has the log's end); on leaving, something could not be
            removed.
    """

    kind: str = ""
    """Its name in :data:`asyncctr.testing.programs.RUNTIMES`."""

    dir: Path

    def __init__(
        self, *, start_timeout: float = 60.0, stop_timeout: float = 20.0, env: Mapping[str, str | None] | None = None
    ) -> None:
        self.start_timeout = start_timeout
        self.stop_timeout = stop_timeout
        self.env: dict[str, str | None] = dict(env or {})
        self.residue = Leftovers()
        self._process: Process | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {getattr(self, 'dir', None)}, pid {self.pid}>"

    @property
    def log(self) -> Path:
        """The file that the daemon's output goes to; restarts append to it."""
        return self.dir / f"{self.kind}.log"

    @property
    def pid(self) -> int | None:
        """The daemon's process id; ``None`` when it does not run."""
        return self._process.pid if self._process is not None and self._process.running else None

    @property
    def running(self) -> bool:
        """Whether the daemon's process is there."""
        return self.pid is not None

    async def start(self) -> None:
        """Start the daemon and wait until it answers. Does nothing when it runs.

        Raises:
            DaemonError: it ended, or did not answer within ``start_timeout`` seconds.
        """
        if self.running:
            return
        process = self._process = Process(self._command(), log=self.log, env=self.env)
        await process.ready(self._ping, self.start_timeout)
        logger.info("started %s", process.name, extra={"pid": process.pid})

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after ``stop_timeout`` seconds. Returns when it has ended; nothing when it has before."""
        if self._process is not None and not await self._process.stop(self.stop_timeout):
            logger.warning("%s ignored SIGTERM for %g s and was killed", self._process.name, self.stop_timeout)

    async def kill(self) -> None:
        """SIGKILL to the daemon alone, not to what it started. Returns when it has ended."""
        if self._process is not None:
            await self._process.kill()

    async def restart(self) -> None:
        """Stop and start, with the same sockets and data."""
        await self.stop()
        await self.start()

    async def __aenter__(self) -> Self:
        error = missing(self.kind)
        if error is not None:
            raise error
        self.dir = _directory(self.kind)
        try:
            await self._prepare()
            await self.start()
        except BaseException:
            # What came first is what matters; close logs its own.
            try:
                await self._close_bounded()
            except DaemonError as failure:
                logger.warning("%s", failure)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close_bounded()

    async def _close_bounded(self) -> None:
        """Close in a task of its own: a cancellation waits until it has ended, and then comes out."""
        task = asyncio.create_task(self._close())
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
        if cancelled is not None:
            if not task.cancelled() and (failure := task.exception()):
                logger.warning("%s", failure)
            raise cancelled
        task.result()

    async def _close(self) -> None:
        if self.running:
            await self._empty()
        await self.stop()
        await self._stop_others()
        pids = processes_of(self.dir)
        names = tuple(f"{pid} {_comm(pid)}" for pid in pids)
        alive = await kill_all(pids)
        problems = [f"process {pid}" for pid in alive] + await self._clean()
        mounts = await unmount_under(self.dir)
        problems += [f"mount {point}" for point in mounts_under(self.dir)]
        # Never through a mount: that would remove someone's files.
        if not mounts_under(self.dir):
            problems += await asyncio.to_thread(remove_tree, self.dir)
        self.residue = attrs.evolve(self.residue, processes=names, mounts=tuple(mounts))
        if problems:
            message = f"{self.kind} left: {', '.join(problems[:20])}"
            raise DaemonError(message)

    # What each kind of daemon supplies.

    def _command(self) -> list[str]:
        raise NotImplementedError

    async def _ping(self) -> bool:
        raise NotImplementedError

    async def _prepare(self) -> None:
        """Write its configuration; ``dir`` is there."""

    async def _empty(self) -> None:
        """Remove what the tests left in the running daemon; errors are for ``_close`` to find."""

    async def _stop_others(self) -> None:
        """Stop helpers, after the daemon."""

    async def _clean(self) -> list[str]:
        """Remove what lies outside of ``dir``; what could not be."""
        return []


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return "?"
