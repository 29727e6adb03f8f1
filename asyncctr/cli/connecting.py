"""The client that a command works with."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asyncctr.cli.arguments import backend_config
from asyncctr.client import connect

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

    from asyncctr.cli.interrupts import Interrupts
    from asyncctr.client import Client

__all__ = ["connected"]


@asynccontextmanager
async def connected(args: argparse.Namespace, interrupts: Interrupts) -> AsyncIterator[Client]:
    """A client on the runtime that the options name, closed at the end."""
    client = await interrupts.guard(connect(backend_config(args)))
    try:
        yield client
    finally:
        await client.aclose()
