"""Using the private containerd: joining the one that runs, starting one, and keeping it for as long as it is used."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from asyncctr.backends.containerd.daemon.endpoint import BACKEND, Endpoint, Rootless
from asyncctr.backends.containerd.daemon.launching import check_rootless_mode, fuse_overlayfs, plan_launch
from asyncctr.backends.containerd.daemon.places import Places
from asyncctr.backends.containerd.daemon.programs import find_program, interpreter
from asyncctr.core.errors import BackendUnavailableError, ConflictError, InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from asyncctr.core.backend_config import ContainerdConfig

__all__ = ["IDLE_VARIABLE", "Lease", "ensure_private", "join_private"]

logger = logging.getLogger(__name__)

IDLE_VARIABLE: Final = "ASYNCCTR_IDLE_TIMEOUT"
"""Seconds that a private daemon stays when nobody uses it; 60 by default. What the process that starts it says counts."""
_IDLE: Final = 60.0
START_TIMEOUT: Final = 75.0
"""Seconds until a private daemon must be there: its own 60 to get ready, and the end of a predecessor."""
_ATTEMPTS: Final = 3
_LOG_TAIL: Final = 4096
_SUPERVISOR: Final = Path(__file__).with_name("supervisor.py")


class Lease:
    """The use of one containerd: a private one stays for as long as it is open. The kernel ends the lease of a killed process.

    Attributes:
        endpoint: where the daemon is.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        reader: asyncio.StreamReader | None = None,
        writer: asyncio.StreamWriter | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._reader = reader
        self._writer = writer

    def __repr__(self) -> str:
        return f"<Lease of {self.endpoint}>"

    async def ended(self) -> str:
        """Wait for the end of a private daemon; why it ended. Of one that is not private nobody tells: that never returns."""
        if self._reader is None:
            never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            return await never
        while True:
            word, *fields = await _line(self._reader)
            if word == "ended":
                return fields[0]
            if not word:
                return "its supervisor has ended"

    async def replace(self) -> bool:
        """End a private daemon that nobody else uses and that runs no container; whether it has ended."""
        if self._reader is None or self._writer is None:
            return False
        self._writer.write(b"replace\n")
        word, *_ = await _line(self._reader)
        return word != "busy"

    async def aclose(self) -> None:
        """Give the daemon up; it goes on for others. Nothing happens the second time."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if writer.can_write_eof() and not writer.is_closing():
            # A fork of this process has the connection, too, and would keep the lease.
            writer.write_eof()
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            # It had ended before.
            return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


async def join_private(config: ContainerdConfig, environ: Mapping[str, str] = os.environ) -> Lease | None:
    """A lease of this user's private containerd; ``None`` where it does not run.

    Raises:
        BackendUnavailableError: it is being started, and that fails.
        ConflictError: it runs another program than ``containerd_path``.
    """
    places = await asyncio.to_thread(Places.of(environ).running)
    try:
        async with asyncio.timeout(START_TIMEOUT):
            lease = await _connect(config, places)
    except TimeoutError as error:
        raise _late(places) from error
    if lease is not None:
        await _fits(config, lease, replace=False)
    return lease


async def ensure_private(config: ContainerdConfig, environ: Mapping[str, str] = os.environ) -> Lease:
    """A lease of this user's private containerd, which is started where it does not run.

    A daemon of another program than ``containerd_path`` is ended and replaced if nobody else uses it.

    Raises:
        BackendUnavailableError: it cannot be started; the message says why and what to do.
        ConflictError: it runs another program than ``containerd_path``, and others use it.
        InvalidConfigError, UnsupportedError: as :func:`plan_launch`.
    """
    check_rootless_mode(config)
    idle = _idle(environ)
    own = Places.of(environ)
    try:
        async with asyncio.timeout(START_TIMEOUT):
            for _ in range(_ATTEMPTS):
                lease = await _connect(config, await asyncio.to_thread(own.running))
                if lease is None:
                    await _start(config, own, idle, environ)
                    lease = await _connect(config, await asyncio.to_thread(own.running))
                # None, too, for one that ended in between: the next attempt starts it anew.
                if lease is not None and await _fits(config, lease, replace=True):
                    return lease
    except TimeoutError as error:
        raise _late(own) from error
    message = f"the private containerd ended {_ATTEMPTS} times while it was joined{await _log_end(own)}"
    raise BackendUnavailableError(message, backend=BACKEND)


def _late(places: Places) -> BackendUnavailableError:
    message = f"the private containerd was not there within {START_TIMEOUT:g} s; its log is {places.log}"
    return BackendUnavailableError(message, backend=BACKEND)


def _idle(environ: Mapping[str, str]) -> float:
    text = environ.get(IDLE_VARIABLE, "")
    try:
        seconds = float(text) if text else _IDLE
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise InvalidConfigError(f"{IDLE_VARIABLE}: must be a positive number of seconds", field=IDLE_VARIABLE)
    return seconds


# -- joining


async def _connect(config: ContainerdConfig, places: Places) -> Lease | None:
    try:
        reader, writer = await asyncio.open_unix_connection(f"{places.run}/supervisor.sock")
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return None
    except OSError as error:
        message = f"cannot reach the private containerd in {places.run}: {error.strerror}"
        raise BackendUnavailableError(message, backend=BACKEND, status=error.errno) from error
    lease: Lease | None = None
    try:
        word, *fields = await _line(reader)
        if word == "ready":
            endpoint = await asyncio.to_thread(_endpoint, config, places, int(fields[0]), fields[1])
            lease = Lease(endpoint, reader, writer)
    finally:
        if lease is None:
            writer.close()
    if word == "failed":
        message = f"the private containerd does not start: {fields[0]}{await _log_end(places)}"
        raise BackendUnavailableError(message, backend=BACKEND)
    return lease


async def _line(reader: asyncio.StreamReader) -> list[str]:
    """The fields of the supervisor's next line; one empty field when it has ended."""
    try:
        line = await reader.readline()
    except OSError:
        line = b""
    return os.fsdecode(line).rstrip("\n").split("\t")


