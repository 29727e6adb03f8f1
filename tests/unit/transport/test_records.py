"""What is written down of containers: by several processes, on full disks, and by those who are killed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.core.errors import ConflictError, ContainerNotFoundError, OperationTimeoutError, StartError
from asyncctr.core.status import ExitStatus
from asyncctr.transport.ownership import Owner
from asyncctr.transport.records import Known, Record, Records

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

END = ExitStatus.from_code(3, oom_killed=False, finished_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


@pytest.fixture
def records(tmp_path: Path) -> Records:
    found = Records(tmp_path, "vm")
    found.open()
    return found


@pytest.fixture
def record(records: Records) -> Record:
    made = records.of("a" * 64)
    made.make()
    return made


def test_what_happens_is_known_in_order(record: Record) -> None:
    assert record.read() == Known()
    record.note_attempt()
    assert record.read().attempted
    record.note_failure(StartError("no such file", status="UNKNOWN"))
    known = record.read()
    assert not known.attempted
    assert known.failure is not None
    assert (known.failure.message, known.failure.status) == ("no such file", "UNKNOWN")
    record.note_attempt()
    record.note_start()
    known = record.read()
    assert known.started_at is not None
    assert known.failure is None
    assert not known.attempted
    record.note_exit(END)
    # Of several who saw it end, the first is believed.
    record.note_exit(ExitStatus.from_code(9))
    assert record.read().exit == END


def test_nothing_is_known_of_what_is_not_there(records: Records) -> None:
    absent = records.of("b" * 64)
    assert not absent.exists
    assert absent.read() == Known()
    absent.note_exit(END)
    assert not absent.exists


@pytest.mark.parametrize("damage", ['{"exited": 1', "\x00\x01", "[]", "{}", '"text"', "\xff", '{"later": "version"}'])
def test_half_a_line_takes_nothing_with_it(record: Record, damage: str) -> None:
    with open(record.path("state"), "ab") as file:  # noqa: PTH123  # as the code does
        file.write(damage.encode("latin-1"))
    record.note_start()
    record.note_exit(END)
    assert record.read().exit == END
    assert record.read().started_at is not None


@given(content=st.binary(max_size=300))
def test_any_content_can_be_read(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        record = Record(Path(directory), "vm")
        Path(directory, "state").write_bytes(content)
        record.note_exit(END)
        known = record.read()
        assert known.exit is not None


async def test_who_waits_is_woken(record: Record) -> None:
    known = record.read()
    waiting = asyncio.create_task(record.changed(known))
    await asyncio.sleep(0.05)
    # Nothing that anybody waits for.
    record.note_attempt()
    await asyncio.sleep(0.05)
    assert not waiting.done()
    record.note_start()
    await asyncio.wait_for(waiting, 5)
    # What is known to be old returns at once.
    await asyncio.wait_for(record.changed(known), 5)
    removed = asyncio.create_task(record.changed(record.read()))
    await asyncio.sleep(0.05)
    record.remove()
    await asyncio.wait_for(removed, 5)
    await asyncio.wait_for(record.changed(known), 5)


async def test_one_at_a_time_starts_or_removes_it(record: Record) -> None:
    first = await record.lock(5)
    with pytest.raises(OperationTimeoutError, match="start or removal"):
        await record.lock(0.1)
    second = asyncio.create_task(record.lock(5))
    await asyncio.sleep(0.05)
    assert not second.done()
    first.release()
    with await second:
        record.remove()
    with pytest.raises(ContainerNotFoundError):
        await record.lock(5)


async def test_who_waited_for_a_removal_finds_nothing(record: Record) -> None:
    first = await record.lock(5)
    second = asyncio.create_task(record.lock(5))
    await asyncio.sleep(0.05)
    record.remove()
    first.release()
    with pytest.raises(ContainerNotFoundError):
        await second


async def test_a_lock_ends_with_its_process(record: Record) -> None:
    script = (
        "import asyncio, sys, pathlib\n"
        "from asyncctr.transport.records import Record\n"
        "async def main():\n"
        "    lock = await Record(pathlib.Path(sys.argv[1]), 'vm').lock(5)\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(record.directory)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    with pytest.raises(OperationTimeoutError):
        await record.lock(0.1)
    process.kill()
    (await record.lock(5)).release()
    await process.wait()


def dead_owner() -> str:
    script = "from asyncctr.transport.ownership import Owner; print(Owner.current())"
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()


def test_only_records_of_dead_processes_are_abandoned(records: Records, record: Record) -> None:
    for name, owner in (
        ("dead", dead_owner()),
        ("boot", str(Owner("another-boot", "1", 1, 1))),
        ("elsewhere", str(Owner(Owner.current().boot, "another namespace", 1, 1))),
        ("garbage", "who knows"),
    ):
        other = records.of(name)
        other.directory.mkdir()
        (other.directory / "state").write_text(json.dumps({"owner": owner}) + "\n")
    assert not record.is_abandoned
    assert sorted(found.container_id for found in records.abandoned()) == ["boot", "dead"]


def test_a_name_is_one_containers(records: Records, record: Record) -> None:
    records.claim("web", record.container_id)
    other = records.of("b" * 64)
    other.make()
    with pytest.raises(ConflictError, match="aaaaaaaaaaaa"):
        records.claim("web", other.container_id)
    # Not the holder's: nothing happens.
    records.release("web", other.container_id)
    with pytest.raises(ConflictError):
        records.claim("web", other.container_id)
    # The holder has gone, with or without giving it back.
    record.remove()
    records.claim("web", other.container_id)
    other.remove()
    records.release_all()
    records.release("web", other.container_id)
    third = records.of("c" * 64)
    third.make()
    records.claim("web", third.container_id)
    records.release_all()
    with pytest.raises(ConflictError):
        records.claim("web", "d" * 64)
