"""Machines' processes, with real ones: how they end, who may end before them, and what is left."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.core.errors import (
    BackendUnavailableError,
    ClosedError,
    InvalidStateError,
    ResourceExhaustedError,
    StartError,
)
from asyncctr.testing.programs import find
from asyncctr.transport.ownership import Owner
from asyncctr.vm import pidfd, process, supervisor
from asyncctr.vm.pidfd import Pidfd
from asyncctr.vm.process import VmmExit, VmProcess, output, remove, start
from asyncctr.vm.supervisor import OUTPUT, STATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

LOST = VmmExit(code=None)
FOREVER = ("sleep", "1000")


both_loops = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": uvloop}) for uvloop in (False, True)], ids=["asyncio", "uvloop"]
)


@pytest.fixture(autouse=True)
def dispositions() -> Iterator[None]:
    """Of this process's signals: what ignores one, as in the background of a shell, hands that on."""
    ignored = [
        number
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
        if signal.getsignal(number) is signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "with a space, ünï, $(id) and 'quotes'\n"
    made.mkdir()
    yield made
    # Nothing that was started there is left, however the test ended.
    left = list(using(made))
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def using(directory: Path) -> Iterator[int]:
    """The processes that work in it, or did before it was removed."""
    for entry in Path("/proc").iterdir():
        try:
            at = str((entry / "cwd").readlink()) if entry.name.isdecimal() else ""
        except OSError:
            continue
        if at.removesuffix(" (deleted)") == str(directory):
            yield int(entry.name)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def text(path: Path) -> str:
    return path.read_text()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def is_there(path: Path) -> bool:
    return path.exists()


def make(path: Path) -> None:
    path.mkdir()


async def until(condition: Callable[[], bool]) -> None:
    """For what nothing tells of: the end of a process whose number is not known."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # as the docstring says
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(directory: Path, *argv: str) -> AsyncIterator[VmProcess]:
    started = await start(directory, argv)
    try:
        yield started
    finally:
        started.close()
        await remove(directory)


def adopt(directory: Path) -> VmProcess:
    found = VmProcess.adopt(directory)
    assert found is not None
    return found


def above_of(directory: Path) -> Pidfd:
    """The supervisor."""
    noted = supervisor.read(directory)
    assert noted is not None
    assert noted.supervisor is not None
    above = Pidfd.of(noted.supervisor)
    assert above is not None
    return above


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [
        ("exit 0", 0, None),
        ("exit 3", 3, None),
        ("exit 255", 255, None),
        ("kill -9 $$", 137, signal.SIGKILL),
        ("kill -TERM $$", 143, signal.SIGTERM),
        ("kill -INT $$", 130, signal.SIGINT),
        ("kill -PIPE $$", 141, signal.SIGPIPE),
        # All of the session that was meant, and still it is known.
        ("kill -TERM -$PPID; sleep 1000", 143, signal.SIGTERM),
        ("kill -HUP -$PPID; sleep 1000", 129, signal.SIGHUP),
    ],
)
async def test_how_it_ends_is_known_to_all(directory: Path, script: str, code: int, number: int | None) -> None:
    async with running(directory, "sh", "-c", script) as started:
        end = await started.ended()
        assert (end.code, end.signal, end.is_lost) == (code, number, False)
        assert not started.running
        assert not started.kill()
        assert await started.ended() == end
        later = adopt(directory)
        assert (later.pid, later.running, await later.ended()) == (started.pid, False, end)


async def test_nothing_of_this_process_reaches_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the SDK")
    kept = os.open(directory, os.O_RDONLY)
    os.set_inheritable(kept, True)
    script = "cd /proc/self/fd; for f in *; do [ -e $f ] && echo fd $f; done; cat; env; umask; cat /proc/self/status"
    try:
        started = await start(directory, ["sh", "-c", script], env={"GIVEN": "a b"})
    finally:
        os.close(kept)
    assert (await started.ended()).code == 0
    lines = output(directory).splitlines()
    assert [line for line in lines if line.startswith("fd")] == ["fd 0", "fd 1", "fd 2"]
    assert "0077" in lines
    assert "GIVEN=a b" in lines
    assert not [line for line in lines if "SECRET" in line]
    # What the supervisor ignores, it does not.
    assert int(next(line for line in lines if line.startswith("SigIgn")).split()[1], 16) == 0
    assert started.pid is not None
    assert (directory / OUTPUT).stat().st_mode & 0o777 == 0o600
    started.close()


async def test_arguments_are_no_shells(directory: Path) -> None:
    words = ["$(touch x)", "`touch x`", "a;touch x", "", "-e", "ünï \n\\", "'\"", "*"]
    async with running(directory, "sh", "-c", 'printf "%s|" "$@"', "name", *words) as started:
        assert (await started.ended()).code == 0
        assert text(directory / OUTPUT) == "".join(f"{word}|" for word in words)
        assert names(directory) == {STATE, OUTPUT}


async def test_another_one_may_be_started_after_the_end(directory: Path) -> None:
    async with running(directory, *FOREVER) as first:
        with pytest.raises(InvalidStateError, match="running"):
            await start(directory, FOREVER)
        assert first.running
        first.kill(signal.SIGTERM)
        assert (await first.ended()).code == 143
        second = await start(directory, ["sh", "-c", "exit 5"])
        assert (await second.ended()).code == 5
        # Nothing that the next one wrote down is taken for its own.
        assert await first.ended() == LOST
        second.close()


async def test_the_next_one_waits_for_what_is_to_be_written_of_the_last(directory: Path) -> None:
    async with running(directory, *FOREVER) as first:
        above = above_of(directory)
        above.send(signal.SIGSTOP)
        first.kill()
        await until(lambda: not first.running)
        starting = asyncio.create_task(start(directory, ["sh", "-c", "exit 5"]))
        await asyncio.sleep(0.05)
        assert not starting.done()
        above.send(signal.SIGCONT)
        second = await starting
        assert (await second.ended()).code == 5
        assert text(directory / STATE).count("exit") == 1
        second.close()


@both_loops
async def test_several_may_wait(directory: Path) -> None:
    async with running(directory, *FOREVER) as started:
        adopted = adopt(directory)
        waiting = [asyncio.create_task(each.ended()) for each in (started, started, adopted, adopted)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        adopted.kill()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(ends.pop(1), asyncio.CancelledError)
        assert ends == [VmmExit(code=137)] * 3


async def test_who_has_let_go_of_it_may_still_be_waiting(directory: Path) -> None:
    async with running(directory, *FOREVER) as started:
        waiting = asyncio.create_task(started.ended())
        await asyncio.sleep(0)
        started.close()
        adopt(directory).kill()
        assert await waiting == VmmExit(code=137)
        for use in (started.kill, lambda: started.running):
            with pytest.raises(ClosedError, match="let go"):
                use()


# -- who is killed

SDK = """
import asyncio, sys
from pathlib import Path
from asyncctr.vm.process import start

async def main():
    started = await start(Path(sys.argv[1]), sys.argv[2:])
    print(started.pid, flush=True)
    await started.ended()

asyncio.run(main())
"""


async def killed_sdk(directory: Path, *argv: str) -> int:
    """Have another process start it, and kill that with all its session; the machine's pid."""
    sdk = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SDK, str(directory), *argv), stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert sdk.stdout is not None
    pid = int(await sdk.stdout.readline())
    os.killpg(sdk.pid, signal.SIGKILL)
    await sdk.wait()
    return pid


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, 137), (signal.SIGTERM, 143)])
async def test_it_outlives_the_sdk_and_its_end_is_known(directory: Path, number: int, code: int) -> None:
    pid = await killed_sdk(directory, *FOREVER)
    adopted = adopt(directory)
    assert (adopted.pid, adopted.running) == (pid, True)
    assert adopted.kill(number)
    assert await adopted.ended() == VmmExit(code=code)
    adopted.close()
    await remove(directory)
    assert not is_there(directory)


