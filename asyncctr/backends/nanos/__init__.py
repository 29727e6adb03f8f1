"""Nanos unikernels under QEMU, each with a monitor socket of its own, from disk images that are written here."""

from __future__ import annotations

from asyncctr.backends.nanos.opening import open_backend

__all__ = ["open_backend"]
