"""What people use: ``connect``, ``Client`` and ``Container``, written once over any backend."""

from __future__ import annotations

from asyncctr.client.client import Client, connect
from asyncctr.client.container import Container, ContainerScope
from asyncctr.client.selection import open_backend
from asyncctr.client.tracing import BackendCall, TraceHook

__all__ = ["BackendCall", "Client", "Container", "ContainerScope", "TraceHook", "connect", "open_backend"]
