"""The limit of a log and the watch on its disk, on real file systems."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncctr.core.errors import ResourceExhaustedError
from asyncctr.testing.programs import find
from asyncctr.transport import logspace
from asyncctr.transport.logfile import LogFiles, follow_files
from asyncctr.transport.logspace import LogKeeper, SpaceWatch, can_limit, enforce_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

MIB = 1 << 20


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(
    params=[
        "here",
        pytest.param("tmpfs", marks=pytest.mark.require("mount")),
        pytest.param("ext4", marks=pytest.mark.require("mount")),
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory of each kind of file system; those that are mounted have 16 MiB."""
    if request.param == "here":
        yield tmp_path
        return
    target = tmp_path / "mounted"
    target.mkdir()
    if request.param == "tmpfs":
        words = ["-t", "tmpfs", "-o", "size=16m", "tmpfs"]
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(16 * MIB)
        subprocess.run([find("mkfs.ext4"), "-q", image], check=True)
        words = ["-o", "loop", str(image)]
    subprocess.run([find("mount"), *words, target], check=True)
    try:
        yield target
    finally:
        subprocess.run([find("umount"), target], check=True)


@pytest.fixture
def files(place: Path) -> LogFiles:
    return LogFiles.create(place / "log")


def append(path: str, data: bytes) -> None:
    with open(path, "ab") as file:  # noqa: PTH123
        file.write(data)


def numbered(size: int) -> bytes:
    return b"".join(b"%015d\n" % number for number in range(size // 16))


# -- the limit


async def test_the_oldest_goes_and_the_newest_stays(files: LogFiles) -> None:
    data = numbered(2 * MIB)
    append(files.stdout, data)
    assert await enforce_limit(files, 3 * MIB) == 0
    assert await enforce_limit(files, MIB) > 0
    assert await enforce_limit(files, MIB) == 0
    stream = await follow_files(files)
    output = await stream.read()
    assert stream.lost is not None
    assert MIB * 7 // 8 - 65_536 <= len(output.stdout) <= MIB * 7 // 8
    assert data[stream.lost :] == output.stdout
    assert data_size(files.stdout) < MIB + 65_536


async def test_zeros_of_the_program_are_output(files: LogFiles) -> None:
    append(files.stdout, bytes(MIB))
    stream = await follow_files(files)
    assert (await stream.read()).stdout == bytes(MIB)
    assert stream.lost == 0
    append(files.stdout, bytes(MIB) + b"end")
    dropped = await enforce_limit(files, MIB)
    stream = await follow_files(files)
    assert (await stream.read()).stdout == bytes(2 * MIB - dropped) + b"end"
    assert stream.lost == dropped > 0


async def test_a_flood_does_not_wash_the_other_stream_away(files: LogFiles) -> None:
    append(files.stdout, numbered(3 * MIB))
    append(files.stderr, b"the one line that matters\n")
    await enforce_limit(files, MIB)
    output = await (await follow_files(files)).read()
    assert output.stderr == b"the one line that matters\n"
    assert len(output.stdout) < MIB
    append(files.stderr, numbered(3 * MIB))
    await enforce_limit(files, MIB)
    output = await (await follow_files(files)).read()
    for data in (output.stdout, output.stderr):
        assert MIB * 7 // 16 - 65_536 < len(data) <= MIB * 7 // 16


async def test_a_reader_that_falls_behind_counts_what_it_missed(files: LogFiles) -> None:
    data = numbered(2 * MIB)
    append(files.stdout, data)
    stream = await follow_files(files, exited=None)
    first = await anext(stream)
    dropped = await enforce_limit(files, MIB)
    append(files.stdout, b"end")
    rest = (await stream.read()).stdout
    assert stream.lost == dropped - len(first.data)
    assert first.data + rest == data[: len(first.data)] + data[dropped:] + b"end"


async def test_reading_while_it_is_cut_gives_no_zeros(files: LogFiles) -> None:
    """Each byte is delivered or counted, and none is made up."""
    data = numbered(8 * MIB)
    taken = lost = 0
    for end in range(2 * MIB, 8 * MIB + 1, MIB):
        append(files.stdout, data[end - (2 * MIB if end == 2 * MIB else MIB) : end])
        cutting = asyncio.create_task(enforce_limit(files, MIB))
        stream = await follow_files(files)
        position = 0
        async for entry in stream:
            assert stream.lost is not None
            assert entry.data == data[position + stream.lost : position + stream.lost + len(entry.data)]
            position += len(entry.data)
        taken, lost = taken + position, lost + (stream.lost or 0)
        assert position + (stream.lost or 0) == end
        await cutting
    assert taken
    assert lost


async def test_tail_behind_a_cut(files: LogFiles) -> None:
    append(files.stdout, numbered(2 * MIB))
    dropped = await enforce_limit(files, MIB)
    stream = await follow_files(files, tail=2)
    assert len((await stream.read()).stdout) == 32
    assert stream.lost == 0
    stream = await follow_files(files, tail=1_000_000)
    assert len((await stream.read()).stdout) == 2 * MIB - dropped
    assert stream.lost == dropped


async def test_files_that_are_gone_have_nothing_to_drop(files: LogFiles) -> None:
    files.remove()
    assert await enforce_limit(files, MIB) == 0


def test_whether_logs_can_be_limited(place: Path) -> None:
    assert can_limit(place)
    assert not list(place.glob("tmp*"))


# -- the keeper


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logspace, "_PAUSE", 0.02)
    monkeypatch.setattr(logspace, "_SHORT_PAUSE", 0.01)
    monkeypatch.setattr(logspace, "_SPACE_PAUSE", 0.02)


def data_size(path: str) -> int:
    return Path(path).stat().st_blocks * 512


async def until_less(path: str, limit: int) -> None:
    async with asyncio.timeout(10):
        while data_size(path) > limit:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.005)


