"""The follower of durable logs, against files that a real process appends to."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncctr.core.errors import ClosedError, ConnectionLostError, ContainerNotFoundError, ResourceExhaustedError
from asyncctr.core.logs import MAX_ENTRY, Output
from asyncctr.testing.conformance.measuring import lag_watched, open_descriptors
from asyncctr.transport import logfile
from asyncctr.transport.growing import GrowingFile
from asyncctr.transport.logfile import FileLogStream, LogFiles, follow_files

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's"),
]

# Obeys lines: the number of the file, and what to append, or nothing to close it.
WRITER = """
import os, sys
files = [os.open(path, os.O_WRONLY | os.O_APPEND) for path in sys.argv[1:]]
print("ready", flush=True)
for line in sys.stdin:
    number, text = int(line[0]), line[1:-1]
    if text.startswith("*"):
        count, _, text = text[1:].partition(" ")
        block = bytes.fromhex(text)
        for _ in range(int(count)):
            os.write(files[number], block)
    elif text:
        os.write(files[number], bytes.fromhex(text))
    else:
        os.close(files[number])
    print("done", flush=True)
"""


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def files(tmp_path: Path) -> LogFiles:
    return LogFiles.create(tmp_path / "log")


class Writer:
    """A shim: a process of its own that has the files open for appending."""

    def __init__(self, files: LogFiles) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", WRITER, *files.paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _answer(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def write(self, data: bytes, number: int = 0) -> None:
        self._tell(f"{number}{data.hex()}")
        self._answer()

    def begin(self, data: bytes, count: int, number: int = 0) -> None:
        """Write this so many times, without waiting for it."""
        self._tell(f"{number}*{count} {data.hex()}")

    async def done(self) -> None:
        await asyncio.to_thread(self._answer)

    def close(self, *numbers: int) -> None:
        for number in numbers or (0, 1):
            self._tell(f"{number}")
            self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def writer(files: LogFiles) -> Iterator[Writer]:
    with Writer(files) as writer:
        yield writer


async def never() -> None:
    await asyncio.Event().wait()


async def at_once() -> None:
    pass


def joined(entries: list[Any], name: str) -> bytes:
    return b"".join(entry.data for entry in entries if entry.stream == name)


# -- the files


def test_files_are_the_users_alone_and_new(tmp_path: Path) -> None:
    files = LogFiles.create(tmp_path / "log")
    assert files.paths == (str(tmp_path / "log/stdout"), str(tmp_path / "log/stderr"))
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o700
    assert {Path(path).stat().st_mode & 0o777 for path in files.paths} == {0o600}
    with pytest.raises(FileExistsError):
        LogFiles.create(tmp_path / "log")
    assert len(list((tmp_path / "log").iterdir())) == 2
    files.remove()
    files.remove()
    assert not (tmp_path / "log").exists()
    assert LogFiles.create(tmp_path / "log", tty=True) == LogFiles(stdout=str(tmp_path / "log/stdout"))


def test_a_failed_creation_leaves_no_files(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log/stderr").write_bytes(b"of another")
    with pytest.raises(FileExistsError):
        LogFiles.create(tmp_path / "log")
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["stderr"]


# -- following


async def test_follow_gives_all_from_the_first_byte_and_ends_with_the_writer(files: LogFiles, writer: Writer) -> None:
    writer.write(b"before\n")
    exited = asyncio.Event()

    async def wait() -> None:
        await exited.wait()

    async with await follow_files(files, exited=wait) as stream:
        assert (await anext(stream)).data == b"before\n"
        writer.write(bytes(range(256)), 1)
        entry = await anext(stream)
        assert (entry.stream, entry.data, entry.time) == ("stderr", bytes(range(256)), None)
        exited.set()
        following = asyncio.ensure_future(anext(stream))
        # The exit was seen, and the writer is still there: nothing has ended.
        await asyncio.wait({following}, timeout=0.3)
        assert not following.done()
        writer.write(b"after the exit, without an end")
        assert (await following).data == b"after the exit, without an end"
        writer.close()
        async with asyncio.timeout(1):
            assert await stream.read() == Output(b"", b"")
        assert stream.lost == 0


async def test_the_end_of_one_that_was_closed_before_anyone_came(files: LogFiles, writer: Writer) -> None:
    writer.write(b"all")
    writer.close()
    for wait in (at_once, None):
        async with asyncio.timeout(1):
            stream = await follow_files(files, exited=wait)
            assert await stream.read() == Output(b"all", b"")


async def test_a_close_is_no_end_before_the_exit(files: LogFiles, writer: Writer) -> None:
    exited = asyncio.Event()

    async def wait() -> None:
        await exited.wait()

    stream = await follow_files(files, exited=wait)
    reading = asyncio.create_task(stream.read())
    writer.close()
    await asyncio.wait({reading}, timeout=0.2)
    assert not reading.done()
    with open(files.stdout, "ab") as second:  # noqa: ASYNC230, PTH123
        second.write(b"more")
        exited.set()
    async with asyncio.timeout(1):
        assert (await reading).stdout == b"more"


async def test_the_end_comes_soon_after_the_close(files: LogFiles) -> None:
    for _ in range(30):
        descriptor = os.open(files.stdout, os.O_WRONLY | os.O_APPEND)
        stream = await follow_files(files, exited=at_once)
        reading = asyncio.create_task(stream.read())
        await asyncio.sleep(0.005)
        assert not reading.done()
        os.close(descriptor)
        async with asyncio.timeout(0.9):
            await reading


@pytest.mark.parametrize(("stdout", "stderr"), [(True, False), (False, True), (False, False)])
async def test_streams_that_are_not_wanted(files: LogFiles, writer: Writer, stdout: bool, stderr: bool) -> None:
    writer.write(b"one")
    writer.write(b"two", 1)
    writer.close()
    for follow in (True, False):
        stream = await follow_files(files, stdout=stdout, stderr=stderr, follow=follow)
        assert await stream.read() == Output(b"one" * stdout, b"two" * stderr)


async def test_without_follow_it_ends_with_what_is_there(files: LogFiles, writer: Writer) -> None:
    writer.write(b"now")
    stream = await follow_files(files, follow=False)
    assert await stream.read() == Output(b"now", b"")


async def test_a_terminal_has_one_file(tmp_path: Path) -> None:
    files = LogFiles.create(tmp_path / "log", tty=True)
    with open(files.stdout, "ab") as file:  # noqa: ASYNC230, PTH123
        file.write(b"\x1b[1mx")
    assert await (await follow_files(files)).read() == Output(b"\x1b[1mx", b"")


async def test_any_number_of_readers_each_get_all(files: LogFiles, writer: Writer) -> None:
    streams = [await follow_files(files, exited=at_once) for _ in range(20)]
    reading = [asyncio.create_task(stream.read()) for stream in streams]
    for index in range(50):
        writer.write(b"%d\n" % index, index % 2)
        await asyncio.sleep(0)
    writer.close()
    expected = Output(*(b"".join(b"%d\n" % index for index in range(first, 50, 2)) for first in (0, 1)))
    async with asyncio.timeout(5):
        assert {await task for task in reading} == {expected}


async def test_a_flood_is_whole_and_in_order(files: LogFiles, writer: Writer) -> None:
    block = b"".join(b"%d\n" % number for number in range(6_000))

    async def write() -> None:
        for number in (0, 1):
            writer.begin(block, 500, number)
            await writer.done()
        writer.close()

    stream = await follow_files(files, exited=write)
    async with lag_watched() as lag:
        entries = [entry async for entry in stream]
    assert joined(entries, "stdout") == joined(entries, "stderr") == block * 500
    assert max(len(entry.data) for entry in entries) <= MAX_ENTRY
    # Reads are short and let others in between. The bound is for a machine that is busy with other things.
    assert len(lag.samples) > 2
    assert lag.percentile(0.5) < 0.05


async def test_what_is_not_in_memory_is_read_all_the_same(files: LogFiles) -> None:
    data = os.urandom(3_000_000)
    descriptor = os.open(files.stdout, os.O_RDWR | os.O_APPEND)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    assert (await (await follow_files(files)).read()).stdout == data


# -- what ends it early


async def test_a_runtime_that_goes_away_is_no_end(files: LogFiles, writer: Writer) -> None:
    writer.write(b"until then")

    async def wait() -> None:
        raise ConnectionLostError("the runtime went away")

    stream = await follow_files(files, exited=wait)
    assert (await anext(stream)).data == b"until then"
    with pytest.raises(ConnectionLostError, match="the runtime went away"):
        await anext(stream)


async def test_an_error_that_is_an_os_error_too_comes_as_it_is(files: LogFiles, writer: Writer) -> None:
    async def wait() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await (await follow_files(files, exited=wait)).read()


async def test_removal_after_the_exit_still_gives_all(files: LogFiles, writer: Writer) -> None:
    exited = asyncio.Event()

    async def wait() -> None:
        await exited.wait()

    stream = await follow_files(files, exited=wait)
    reading = asyncio.create_task(stream.read())
    await asyncio.sleep(0)
    writer.write(b"last words")
    writer.close()
    files.remove()
    exited.set()
    async with asyncio.timeout(1):
        assert await reading == Output(b"last words", b"")


async def test_removal_without_an_exit_is_not_found_within_a_second(files: LogFiles, writer: Writer) -> None:
    stream = await follow_files(files, exited=never, backend="b", resource="0123456789abcdef")
    writer.write(b"last words")
    assert (await anext(stream)).data == b"last words"
    reading = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    writer.close()
    files.remove()
    async with asyncio.timeout(1):
        with pytest.raises(ContainerNotFoundError, match="0123456789ab was removed") as caught:
            await reading
    assert (caught.value.backend, caught.value.resource) == ("b", "0123456789abcdef")


async def test_removal_raises_what_the_wait_for_the_exit_raises(files: LogFiles) -> None:
    async def wait() -> None:
        await asyncio.sleep(0.1)
        raise ContainerNotFoundError("as the runtime says")

    stream = await follow_files(files, exited=wait)
    files.remove()
    async with asyncio.timeout(1):
        with pytest.raises(ContainerNotFoundError, match="as the runtime says"):
            await anext(stream)


async def test_one_whose_files_are_gone_is_not_found(files: LogFiles) -> None:
    files.remove()
    with pytest.raises(ContainerNotFoundError):
        await follow_files(files, resource="x")


async def test_a_log_taken_from_a_running_container_is_followed_on(files: LogFiles, writer: Writer) -> None:
    stream = await follow_files(files, exited=never)
    files.remove()
    reading = asyncio.create_task(anext(stream))
    await asyncio.wait({reading}, timeout=0.8)
    assert not reading.done()
    writer.write(b"still here")
    async with asyncio.timeout(1):
        assert (await reading).data == b"still here"
    await stream.aclose()


async def test_linger_bounds_a_writer_that_stays(files: LogFiles, writer: Writer) -> None:
    writer.write(b"x")
    async with asyncio.timeout(5):
        assert (await (await follow_files(files, exited=at_once, linger=0.1)).read()).stdout == b"x"


async def test_where_writers_cannot_be_told_there_is_a_grace(
    files: LogFiles, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GrowingFile, "has_writer", lambda self: None)
    monkeypatch.setattr(logfile, "_GRACE", 0.5)
    writer.write(b"x")
    reading = asyncio.create_task((await follow_files(files, exited=at_once)).read())
    await asyncio.wait({reading}, timeout=0.1)
    assert not reading.done()
    writer.write(b"y")
    async with asyncio.timeout(5):
        assert (await reading).stdout == b"xy"


# -- release


async def test_early_breaks_leave_nothing(files: LogFiles, writer: Writer) -> None:
    writer.write(b"x")
    async for _ in await follow_files(files, exited=never):
        break
    gc.collect()
    await asyncio.sleep(0)
    before, tasks = open_descriptors(), len(asyncio.all_tasks())
    for index in range(500):
        async with asyncio.timeout(5):
            async for entry in await follow_files(files, exited=never):
                if index % 5 or entry.data == b"y":
                    break
                # Some have waited for more, and wait for yet more when they go.
                asyncio.get_running_loop().call_soon(writer.write, b"y")
    gc.collect()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (open_descriptors(), len(asyncio.all_tasks())) == (before, tasks)


async def test_a_cancelled_read_releases_and_closes(files: LogFiles, writer: Writer) -> None:
    cancelled = asyncio.Event()

    async def wait() -> None:
        try:
            await never()
        finally:
            cancelled.set()

    stream = await follow_files(files, exited=wait)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(stream)
    await cancelled.wait()
    assert all(reader.descriptor == -1 for reader in stream._readers)
    assert not watches_of(stream)
    with pytest.raises(ClosedError):
        await anext(stream)


def watches_of(stream: FileLogStream) -> dict[int, Any]:
    assert stream._bell is not None
    return stream._bell._inotify._wakes


async def test_dropped_in_another_thread_it_lets_go(files: LogFiles, writer: Writer) -> None:
    cancelled = asyncio.Event()

    async def wait() -> None:
        try:
            await never()
        finally:
            cancelled.set()

    stream = await follow_files(files, exited=wait)
    following = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.01)
    writer.write(b"x")
    await following
    held, watches = [stream], watches_of(stream)
    assert watches
    del stream, following
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    await cancelled.wait()
    assert not watches


async def test_aclose_while_it_is_read(files: LogFiles) -> None:
    stream = await follow_files(files, exited=never)
    reading = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.01)
    await stream.aclose()
    with pytest.raises(ClosedError):
        await reading


async def test_no_descriptor_left_is_exhaustion(files: LogFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    await (await follow_files(files, exited=never)).aclose()
    before = open_descriptors()
    real, opened = os.open, []

    def limited(path: str, *rest: Any) -> int:
        if opened:
            raise OSError(24, "Too many open files", path)
        opened.append(path)
        return real(path, *rest)

    monkeypatch.setattr(os, "open", limited)
    with pytest.raises(ResourceExhaustedError, match="ulimit"):
        await follow_files(files)
    monkeypatch.undo()
    assert open_descriptors() == before


# -- tail


def expected_tail(data: bytes, count: int) -> bytes:
    lines = data.split(b"\n")
    pieces = [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    return b"".join(pieces[len(pieces) - count :] if count < len(pieces) else pieces)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(st.sampled_from([b"\n", b"a", b"\0", b"bc\n", b"d" * 40, b"\r\n", b"e" * 100_000])).map(b"".join),
    count=st.integers(0, 12),
)
async def test_tail_is_the_last_lines(tmp_path: Path, data: bytes, count: int) -> None:
    files = LogFiles.create(tmp_path / "log")
    try:
        for path in files.paths:
            with open(path, "ab") as file:  # noqa: ASYNC230, PTH123
                file.write(data)
        expected = expected_tail(data, count)
        stream = await follow_files(files, tail=count)
        assert await stream.read() == Output(expected, expected)
        assert stream.lost == 0
    finally:
        files.remove()


async def test_tail_follows_on(files: LogFiles, writer: Writer) -> None:
    writer.write(b"one\ntwo\nthr")
    stream = await follow_files(files, tail=1, exited=at_once)
    nothing = await follow_files(files, tail=0, exited=at_once)
    writer.write(b"ee\n")
    writer.close()
    assert (await stream.read()).stdout == b"three\n"
    assert (await nothing.read()).stdout == b"ee\n"


async def test_tail_of_one_endless_line_holds_no_memory(files: LogFiles) -> None:
    with open(files.stdout, "ab") as file:  # noqa: ASYNC230, PTH123
        file.writelines(b"x" * (1 << 20) for _ in range(64))
    async with lag_watched() as lag:
        stream = await follow_files(files, tail=3)
    assert stream._readers[0].offset == 0
    assert not lag.samples or lag.percentile(0.5) < 0.05
    await stream.aclose()


# -- the lease

OPENER = """
import os, sys, time
end = time.monotonic() + 0.7
while time.monotonic() < end:
    os.close(os.open(sys.argv[1], os.O_WRONLY))
"""


async def test_looking_for_a_writer_harms_nobody(files: LogFiles) -> None:
    # By default, the signal about an open during the lease ends the process that has it.
    file = GrowingFile(files.stdout)
    assert file.has_writer() is False
    opener = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", OPENER, files.stdout)
    seen = set()
    end = time.monotonic() + 30
    while opener.returncode is None and time.monotonic() < end:
        seen |= {file.has_writer() for _ in range(2_000)}
        await asyncio.sleep(0)
    assert await opener.wait() == 0
    assert seen == {True, False}
    assert file.has_writer() is False
    file.close()
