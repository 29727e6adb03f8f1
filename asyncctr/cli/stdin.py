"""This process's standard input to the container's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING

from asyncctr.cli.terminal import complain
from asyncctr.core.errors import AsyncctrError, ClosedError, ConnectionLostError, InvalidStateError, NotFoundError

if TYPE_CHECKING:
    from asyncctr.core.backend import SupportsStdin
    from asyncctr.core.status import ContainerId

__all__ = ["pass_stdin"]

_BLOCK = 1 << 16


async def _read(descriptor: int) -> bytes:
    """What is there, at least a byte; empty at the end.

    In a daemon thread of its own: a read of a terminal may last for ever, and neither the loop nor the interpreter's exit waits
    for it. The descriptor stays in blocking mode, for other processes share it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bytes] = loop.create_future()

    def settle(data: bytes) -> None:
        if not future.done():
            future.set_result(data)

    def work() -> None:
        try:
            data = os.read(descriptor, _BLOCK)
        except OSError:
            # A terminal that has gone, or a directory: there is nothing to pass on.
            data = b""
        try:
            loop.call_soon_threadsafe(settle, data)
        except RuntimeError:
            # The loop has ended, and so has the container.
            return

    threading.Thread(target=work, name="asyncctr input", daemon=True).start()
    return await future


async def pass_stdin(backend: SupportsStdin, container_id: ContainerId, descriptor: int = 0) -> None:
    """Write all that ``descriptor`` has, then the end of input. A container that ends first ends it."""
    try:
        writer = await backend.stdin(container_id)
        try:
            while data := await _read(descriptor):
                await writer.write(data)
        except BaseException:
            # Mostly a cancellation: the container has ended, or is about to, and nobody is left to take what waits to be written.
            with contextlib.suppress(TimeoutError, AsyncctrError):
                async with asyncio.timeout(0):
                    await writer.aclose()
            raise
        await writer.aclose()
    except (ClosedError, ConnectionLostError, InvalidStateError, NotFoundError):
        # It has ended, or closed its input. How it ended is told elsewhere.
        return
    except AsyncctrError as error:
        complain(f"standard input is not passed on: {error}")
