"""A deadline whose error is of the tree."""

from __future__ import annotations

import asyncio

import pytest

from asyncctr.core.errors import OperationTimeoutError
from asyncctr.transport.deadline import Deadline

pytestmark = pytest.mark.anyio


async def test_what_takes_too_long_says_what_it_was() -> None:
    with pytest.raises(OperationTimeoutError, match=r"nothing came within 0.01 s") as caught:
        async with Deadline(0.01, "nothing came", backend="test", resource="abc"):
            await asyncio.Event().wait()
    assert (caught.value.backend, caught.value.resource) == ("test", "abc")


async def test_what_is_in_time_or_fails_by_itself_is_let_be() -> None:
    async with Deadline(5, "nothing", backend="test"):
        await asyncio.sleep(0)
    async with Deadline(None, "nothing", backend="test"):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError) as caught:
        async with Deadline(5, "nothing", backend="test"):
            raise TimeoutError
    assert not isinstance(caught.value, OperationTimeoutError)


async def test_a_cancellation_is_no_deadline() -> None:
    async def work() -> None:
        async with Deadline(5, "nothing", backend="test"):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
