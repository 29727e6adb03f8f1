from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.backends.nanos import qmp
from asyncctr.backends.nanos.qmp import Event, Monitor, listening_socket
from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    ClosedError,
    ConnectionLostError,
    InvalidConfigError,
    NotFoundError,
    OperationTimeoutError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio
real = pytest.mark.require("qemu")

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
OTHER = """
import asyncio, sys
from asyncctr.backends.nanos.qmp import Monitor
async def main():
    async with Monitor(sys.argv[1], timeout=20) as monitor:
        print(await monitor.status(), flush=True)
        if sys.argv[2:]:
            await asyncio.Event().wait()
asyncio.run(main())
"""


class Peer:
    """Says the first of its answers at once, each of the others when it is asked, and then hangs up."""

    def __init__(self, path: Path, *answers: bytes) -> None:
        self.path = str(path)
        self.answers = answers
        self.closed = asyncio.Event()

    async def __aenter__(self) -> Monitor:
        self.server = await asyncio.start_unix_server(self.serve, self.path)
        return Monitor(self.path, timeout=5)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for number, answer in enumerate(self.answers):
                if number:
                    await reader.readline()
                writer.write(answer)
            await writer.drain()
        except ConnectionError:
            # Whoever is refused at the greeting does not ask.
            pass
        finally:
            writer.close()
            self.closed.set()

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.closed.wait()


def answer(number: int, value: Any = None) -> bytes:
    return json.dumps({"return": value or {}, "id": number}).encode() + b"\r\n"


@real
async def test_the_life_of_a_machine(start: Any) -> None:
    running = await start(paused=True)
    async with running.monitor() as monitor:
        assert await monitor.status() == "prelaunch"
        await monitor.execute("cont")
        assert await monitor.next_event() == Event("RESUME")
        assert await monitor.status() == "running"
        await monitor.execute("stop")
        assert await monitor.status() == "paused"
        assert await monitor.next_event() == Event("STOP")
        await monitor.execute("system_powerdown")
        assert await monitor.next_event() == Event("POWERDOWN")
        assert running.process.returncode is None
        await monitor.quit()
        assert await monitor.next_event() == Event("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
        with pytest.raises(ConnectionLostError):
            await monitor.next_event()
    assert await running.ended() == 0
    with pytest.raises(BackendUnavailableError, match="no QEMU listens"):
        await running.monitor().__aenter__()


@real
async def test_what_qemu_refuses(start: Any) -> None:
    async with (await start()).monitor() as monitor:
        with pytest.raises(UnsupportedError, match="no-such-command") as unsupported:
            await monitor.execute("no-such-command")
        assert unsupported.value.field == "no-such-command"
        with pytest.raises(NotFoundError) as missing:
            await monitor.execute("device_del", {"id": "nothing"})
        assert missing.value.status == "DeviceNotFound"
        with pytest.raises(AsyncctrError, match="Parameter 'id' is missing") as refused:
            await monitor.execute("device_del")
        assert (refused.value.backend, refused.value.resource, refused.value.status) == ("nanos", "vm", "GenericError")
        assert await monitor.status() == "running"


@real
async def test_processes_take_turns(start: Any) -> None:
    running = await start()
    argv = (sys.executable, "-c", OTHER, running.monitor_path)
    async with running.monitor() as monitor:
        other = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        with pytest.raises(OperationTimeoutError, match="one client at a time"):
            await running.monitor(0.2).__aenter__()
        assert await monitor.status() == "running"
    stdout, _ = await other.communicate()
    assert stdout == b"running\n"

    async def ask() -> str:
        async with running.monitor() as each:
            return await each.status()

    assert await asyncio.gather(*(ask() for _ in range(20))) == ["running"] * 20


@real
async def test_a_process_that_dies_with_the_monitor_leaves_it(start: Any) -> None:
    running = await start()
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OTHER, running.monitor_path, "hold"), stdout=asyncio.subprocess.PIPE
    )
    assert other.stdout is not None
    assert await other.stdout.readline() == b"running\n"
    other.kill()
    await other.communicate()
    async with running.monitor() as monitor:
        assert await monitor.status() == "running"


@real
async def test_a_qemu_that_is_killed_is_lost_and_no_end(start: Any) -> None:
    running = await start()
    async with running.monitor() as monitor:
        waiting = asyncio.create_task(monitor.next_event())
        running.process.kill()
        with pytest.raises(ConnectionLostError):
            await waiting
    with pytest.raises(BackendUnavailableError):
        await running.monitor().__aenter__()


