"""Which containerd to use: the one that is named, the system's or this user's, else a private one."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncctr.backends.containerd.daemon.endpoint import BACKEND, Endpoint, Rootless
from asyncctr.backends.containerd.daemon.launching import check_rootless_mode
from asyncctr.backends.containerd.daemon.lease import Lease, ensure_private, join_private
from asyncctr.backends.containerd.daemon.places import Places
from asyncctr.backends.containerd.daemon.programs import install, look_for
from asyncctr.core.errors import BackendUnavailableError
from asyncctr.transport.places import home, runtime_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncctr.core.backend_config import ContainerdConfig

__all__ = ["Endpoint", "Lease", "Rootless", "acquire", "acquire_private", "find"]

SYSTEM_SOCKET: Final = "/run/containerd/containerd.sock"
PROBE_TIMEOUT: Final = 2.0
"""Seconds that a daemon has to answer while one is being looked for."""

# RFC 9113, 3.4 and 6.5: the client's preface, and an empty SETTINGS frame. A server answers with its own SETTINGS.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
_FRAME_HEADER: Final = 9
_SETTINGS: Final = 4
_CREDENTIALS: Final = struct.Struct("3i")


class NoneRunsError(BackendUnavailableError):
    """There is no private containerd, and none is to be started."""


async def acquire(config: ContainerdConfig, environ: Mapping[str, str] = os.environ) -> Lease:
    """A lease of the containerd that a configuration asks for.

    The one at ``socket_path``; else, without ``private``, the one that :func:`find` finds; else the private one, if it runs, or if
    ``auto_start`` has it started. A lease of one that is not private costs nothing and holds nothing.

    Raises:
        BackendUnavailableError: there is none, and none was or could be started; the message says what was tried.
        ConflictError: the private one runs another program than ``containerd_path``, and others use it.
        InvalidConfigError, UnsupportedError: ``rootless_mode`` does not fit this user.
    """
    if config.private:
        check_rootless_mode(config)
        return await acquire_private(config, environ)
    try:
        return Lease(await find(config, environ))
    except BackendUnavailableError as error:
        if config.socket_path:
            raise
        try:
            return await acquire_private(config, environ)
        except NoneRunsError:
            raise BackendUnavailableError(f"{error}\n{_advice(config)}", backend=BACKEND) from error


async def acquire_private(config: ContainerdConfig, environ: Mapping[str, str] = os.environ) -> Lease:
    """A lease of the private containerd, if it runs, or if ``auto_start`` has it started.

    Raises:
        BackendUnavailableError: it does not run, or cannot be started.
        ConflictError, InvalidConfigError, UnsupportedError: as :func:`acquire`.
    """
    if config.auto_start:
        return await ensure_private(config, environ)
    if lease := await join_private(config, environ):
        return lease
    raise NoneRunsError("no private containerd runs, and auto_start is not set", backend=BACKEND)


async def find(config: ContainerdConfig, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """A containerd that runs and is not private: at ``socket_path``, else the system's for root and this user's for others.

    Raises:
        BackendUnavailableError: none answers; the message says what was tried.
        InvalidConfigError: ``rootless_mode`` does not fit this user.
    """
    rootless = check_rootless_mode(config)
    if config.socket_path:
        candidates = {config.socket_path: "socket_path"}
    elif rootless:
        candidates = await asyncio.to_thread(_of_user, environ)
    else:
        candidates = {SYSTEM_SOCKET: "the system's"}
    tried: list[str] = []
    for path, source in candidates.items():
        try:
            pid = await _answering(path)
        except OSError as error:
            reason = str(error) if error.errno is None else os.strerror(error.errno)
            tried.append(f"  - {path} ({source}): {reason}{_hint(error)}")
        else:
            return await asyncio.to_thread(_endpoint, path, source, pid, environ)
    raise BackendUnavailableError("\n".join(["no containerd answers:", *tried]), backend=BACKEND)


def _of_user(environ: Mapping[str, str]) -> dict[str, str]:
    """Where containerds of users listen, and what says so."""
    found: dict[str, str] = {}
    if directory := runtime_directory(environ):
        # containerd-rootless.sh: the socket is inside of the mount namespace, and its files are reached through a process there.
        kit = Path(directory, "containerd-rootless")
        try:
            child = int((kit / "child_pid").read_text(encoding="ascii"))
        except (OSError, ValueError):
            child = 0
        if child:
            found[f"/proc/{child}/root{SYSTEM_SOCKET}"] = f"as {kit} has it"
        found[f"{kit}/containerd.sock"] = "this user's"
        found[f"{directory}/containerd/containerd.sock"] = "this user's"
    found[f"{home(environ)}/.local/share/containerd/containerd.sock"] = "this user's"
    return found


def _hint(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "; it is root's: run as root, or use a containerd of this user (RootlessMode.AUTO or ENABLED)"
    if isinstance(error, ConnectionRefusedError):
        return ": nobody listens, the socket is left over"
    return ""


async def _answering(path: str) -> int:
    """The process that listens there, if it speaks HTTP/2 as gRPC's servers do.

    Raises:
        OSError: it does not, within two seconds; the reason is its text.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            await loop.sock_connect(connection, path)
            await loop.sock_sendall(connection, _PREFACE)
            header = b""
            while len(header) < _FRAME_HEADER and (part := await loop.sock_recv(connection, _FRAME_HEADER)):
                header += part
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except TimeoutError:
        raise OSError(f"accepts connections, but did not answer within {PROBE_TIMEOUT:g} s") from None
    finally:
        # Soon: a server that is to stop waits for connections.
        connection.close()
    if len(header) < _FRAME_HEADER or header[3] != _SETTINGS:
        raise OSError("something else than containerd listens there")
    return int(_CREDENTIALS.unpack(credentials)[0])


def _endpoint(path: str, source: str, pid: int, environ: Mapping[str, str]) -> Endpoint:
    rootless = _rootless(pid)
    # A path through /proc is another one after each start.
    key = rootless.state_dir if rootless is not None and path.startswith("/proc/") else os.path.realpath(path)
    state_dir = Places.of(environ).kept_for(key)
    where = " in namespaces of rootlesskit" if rootless is not None else ""
    return Endpoint(
        socket=path, state_dir=state_dir, description=f"containerd at {path} ({source}){where}", rootless=rootless
    )


def _rootless(pid: int) -> Rootless | None:
    """How to reach into the namespaces of a process, if its user namespace is another than ours and rootlesskit's."""
    process = Path(f"/proc/{pid}")
    try:
        if (process / "ns/user").readlink() == Path("/proc/self/ns/user").readlink():
            return None
        words = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        # Another user's, such as root's when its socket is open to a group.
        return None
    for word in words:
        name, _, value = word.partition(b"=")
        if name == b"ROOTLESSKIT_STATE_DIR":
            state_dir = os.fsdecode(value)
            return Rootless(child_pid=pid, state_dir=state_dir, api_socket=f"{state_dir}/api.sock")
    return None


def _advice(config: ContainerdConfig) -> str:
    rootless = check_rootless_mode(config)
    needed = ["containerd", "runc"]
    if rootless:
        needed += ["rootlesskit", "slirp4netns", "newuidmap", "fuse-overlayfs"]
    if missing := [program for program in needed if not look_for(program)]:
        return f"On Debian and Ubuntu: {install(*missing)}, and ContainerdConfig(auto_start=True) starts a private one."
    return "Start one, name its socket with ContainerdConfig(socket_path=...), or have a private one started with auto_start=True."
