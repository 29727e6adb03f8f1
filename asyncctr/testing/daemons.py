"""Private daemons for tests: Docker, containerd and Podman, each in its own directory, never the system's.

They need root. Each has a bridge network from an address block of its own (:mod:`asyncctr.testing.subnets`), so that any number
of them run side by side. On leaving, containers that the tests left are removed, the daemon is stopped by its own process id,
and its processes, mounts, interfaces, control groups and files are removed::

    async with Dockerd() as daemon:
        await daemon.load(archive)
        async with asyncctr.connect(DockerConfig(host=daemon.host)) as client: ...
"""

from __future__ import annotations

from asyncctr.testing.base import Daemon, Leftovers
from asyncctr.testing.certificates import TlsFiles
from asyncctr.testing.containerd import Containerd
from asyncctr.testing.dockerd import Dockerd
from asyncctr.testing.podman import Podman
from asyncctr.testing.process import DaemonError
from asyncctr.testing.programs import CommandError, Completed, RuntimeMissing, require
from asyncctr.testing.registry import Registry, TokenServer

__all__ = [
    "CommandError",
    "Completed",
    "Containerd",
    "Daemon",
    "DaemonError",
    "Dockerd",
    "Leftovers",
    "Podman",
    "Registry",
    "RuntimeMissing",
    "TlsFiles",
    "TokenServer",
    "require",
]