def _endpoint(config: ContainerdConfig, places: Places, pid: int, containerd: str) -> Endpoint:
    rootless: Rootless | None = None
    mount_with = ""
    state_dir = f"{places.run}/rk"
    if os.geteuid() != 0:
        try:
            child = int(Path(state_dir, "child_pid").read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            message = f"the private containerd's rootlesskit (pid {pid}) has no child_pid in {state_dir}"
            raise BackendUnavailableError(message, backend=BACKEND) from error
        rootless = Rootless(child_pid=child, state_dir=state_dir, api_socket=f"{state_dir}/api.sock")
        mount_with = fuse_overlayfs(config, places)
    return Endpoint(
        socket=f"{places.run}/containerd.sock",
        state_dir=f"{places.private}/sdk",
        description=f"the private containerd of this user ({containerd}, pid {pid}, log {places.log})",
        rootless=rootless,
        private=True,
        containerd=containerd,
        log=places.log,
        exits_dir=places.exits,
        runc_root=places.runc,
        fuse_overlayfs=mount_with,
    )


async def _fits(config: ContainerdConfig, lease: Lease, *, replace: bool) -> bool:
    """Whether the daemon is what ``containerd_path`` asks for. One that is not is given up, and ended if ``replace`` allows it.

    Raises:
        ConflictError: it is not, and goes on.
    """
    fits = replaced = False
    try:
        path = config.containerd_path
        wanted = await asyncio.to_thread(_resolved, path) if path else ""
        fits = not path or wanted == lease.endpoint.containerd
        replaced = not fits and replace and await lease.replace()
    finally:
        if not fits:
            await lease.aclose()
    if fits:
        return True
    if replaced:
        logger.info("ended the private containerd %s, as %s is asked for", lease.endpoint.containerd, wanted)
        return False
    message = (
        f"containerd_path: {path} is not what runs, which is {lease.endpoint}; that ends when nobody has used it for a while. "
        "Until then leave containerd_path empty, or end those who use it"
    )
    raise ConflictError(message, backend=BACKEND, resource=lease.endpoint.socket)


def _resolved(path: str) -> str:
    return os.path.realpath(find_program("containerd", path, "containerd_path"))


# -- starting


async def _start(config: ContainerdConfig, places: Places, idle: float, environ: Mapping[str, str]) -> None:
    """Run the supervisor until it, or another that was quicker, listens."""

    def prepare() -> tuple[str, list[str], Mapping[str, str], str]:
        launch = plan_launch(config, places, environ)
        places.make()
        words = [interpreter(), "-I", "-S", str(_SUPERVISOR), places.private, places.run, str(idle), launch.containerd]
        return words[0], [*words[1:], *launch.command], launch.environment, launch.config

    program, arguments, environment, text = await asyncio.to_thread(prepare)
    logger.info(
        "starting a private containerd: %s", config.containerd_path or "containerd", extra={"data": places.data}
    )
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd="/",
        start_new_session=True,
    )
    try:
        _, errors = await process.communicate(os.fsencode(text))
    finally:
        if process.returncode is None:
            # What has listened by then has parted from this process, and stays.
            process.kill()
            await process.wait()
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines() or [f"it ended with {process.returncode}"]
        message = f"the supervisor of the private containerd does not start: {lines[-1]}"
        raise BackendUnavailableError(message, backend=BACKEND)


async def _log_end(places: Places) -> str:
    """The log's last lines, for a message."""

    def read() -> bytes:
        with open(places.log, "rb") as file:  # noqa: PTH123 - a string
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
            return file.read()

    try:
        text = (await asyncio.to_thread(read)).decode(errors="replace").strip()
    except OSError:
        return ""
    return f"; its log {places.log} ends:\n{text}"
