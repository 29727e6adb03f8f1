"""Files that processes share: written whole or not at all, one at a time."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import TYPE_CHECKING, TypeVar

from asyncctr.transport.cleanup import Janitor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["in_thread", "write_atomic"]

T = TypeVar("T")


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file so that a reader, or the next process after a crash of this one, sees the old or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        # Whatever the umask is.
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


async def in_thread(call: Callable[[], T]) -> T:
    """Call something short in a thread, and wait for its end even when cancelled: what it made is known then."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    held = await Janitor.wait_for(task)
    if held is not None:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise held from error
        raise held
    return task.result()
