"""A log that the engine fails to read in the middle is asked for again, and nothing comes twice or not at all."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from asyncctr import AsyncctrError
from asyncctr.backends.docker import logs
from asyncctr.backends.docker.logs import DockerLogStream, LogQuery

pytestmark = pytest.mark.anyio

TIME = b"2026-01-01T00:00:00.%09dZ "


def frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BxxxL", kind, len(payload)) + payload


def record(number: int, kind: int = 1) -> bytes:
    return frame(kind, TIME % number + b"line %d\n" % number)


BROKEN = frame(3, b"Error grabbing logs: log message is too large")


class Body:
    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts

    async def receive(self) -> bytes:
        return self.parts.pop(0) if self.parts else b""

    def close(self) -> None:
        pass


class Engine:
    """Answers each request for the log with the next of its bodies."""

    def __init__(self, *bodies: list[bytes]) -> None:
        self.bodies = list(bodies)
        self.asked: list[dict[str, Any]] = []

    async def stream(self, method: str, path: str, *, params: dict[str, Any], kind: str, resource: str) -> Body:
        self.asked.append(params)
        return Body(list(self.bodies.pop(0)))


@pytest.fixture(autouse=True)
def exited(monkeypatch: pytest.MonkeyPatch) -> None:
    async def confirmed(self: DockerLogStream) -> None:
        pass

    monkeypatch.setattr(DockerLogStream, "_confirm_exit", confirmed)
    monkeypatch.setattr(logs, "_FAILURE_PAUSE", 0.0)


def stream(engine: Engine, *, tail: int | None = None) -> DockerLogStream:
    query = LogQuery(follow=True, stdout=True, stderr=True, since=None, tail=tail, timestamps=False, tty=False)
    return DockerLogStream(engine, "a" * 64, query, following=True)  # type: ignore[arg-type]


ALL = [record(number, 1 + number % 2) for number in range(6)]


async def read(engine: Engine) -> tuple[bytes, bytes]:
    opened = stream(engine)
    await opened.begin()
    output = await opened.read()
    return output.stdout, output.stderr


async def test_two_failures_at_different_places() -> None:
    engine = Engine([ALL[0] + ALL[1], BROKEN], [ALL[0], b"".join(ALL[1:4]), BROKEN], ALL, ALL)
    stdout, stderr = await read(engine)
    assert stdout == b"line 0\nline 2\nline 4\n"
    assert stderr == b"line 1\nline 3\nline 5\n"
    assert [params.get("follow") for params in engine.asked] == [True, True, True, None]


async def test_a_failure_that_does_not_go_away_is_raised() -> None:
    engine = Engine(*[[ALL[0], BROKEN]] * 100)
    with pytest.raises(AsyncctrError, match="too large"):
        await read(engine)
    assert len(engine.asked) < 30


async def test_with_a_tail_it_cannot_be_told_what_was_delivered() -> None:
    engine = Engine([], [ALL[0], BROKEN])
    opened = stream(engine, tail=3)
    await opened.begin()
    with pytest.raises(AsyncctrError, match="too large"):
        await opened.read()
