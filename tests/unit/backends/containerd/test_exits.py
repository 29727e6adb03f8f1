"""Waiting for containers: from any state, by any number, and whatever becomes of containerd, the shim or the records."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.exits import Exits
from asyncctr.backends.containerd.proto import containers_pb2, tasks_pb2
from asyncctr.backends.containerd.proto.services import Containers, Tasks
from asyncctr.core.errors import ClosedError, ContainerNotFoundError, InvalidStateError, StartError
from asyncctr.transport.records import Record, Records
from asyncctr.transport.waits import ExitLostError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncctr.backends.containerd.api import ContainerdApi

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

ID = "a" * 64


@pytest.fixture
def records(tmp_path: Path) -> Records:
    found = Records(tmp_path / "state", BACKEND)
    found.open()
    return found


@pytest.fixture
def record(records: Records) -> Record:
    made = records.of(ID)
    made.make()
    return made


@pytest.fixture
async def exits(api: ContainerdApi, records: Records) -> AsyncIterator[Exits]:
    found = Exits(api, records, reports_oom=False)
    yield found
    await found.aclose()


def refuse(status: Status, text: str) -> Any:
    def answer(_: object) -> object:
        raise GRPCError(status, text)

    return answer


def ends(code: int, after: asyncio.Event | None = None) -> Any:
    async def answer(_: object) -> tasks_pb2.WaitResponse:
        if after is not None:
            await after.wait()
        return tasks_pb2.WaitResponse(exit_status=code)

    return answer


def has_container(_: object) -> containers_pb2.GetContainerResponse:
    return containers_pb2.GetContainerResponse(container=containers_pb2.Container(id=ID))


async def test_many_wait_with_one_call_and_the_next_without_any(containerd: Any, exits: Exits, record: Record) -> None:
    over = asyncio.Event()
    containerd.answer(Tasks.Wait, ends(7, over))
    waits = [asyncio.create_task(exits.wait(ID)) for _ in range(5)]
    await asyncio.sleep(0.05)
    # One who loses patience takes nothing from the others.
    waits[0].cancel()
    over.set()
    done = await asyncio.gather(*waits, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert [status.code for status in done[1:] if not isinstance(status, BaseException)] == [7] * 4
    assert record.read().exit == done[1]
    assert (await exits.wait(ID)).code == 7
    assert containerd.calls == ["Tasks/Wait"]


async def test_a_wait_before_the_start_goes_on_with_it(containerd: Any, exits: Exits, record: Record) -> None:
    containerd.answer(Tasks.Wait, refuse(Status.NOT_FOUND, "no task"))
    waiting = asyncio.create_task(exits.wait(ID))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    containerd.answer(Tasks.Wait, ends(3))
    record.note_start()
    assert (await waiting).code == 3


async def test_a_start_that_fails_and_a_removal_end_it(containerd: Any, exits: Exits, record: Record) -> None:
    containerd.answer(Tasks.Wait, refuse(Status.NOT_FOUND, "no task"))
    waits = [asyncio.create_task(exits.wait(ID)) for _ in range(2)]
    await asyncio.sleep(0.05)
    record.note_failure(StartError("no such program"))
    for waiting in waits:
        with pytest.raises(StartError, match="no such program"):
            await waiting
    containerd.answer(Containers.Get, refuse(Status.NOT_FOUND, "no container"))
    record.remove()
    with pytest.raises(ContainerNotFoundError):
        await exits.wait(ID)


async def test_an_exit_that_nobody_saw_is_lost_and_not_made_up(containerd: Any, exits: Exits, record: Record) -> None:
    containerd.answer(Tasks.Wait, refuse(Status.NOT_FOUND, "no task"))
    record.note_start()
    with pytest.raises(ExitLostError, match="exit code was lost"):
        await exits.wait(ID)


async def test_a_killed_shim_is_looked_at_again(containerd: Any, exits: Exits, record: Record) -> None:
    record.note_start()
    asked = 0

    def answer(_: object) -> tasks_pb2.WaitResponse:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise GRPCError(Status.UNKNOWN, "ttrpc: closed: unknown")
        return tasks_pb2.WaitResponse(exit_status=137)

    containerd.answer(Tasks.Wait, answer)
    assert (await exits.wait(ID)).code == 137


async def test_of_a_container_without_a_record(containerd: Any, exits: Exits) -> None:
    containerd.answer(Tasks.Wait, ends(5))
    assert (await exits.wait(ID)).code == 5
    containerd.answer(Tasks.Wait, refuse(Status.NOT_FOUND, "no task"))
    containerd.answer(Containers.Get, has_container)
    with pytest.raises(InvalidStateError, match="nothing is written down"):
        await exits.wait(ID)


async def test_whoever_waits_is_told_of_the_close(containerd: Any, exits: Exits, record: Record) -> None:
    del record
    containerd.answer(Tasks.Wait, ends(0, asyncio.Event()))
    waiting = asyncio.create_task(exits.wait(ID))
    await asyncio.sleep(0.05)
    await exits.aclose()
    with pytest.raises(ClosedError):
        await waiting


async def test_a_disk_without_room_hides_no_exit(
    containerd: Any, exits: Exits, record: Record, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    containerd.answer(Tasks.Wait, ends(4))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Record, "_append", full)
    assert (await exits.wait(record.container_id)).code == 4
    assert "No space left" in caplog.text
