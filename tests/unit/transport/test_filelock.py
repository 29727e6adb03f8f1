"""Locks between processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from asyncctr.transport.filelock import FileLock

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]


async def test_a_lock_is_waited_for_and_a_cancelled_wait_leaves_it_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    first = await FileLock.take(path)
    waiting = [asyncio.create_task(FileLock.take(path)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    first.release()
    async with asyncio.timeout(5):
        # One after the other, in whichever order.
        for task in asyncio.as_completed(waiting[1:]):
            (await task).release()
        (await FileLock.take(path)).release()
