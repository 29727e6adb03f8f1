"""Where one containerd is, and how to reach into the namespaces that it lives in."""

from __future__ import annotations

import attrs

__all__ = ["BACKEND", "Endpoint", "Rootless"]

BACKEND = "containerd"


@attrs.frozen(kw_only=True)
class Rootless:
    """The namespaces of a containerd that rootlesskit keeps.

    Attributes:
        child_pid: a process in its user, mount, network and pid namespaces: ``nsenter -U --preserve-credentials -m -n -p -t`` it.
        state_dir: of rootlesskit (``--state-dir``).
        api_socket: of rootlesskit; ports are published by ``POST /v1/ports`` there.
    """

    child_pid: int
    state_dir: str
    api_socket: str


@attrs.frozen(kw_only=True)
class Endpoint:
    """One containerd's place.

    Attributes:
        socket: of its gRPC services.
        state_dir: the SDK's own directory (mode 0700) for what it keeps for this daemon: logs, networks, volumes.
        description: for messages: which daemon this is and what named it.
        rootless: how to reach into its namespaces; ``None`` for one that shares ours.
        private: started by this package.
        containerd: the program that a private one runs, resolved; else empty.
        log: the file that a private one's messages go to; else empty.
        exits_dir: where the exit codes of a private one's tasks are kept that had ended when it did: a file
            ``<namespace>/<id>`` each, the code as text; else empty.
        runc_root: where a private one's containers have the state of their OCI runtime; else empty, for the place that all
            containerds of a machine share.
        fuse_overlayfs: empty where the kernel's overlayfs works; else the program to mount with, that is, a mount of type
            ``overlay`` has to be given as type ``fuse3.<this>``.
    """

    socket: str
    state_dir: str
    description: str
    rootless: Rootless | None = None
    private: bool = False
    containerd: str = ""
    log: str = ""
    exits_dir: str = ""
    runc_root: str = ""
    fuse_overlayfs: str = ""

    def __str__(self) -> str:
        return self.description
