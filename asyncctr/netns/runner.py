"""Where the programs of a network run: on this host, or inside the namespaces of a daemon."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.core.errors import BackendUnavailableError, InvalidConfigError, OperationTimeoutError
from asyncctr.oci.rootfs import read_file
from asyncctr.transport.cleanup import Janitor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["HOST", "Finished", "Runner"]

_LIMIT: Final = 1 << 20
# Debian has ip and iptables in the sbin directories, which an ordinary user's PATH lacks.
_SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_PACKAGES: Final = {
    "ip": "iproute2",
    "ip6tables-save": "iptables",
    "iptables": "iptables",
    "iptables-save": "iptables",
    "nsenter": "util-linux",
    "umount": "mount",
    "unshare": "util-linux",
}


@attrs.frozen(kw_only=True)
class Finished:
    """How a program ended: its exit code (minus a signal's number) and what it printed."""

    returncode: int
    stdout: bytes = attrs.field(repr=False)
    stderr: bytes = attrs.field(repr=False)

    @property
    def words(self) -> str:
        """The end of its messages in one line, for an error."""
        return " ".join((self.stderr or self.stdout).decode(errors="replace").split())[-1000:]


@attrs.frozen
class Runner:
    """Runs programs to their end, in the namespaces in which they are to act.

    Attributes:
        enter: such as ``("-U", "--preserve-credentials", "-m", "-n", "-p")`` for a rootless daemon: which namespaces of a process
            are entered, as nsenter(1) has it; empty on this host.
        pid: tells that process's id. Asked each time: a daemon that was started anew has another one.
    """

    enter: tuple[str, ...] = ()
    pid: Callable[[], int] = os.getpid

    def read(self, path: str) -> str:
        """A small file as these namespaces have it; empty without one.

        Raises:
            BackendUnavailableError: nobody is in the namespaces.
        """
        data: bytes | None
        try:
            if self.enter:
                data = read_file([f"/proc/{self._pid()}/root"], path)
            else:
                with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # on the hot path
                    data = file.read(_LIMIT)
        except (OSError, InvalidConfigError):
            # Such as a directory.
            data = None
        return (data or b"").decode(errors="replace")

    def _pid(self) -> int:
        try:
            return self.pid()
        except (OSError, ValueError) as error:
            raise BackendUnavailableError(
                f"the daemon whose namespaces are to be entered has ended: {error}"
            ) from error

    async def run(
        self,
        *argv: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float | None = 30.0,  # noqa: ASYNC109 - the deadline is the process's: past it, it is killed
        pass_fds: Sequence[int] = (),
    ) -> Finished:
        """Run a program; no shell is involved. Cancelled or too late, it and its children are killed and reaped.

        Args:
            argv: the program and its arguments.
            stdin: what it reads.
            env: variables beside ``PATH``; nothing else of this process's environment is handed on.
            timeout: seconds until it is killed; ``None`` for what takes as long as it takes.
            pass_fds: descriptors that it and its children keep open, such as a lock's.

        Raises:
            BackendUnavailableError: there is no such program.
            OperationTimeoutError: it did not end in time.
        """
        words = ["nsenter", *self.enter, "-t", str(self._pid()), "--", *argv] if self.enter else list(argv)
        source = _as_file(stdin) if stdin else asyncio.subprocess.DEVNULL
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *words,
                stdin=source,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": path, "LC_ALL": "C", **(env or {})},
                pass_fds=pass_fds,
                # Its own session: its children are found by it, and the terminal's Ctrl-C is for this process.
                start_new_session=True,
            )
        )
        # A cancellation meanwhile would kill the program, but not the children that it may have by then.
        held = await Janitor.wait_for(starting)
        if stdin:
            os.close(source)
        try:
            process = starting.result()
        except (FileNotFoundError, PermissionError) as error:
            package = _PACKAGES.get(words[0], "")
            hint = f"; install it (Debian, Ubuntu: apt-get install {package})" if package else ""
            message = f"cannot run {words[0]}: {error.strerror}{hint}"
            raise held or BackendUnavailableError(message) from error
        try:
            if held is not None:
                raise held
            async with asyncio.timeout(timeout):
                stdout, stderr = await process.communicate()
        except TimeoutError as error:
            message = f"{os.path.basename(argv[0])} did not end within {timeout:g} s"  # noqa: PTH119 - a word, no file
            raise OperationTimeoutError(message) from error
        finally:
            if process.returncode is None:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                await Janitor.wait_for(asyncio.ensure_future(process.wait()))
        return Finished(returncode=await process.wait(), stdout=stdout, stderr=stderr)

    async def check(self, *argv: str) -> Finished:
        """Run a program that must succeed.

        Raises:
            BackendUnavailableError: it failed; the message has its own words.
        """
        finished = await self.run(*argv)
        if finished.returncode:
            message = f"{' '.join(argv)} failed: {finished.words or f'status {finished.returncode}'}"
            raise BackendUnavailableError(message, status=finished.returncode)
        return finished


def _as_file(data: bytes) -> int:
    """A nameless file: a pipe would have to be written to while its reader ends, which each event loop takes in its own way."""
    descriptor = os.memfd_create("asyncctr stdin", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


HOST: Final = Runner()
"""This process's own namespaces."""
