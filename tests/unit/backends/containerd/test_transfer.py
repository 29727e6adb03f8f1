"""What the Transfer service tells, and its streams' ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from asyncctr.backends.containerd.api import any_message
from asyncctr.backends.containerd.errors import ShimGoneError, translate
from asyncctr.backends.containerd.proto import transfer_types_pb2
from asyncctr.backends.containerd.transfer import _Teller
from asyncctr.core.images import Progress
from asyncctr.transport.progress import ProgressThrottle

pytestmark = pytest.mark.anyio

LAYER = "layer-sha256:" + "ab" * 32


class _Stream:
    """Gives its messages, and then ends as it is told to."""

    def __init__(self, *messages: Any, end: Exception | None = None) -> None:
        self._messages = list(messages)
        self._end = end

    async def recv_message(self) -> Any:
        await asyncio.sleep(0)
        if self._messages:
            return any_message(self._messages.pop(0))
        if self._end is not None:
            raise self._end
        return None


def event(name: str, progress: int = 0, total: int = 0) -> Any:
    return transfer_types_pb2.Progress(event=name, name=LAYER, progress=progress, total=total)


@pytest.mark.parametrize("end", [None, StreamTerminatedError("reset"), GRPCError(Status.CANCELLED, "gone")])
async def test_telling_ends_with_the_stream_however_that_ends(end: Exception | None) -> None:
    seen: list[Progress] = []
    heard: list[None] = []
    teller = _Teller(ProgressThrottle(seen.append), lambda: heard.append(None))
    async with asyncio.timeout(5):
        await teller.run(_Stream(event("waiting"), event("downloading", 3, 9), end=end))  # type: ignore[arg-type]
    assert len(heard) == 2
    teller.finish()
    assert [(told.action, told.current, told.total) for told in seen] == [
        ("Waiting", None, None),
        ("Downloading", 3, 9),
        ("Downloading", 9, 9),
        ("Download complete", None, None),
    ]


async def test_what_a_callback_raises_comes_out() -> None:
    def refuse(_: Progress) -> None:
        raise LookupError

    teller = _Teller(ProgressThrottle(refuse), lambda: None)
    with pytest.raises(LookupError):
        await teller.run(_Stream(event("waiting")))  # type: ignore[arg-type]


def test_a_shim_that_shuts_down_is_gone() -> None:
    assert isinstance(translate(GRPCError(Status.UNKNOWN, "shutdown"), "id", "task"), ShimGoneError)
    assert not isinstance(translate(GRPCError(Status.UNKNOWN, "no shutdown of it"), "id", "task"), ShimGoneError)
