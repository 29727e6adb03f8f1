"""A follow of Podman's only tells that the log grew; what is delivered is what its readings agree on."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.backends.docker import logs
from asyncctr.backends.docker.growing import GrowingLog
from asyncctr.backends.docker.logs import DockerLogStream, LogQuery, PodmanLogStream, TtyLogStream
from asyncctr.core.errors import OperationTimeoutError

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio


def frame(payload: bytes, kind: int = 1) -> bytes:
    return struct.pack(">BxxxL", kind, len(payload)) + payload


def lines(*numbers: int) -> bytes:
    return b"".join(frame(b"%d\n" % number) for number in numbers)


# As Podman 4.3 answers: conmon's first write of 128 segments ends after the time and the type of record 43.
TORN = lines(*range(1, 43)) + frame(b"\n")
FOLLOWED = [TORN, lines(*range(44, 61))]
WHOLE = lines(*range(1, 61))
NUMBERS = b"".join(b"%d\n" % number for number in range(1, 61))


class Body:
    def __init__(self, parts: Sequence[bytes]) -> None:
        self.parts = list(parts)

    async def receive(self) -> bytes:
        return self.parts.pop(0) if self.parts else b""

    def close(self) -> None:
        pass


class Bell(Body):
    """A follow that is silent for a moment before it ends, so that there are readings in between."""

    def __init__(self, parts: Sequence[bytes], engine: Engine) -> None:
        super().__init__(parts)
        self.engine = engine

    async def receive(self) -> bytes:
        if not self.parts:
            await asyncio.sleep(0.05)
            del self.engine.readings[:-1]
        return await super().receive()


class Engine:
    """Answers the follow with what is given first, and each reading with the next of the others, the last again and again."""

    def __init__(self, followed: Sequence[bytes], *readings: bytes | Exception, running: int = 3) -> None:
        self.followed = followed
        self.readings = list(readings)
        self.running = running

    async def open(self, method: str, path: str, *, params: dict[str, Any], resource: str) -> Any:
        assert params["follow"]
        return self.followed

    async def opened(self, opening: Sequence[bytes], *, kind: str, patient: bool) -> Body:
        return Bell(opening, self)

    async def stream(self, method: str, path: str, *, params: dict[str, Any], kind: str, resource: str) -> Body:
        assert "follow" not in params
        reading = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        if isinstance(reading, Exception):
            raise reading
        return Body([reading[:100], reading[100:]] if len(reading) > 100 else [reading])


@pytest.fixture(autouse=True)
def states(monkeypatch: pytest.MonkeyPatch) -> None:
    async def confirmed(self: DockerLogStream) -> None:
        pass

    async def describe(api: Engine, container_id: str) -> dict[str, Any]:
        api.running -= 1
        return {"State": {"Status": "running" if api.running >= 0 else "exited"}}

    monkeypatch.setattr(DockerLogStream, "_confirm_exit", confirmed)
    monkeypatch.setattr(logs, "describe", describe)
    monkeypatch.setattr(logs, "_PODMAN_PACE", 0.0)
    monkeypatch.setattr(logs, "_PODMAN_REST", 0)


async def read(engine: Engine, *, tty: bool = False, tail: int | None = None) -> bytes:
    query = LogQuery(
        follow=True, stdout=True, stderr=True, since=None, tail=tail, timestamps=False, tty=tty, is_podman=True
    )
    kind = TtyLogStream if tty else PodmanLogStream
    stream = kind(engine, "a" * 64, query, following=True)  # type: ignore[arg-type]
    await stream.begin()
    return (await stream.read()).stdout


async def test_a_torn_record_is_not_delivered() -> None:
    assert await read(Engine(FOLLOWED, TORN, WHOLE)) == NUMBERS


async def test_nor_is_one_that_is_left_out() -> None:
    assert await read(Engine([lines(1, 2), lines(4)], lines(1, 2), lines(1, 2, 3, 4))) == b"1\n2\n3\n4\n"


async def test_an_engine_that_does_not_answer_for_a_while_is_asked_again() -> None:
    assert await read(Engine(FOLLOWED, TORN, OperationTimeoutError("silent"), WHOLE, running=6)) == NUMBERS


@pytest.mark.parametrize("running", [0, 1, 2, 9])
async def test_the_end_of_a_terminal(running: int) -> None:
    log = b"one\r\ntwo\r\nname: "
    assert await read(Engine([b"rung"] * 4, log, running=running), tty=True) == log
    assert await read(Engine([b"rung"] * 4, log, running=running), tty=True, tail=2) == b"two\r\nname: "
    assert await read(Engine([b"rung"] * 4, log, log + b"me\r\n", running=running), tty=True, tail=0) == b"me\r\n"


def reading(growing: GrowingLog, data: bytes) -> list[bytes]:
    growing.begin()
    records = growing.feed(data)
    return [record for _, record in records + growing.end()]


def test_a_last_record_counts_when_it_stays() -> None:
    growing = GrowingLog(tty=False)
    assert reading(growing, TORN)[-1] == b"42\n"
    assert growing.waits
    assert reading(growing, lines(*range(1, 44)))[-1] == b"42\n"
    assert growing.waits
    assert reading(growing, lines(*range(1, 44)))[-1] == b"43\n"
    assert not growing.waits


def test_a_log_that_was_rotated_is_another() -> None:
    growing = GrowingLog(tty=False)
    reading(growing, lines(1, 2, 3))
    growing.begin()
    assert growing.feed(lines(8, 9)) == [(1, b"8\n")]
    assert growing.rotated
    assert growing.end() == []
    assert not growing.rotated
    reading(growing, lines(8, 8, 8))
    assert reading(growing, lines(8, 8)) == [b"8\n"]
    assert growing.rotated
    assert growing.waits


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_readings_of_a_terminal_agree_with_what_was_written(data: bytes, ends: list[int]) -> None:
    growing = GrowingLog(tty=True)
    for end in [*sorted(ends), len(data), len(data)]:
        got = b"".join(reading(growing, data[:end]))
        assert data.startswith(got)
        assert not growing.rotated
    assert got == data