@real
async def test_a_qemu_that_fails_to_start_is_noticed(start: Any) -> None:
    running = await start(accelerator="none-such")
    with pytest.raises((ConnectionLostError, BackendUnavailableError)):
        await running.monitor().__aenter__()
    assert await running.ended() == 1
    assert "none-such" in await running.said()


@real
async def test_a_qemu_that_hangs_is_a_timeout(start: Any) -> None:
    running = await start()
    async with running.monitor(0.3) as monitor:
        assert await monitor.status() == "running"
        running.process.send_signal(signal.SIGSTOP)
        with pytest.raises(OperationTimeoutError, match="query-status"):
            await monitor.status()
        with pytest.raises(ClosedError):
            await monitor.status()
    running.process.send_signal(signal.SIGCONT)
    async with running.monitor() as monitor:
        assert await monitor.status() == "running"


@real
async def test_a_cancelled_command_closes_its_connection(start: Any) -> None:
    running = await start()
    async with running.monitor() as monitor:
        running.process.send_signal(signal.SIGSTOP)
        asking = asyncio.create_task(monitor.status())
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        with pytest.raises(ClosedError):
            await monitor.status()
    running.process.send_signal(signal.SIGCONT)
    async with running.monitor() as monitor:
        assert await monitor.status() == "running"


@pytest.mark.parametrize(
    "reply",
    [
        *(
            b"\xff\xfe\n",
            b"[]\n",
            b"{}\n",
            b"nonsense\r\n",
            b'{"id": 2}\n',
            b'{"return": {}, "id": 7}\n',
            b'{"error": "x", "id": 2}\n',
            b'{"error": 1, "return": 1, "id": 2}\n',
        ),
        *(b'{"event": 1}\n', b'{"event": "STOP", "data": 1}\n', b"[" * 100_000 + b"\n", b"1" * 100_000 + b"\n"),
        *(b"x" * (qmp.MAX_LINE + 1), b'{"return": {"status": "running"}, "id": 2}'),
        *(b'{"return": {"status": 1}, "id": 2}\n', b'{"return": [], "id": 2}\n'),
    ],
    ids=range(16),
)
async def test_what_is_not_qmp_is_a_lost_connection(directory: Path, reply: bytes) -> None:
    async with Peer(directory / "qmp", GREETING, answer(1), reply) as monitor, monitor:
        with pytest.raises(ConnectionLostError):
            await monitor.status()
        with pytest.raises(ClosedError):
            await monitor.status()


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 200 OK\r\n", b"{}\n", b"\n", b"\0" * (qmp.MAX_LINE + 1)], ids=range(4))
async def test_who_does_not_greet_is_no_qemu(directory: Path, greeting: bytes) -> None:
    async with Peer(directory / "qmp", greeting) as monitor:
        with pytest.raises(ConnectionLostError, match="does not speak QMP"):
            await monitor.__aenter__()


async def test_events_among_answers_are_kept_and_not_without_bound(directory: Path) -> None:
    events = b"".join(b'{"event": "RESET", "data": {"n": %d}}\n' % number for number in range(1000))
    async with (
        Peer(directory / "qmp", GREETING, answer(1), events + answer(2, {"status": "running"})) as monitor,
        monitor,
    ):
        assert await monitor.status() == "running"
        assert [(await monitor.next_event()).data["n"] for _ in range(256)] == list(range(744, 1000))


@given(st.binary(max_size=200))
def test_no_bytes_give_another_error(data: bytes) -> None:
    async def scenario() -> None:
        monitor = Monitor("/nowhere", timeout=5)
        monitor._reader = asyncio.StreamReader(limit=100)
        monitor._transport = Mock(spec=asyncio.Transport)
        monitor._reader.feed_data(data)
        monitor._reader.feed_eof()
        with pytest.raises(ConnectionLostError):
            await monitor.status()

    asyncio.run(scenario())


def test_a_path_that_no_socket_can_have(directory: Path) -> None:
    with pytest.raises(InvalidConfigError, match="use a shorter one"):
        listening_socket("/" + "ü" * 54)
    path = str(directory / "q")
    path += "x" * (107 - len(os.fsencode(path)))
    listening_socket(path).close()
    with pytest.raises(OSError, match="in use"):
        listening_socket(path)
