"""The contenders, by the name that tables give them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.peers.base import Contender

__all__ = ["AIODOCKER", "AIODOCKER_README", "CTR", "DOCKER_CLI", "DOCKER_PY", "OURS", "QEMU", "load"]

OURS = "asyncctr"
AIODOCKER = "aiodocker"
AIODOCKER_README = "aiodocker README"
DOCKER_PY = "docker-py"
DOCKER_CLI = "docker CLI"
CTR = "ctr"
QEMU = "qemu"

_PLACES = {
    ("docker", OURS): ("ours", "Asyncctr"),
    ("docker", AIODOCKER): ("aiodocker", "Aiodocker"),
    ("docker", AIODOCKER_README): ("aiodocker", "AiodockerReadme"),
    ("docker", DOCKER_PY): ("docker_py", "DockerPy"),
    ("docker", DOCKER_CLI): ("docker_cli", "DockerCli"),
    ("containerd", OURS): ("ours_containerd", "AsyncctrContainerd"),
    ("containerd", CTR): ("ctr", "CtrCli"),
    ("nanos", OURS): ("ours_nanos", "AsyncctrNanos"),
    ("nanos", QEMU): ("qemu", "Qemu"),
}


def load(runtime: str, name: str) -> type[Contender]:
    """The class of a contender. Only its own libraries are imported, so that its memory is its own."""
    module, attribute = _PLACES[runtime, name]
    found: type[Contender] = getattr(import_module(f"benchmarks.peers.{module}"), attribute)
    return found
