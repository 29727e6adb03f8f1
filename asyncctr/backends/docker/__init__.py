"""Docker, and what speaks its API: the engine's own HTTP interface over unix, TCP, TLS and ssh."""

from __future__ import annotations

from asyncctr.backends.docker.backend import DockerBackend, open_backend

__all__ = ["DockerBackend", "open_backend"]
