"""Connections to a Docker engine on another machine, each carried by an ``ssh`` that runs ``docker system dial-stdio``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from asyncctr.core.errors import (
    BackendUnavailableError,
    ClosedError,
    ConnectionLostError,
    InvalidConfigError,
)
from asyncctr.transport.dial import DialerConnector
from asyncctr.transport.ssh_session import STDERR_LIMIT, SshSession, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp

    from asyncctr.core.errors import AsyncctrError

__all__ = ["SshDialer", "check_destination"]

CONTROL_PERSIST: Final = 60
"""Seconds that the shared connection stays without a session on it, if this process dies without closing it."""
_ALIVE_INTERVAL: Final = 15
_ALIVE_COUNT: Final = 3
_CLOSE_TIMEOUT: Final = 5.0
# sun_path has 104 bytes on macOS, and ssh appends 17 to the name while it creates the socket.
_CONTROL_PATH_LIMIT: Final = 104 - 18

# What ssh puts into ProxyCommand (%h, %r), which a shell reads, must mean nothing to one.
_HOST = re.compile(r"[A-Za-z0-9_.:%][A-Za-z0-9_.:%-]*")
_USER = re.compile(r"[A-Za-z0-9_.@+][A-Za-z0-9_.@+-]*")


def check_destination(host: str, *, user: str = "", socket_path: str = "", field: str = "host") -> None:
    """Refuse what ssh, or the shell on the other side, could read as something else.

    Raises:
        InvalidConfigError: a part begins with ``-``, has characters that no host or user name has, or the path is not
            absolute.
    """
    if not _HOST.fullmatch(host):
        message = f"{field}: an ssh:// address needs a host name of letters, digits and '.-_:%'"
        raise InvalidConfigError(message, field=field)
    if user and not _USER.fullmatch(user):
        message = f"{field}: the user name in an ssh:// address may have letters, digits and '.-_@+'"
        raise InvalidConfigError(message, field=field)
    if socket_path and not (socket_path.startswith("/") and socket_path.isprintable()):
        raise InvalidConfigError(f"{field}: the socket's path must be absolute and printable", field=field)


class SshDialer:
    """Connects to an engine's socket on another machine through the system's OpenSSH and the user's configuration for it.

    All connections share one authenticated ssh connection, made by the first of them. Where the server limits the
    sessions on it (``MaxSessions``, 10 by default), ssh gives each further one a connection of its own.

    Nothing is ever asked: keys, agent and known host keys must be in place.

    Args:
        host: a name, address, or ``Host`` of ssh's configuration.
        user: empty for what ssh's configuration says.
        port: ``None`` likewise.
        socket_path: of the engine's socket there; empty for what the docker CLI there uses.
        config_file: in place of the user's and the system's ssh configuration.
        connect_timeout: seconds for connecting, and as many again for authentication.
        program: of ssh.

    Attributes:
        last_error: why the newest connection that failed did so.

    Raises:
        InvalidConfigError: see :func:`check_destination`.
    """

    def __init__(
        self,
        host: str,
        *,
        user: str = "",
        port: int | None = None,
        socket_path: str = "",
        config_file: str = "",
        connect_timeout: float = 10.0,
        program: str = "ssh",
    ) -> None:
        check_destination(host, user=user, socket_path=socket_path)
        self.last_error: AsyncctrError | None = None
        self._host = host
        self._destination = f"{user}@{host}" if user else host
        self._program = program
        self._connect_timeout = connect_timeout
        docker = ["docker", *(["--host", f"unix://{socket_path}"] if socket_path else []), "system", "dial-stdio"]
        # ssh joins its arguments with spaces, and the user's shell there reads the result.
        self._command = shlex.join(docker)
        self._arguments = [
            *(["-F", config_file] if config_file else []),
            "-T",
            *("-o", "BatchMode=yes"),
            *("-o", f"ConnectTimeout={max(1, round(connect_timeout))}"),
            *("-o", f"ServerAliveInterval={_ALIVE_INTERVAL}"),
            *("-o", f"ServerAliveCountMax={_ALIVE_COUNT}"),
            *("-o", "ClearAllForwardings=yes"),
            *("-o", "PermitLocalCommand=no"),
            *("-o", "RemoteCommand=none"),
            *(["-l", user] if user else []),
            *(["-p", str(port)] if port is not None else []),
        ]
        self._folder: Path | None = None
        self._master_pid = 0
        self._lock = asyncio.Lock()
        self._sessions: set[SshSession] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<SshDialer {self._destination}>"

    async def connect(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol]
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        """See :meth:`asyncctr.transport.dial.Dialer.connect`.

        What goes wrong on the other side of ssh, such as an engine that is not running, is known after this returns:
        the protocol's ``connection_lost`` gets it, a ``BackendUnavailableError`` if nothing had arrived.
        """
        await self._share()
        arguments = [*self._control("no"), *self._arguments, "--", self._host, self._command]
        loop = asyncio.get_running_loop()
        _, session = await loop.subprocess_exec(
            lambda: SshSession(self, protocol_factory),
            self._program,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Its own session: the terminal's Ctrl-C is for this process, and there is no terminal to ask on.
            start_new_session=True,
        )
        try:
            await session.made
            self._check_open()
        except BaseException:  # a cancellation, too, must not leave the process behind
            session.facade.abort()
            raise
        return session.facade, session.client

    def connector(self) -> aiohttp.BaseConnector:
        """See :meth:`asyncctr.transport.dial.Dialer.connector`."""
        return DialerConnector(self)

    async def aclose(self) -> None:
        """End every connection, the shared one, and their processes, within about ten seconds. Idempotent."""
        self._closed = True
        async with self._lock:
            sessions = list(self._sessions)
            for session in sessions:
                session.end(ClosedError("this ssh dialer was closed"))
            if sessions:
                await asyncio.wait([session.reaped for session in sessions], timeout=_CLOSE_TIMEOUT)
            folder, self._folder = self._folder, None
            if folder is not None:
                await self._unshare(folder)
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this ssh dialer is closed")

    # -- the shared connection

    def _control(self, master: str, folder: Path | None = None) -> list[str]:
        path = str((folder or self._folder or Path()) / "c").replace("%", "%%")
        return ["-o", f"ControlMaster={master}", "-o", f'ControlPath="{path}"']

    async def _share(self) -> None:
        """Make the connection that the sessions share, unless it is there. One at a time: it authenticates."""
        async with self._lock:
            self._check_open()
            if self._folder is None:
                self._folder = _private_folder()  # in a thread, a cancellation would lose it
            if _listens(self._folder / "c"):
                return
            (self._folder / "c").unlink(missing_ok=True)
            arguments = [*self._control("yes"), "-o", f"ControlPersist={CONTROL_PERSIST}", *self._arguments]
            # -f: it goes to the background, and what was started ends, once it has authenticated.
            status, errors = await self._run([*arguments, "-f", "-N"], timeout=2 * self._connect_timeout)
            if status is None:
                errors = f"no connection within {2 * self._connect_timeout:g} s"
            if status != 0:
                raise self.failure(status, errors)
            _, answer = await self._run([*self._control("no"), *self._arguments, "-O", "check"], timeout=_CLOSE_TIMEOUT)
            match = re.search(r"pid=([0-9]+)", answer)
            self._master_pid = int(match[1]) if match else 0

    async def _unshare(self, folder: Path) -> None:
        if not _listens(folder / "c"):
            return
        arguments = [*self._control("no", folder), *self._arguments, "-O", "exit"]
        status, _ = await self._run(arguments, timeout=_CLOSE_TIMEOUT)
        if status != 0 and self._master_pid and _listens(folder / "c"):
            # It lives, and is the one that was asked, but does not answer.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._master_pid, signal.SIGKILL)

    async def _run(self, arguments: list[str], *, timeout: float) -> tuple[int | None, str]:  # noqa: ASYNC109
        """Run ssh to its end: its status (``None``: it was killed for taking too long) and its messages."""
        # A file, because what goes to the background may keep it open: a pipe might never end.
        with tempfile.TemporaryFile() as messages:
            try:
                process = await asyncio.create_subprocess_exec(
                    self._program,
                    *arguments,
                    "--",
                    self._host,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=messages,
                    stderr=messages,
                    start_new_session=True,
                )
            except (FileNotFoundError, PermissionError) as error:
                message = (
                    f"cannot run {self._program}: {error.strerror}. "
                    "Install the OpenSSH client (Debian, Ubuntu: apt-get install openssh-client)"
                )
                raise BackendUnavailableError(message) from error
            status: int | None = None
            try:
                async with asyncio.timeout(timeout):
                    status = await process.wait()
            except TimeoutError:
                pass
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
            return status, _tail(messages)

    def failure(self, status: int | None, errors: str) -> BackendUnavailableError:
        """What it means that ssh ended so, before the engine had answered."""
        hints = {
            127: "Install the docker CLI there",
            255: f"ssh must get in without asking: try `ssh -o BatchMode=yes {self._destination} docker version`",
        }
        hint = hints.get(status or 255, f"Try `ssh {self._destination} docker version`")
        reason = (errors or f"ssh ended with status {status}").rstrip("?")
        error = BackendUnavailableError(
            f"no Docker engine on {self._destination} by ssh: {reason}. {hint}", status=status
        )
        self.last_error = error
        return error

    def lost(self, status: int | None, errors: str) -> ConnectionLostError:
        """What it means that ssh ended so, in the middle."""
        reason = errors or f"it ended with status {status}"
        error = ConnectionLostError(f"ssh to {self._destination} broke: {reason}", status=status)
        self.last_error = error
        return error

    def add(self, session: SshSession) -> None:
        """A session began."""
        self._sessions.add(session)

    def discard(self, session: SshSession) -> None:
        """Its process is gone."""
        self._sessions.discard(session)


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="actr-"))
    if len(os.fsencode(folder / "c")) > _CONTROL_PATH_LIMIT:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="actr-", dir="/tmp"))  # mkdtemp makes it private
    return folder


def _listens(path: Path) -> bool:
    """Whether a process has the socket open; a file alone may be what a killed one left."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:  # it is busy
            return True
        except OSError:
            return False
    return True


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - STDERR_LIMIT))
    return one_line(file.read())