@pytest.mark.usefixtures("hurried")
async def test_the_keeper_keeps_to_the_limit(tmp_path: Path) -> None:
    logs = [LogFiles.create(tmp_path / str(index)) for index in range(5)]
    keeper = LogKeeper()
    for files in logs:
        keeper.register(files, MIB)
    for _ in range(3):
        for files in logs:
            append(files.stdout, numbered(2 * MIB))
        for files in logs:
            await until_less(files.stdout, MIB)
    logs[0].remove()
    await until_less(logs[1].stdout, MIB)
    keeper.unregister(logs[1])
    keeper.unregister(logs[1])
    append(logs[1].stdout, numbered(2 * MIB))
    append(logs[2].stdout, numbered(2 * MIB))
    await until_less(logs[2].stdout, MIB)
    assert data_size(logs[1].stdout) > 2 * MIB
    await keeper.aclose()
    await keeper.aclose()
    assert not [task for task in asyncio.all_tasks() if "log limits" in task.get_name()]


@pytest.mark.usefixtures("hurried")
async def test_the_keeper_gives_up_with_a_word_where_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(logspace, "_punch", refuse)
    assert not can_limit(tmp_path)
    files = LogFiles.create(tmp_path / "log")
    append(files.stdout, bytes(2 * MIB))
    keeper = LogKeeper()
    with caplog.at_level(logging.WARNING):
        keeper.register(files, MIB)
        task = keeper._task
        assert task is not None
        await asyncio.wait_for(task, 5)
    assert [record.levelname for record in caplog.records if "cannot be kept" in record.message] == ["WARNING"]
    # It starts again for the next one.
    keeper.register(LogFiles.create(tmp_path / "other"), MIB)
    assert keeper._task is not task
    await keeper.aclose()


# -- the disk


def fill(place: Path) -> None:
    descriptor = os.open(place / "fill", os.O_CREAT | os.O_WRONLY)
    try:
        while True:
            os.write(descriptor, b"x" * 65_536)
    except OSError as error:
        assert error.errno == errno.ENOSPC
    finally:
        os.close(descriptor)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "place", [pytest.param(kind, marks=pytest.mark.require("mount")) for kind in ("tmpfs", "ext4")], indirect=True
)
async def test_a_full_disk_ends_a_wait_and_a_follow(place: Path) -> None:
    files = LogFiles.create(place / "log")
    watch = SpaceWatch(place, backend="b")
    append(files.stdout, b"before")
    descriptor = os.open(files.stdout, os.O_WRONLY | os.O_APPEND)
    waiting = asyncio.create_task(watch.guard(asyncio.Event().wait()))
    stream = await follow_files(files, exited=lambda: watch.guard(blocked()))
    try:
        following = asyncio.create_task(stream.read())
        await asyncio.wait({waiting, following}, timeout=0.2)
        assert not waiting.done()
        assert not following.done()
        fill(place)
        for task in (waiting, following):
            with pytest.raises(ResourceExhaustedError, match=r"KiB are left for .* smaller log_limit") as caught:
                await asyncio.wait_for(task, 5)
            assert (caught.value.backend, caught.value.status) == ("b", errno.ENOSPC)
    finally:
        os.close(descriptor)
    # What is done at once needs no room.
    assert await watch.guard(asyncio.sleep(0, "done")) == "done"


async def blocked() -> None:
    await asyncio.Event().wait()


@pytest.mark.usefixtures("hurried")
async def test_the_guard_is_transparent(tmp_path: Path) -> None:
    watch = SpaceWatch(tmp_path, reserve=0)

    async def fail() -> None:
        await asyncio.sleep(0)
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await watch.guard(fail())
    task = asyncio.create_task(watch.guard(blocked()))
    await asyncio.sleep(0.1)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        while watch._timer is not None:  # noqa: ASYNC110  # it ends by itself when nobody waits
            await asyncio.sleep(0.005)
