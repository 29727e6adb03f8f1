"""Standard input: a FIFO whose reader is slow, gone, or not there yet."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.exits import Exits
from asyncctr.backends.containerd.proto import tasks_pb2
from asyncctr.backends.containerd.proto.services import Tasks
from asyncctr.backends.containerd.stdin import Inputs
from asyncctr.core.errors import ClosedError, ConnectionLostError, ContainerNotFoundError
from asyncctr.transport.records import Record, Records

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
    os.mkfifo(made.stdin)
    return made


@pytest.fixture
async def inputs(containerd: Any, api: ContainerdApi, records: Records) -> AsyncIterator[Inputs]:
    over = asyncio.Event()

    async def wait(_: object) -> tasks_pb2.WaitResponse:
        await over.wait()
        return tasks_pb2.WaitResponse()

    containerd.over = over
    containerd.answer(Tasks.Wait, wait)
    containerd.answer(Tasks.CloseIO, lambda _: Tasks.CloseIO.answer())
    exits = Exits(api, records, reports_oom=False)
    found = Inputs(api, records, exits)
    yield found
    await found.aclose()
    await exits.aclose()


def read_all(path: str, into: list[bytes]) -> threading.Thread:
    def read() -> None:
        with open(path, "rb") as file:  # noqa: PTH123  # a string
            into.append(file.read())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


async def test_what_is_written_arrives_and_ends(containerd: Any, inputs: Inputs, record: Record) -> None:
    record.note_start()
    got: list[bytes] = []
    writer = inputs.open(ID)
    reader = read_all(record.stdin, got)
    data = os.urandom(1 << 20)
    await writer.write(data)
    await writer.send_eof()
    await writer.aclose()
    await asyncio.to_thread(reader.join)
    assert got == [data]
    assert containerd.calls.count("Tasks/CloseIO") == 1
    with pytest.raises(ClosedError):
        await writer.write(b"x")


async def test_before_the_start_it_is_kept_and_ended_then(containerd: Any, inputs: Inputs, record: Record) -> None:
    writer = inputs.open(ID)
    await writer.write(b"early")
    await writer.aclose()
    assert "Tasks/CloseIO" not in containerd.calls
    got: list[bytes] = []
    reader = read_all(record.stdin, got)
    record.note_start()
    await asyncio.to_thread(reader.join)
    assert got == [b"early"]
    await asyncio.gather(*inputs._ending)
    assert "Tasks/CloseIO" in containerd.calls


async def test_a_close_before_the_start_is_forgotten_with_the_container(inputs: Inputs, record: Record) -> None:
    await inputs.open(ID).aclose()
    (ending,) = inputs._ending
    await asyncio.sleep(0.05)
    assert not ending.done()
    record.remove()
    await asyncio.wait_for(ending, 5)


async def test_a_reader_that_ends_is_no_hang(containerd: Any, inputs: Inputs, record: Record) -> None:
    record.note_start()
    writer = inputs.open(ID)
    writing = asyncio.create_task(writer.write(bytes(1 << 20)))
    await asyncio.sleep(0.05)
    assert not writing.done()
    containerd.over.set()
    with pytest.raises(ConnectionLostError, match="reads no more"):
        await writing
    await writer.aclose()


async def test_an_end_wakes_who_writes(inputs: Inputs, record: Record) -> None:
    record.note_start()
    writer = inputs.open(ID)
    writing = asyncio.create_task(writer.write(bytes(1 << 20)))
    await asyncio.sleep(0.05)
    await writer.send_eof()
    with pytest.raises(ClosedError):
        await writing


async def test_a_cancelled_write_can_be_followed_by_another(inputs: Inputs, record: Record) -> None:
    record.note_start()
    writer = inputs.open(ID)
    writing = asyncio.create_task(writer.write(bytes(1 << 20)))
    await asyncio.sleep(0.05)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    got: list[bytes] = []
    reader = read_all(record.stdin, got)
    await writer.write(b"end")
    await writer.aclose()
    await asyncio.to_thread(reader.join)
    assert got[0].endswith(b"end")


async def test_a_quick_reader_leaves_the_loop_to_others(inputs: Inputs, record: Record) -> None:
    record.note_start()
    writer = inputs.open(ID)
    got: list[bytes] = []
    reader = read_all(record.stdin, got)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await writer.write(bytes(8 << 20))
    counting.cancel()
    await writer.aclose()
    await asyncio.to_thread(reader.join)
    assert turns > 50


async def test_an_ended_container_is_told_of_no_end(containerd: Any, inputs: Inputs, record: Record) -> None:
    def gone(_: object) -> object:
        raise GRPCError(Status.NOT_FOUND, "no task")

    record.note_start()
    containerd.answer(Tasks.CloseIO, gone)
    await inputs.open(ID).aclose()


async def test_without_a_fifo(inputs: Inputs) -> None:
    with pytest.raises(ContainerNotFoundError):
        inputs.open("b" * 64)


async def test_a_dropped_writer_leaks_nothing(inputs: Inputs, record: Record) -> None:
    writer = inputs.open(record.container_id)
    descriptor = writer._descriptor
    os.fstat(descriptor)
    del writer
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
