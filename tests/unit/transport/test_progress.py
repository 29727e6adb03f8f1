"""Progress no faster than people read, and the last of it always."""

from __future__ import annotations

import asyncio

import pytest

from asyncctr.core.images import Progress
from asyncctr.transport.progress import ProgressThrottle

pytestmark = pytest.mark.anyio


def step(current: int | None, *, id: str = "a", action: str = "Downloading") -> Progress:  # noqa: A002  # the field's name
    return Progress(action=action, id=id, current=current, total=100, message=action)


async def test_a_flood_is_thinned_and_ends_with_its_last() -> None:
    seen: list[Progress] = []
    throttle = ProgressThrottle(seen.append)
    for number in range(101):
        throttle.feed(step(number))
    throttle.finish()
    assert seen == [step(0), step(100)]
    throttle.finish()
    assert len(seen) == 2


async def test_ids_do_not_hold_each_other_back() -> None:
    seen: list[Progress] = []
    throttle = ProgressThrottle(seen.append)
    throttle.feed(step(1, id="a"))
    throttle.feed(step(1, id="b"))
    assert seen == [step(1, id="a"), step(1, id="b")]


async def test_an_action_that_ends_has_reached_its_total() -> None:
    seen: list[Progress] = []
    throttle = ProgressThrottle(seen.append)
    throttle.feed(step(1))
    throttle.feed(step(100))
    throttle.feed(step(None, action="Download complete"))
    throttle.finish()
    assert seen == [step(1), step(100), step(None, action="Download complete")]


async def test_without_an_id_nothing_is_held() -> None:
    seen: list[Progress] = []
    throttle = ProgressThrottle(seen.append)
    for number in range(3):
        throttle.feed(step(number, id=""))
    assert len(seen) == 3


async def test_it_goes_on_after_a_while() -> None:
    seen: list[Progress] = []
    throttle = ProgressThrottle(seen.append)
    throttle.feed(step(1))
    await asyncio.sleep(0.11)
    throttle.feed(step(2))
    assert seen == [step(1), step(2)]


async def test_nobody_listens_and_a_listener_that_fails() -> None:
    silent = ProgressThrottle(None)
    silent.feed(step(1))
    silent.finish()

    def fail(_: Progress) -> None:
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        ProgressThrottle(fail).feed(step(1))
