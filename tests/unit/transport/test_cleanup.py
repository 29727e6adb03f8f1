"""Clean-up that no cancellation cuts short, and that no silence holds up."""

from __future__ import annotations

import asyncio
import logging
import time

import anyio
import pytest

from asyncctr.core.errors import BackendUnavailableError, ConnectionLostError, InvalidStateError
from asyncctr.transport.cleanup import Janitor, persist

pytestmark = pytest.mark.anyio


async def test_a_cancelled_caller_waits_for_the_end_and_then_is_cancelled() -> None:
    done: list[str] = []

    async def cleanup() -> None:
        await asyncio.sleep(0.1)
        done.append("clean")

    async def work() -> None:
        held = await Janitor(5).finish(cleanup(), "test")
        assert held is not None
        raise held

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["clean"]


async def test_an_anyio_scope_that_is_cancelled_does_not_spin() -> None:
    turns = 0

    async def cleanup() -> None:
        nonlocal turns
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            turns += 1
            await asyncio.sleep(0.01)

    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await asyncio.sleep(1)
        finally:
            await Janitor(5).finish(cleanup(), "test")
    assert scope.cancelled_caught
    assert 5 < turns < 30


async def test_a_timeout_outside_is_still_a_timeout() -> None:
    async def cleanup() -> None:
        await asyncio.sleep(0.1)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            held = await Janitor(5).finish(cleanup(), "test")
            assert held is not None
            raise held


async def test_the_deadline_ends_what_hangs(caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert await Janitor(0.1).finish(asyncio.Event().wait(), "remove abc") is None
    assert time.monotonic() - began < 2
    assert "remove abc" in caplog.text


async def test_a_failure_is_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise RuntimeError("no")

    with caplog.at_level(logging.WARNING):
        assert await Janitor(1).finish(broken(), "remove abc") is None
    assert "remove abc: no" in caplog.text


async def test_aclose_waits_for_what_was_spawned() -> None:
    done: list[int] = []

    async def cleanup() -> None:
        await asyncio.sleep(0.05)
        done.append(1)

    janitor = Janitor(1)
    janitor.spawn(cleanup(), "a")
    janitor.spawn(cleanup(), "b")
    await janitor.aclose()
    assert done == [1, 1]


async def test_a_clean_up_that_may_take_longer_has_longer() -> None:
    done: list[str] = []

    async def cleanup() -> None:
        await asyncio.sleep(0.3)
        done.append("clean")

    await Janitor(0.1).finish(cleanup(), "test", extra=5)
    assert done == ["clean"]


async def test_what_is_away_is_tried_again_and_what_is_refused_is_not() -> None:
    errors: list[Exception] = [ConnectionLostError("cut"), BackendUnavailableError("down")]

    async def cleanup() -> None:
        if errors:
            raise errors.pop(0)

    async with asyncio.timeout(5):
        await persist(cleanup)
    assert not errors
    errors.append(InvalidStateError("no"))
    with pytest.raises(InvalidStateError):
        await persist(cleanup)


async def test_in_the_background_it_goes_on_after_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []

    async def cleanup() -> None:
        await asyncio.sleep(0.3)
        done.append(1)

    janitor = Janitor(0.1, background=5)
    with caplog.at_level(logging.WARNING):
        assert await janitor.finish(cleanup(), "remove abc") is None
    assert not done
    assert "in the background: remove abc" in caplog.text
    await asyncio.sleep(0.15)
    await janitor.aclose()
    assert done == [1]


async def test_aclose_ends_what_hangs_in_the_background(caplog: pytest.LogCaptureFixture) -> None:
    janitor = Janitor(0.1, background=60)
    tasks = asyncio.all_tasks()
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        await janitor.finish(asyncio.Event().wait(), "remove abc")
        await janitor.aclose()
    assert time.monotonic() - began < 2
    assert "given up at the end: remove abc" in caplog.text
    assert asyncio.all_tasks() == tasks
