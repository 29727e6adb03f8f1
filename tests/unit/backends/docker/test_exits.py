"""Waits whose answer the engine got wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asyncctr.backends.docker.exits import ExitWait
from asyncctr.core.errors import AsyncctrError

pytestmark = pytest.mark.anyio

TORN = {"StatusCode": -1, "Error": {"Message": "unexpected end of JSON input"}}


class _Stream:
    def __init__(self, answer: dict[str, Any]) -> None:
        self._parts = [json.dumps(answer).encode(), b""]
        self.closed = False

    async def receive(self) -> bytes:
        return self._parts.pop(0)

    def close(self) -> None:
        self.closed = True


class _Opening:
    resource = "a" * 64


class _Engine:
    """An engine that gives the answers in turn, and says what was asked of it."""

    def __init__(self, *answers: dict[str, Any], status: str) -> None:
        self.answers = list(answers)
        self.status = status
        self.asked: list[str] = []
        self.streams: list[_Stream] = []

    @property
    def inspections(self) -> _Engine:
        return self

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def call(self, *_: object, **__: object) -> dict[str, Any]:
        return {"Id": _Opening.resource, "State": {"Status": self.status}}

    async def open(self, *_: object, params: dict[str, Any], **__: object) -> _Opening:
        self.asked.append(params["condition"])
        return _Opening()

    async def opened(self, *_: object, **__: object) -> _Stream:
        self.streams.append(_Stream(self.answers.pop(0)))
        return self.streams[-1]


@pytest.mark.parametrize(("status", "condition"), [("exited", "not-running"), ("created", "next-exit")])
async def test_a_state_that_was_read_while_it_was_written_is_read_again(status: str, condition: str) -> None:
    engine = _Engine(TORN, {"StatusCode": 7}, status=status)
    first = _Stream(TORN)
    wait = ExitWait(engine, first, _Opening.resource)  # type: ignore[arg-type]
    assert await wait.code() == 7
    assert engine.asked == [condition, condition]
    assert first.closed
    assert engine.streams[0].closed
    assert not engine.streams[1].closed


async def test_one_that_stays_broken_is_an_error() -> None:
    engine = _Engine(TORN, TORN, TORN, status="exited")
    with pytest.raises(AsyncctrError, match="unexpected end of JSON"):
        await ExitWait(engine, _Stream(TORN), _Opening.resource).code()  # type: ignore[arg-type]
