"""The contenders, by the name that tables give them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.peers.base import Contender

__all__ = ["AIODOCKER", "AIODOCKER_README", "DOCKER_CLI", "DOCKER_PY", "OURS", "load"]

OURS = "asyncctr"
AIODOCKER = "aiodocker"
AIODOCKER_README = "aiodocker README"
DOCKER_PY = "docker-py"
DOCKER_CLI = "docker CLI"

_PLACES = {
    OURS: ("ours", "Asyncctr"),
    AIODOCKER: ("aiodocker", "Aiodocker"),
    AIODOCKER_README: ("aiodocker", "AiodockerReadme"),
    DOCKER_PY: ("docker_py", "DockerPy"),
    DOCKER_CLI: ("docker_cli", "DockerCli"),
}


def load(name: str) -> type[Contender]:
    """The class of a contender. Only its own libraries are imported, so that its memory is its own."""
    module, attribute = _PLACES[name]
    found: type[Contender] = getattr(import_module(f"benchmarks.peers.{module}"), attribute)
    return found
