"""Cases 20, 21 and 22: early breaks, floods and races cost neither descriptors, memory, time nor the truth."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import asyncctr
from asyncctr.core.errors import ConnectionLostError, ContainerNotFoundError
from asyncctr.testing.conformance.checks import equal, raises
from asyncctr.testing.conformance.machines import machine_of_run_lost
from asyncctr.testing.conformance.measuring import SLACK, lag_watched, open_descriptors, resident
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.conformance.workloads import FOREVER, PROMPT, eventually, exited, shell, together

if TYPE_CHECKING:
    from asyncctr.client import Container
    from asyncctr.testing.conformance.suite import Context

__all__: list[str] = []

logger = logging.getLogger(__name__)

# -- 20


@case(20, "early break", uvloop=True)
async def early_break(context: Context) -> None:
    """Logs left early by break, by ``async with`` and by cancellation: descriptors stay flat on both sides."""
    target = context.target
    script = f"yes {'0123456789' * 20} | head -n 2000; echo end >&2; {FOREVER}"
    async with context.client.container(shell(context, script)) as container:
        await container.start()
        await eventually(lambda: complained(context, container), "the container prints")
        # So often that the connections that both sides keep are there.
        for turn in range(12):
            await leave_early(container, turn % 3)
        await asyncio.sleep(0.5)
        here, there = open_descriptors(), target.open_files()
        for turn in range(context.profile.breaks):
            async with asyncio.timeout(30):
                await leave_early(container, turn % 3)

        async def settled() -> bool:
            return open_descriptors() <= here + SLACK and target.open_files() <= there + SLACK

        try:
            await eventually(settled, "descriptors settle")
        except AssertionError:
            message = (
                f"after {context.profile.breaks} breaks: {open_descriptors()} descriptors open here, {here} before; "
            )
            raise AssertionError(message + f"{target.open_files()} in the runtime, {there} before") from None
    async with asyncio.timeout(60):
        equal((await context.client.run(shell(context, "echo on"))).stdout, b"on\n", "a run's output afterwards")


async def complained(context: Context, container: Container) -> bool:
    if not context.client.capabilities.supports_separate_stderr:
        return (await container.logs(follow=False).read()).stdout.endswith(b"end\n")
    return bool((await container.logs(follow=False, stdout=False).read()).stderr)


async def leave_early(container: Container, kind: int) -> None:
    if kind == 0:
        async for _ in container.logs():
            break
    elif kind == 1:
        async with container.logs() as stream:
            async for _ in stream:
                break
    else:
        silent = await container.logs(tail=0)
        with raises(TimeoutError, "reading from a silent container"):
            async with asyncio.timeout(0.01):
                await anext(silent)


# -- 21


KEPT = 1 << 20
MEMORY = 64 << 20
LAG = 0.05


@case(21, "backpressure")
async def flood(context: Context) -> None:
    """A flood of output: the run keeps its first bytes and says so, a slow reader beside it, memory and loop at ease."""
    size = min(context.profile.flood, context.target.most_output)
    label = {"conformance": "flood"}
    config = shell(context, f"yes {'0123456789' * 100} | head -c {size}; echo end >&2", labels=label)
    before = resident()
    taken = 0

    async def slow() -> None:
        nonlocal taken

        async def found() -> bool:
            return any(info.started_at for info in await context.client.list(labels=label))

        await eventually(found, "the flooding container runs")
        (info,) = await context.client.list(labels=label)
        container = await context.client.get(info.id)
        async for entry in container.logs():
            taken += len(entry.data)
            await asyncio.sleep(0.2)

    async with lag_watched() as lag:
        reader = asyncio.create_task(slow())
        try:
            async with asyncio.timeout(200):
                result = await context.client.run(config, max_output=KEPT)
        finally:
            reader.cancel()
            await asyncio.wait({reader})
    if not reader.cancelled() and not isinstance(reader.exception(), ContainerNotFoundError):
        reader.result()
    grown = lag.most_resident - before
    logger.info(
        "%d MiB in %.1f s; lag of the loop: p50 %.1f ms, p99 %.1f ms, worst %.1f ms; memory grew %.1f MiB; the slow reader had %d KiB",
        size >> 20, result.duration, lag.percentile(0.5) * 1e3, lag.percentile(0.99) * 1e3, lag.worst * 1e3, grown / 2**20, taken >> 10,
    )  # fmt: skip
    equal(
        (result.exit_code, result.truncated, len(result.stdout), result.stderr),
        (0, True, KEPT, b"end\n" if context.client.capabilities.supports_separate_stderr else b""),
        "the result",
    )
    equal(taken > 0, True, "whether the slow reader had anything")
    equal(grown < MEMORY, True, f"whether memory stayed flat, which grew by {grown >> 20} MiB,")
    # Noise of a busy machine is in the last percent.
    late = f"{lag.percentile(0.99) * 1e3:.0f} ms (p99), {lag.worst * 1e3:.0f} ms at worst"
    equal(lag.percentile(0.99) < LAG, True, f"whether the loop kept up, which was late by {late},")


# -- 22


@case(22, "exit code of a run that is removed at once")
async def exit_race(context: Context) -> None:
    """``run`` removes as soon as it knows the exit: the code is true every time."""

    async def once() -> None:
        async with asyncio.timeout(60):
            equal((await context.client.run(shell(context, "exit 7"))).exit_code, 7, "the exit code")

    await together(context.profile.exits, once)


@case(22, "exit code raced by a removal")
async def removal_race(context: Context) -> None:
    """A wait whose container is removed by someone else as it exits gives the true code, or that it is gone; never another."""

    async def once() -> None:
        container = await context.client.create(shell(context, "exit 7"))
        try:
            wait = asyncio.create_task(container.wait())
            await container.start()
            await exited(container)
        finally:
            await container.remove(force=True)
        try:
            async with asyncio.timeout(PROMPT):
                equal((await wait).code, 7, "the exit code")
        except ContainerNotFoundError:
            pass

    await together(max(4, context.profile.exits // 4), once)


@case(22, "a lost connection is no exit code")
async def lost_is_no_code(context: Context) -> None:
    """What a wait gives when its runtime goes away is an error, never a code."""
    if not context.target.has_daemon:
        await machine_of_run_lost(context)
        return
    async with (
        context.target.proxied() as (proxy, config),
        asyncctr.connect(config) as client,
        client.container(shell(context, FOREVER)) as container,
    ):
        await container.start()
        wait = asyncio.create_task(container.wait())
        await asyncio.sleep(0.3)
        proxy.cut()
        with raises(ConnectionLostError, "a wait whose connection was cut"):
            async with asyncio.timeout(PROMPT):
                await wait
