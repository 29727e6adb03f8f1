"""The directories of the private containerd and of what is kept for others: whose they are, and that nobody else's."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.backends.containerd.daemon.endpoint import BACKEND
from asyncctr.transport.places import data_directory, own_directory, run_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Places"]

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
        data = data_directory(BACKEND, environ)
        run = run_directory(BACKEND, data, _LONGEST_SOCKET, _SOCKET_LIMIT, environ)
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
        own_directory(os.path.dirname(self.run), backend=BACKEND, shared=True)  # noqa: PTH120
        for path in (self.data, self.private, f"{self.private}/sdk", self.run):
            own_directory(path, backend=BACKEND)

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
        own_directory(self.data, backend=BACKEND)
        own_directory(path, backend=BACKEND)
        return path