async def test_who_looks_after_everything_has_ended_knows_it(directory: Path) -> None:
    await killed_sdk(directory, "sh", "-c", "kill -9 $$")
    assert await adopt(directory).ended() == VmmExit(code=137)


@pytest.mark.parametrize("sdk_killed", [False, True])
async def test_without_its_supervisor_it_runs_on_and_nobody_knows_its_end(directory: Path, *, sdk_killed: bool) -> None:
    if sdk_killed:
        await killed_sdk(directory, *FOREVER)
        found = adopt(directory)
    else:
        found = await start(directory, FOREVER)
    waiting = asyncio.create_task(found.ended())
    above = above_of(directory)
    above.send(signal.SIGKILL)
    await above.ended()
    await asyncio.sleep(0)
    assert found.running
    assert not waiting.done()
    # Who comes now, too.
    later = adopt(directory)
    assert later.running
    with pytest.raises(InvalidStateError):
        await start(directory, FOREVER)
    later.kill()
    assert await waiting == LOST
    assert await later.ended() == LOST
    found.close()


async def test_of_both_killed_nobody_knows_the_end(directory: Path) -> None:
    async with running(directory, *FOREVER) as started:
        await started.end()
        assert not started.running
        assert await started.ended() == LOST


STARTER = """
import os, select, signal, sys
from pathlib import Path
from asyncctr.vm import supervisor

directory = Path(sys.argv[1])
supervisor.begin(directory)
_, reader = supervisor.spawn(directory, ["sleep", "1000"], {"PATH": os.environ["PATH"]})
if sys.argv[2] == "told":
    select.select([reader], [], [])
else:
    for _ in range(int(sys.argv[2])):
        pass
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["0", "20000", "60000", "told"])
async def test_a_start_that_was_killed_leaves_nothing_unknown(directory: Path, when: str) -> None:
    starter = await asyncio.create_subprocess_exec(sys.executable, "-c", STARTER, str(directory), when)
    assert await starter.wait() == -signal.SIGKILL
    # Either it runs, and is found, or nothing does.
    found = VmProcess.adopt(directory)
    if when == "told":
        assert found is not None
        assert found.running
    elif found is not None and not found.running:
        assert (await found.ended()).code != 0
    await remove(directory)
    assert not is_there(directory)
    await until(lambda: not list(using(directory)))


# -- what cannot be started


@pytest.mark.parametrize("program", ["/nowhere/vmm", "no-such-vmm", "./vmm"])
async def test_a_program_that_is_not_there(directory: Path, program: str) -> None:
    with pytest.raises(BackendUnavailableError, match=f"cannot run {program}: there is no such program") as caught:
        await start(directory, [program], backend="nanos", resource="x")
    assert (caught.value.backend, caught.value.resource) == ("nanos", "x")
    assert VmProcess.adopt(directory) is None
    assert not names(directory)


async def test_a_program_that_may_not_be_run(directory: Path) -> None:
    program = directory / "vmm"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(BackendUnavailableError, match="may not be run"):
        await start(directory, [str(program)])
    program.unlink()
    program.mkdir()
    with pytest.raises(BackendUnavailableError, match="may not be run"):
        await start(directory, [str(program)])


async def test_a_program_that_the_kernel_refuses_says_so(directory: Path) -> None:
    program = directory / "vmm"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o700)
    async with running(directory, str(program)) as started:
        assert (await started.ended()).code in {126, 127}
        assert "vmm: " in output(directory)


@pytest.mark.parametrize("argv", [["true", "x" * 3_000_000]])
async def test_arguments_that_are_too_long(directory: Path, argv: list[str]) -> None:
    with pytest.raises(BackendUnavailableError, match="Argument list too long"):
        await start(directory, argv)
    assert not names(directory)


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="No such file"):
        await start(tmp_path / "nowhere", FOREVER)
    assert VmProcess.adopt(tmp_path / "nowhere") is None
    await remove(tmp_path / "nowhere")


async def test_a_supervisor_that_cannot_write_starts_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(directory: Path) -> None:
        (directory / STATE).mkdir()

    monkeypatch.setattr(process, "begin", begin)
    monkeypatch.setattr(process, "_forget", lambda directory: (directory / STATE).rmdir())
    monkeypatch.setattr(VmProcess, "adopt", lambda *_, **__: None)
    with pytest.raises(StartError, match=r"ended at once: .*directory") as caught:
        await start(directory, FOREVER)
    assert caught.value.console


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    subprocess.run([find("mount"), "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    yield tmp_path
    subprocess.run([find("umount"), tmp_path], check=True)


@pytest.mark.require("mount")
async def test_an_end_on_a_full_disk_is_known(small_disk: Path) -> None:
    started = await start(small_disk, FOREVER)
    with pytest.raises(OSError, match="No space"):
        fill(small_disk / "disk")
    started.kill()
    # There was room for it beside what was written down before.
    assert await started.ended() == VmmExit(code=137)
    started.close()
    (small_disk / STATE).unlink()
    with pytest.raises(OSError, match="No space"):
        fill(small_disk / "more")
    with pytest.raises(ResourceExhaustedError):
        await start(small_disk, FOREVER)
    assert VmProcess.adopt(small_disk) is None


# -- cancelled


@both_loops
@pytest.mark.parametrize("again", [False, True])
async def test_a_cancelled_start_leaves_nothing(directory: Path, *, again: bool) -> None:
    # At each turn of the loop, until a start is done before it is cancelled.
    for turns in range(1000):
        starting = asyncio.create_task(start(directory, FOREVER))
        for _ in range(turns):
            await asyncio.sleep(0)
        if starting.done():
            break
        starting.cancel()
        if again:
            await asyncio.sleep(0)
            starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not names(directory)
        assert not list(using(directory))
    assert turns > 3
    (await starting).close()
    await remove(directory)


async def test_one_that_cannot_be_held_is_not_left_running(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    def no_descriptor(_: Owner) -> Pidfd:
        noted = supervisor.read(directory)
        assert noted is not None
        held.extend(os.pidfd_open(owner.pid) for owner in (noted.supervisor, noted.vmm) if owner is not None)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Pidfd, "of", no_descriptor)
    with pytest.raises(ResourceExhaustedError, match="raise the limit of open files"):
        await start(directory, FOREVER)
    assert len(held) == 2
    for descriptor in held:
        await pidfd.readable(descriptor)
        os.close(descriptor)
    assert not names(directory)


async def test_what_no_descriptor_is_left_for_is_an_error_of_the_tree(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start(directory, FOREVER, backend="nanos")

    def no_descriptor(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", no_descriptor)
        patch.setattr(os, "dup", no_descriptor)
        with pytest.raises(ResourceExhaustedError, match="raise the limit of open files") as adopted:
            VmProcess.adopt(directory, backend="nanos")
        with pytest.raises(ResourceExhaustedError, match="raise the limit of open files") as ended:
            await running.ended()
    assert adopted.value.backend == ended.value.backend == "nanos"
    running.close()
    await remove(directory)


async def test_a_loop_that_ends_in_the_middle_of_a_start_leaves_nothing(directory: Path) -> None:
    def run() -> None:
        loop = asyncio.new_event_loop()
        inner = loop.create_task(process._start(directory, FOREVER, {}, (), "", ""))
        # When it waits for the first time.
        loop.call_soon(inner.cancel)
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(inner)
        loop.close()

    await asyncio.to_thread(run)
    await until(lambda: not list(using(directory)))
    assert not names(directory)


# -- what is left


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


@both_loops
async def test_nothing_grows(directory: Path) -> None:
    async def cycle() -> None:
        async with running(directory, "true") as started:
            assert (await started.ended()).code == 0
        make(directory)

    await cycle()
    await until(lambda: not pidfd._CHILDREN)
    before = descriptors(), threading.active_count(), children()
    for _ in range(200):
        await cycle()
    await until(lambda: not pidfd._CHILDREN)
    assert (descriptors(), threading.active_count(), children()) == before


@both_loops
async def test_no_zombie_stays_of_what_was_let_go(directory: Path) -> None:
    started = await start(directory, FOREVER)
    started.kill()
    started.close()
    del started
    await until(lambda: not pidfd._CHILDREN)
    assert not children() & set(using(directory))


async def test_no_zombie_stays_of_a_loop_that_has_gone(directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()

    def run(work: Awaitable[object]) -> None:
        async def main() -> None:
            await work

        asyncio.run(main())

    before = children()
    await asyncio.to_thread(run, start(directory, FOREVER))
    mine = children() - before
    assert len(mine) == 1
    assert adopt(directory).kill()
    # The next start has a loop for it.
    async with running(other, "true") as started:
        await started.ended()
        await until(lambda: not pidfd._CHILDREN)
    assert not children() & mine


async def test_removing_ends_all_of_it(directory: Path) -> None:
    started = await start(directory, ["sh", "-c", "sleep 1000 & sleep 1000 & wait"])
    await until(lambda: len(list(using(directory))) == 4)
    (directory / "sub").mkdir()
    (directory / "sub" / "disk").write_bytes(b"x")
    await remove(directory)
    assert not started.running
    assert not is_there(directory)
    await until(lambda: not list(using(directory)))
    started.close()
    # There is nothing to do any more.
    await remove(directory)


# -- other processes with its number


def later(state: str) -> str:
    """As if both processes had started a tick later than they did."""
    lines = [line.split(" ") for line in state.split("\n")]
    for line in lines:
        if line[0] in {"vmm", "supervisor"}:
            line[22] = str(int(line[22]) + 1)
    return "\n".join(" ".join(line) for line in lines)


async def test_a_later_process_with_its_number_is_left_alone(directory: Path) -> None:
    async with running(directory, *FOREVER) as started:
        state, here = directory / STATE, Owner.current()
        found = text(state)
        for other in (later(found), found.replace(f"starter {here.boot}", "starter another-boot")):
            assert other != found
            state.write_text(other)
            stranger = adopt(directory)
            assert stranger.pid == started.pid
            assert not stranger.running
            assert not stranger.kill()
            await stranger.end()
            assert await stranger.ended() == LOST
        state.write_text(found.replace(f"/{here.namespace}/", "/another/"))
        for attempt in (remove(directory), start(directory, FOREVER)):
            with pytest.raises(InvalidStateError, match="another pid namespace"):
                await attempt
        assert started.running
        state.write_text(found)


@given(
    content=st.binary(max_size=300)
    | st.lists(
        st.sampled_from(
            [
                b"starter a/b/1/1",
                b"supervisor 1 (sh) S 1",
                b"vmm ) 1",
                b"exit 7",
                b"exit 0",
                b"exit",
                b"exit -0",
                b"exit 256",
                b"\n",
            ]
        )
    ).map(b"\n".join)
)
def test_any_content_can_be_read(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("vm")
    (directory / STATE).write_bytes(content)
    noted = supervisor.read(directory)
    assert noted is not None
    if noted.code is not None:
        # Only what a whole line says.
        assert b"exit %d\n" % noted.code in content or noted.code > 0


# -- a real machine

BARE = ("-M", "none", "-nodefaults", "-display", "none", "-monitor", "none")


def asked_to_quit(directory: Path) -> bool:
    opened = os.open(directory, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            # The directory's own path may be too long for a socket's.
            client.connect(f"/proc/self/fd/{opened}/qmp")
            client.sendall(b'{"execute": "qmp_capabilities"} {"execute": "quit"}')
            while client.recv(1000):
                pass
    except (FileNotFoundError, ConnectionRefusedError):
        # It does not listen yet.
        return False
    except ConnectionResetError:
        # It did not take leave.
        return True
    finally:
        os.close(opened)
    return True


@pytest.mark.require("qemu")
async def test_qemu_that_quits_ends_with_a_zero(directory: Path) -> None:
    async with running(directory, find("qemu-system-x86_64"), *BARE, "-qmp", "unix:qmp,server=on,wait=off") as started:
        assert started.running
        await until(lambda: asked_to_quit(directory))
        assert await started.ended() == VmmExit(code=0)


@pytest.mark.require("qemu")
async def test_qemu_that_does_not_start_says_why(directory: Path) -> None:
    async with running(directory, "qemu-system-x86_64", *BARE, "-drive", "file=no such disk") as started:
        assert (await started.ended()).code == 1
        assert "no such disk" in output(directory)


@pytest.mark.require("qemu")
async def test_qemu_killed_after_the_sdk_is_never_a_zero(directory: Path) -> None:
    pid = await killed_sdk(directory, find("qemu-system-x86_64"), *BARE)
    await until(lambda: Path(f"/proc/{pid}/comm").read_text().startswith("qemu"))
    adopted = adopt(directory)
    adopted.kill()
    assert await adopted.ended() == VmmExit(code=137)
