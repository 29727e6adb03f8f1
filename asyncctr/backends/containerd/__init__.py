"""containerd: its gRPC interface, found or started, with or without root."""

from __future__ import annotations

from asyncctr.backends.containerd.opening import open_backend

__all__ = ["open_backend"]
