"""Containers are made whole or not at all, and a launch that nobody takes any more is closed."""

from __future__ import annotations

import asyncio

import pytest

from asyncctr.core.errors import ConflictError, ContainerNotFoundError
from asyncctr.core.logs import LogEntry, LogStream
from asyncctr.core.status import ContainerId, ExitStatus
from asyncctr.transport.cleanup import Janitor
from asyncctr.transport.launched import LoggedRun, make_whole

pytestmark = pytest.mark.anyio


class Endless(LogStream):
    def _release(self) -> None:
        pass

    async def _receive(self) -> LogEntry | None:
        await asyncio.Event().wait()
        return None


ID = ContainerId("c")


class Made:
    """What was removed, and a way to hold up what makes it."""

    def __init__(self) -> None:
        self.removed = 0
        self.go_on = asyncio.Event()

    async def remove(self) -> None:
        self.removed += 1
        if self.removed > 1:
            raise ContainerNotFoundError("gone", resource=ID)

    async def launch(self) -> LoggedRun:
        await self.go_on.wait()
        status: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        return LoggedRun(ID, Endless(), lambda *_: None, status)


async def test_what_is_taken_stays() -> None:
    made = Made()
    made.go_on.set()
    launched = await make_whole(made.launch(), made.remove, janitor=Janitor(5), container_id=ID)
    assert launched.id == ID
    assert not made.removed
    await launched.aclose()


@pytest.mark.parametrize("late", [False, True], ids=["meanwhile", "as it ends"])
async def test_what_nobody_takes_is_closed_and_removed(late: bool) -> None:  # a parameter of the test
    before = asyncio.all_tasks()
    made = Made()
    making = asyncio.create_task(make_whole(made.launch(), made.remove, janitor=Janitor(5), container_id=ID))
    await asyncio.sleep(0)
    if late:
        made.go_on.set()
        await asyncio.sleep(0)
    making.cancel()
    await asyncio.sleep(0)
    # It is not cut short.
    assert not making.done()
    made.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert made.removed == 1
    assert asyncio.all_tasks() == before


async def test_what_failed_is_removed_and_says_why() -> None:
    async def fail() -> None:
        raise ConflictError("taken")

    made = Made()
    made.removed = 1
    with pytest.raises(ConflictError, match="taken"):
        await make_whole(fail(), made.remove, janitor=Janitor(5), container_id=ID)
    assert made.removed == 2
