"""Case 14: a run is cancelled at every point where it waits, and again during its clean-up."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio

from asyncctr.testing.conformance.checks import equal, unique
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.conformance.workloads import FOREVER, eventually, shell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from asyncctr.core.config import ContainerConfig
    from asyncctr.testing.conformance.suite import Context

__all__ = ["Stepped"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

PATIENCE = 20.0
"""Seconds that one cancelled operation may take, clean-up (10 s at most) included."""
MOST_POINTS = 300
"""More points than that, and it is the case that does not end."""


class Stepped(Generic[T]):
    """Awaits a coroutine and calls ``act`` where it waits, as often as ``when`` says, told how many waits went before.

    Args:
        coroutine: what is awaited.
        when: whether to act at this wait.
        act: what to do.
        late: act when what is waited for is there, before the coroutine goes on; otherwise as the wait begins.

    Attributes:
        waits: how often it waited.
        acted: how often ``act`` was called.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        when: Callable[[int], bool],
        act: Callable[[], object],
        *,
        late: bool = False,
    ) -> None:
        self._coroutine = coroutine
        self._when = when
        self._act = act
        self._late = late
        self.waits = 0
        self.acted = 0

    def _do(self, *_: object) -> None:
        self.acted += 1
        self._act()

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self._coroutine.__await__()
        error: BaseException | None = None
        while True:
            try:
                waited_for = next(inner) if error is None else inner.throw(error)
            except StopIteration as stop:
                value: T = stop.value
                return value
            if self._when(self.waits):
                if not self._late:
                    self._do()
                elif asyncio.isfuture(waited_for):
                    # Before the task's own callback, which is added when this is yielded.
                    waited_for.add_done_callback(self._do)
                else:
                    asyncio.get_running_loop().call_soon(self._do)
            self.waits += 1
            error = None
            try:
                yield waited_for
            except BaseException as raised:  # noqa: BLE001  # it is the coroutine's to handle
                error = raised


def _cancel_current() -> Callable[[], object]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # it runs in one
    return task.cancel


async def _by_cancel(start: Starter, when: Callable[[int], bool], *, late: bool) -> bool:
    """Cancel the task itself; whether it was."""

    async def inner() -> tuple[bool, bool]:
        stepped = Stepped(start(), when, _cancel_current(), late=late)
        try:
            await stepped
        except asyncio.CancelledError:
            return True, True
        return False, stepped.acted > 0

    # In a task of its own, so that a second cancellation that is left over hits nothing else.
    cancelled, acted = await asyncio.create_task(inner())
    equal(cancelled, acted, "whether the cancellation came out")
    return acted


async def _by_scope(start: Starter, when: Callable[[int], bool], *, late: bool) -> bool:
    """Cancel an anyio scope around it, which goes on cancelling until it is left."""
    scope = anyio.CancelScope()
    stepped = Stepped(start(), when, scope.cancel, late=late)
    with scope:
        await stepped
    # A scope that is cancelled during the last clean-up, which is shielded from it, may have nothing left to stop.
    equal(stepped.acted > 0 or not scope.cancelled_caught, True, "whether the cancellation was the scope's")
    return stepped.acted > 0


async def _by_timeout(start: Starter, when: Callable[[int], bool], *, late: bool) -> bool:
    """Let an ``asyncio.timeout`` around it pass, and cancel the task as well."""
    loop = asyncio.get_running_loop()
    acted = False
    try:
        async with asyncio.timeout(None) as limit:
            stepped = Stepped(start(), when, lambda: limit.reschedule(loop.time()), late=late)
            try:
                await stepped
            finally:
                acted = stepped.acted > 0
    except TimeoutError:
        equal(acted, True, "whether the timeout was ours")
        return True
    # One that passes when all is done has nothing to stop.
    return False


if TYPE_CHECKING:
    Starter = Callable[[], Coroutine[Any, Any, object]]
    Way = Callable[..., Awaitable[bool]]


def _first(point: int) -> Callable[[int], bool]:
    return lambda wait: wait == point


