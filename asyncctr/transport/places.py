"""Where this user's data and sockets are: what is kept, what is gone with a boot, and that nobody else may enter."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final

from asyncctr.core.errors import BackendUnavailableError, InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DATA_VARIABLE",
    "RUN_VARIABLE",
    "data_directory",
    "home",
    "own_directory",
    "run_directory",
    "runtime_directory",
]

DATA_VARIABLE: Final = "ASYNCCTR_DATA_DIR"
"""Where data is kept; by default ``/var/lib/asyncctr``, for a user ``$XDG_DATA_HOME/asyncctr``."""
RUN_VARIABLE: Final = "ASYNCCTR_RUN_DIR"
"""Where sockets are; by default ``/run/asyncctr``, for a user ``$XDG_RUNTIME_DIR/asyncctr``."""


def data_directory(backend: str, environ: Mapping[str, str] = os.environ) -> str:
    """Where a backend keeps what outlives it. Nothing is made."""
    return os.path.abspath(os.path.join(_base(environ), backend))  # noqa: PTH100, PTH118 - strings throughout


def run_directory(backend: str, data: str, longest: str, limit: int, environ: Mapping[str, str] = os.environ) -> str:
    """Where a backend has its sockets: one for each data directory, so that no two meet in one. Nothing is made.

    Args:
        backend: its type.
        data: where its data is.
        longest: the longest path of a socket below it.
        limit: bytes that a socket's whole path may have.
        environ: the environment.
    """
    name = f"{backend}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:8]}"
    run = os.path.join(_run_base(environ), name)  # noqa: PTH118 - strings throughout
    if len(os.fsencode(run + longest)) > limit:
        digest = hashlib.sha256(os.fsencode(run)).hexdigest()[:8]
        run = f"{_temporary()}-{digest}/{name}"
    return run


def own_directory(path: str, *, backend: str, shared: bool = False) -> None:
    """Make a directory with mode 0700 where it is missing, and see to it that it is this user's alone.

    Args:
        path: of it.
        backend: for errors.
        shared: one that is there may be root's, and keeps its mode.

    Raises:
        BackendUnavailableError: it cannot be made, or it is another user's.
    """
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - of a string
        try:
            os.mkdir(path, 0o700)  # noqa: PTH102
        except FileExistsError:
            pass
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in ({0, os.geteuid()} if shared else {os.geteuid()}):
            message = (
                f"{path} is not a directory of this user (uid {os.geteuid()}), but of uid {found.st_uid}: remove it, or name "
                f"other places with {DATA_VARIABLE} and {RUN_VARIABLE}"
            )
            raise BackendUnavailableError(message, backend=backend, resource=path)
        if not shared and found.st_mode & 0o777 != 0o700:
            os.chmod(path, 0o700)  # noqa: PTH101
        if not os.access(path, os.W_OK | os.X_OK):
            # Root may write everywhere but to a file system that is mounted read-only.
            raise PermissionError(30, "not writable", path)
    except OSError as error:
        message = (
            f"cannot write to {path}: {error.strerror}; make it writable for this user, or name other places with "
            f"{DATA_VARIABLE} and {RUN_VARIABLE}"
        )
        raise BackendUnavailableError(message, backend=backend, resource=path, status=error.errno) from error


def home(environ: Mapping[str, str]) -> str:
    """This user's home directory."""
    return environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - a string


def runtime_directory(environ: Mapping[str, str]) -> str:
    """``$XDG_RUNTIME_DIR``, or where systemd has it; empty where there is none that is this user's own."""
    # Such as after su, the variable may be another user's.
    for path in (environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.geteuid()}"):
        try:
            if path.startswith("/") and os.stat(path).st_uid == os.geteuid():  # noqa: PTH116
                return path
        except OSError:
            continue
    return ""


def _absolute(variable: str, environ: Mapping[str, str]) -> str:
    path = environ.get(variable, "")
    if path and (not path.startswith("/") or not path.isprintable()):
        raise InvalidConfigError(f"{variable}: must be an absolute path", field=variable)
    return path


def _base(environ: Mapping[str, str]) -> str:
    if path := _absolute(DATA_VARIABLE, environ):
        return path
    if os.geteuid() == 0:
        return "/var/lib/asyncctr"
    named = environ.get("XDG_DATA_HOME", "")
    return f"{named if named.startswith('/') else home(environ) + '/.local/share'}/asyncctr"


def _run_base(environ: Mapping[str, str]) -> str:
    if path := _absolute(RUN_VARIABLE, environ):
        return path
    if os.geteuid() == 0:
        return "/run/asyncctr"
    directory = runtime_directory(environ)
    return f"{directory}/asyncctr" if directory else _temporary()


def _temporary() -> str:
    return f"/tmp/asyncctr-{os.geteuid()}"  # noqa: S108 - own_directory refuses one that another user has made
