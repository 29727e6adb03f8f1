"""Removals: done once, whoever asks, and told to each as it is."""

from __future__ import annotations

import asyncio

import pytest

from asyncctr.core.errors import ContainerNotFoundError, InvalidStateError
from asyncctr.transport.removals import Removals

pytestmark = pytest.mark.anyio


class Runtime:
    """Has containers, and takes its time to remove one."""

    def __init__(self, *containers: str, running: bool = False) -> None:
        self.containers = set(containers)
        self.running = running
        self.calls: list[tuple[str, bool]] = []
        self.go_on = asyncio.Event()
        self.failures: list[Exception] = []

    async def remove(self, container_id: str, force: bool) -> None:  # as removals call it
        self.calls.append((container_id, force))
        await self.go_on.wait()
        if self.failures:
            raise self.failures.pop()
        if container_id not in self.containers:
            raise ContainerNotFoundError("no such container", status=404)
        if self.running and not force:
            raise InvalidStateError("it runs")
        self.containers.remove(container_id)


async def many(removals: Removals, runtime: Runtime, *forces: bool) -> list[BaseException | None]:
    tasks = [asyncio.create_task(removals.remove("a", force=force)) for force in forces]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    runtime.go_on.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_all_who_ask_at_once_are_served_by_one() -> None:
    runtime = Runtime("a")
    assert await many(Removals(runtime.remove, backend="test"), runtime, True, True, True) == [None] * 3
    assert runtime.calls == [("a", True)]


async def test_with_and_without_force_at_once_both_succeed() -> None:
    runtime = Runtime("a")
    assert await many(Removals(runtime.remove, backend="test"), runtime, True, False, True, False) == [None] * 4
    assert not runtime.containers


async def test_what_is_not_there_is_not_found_by_anybody() -> None:
    runtime = Runtime()
    outcomes = await many(Removals(runtime.remove, backend="test"), runtime, True, True)
    assert all(isinstance(outcome, ContainerNotFoundError) for outcome in outcomes)
    # One of its own for each, so that tracebacks do not grow together.
    assert outcomes[0] is not outcomes[1]
    with pytest.raises(ContainerNotFoundError):
        await Removals(runtime.remove, backend="test").remove("a", force=True)


async def test_a_removal_long_after_another_one_is_not_found() -> None:
    runtime = Runtime("a")
    removals = Removals(runtime.remove, backend="test")
    assert await many(removals, runtime, True, False) == [None, None]
    with pytest.raises(ContainerNotFoundError):
        await removals.remove("a", force=True)


async def test_a_failure_is_tried_again_by_those_who_wait() -> None:
    runtime = Runtime("a")
    runtime.failures = [InvalidStateError("it was busy")]
    outcomes = await many(Removals(runtime.remove, backend="test"), runtime, True, True)
    assert sorted(map(type, outcomes), key=str) == sorted((InvalidStateError, type(None)), key=str)
    assert len(runtime.calls) == 2


async def test_a_cancelled_one_is_taken_over() -> None:
    runtime = Runtime("a")
    removals = Removals(runtime.remove, backend="test")
    first = asyncio.create_task(removals.remove("a", force=True))
    second = asyncio.create_task(removals.remove("a", force=True))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    runtime.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert not runtime.containers


async def test_a_running_one_needs_force_whoever_else_asks() -> None:
    runtime = Runtime("a", running=True)
    runtime.go_on.set()
    with pytest.raises(InvalidStateError):
        await Removals(runtime.remove, backend="test").remove("a", force=False)
    assert runtime.containers == {"a"}
