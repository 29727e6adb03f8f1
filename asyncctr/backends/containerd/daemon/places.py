"""The directories of the private containerd and of what is kept for others: whose they are, and that nobody else's."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.backends.containerd.daemon.endpoint import BACKEND
from asyncctr.core.errors import BackendUnavailableError, InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DATA_VARIABLE", "RUN_VARIABLE", "Places", "home", "own_directory", "runtime_directory"]

DATA_VARIABLE: Final = "ASYNCCTR_DATA_DIR"
"""Where data is kept; by default ``/var/lib/asyncctr``, for a user ``$XDG_DATA_HOME/asyncctr``."""
RUN_VARIABLE: Final = "ASYNCCTR_RUN_DIR"
"""Where sockets are; by default ``/run/asyncctr``, for a user ``$XDG_RUNTIME_DIR/asyncctr``."""

# A socket's path has at most 107 bytes (unix(7)), and containerd refuses its own beyond 104 (pkg/sys, CreateUnixSocket).
_SOCKET_LIMIT: Final = 104
_LONGEST_SOCKET: Final = "/containerd.sock.ttrpc"


@attrs.frozen(kw_only=True)
class Places:
    """Where the private containerd lives.

    Attributes:
        data: what outlives it: its images and containers, its log, and what is kept for other daemons.
        run: its sockets and the state of what runs; gone with it.
    """

    data: str
    run: str

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> Places:
        """Those of this user. Nothing is made."""
        data = os.path.abspath(os.path.join(_base(environ), BACKEND))  # noqa: PTH100, PTH118 - strings throughout
        # One for each data directory, so that no two daemons meet in one.
        name = f"{BACKEND}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:8]}"
        run = os.path.join(_run_base(environ), name)  # noqa: PTH118
        if len(os.fsencode(run + _LONGEST_SOCKET)) > _SOCKET_LIMIT:
            digest = hashlib.sha256(os.fsencode(run)).hexdigest()[:8]
            run = f"{_temporary()}-{digest}/{name}"
        return cls(data=data, run=run)

    @property
    def private(self) -> str:
        """Of the private containerd, below ``data``."""
        return f"{self.data}/private"

    @property
    def log(self) -> str:
        """The private containerd's log."""
        return f"{self.private}/containerd.log"

    @property
    def exits(self) -> str:
        """See :attr:`Endpoint.exits_dir`."""
        return f"{self.private}/exits"

    @property
    def runc(self) -> str:
        """See :attr:`Endpoint.runc_root`: goes with the state of containerd."""
        return f"{self.run}/state/runc"

    def make(self) -> None:
        """Make the directories.

        Raises:
            BackendUnavailableError: one cannot be made, or is not this user's alone.
        """
        # What holds the sockets' directory may be anybody's that nobody else can rename it in: root's, as /tmp is.
        own_directory(os.path.dirname(self.run), shared=True)  # noqa: PTH120
        for path in (self.data, self.private, f"{self.private}/sdk", self.run):
            own_directory(path)

    def running(self) -> Places:
        """These, with the ``run`` that the daemon was started with, where it runs: another shell's environment may differ."""
        try:
            run = Path(self.private, "run").read_text(encoding="utf-8", errors="surrogateescape").strip()
        except OSError:
            return self
        return attrs.evolve(self, run=run) if run.startswith("/") else self

    def kept_for(self, key: str) -> str:
        """The SDK's directory for another containerd, made where it is missing.

        Raises:
            BackendUnavailableError: as :meth:`make`.
        """
        path = f"{self.data}/{hashlib.sha256(os.fsencode(key)).hexdigest()[:12]}"
        own_directory(self.data)
        own_directory(path)
        return path


def own_directory(path: str, *, shared: bool = False) -> None:
    """Make a directory with mode 0700 where it is missing, and see to it that it is this user's alone.

    Args:
        path: of it.
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
            raise BackendUnavailableError(message, backend=BACKEND, resource=path)
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
        raise BackendUnavailableError(message, backend=BACKEND, resource=path, status=error.errno) from error


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
