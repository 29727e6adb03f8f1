"""Case 29, and what takes the place of a cut connection and a dying daemon where each container is a process of its own: its machine."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

import asyncctr
from asyncctr.core.errors import AsyncctrError, InvalidStateError, OperationTimeoutError
from asyncctr.core.status import ContainerStatus
from asyncctr.testing.conformance.checks import equal, raises, unique
from asyncctr.testing.conformance.measuring import SLACK, open_descriptors
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.conformance.workloads import FOREVER, eventually, shell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncctr.client import Container
    from asyncctr.testing.conformance.suite import Context

__all__ = ["machine_lost", "machine_of_run_lost", "stalled_machine", "stopped_machines"]

BOUND = 60.0
"""Seconds that one step of a case may take."""

# It says so once it can be asked to stop.
_READY = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"


def _machine(context: Context, container_id: str) -> Sequence[int]:
    """The processes of a running machine: what watches over it, then the machine."""
    found = context.target.machine(container_id)
    equal(len(found), 2, "the number of processes of the machine")
    return found


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            # It went with the one before.
            continue


@contextmanager
def stopped_machines(context: Context, *container_ids: str) -> Iterator[None]:
    """The machines do nothing and answer nobody while the block runs."""
    pids = [_machine(context, container_id)[1] for container_id in container_ids]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                # It was removed.
                continue


async def machine_lost(context: Context, script: str, printed: bytes) -> None:
    """The machine is killed together with what watches over it, or alone: pending calls end, the log is whole, and no code is 0.

    Args:
        context: the case's.
        script: prints, and then goes on for ever.
        printed: what it prints.
    """
    for alone in (False, True):
        async with asyncio.timeout(BOUND), context.client.container(shell(context, script)) as container:
            await container.start()
            wait, read = asyncio.create_task(container.wait()), asyncio.create_task(container.logs().read())
            await eventually(lambda: _printed(container, len(printed)), "the machine prints")  # awaited here
            pids = _machine(context, container.id)
            _kill(pids[1:] if alone else pids)
            equal((await read).stdout == printed, True, f"whether a follow is what was printed, with {alone=}")
            if alone:
                equal((await wait).code, 128 + signal.SIGKILL, "the code of a killed machine")
            else:
                with raises(InvalidStateError, "a wait for a machine that was killed with what watched over it"):
                    await wait
            info = await container.inspect()
            equal((info.status, info.exit_code), (ContainerStatus.EXITED, 137 if alone else None), "state and code")
            equal((await container.logs(follow=False).read()).stdout == printed, True, "whether the log is whole")


async def _printed(container: Container, size: int) -> bool:
    return len((await container.logs(follow=False).read()).stdout) >= size


async def machine_of_run_lost(context: Context, script: str = FOREVER) -> None:
    """The same for a run: an error, and nothing is left of it."""
    label = {"conformance": unique("lost")}
    run = asyncio.create_task(context.client.run(shell(context, script, labels=label)))

    async def running() -> bool:
        return any(info.started_at for info in await context.client.list(labels=label))

    async with asyncio.timeout(BOUND):
        await eventually(running, "the run runs")
        (info,) = await context.client.list(labels=label)
        _kill(_machine(context, info.id))
        with raises(InvalidStateError, "a run whose machine was killed with what watched over it"):
            await run
    equal(tuple(await context.client.list(labels=label)), (), "what the run left")


async def stalled_machine(context: Context) -> None:
    """A machine that stops answering: calls that need it end by ``op_timeout``; when it goes on, nothing is lost."""
    config = attrs.evolve(context.target.config, op_timeout=1.5)
    async with asyncio.timeout(BOUND), asyncctr.connect(config) as client:
        script = "for i in 1 2 3 4; do echo $i; sleep 0.5; done; exit 3"
        async with client.container(shell(context, script)) as container:
            await container.start()
            read, wait = asyncio.create_task(container.logs().read()), asyncio.create_task(container.wait())
            with stopped_machines(context, container.id):
                with raises(OperationTimeoutError, "pausing a stalled machine"):
                    await container.pause()
                equal((await container.inspect()).status, ContainerStatus.RUNNING, "the state of a stalled machine")
            equal((await wait).code, 3, "the exit code")
            equal((await read).stdout, b"1\n2\n3\n4\n", "the log")


@case(29, "stop is final")
async def stop_is_final(context: Context) -> None:
    """When stop returns there is no process any more; many turns of create, start, stop and remove leave nothing behind."""
    here = there = 0
    for turn in range(context.profile.cycles + 1):
        async with (
            asyncio.timeout(BOUND),
            context.client.container(shell(context, _READY)) as container,
        ):
            await container.start()
            pids = context.target.machine(container.id)
            async for _ in container.logs().lines():
                break
            await container.stop(grace=20)
            equal([pid for pid in pids if Path(f"/proc/{pid}").exists()], [], "processes that are still there")  # noqa: ASYNC240  # of /proc
            info = await container.inspect()
            equal((info.status, info.exit_code, info.pid), (ContainerStatus.EXITED, 0, None), "a stopped container")
        if turn == 0:
            # Imports, and connections that are kept, come with the first.
            here, there = open_descriptors(), context.target.open_files()

    # A daemon keeps connections of its own.
    slack = SLACK if context.target.has_daemon else 0

    async def settled() -> bool:
        return open_descriptors() <= here and context.target.open_files() <= there + slack

    await eventually(settled, f"descriptors are as before {context.profile.cycles} turns", seconds=10)
    left = await context.target.leftovers()
    equal(bool(left), wanted=False, what=f"that {left} is left")


@case(29, "a guest that does not boot")
async def no_boot(context: Context) -> None:
    """It gives an error with the console's end, and leaves no machine."""
    unbootable = context.target.unbootable()
    if unbootable is None:
        equal(context.target.has_daemon, wanted=True, what="that containers without a machine have a daemon")
        return
    async with unbootable as (config, said), asyncio.timeout(BOUND), asyncctr.connect(config) as client:
        with raises(AsyncctrError, "running a guest that does not boot") as caught:
            await client.run(shell(context, "true"), pull="never")
        equal(said in str(caught.error), wanted=True, what=f"that {caught.error!r} has the console's end")
        equal(await client.list(), (), "the containers")
    left = await context.target.leftovers()
    equal(bool(left), wanted=False, what=f"that {left} is left")
