"""Named network namespaces: made, and held by a mount on a file until they are removed (network_namespaces(7))."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Final

from asyncctr.core.errors import AsyncctrError, BackendUnavailableError, ResourceExhaustedError
from asyncctr.netns.files import in_thread
from asyncctr.netns.runner import HOST

if TYPE_CHECKING:
    from pathlib import Path

    from asyncctr.netns.runner import Runner

__all__ = ["make_namespace", "remove_namespace"]

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_MS_BIND: Final = 0x1000  # linux/mount.h
_MNT_DETACH: Final = 2  # linux/fs.h
_SIOCSIFFLAGS: Final = 0x8914  # linux/sockios.h
_IFF_UP_RUNNING: Final = 0x1 | 0x40  # linux/if.h


async def make_namespace(path: Path, runner: Runner = HOST) -> None:
    """Make a network namespace with its loopback up, held by a mount on ``path``, which must not exist.

    The mount is made in the runner's mount namespace: there a daemon sees it.

    Raises:
        BackendUnavailableError: this user may not, or the kernel cannot.
        ResourceExhaustedError: the machine has as many as it takes (``user.max_net_namespaces``).
    """
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if not runner.enter:
            await in_thread(lambda: _make(path))
        else:
            await runner.check("unshare", f"--net={path}", "ip", "link", "set", "lo", "up")
    except OSError as error:
        raise _translated(error, path) from error


async def remove_namespace(path: Path, runner: Runner = HOST) -> None:
    """Remove it: the kernel ends it when the last process inside has gone. Idempotent, also for one that was half made.

    Raises:
        BackendUnavailableError: it could not be unmounted.
    """
    if not runner.enter:
        try:
            _call("umount2", os.fsencode(path), _MNT_DETACH)
        except OSError as error:
            # Nothing is mounted there, or it is not there itself.
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise _translated(error, path) from error
    else:
        finished = await runner.run("umount", "--lazy", str(path))
        if finished.returncode and not any(
            word in finished.stderr for word in (b"not mounted", b"no mount point", b"not found")
        ):
            message = f"cannot unmount the network namespace {path}: {finished.words}"
            raise BackendUnavailableError(message, status=finished.returncode)
    await in_thread(lambda: path.unlink(missing_ok=True))


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _make(path: Path) -> None:
    """Make it from a thread that enters it and ends: an eighth of the time that a program would take."""
    problems: list[OSError] = []

    def enter() -> None:
        try:
            _call("unshare", _CLONE_NEWNET)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                # struct ifreq (netdevice(7)): a name of 16 bytes, the flags, and the rest of a union of 24.
                fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP_RUNNING))
            _call("mount", b"/proc/thread-self/ns/net", os.fsencode(path), None, ctypes.c_ulong(_MS_BIND), None)
        except OSError as error:
            problems.append(error)

    thread = threading.Thread(target=enter, name="asyncctr netns")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]


def _translated(error: OSError, path: Path) -> AsyncctrError:
    if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return ResourceExhaustedError(f"no further network namespace can be made: {error.strerror}", status=error.errno)
    hint = ": it takes root, or a rootless daemon" if error.errno in (errno.EPERM, errno.EACCES) else ""
    message = f"cannot make or remove the network namespace {path}: {error.strerror}{hint}"
    return BackendUnavailableError(message, status=error.errno)
