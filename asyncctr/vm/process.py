"""The process of a virtual machine: started so that it outlives the SDK, adopted from its directory by any process, and ended."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.core.errors import AsyncctrError, BackendUnavailableError, InvalidStateError, StartError
from asyncctr.transport.cleanup import Janitor
from asyncctr.transport.hostfiles import host_files
from asyncctr.vm.pidfd import Pidfd, readable, reap_child
from asyncctr.vm.supervisor import OUTPUT, STATE, Noted, begin, read, spawn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["VmProcess", "VmmExit", "discard", "output", "remove", "start"]

_TAIL: Final = 8_192
_WHAT: Final = "the process of a virtual machine"


@attrs.frozen(kw_only=True)
class VmmExit:
    """How the process of a machine ended, which is not how its guest did.

    Attributes:
        code: 0 to 255, 128 + n after signal n; ``None`` where nobody saw it, because the supervisor was killed, too.
    """

    code: int | None

    @property
    def is_lost(self) -> bool:
        """Whether nobody knows."""
        return self.code is None

    @property
    def signal(self) -> int | None:
        """The signal that the code tells; a program may end with such a code by itself, too."""
        return self.code - 128 if self.code is not None and 128 < self.code <= 128 + 64 else None


class VmProcess:
    """A machine's process that was started, by this process or another one. It goes on when this object is closed or dropped."""

    __slots__ = ("_backend", "_noted", "_supervisor", "_vmm", "directory")

    def __init__(self, directory: Path, noted: Noted, backend: str = "") -> None:
        self.directory = directory
        self._noted = noted
        self._backend = backend
        self._supervisor = None if noted.supervisor is None else Pidfd.of(noted.supervisor)
        self._vmm = None if noted.vmm is None else Pidfd.of(noted.vmm)

    @classmethod
    def adopt(cls, directory: Path, *, backend: str = "") -> VmProcess | None:
        """What was started with this directory, running or not; ``None`` where nothing was.

        Raises:
            InvalidStateError: it belongs to another pid namespace, and may be running there.
            ResourceExhaustedError: no descriptor is left.
        """
        with host_files(_WHAT, directory.name, backend=backend):
            noted = read(directory)
            # Without a supervisor there never will be one, or whoever starts it is not done.
            return None if noted is None or noted.supervisor is None else cls(directory, noted, backend)

    @property
    def pid(self) -> int | None:
        """The machine's process id, of one that has ended too; ``None`` where it did not get so far."""
        return None if self._noted.vmm is None else self._noted.vmm.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._vmm is not None and not self._vmm.has_ended

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Send a signal to it, and to no other that may have its pid by now; whether it was there to get it."""
        return self._vmm is not None and self._vmm.send(number)

    async def ended(self) -> VmmExit:
        """Wait until it has ended, and all that watches over it.

        Raises:
            ResourceExhaustedError: no descriptor is left.
        """
        with host_files(_WHAT, self.directory.name, backend=self._backend):
            if self._supervisor is not None:
                await self._supervisor.ended()
            noted = read(self.directory)
            # Another one may have been started since, or all of it removed.
            if noted is not None and noted.code is not None and noted.supervisor == self._noted.supervisor:
                return VmmExit(code=noted.code)
            if self._vmm is not None:
                # Without its supervisor it may run on.
                await self._vmm.ended()
            return VmmExit(code=None)

    async def end(self) -> None:
        """End it at once, with its supervisor and what it may have started itself. How it ended is not written down then."""
        if self._supervisor is not None and not self._supervisor.has_ended:
            # The group is the supervisor's, and all that it started is in it.
            _kill_group(self._supervisor.pid)
        self.kill()
        for held in (self._vmm, self._supervisor):
            if held is not None:
                await held.ended()

    def close(self) -> None:
        """Let go of it. Idempotent."""
        for held in (self._supervisor, self._vmm):
            if held is not None:
                held.close()


async def start(
    directory: Path,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    backend: str = "",
    resource: str = "",
) -> VmProcess:
    """Start a machine's process. It and its supervisor have a session of their own, no input, and none of this process's descriptors but those that
    are named.

    The caller sees to it that nobody else starts or removes it meanwhile. Cancelled, it leaves no process and nothing written down.

    Args:
        directory: the machine's, where it works; its output is put there, and what it makes there is for this user alone.
        argv: the program, by its path or for ``PATH`` to find, and its arguments.
        env: variables beside ``PATH``; nothing else of this process's environment is handed on.
        pass_fds: descriptors that it inherits, by the same numbers.
        backend: for errors.
        resource: for errors.

    Raises:
        BackendUnavailableError: there is no such program, or it may not be run.
        InvalidStateError: the one that was started before has not ended.
        ResourceExhaustedError: no process, descriptor or disk space is left.
        StartError: its supervisor ended at once.
    """
    starting = asyncio.ensure_future(_start(directory, argv, env or {}, pass_fds, backend, resource))
    held = await Janitor.wait_for(starting)
    if held is None:
        return starting.result()
    try:
        process = starting.result()
    except (AsyncctrError, asyncio.CancelledError) as error:
        raise held from error
    await Janitor.wait_for(asyncio.ensure_future(discard(process)))
    raise held


async def _start(
    directory: Path,
    argv: Sequence[str],
    env: Mapping[str, str],
    pass_fds: Sequence[int],
    backend: str,
    resource: str,
) -> VmProcess:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **env}
    program = _find(argv[0], environment["PATH"], backend, resource)
    with host_files(_WHAT, resource, backend=backend):
        await _check_ended(directory, backend, resource)
        try:
            begin(directory)
            pid, reader = spawn(directory, [program, *argv[1:]], environment, pass_fds=pass_fds)
        except BaseException:
            _forget(directory)
            raise
        try:
            try:
                await readable(reader)
                told = bool(os.read(reader, 1))
            finally:
                os.close(reader)
                reap_child(pid)
            if told and (process := VmProcess.adopt(directory, backend=backend)) is not None:
                return process
        except BaseException:
            # Nothing was waited for since, so that it is not reaped yet, and the number is nobody else's.
            _kill_group(pid)
            _forget(directory)
            raise
    text = output(directory)
    message = f"the supervisor of a virtual machine ended at once: {text or 'it printed nothing'}"
    _forget(directory)
    raise StartError(message, console=text, backend=backend, resource=resource)


async def _check_ended(directory: Path, backend: str, resource: str) -> None:
    before = VmProcess.adopt(directory, backend=backend)
    if before is None:
        return
    try:
        if before.running:
            message = f"the machine is running already, as process {before.pid}"
            raise InvalidStateError(message, backend=backend, resource=resource)
        # What its supervisor still has to write would be taken for the next one's.
        await (before.end() if before.pid is None else before.ended())
    finally:
        before.close()


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        # It ended just now.
        pass


def _find(program: str, path: str, backend: str, resource: str) -> str:
    found = shutil.which(program, path=path)
    if found is None:
        there = "/" in program and os.path.exists(program)  # noqa: PTH110  # a string
        reason = "it may not be run" if there else "there is no such program"
        message = f"cannot run {program}: {reason}; install it, or name another one in the configuration"
        raise BackendUnavailableError(message, backend=backend, resource=resource)
    # Its directory is another one than this process's.
    return os.path.abspath(found)  # noqa: PTH100  # a string


async def discard(process: VmProcess) -> None:
    """End it, and leave nothing of it written down: it was never started then."""
    await process.end()
    process.close()
    _forget(process.directory)


def _forget(directory: Path) -> None:
    for name in (STATE, OUTPUT):
        try:
            os.unlink(f"{directory}/{name}")  # noqa: PTH108  # a string
        except FileNotFoundError:
            # It did not get so far.
            continue


def output(directory: Path) -> str:
    """The end of what a machine's process, and not its guest, has printed: why it did not start."""
    try:
        with open(f"{directory}/{OUTPUT}", "rb") as file:  # noqa: PTH123  # a string
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


async def remove(directory: Path) -> None:
    """End what still runs with a directory, and remove that. The caller sees to it that nobody else starts it meanwhile.

    Raises:
        InvalidStateError: it belongs to another pid namespace, and may be running there.
    """
    process = VmProcess.adopt(directory)
    if process is not None:
        try:
            await process.end()
        finally:
            process.close()
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