def _twice(point: int) -> Callable[[int], bool]:
    return lambda wait: wait in (point, point + 1)


def _again_and_again(point: int) -> Callable[[int], bool]:
    return lambda wait: point <= wait <= point + 5


def _soon_again(point: int) -> Callable[[int], bool]:
    return lambda wait: wait in (point, point + 3)


async def every_point(
    context: Context, operation: Callable[[ContainerConfig], Coroutine[Any, Any, object]], script: str
) -> None:
    """Cancel ``operation`` at each of its waits, in turn, until one comes to its end. Nothing may be left each time."""
    label = {"conformance": unique("cancelled")}
    config = shell(context, script, labels=label)
    seconds: itertools.cycle[tuple[Way, Callable[[int], Callable[[int], bool]], bool]] = itertools.cycle(
        [
            (_by_cancel, _twice, False),
            (_by_scope, _first, False),
            (_by_cancel, _again_and_again, False),
            (_by_timeout, _first, False),
            (_by_cancel, _soon_again, True),
            (_by_scope, _first, True),
        ]
    )
    for point in range(0, MOST_POINTS, context.profile.cancel_stride):
        ended = False
        for way, when, late in ((_by_cancel, _first, False), (_by_cancel, _first, True), next(seconds)):
            tasks = asyncio.all_tasks()
            what = f"{way.__name__} at point {point}, {when.__name__.strip('_')}, {late=}"
            try:
                async with asyncio.timeout(PATIENCE):
                    acted = await way(lambda: operation(config), when(point), late=late)
            except Exception as error:
                error.add_note(what)
                raise
            left = await context.client.list(labels=label)
            equal([info.id for info in left], [], f"what is left after {what}")
            await eventually(lambda tasks=tasks: _no_others(tasks), f"no task is left after {what}", seconds=2)  # type: ignore[misc]
            ended = ended or not acted
        if ended:
            logger.info("%d points of %s were cancelled", point, operation.__name__)
            return
    message = f"no run came to its end within {MOST_POINTS} points"
    raise AssertionError(message)


async def _no_others(tasks: set[asyncio.Task[Any]]) -> bool:
    return not [task for task in asyncio.all_tasks() - tasks if not task.done()]


@case(14, "cancel a run anywhere", uvloop=True)
async def cancel_run(context: Context) -> None:
    """At every await point of a run; the cancellation comes out, and no container remains."""
    await every_point(context, context.client.run, "echo out; echo err >&2; exit 3")


@case(14, "cancel an owned container anywhere")
async def cancel_scope(context: Context) -> None:
    """At every await point of ``async with client.container(...)`` with all that is done in it."""

    async def use(config: ContainerConfig) -> None:
        async with context.client.container(config) as container:
            await container.start()
            await container.logs().read()
            await container.wait()

    await every_point(context, use, "echo out")


@case(14, "cancel a run at any time", uvloop=True)
async def cancel_in_time(context: Context) -> None:
    """After delays spread over a run's life: what the runtime is in the middle of makes no difference."""
    client = context.client
    label = {"conformance": unique("timed")}
    config = shell(context, FOREVER, labels=label)
    loop = asyncio.get_running_loop()

    async def running() -> bool:
        return any(info.started_at for info in await client.list(labels=label))

    began = loop.time()
    run = asyncio.create_task(client.run(config))
    await eventually(running, "the run runs")
    startup = loop.time() - began
    run.cancel()
    await asyncio.wait({run})
    number = 60 // max(1, context.profile.cancel_stride) if context.profile.name == "full" else 16
    for turn in range(number):
        run = asyncio.create_task(client.run(config))
        await asyncio.sleep(startup * 1.2 * turn / number)
        run.cancel()
        if turn % 2:
            # And once more, in the clean-up.
            await asyncio.sleep(0.01 * (turn % 4))
            run.cancel()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({run})
        equal(run.cancelled(), True, "whether the cancellation came out")
        left = await client.list(labels=label)
        equal([info.id for info in left], [], f"what is left after a cancellation in turn {turn} of {number}")
