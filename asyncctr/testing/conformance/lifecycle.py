"""Cases 11 to 13: states, stopping, and a removal that is final."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs

from asyncctr.core.backend import SupportsPause, SupportsStdin
from asyncctr.core.errors import ContainerNotFoundError, ExitError, InvalidStateError, RunTimeoutError, StartError
from asyncctr.core.network import NetworkConfig, NetworkMode, PortMapping
from asyncctr.core.status import ContainerStatus
from asyncctr.testing.conformance.checks import equal, honoured, raises, supported, unique
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.conformance.workloads import FOREVER, exited, shell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncctr.client import Container
    from asyncctr.core.status import ContainerInfo
    from asyncctr.testing.conformance.suite import Context

__all__: list[str] = []

BOUND = 60.0
"""Seconds that one step of a case may take."""

# What the clock of the runtime and of this process may differ by, and a machine in a container may lag.
_SLACK = timedelta(seconds=5)


async def _said(container: Container, word: str) -> None:
    """Until the container has printed a line."""
    async with container.logs() as stream:
        async for line in stream.lines():
            if line.text == word:
                return
    message = f"the container ended without saying {word!r}"
    raise AssertionError(message)


# -- 11


def _aware(moment: datetime | None, what: str) -> datetime:
    if moment is None or moment.tzinfo is None or moment.utcoffset() != timedelta(0):
        message = f"{what} is {moment!r}, not an aware UTC time"
        raise AssertionError(message)
    return moment


def _created(context: Context, info: ContainerInfo, name: str) -> None:
    equal(
        (info.status, info.exit_code, info.started_at, info.finished_at, info.pid),
        (ContainerStatus.CREATED, None, None, None, None),
        "a created container",
    )
    if supported(context, "name"):
        equal(info.name, name, "its name")
    equal(info.image.endswith(context.image), wanted=True, what=f"that {info.image!r} is the image's name")
    equal(info.oom_killed, None, "oom_killed before the end")


@case(11, "inspect through the states")
async def inspect_states(context: Context) -> None:
    """Created, running, exited: what is known in each, and times in their order."""
    name = unique("conformance")
    before = datetime.now(UTC) - _SLACK
    config = shell(
        context, "echo ready; " + FOREVER.replace("exit 0", "exit 9"), name=name if supported(context, "name") else ""
    )
    async with asyncio.timeout(BOUND), context.client.container(config) as container:
        info = await container.inspect()
        equal(info.id, container.id, "its id")
        _created(context, info, name)
        created = _aware(info.created_at, "created_at") if info.created_at is not None else before

        await container.start()
        info = await container.inspect()
        equal(
            (info.status, info.exit_code, info.finished_at),
            (ContainerStatus.RUNNING, None, None),
            "a running container",
        )
        started = _aware(info.started_at, "started_at")
        equal(info.pid is None or info.pid > 1, wanted=True, what=f"that {info.pid} can be a process id")
        with raises(InvalidStateError, "starting a running container"):
            await container.start()
        with raises(InvalidStateError, "removing a running container without force"):
            await container.remove()

        await _said(container, "ready")
        await container.stop(grace=20)
        info = await container.inspect()
        equal((info.status, info.exit_code, info.pid), (ContainerStatus.EXITED, 9, None), "an exited container")
        finished = _aware(info.finished_at, "finished_at")
        equal(_aware(info.started_at, "started_at"), started, "started_at after the end")
        moments = [before, created, started, finished, datetime.now(UTC) + _SLACK]
        equal(sorted(moments), moments, "the moments in order")
        status = await container.wait()
        equal((status.code, status.finished_at in (None, finished)), (9, True), "what wait says of the same")
        with raises(InvalidStateError, "starting an exited container"):
            await container.start()
        with raises(InvalidStateError, "killing an exited container"):
            await container.kill()
        equal((await container.inspect()).exit_code, 9, "the exit code after all that")


@case(11, "list through the states")
async def list_states(context: Context) -> None:
    """Containers are listed in any state, by labels; a handle for one is had by its full id alone."""
    mark = {"conformance-list": unique("run")}
    async with (
        asyncio.timeout(2 * BOUND),
        context.client.container(shell(context, "sleep 300", labels={**mark, "which": "first"})) as first,
    ):
        async with context.client.container(shell(context, "exit 3", labels={**mark, "which": "second"})) as second:

            async def states(**more: str) -> dict[str, ContainerStatus]:
                return {info.id: info.status for info in await context.client.list(labels={**mark, **more})}

            equal(await states(), {first.id: ContainerStatus.CREATED, second.id: ContainerStatus.CREATED}, "the list")
            await first.start()
            await second.start()
            await second.wait()
            equal(await states(), {first.id: ContainerStatus.RUNNING, second.id: ContainerStatus.EXITED}, "the list")
            equal(await states(which="second"), {second.id: ContainerStatus.EXITED}, "the list by two labels")
            equal(await states(which="third"), {}, "the list by a label that none has")
            for everyone in (False, True):
                ids = {info.id for info in await context.client.list(all=everyone)}
                equal({first.id, second.id} <= ids, wanted=True, what=f"that list(all={everyone}) has both")
            (listed,) = await context.client.list(labels={**mark, "which": "second"})
            equal(listed, await second.inspect(), "the listed container")
            equal((await context.client.get(second.id)).id, second.id, "the id of a handle got again")
            for wrong in (second.id[:12], second.id[:-1], "0" * len(second.id)):
                with raises(ContainerNotFoundError, f"getting {wrong!r}"):
                    await context.client.get(wrong)
        equal(await states(), {first.id: ContainerStatus.RUNNING}, "the list after a removal")


# -- 12


@case(12, "stop within the grace")
async def stop_graceful(context: Context) -> None:
    """A process that traps TERM exits with its own code, and does so as soon as it likes."""
    script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    async with asyncio.timeout(BOUND), context.client.container(shell(context, script)) as container:
        await container.stop()  # not running: nothing to do
        equal((await container.inspect()).status, ContainerStatus.CREATED, "a created container after stop")
        await container.start()
        await _said(container, "ready")
        began = asyncio.get_running_loop().time()
        await container.stop(grace=30)
        took = asyncio.get_running_loop().time() - began
        equal(took < 15, wanted=True, what=f"that a stop of {took:.1f} s did not use up its grace")
        info = await container.inspect()
        equal((info.status, info.exit_code), (ContainerStatus.EXITED, 3), "state and code")
        await container.stop()  # a second time: nothing to do
        for _ in range(2):
            equal((await container.wait()).code, 3, "what wait says, again")
            equal((await container.logs().read()).stdout, b"ready\ncaught\n", "the log, again")


@case(12, "stop beyond the grace")
async def stop_forced(context: Context) -> None:
    """A process that ignores TERM is killed after the grace, not before."""
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    async with asyncio.timeout(BOUND), context.client.container(shell(context, script)) as container:
        await container.start()
        await _said(container, "ready")
        began = asyncio.get_running_loop().time()
        await container.stop(grace=1.5)
        took = asyncio.get_running_loop().time() - began
        equal(1.4 < took < 10, wanted=True, what=f"that a stop of {took:.1f} s came after its grace of 1.5")
        info = await container.inspect()
        equal((info.status, info.exit_code), (ContainerStatus.EXITED, 137), "state and code")
        status = await container.wait()
        equal((status.code, status.signal), (137, signal.SIGKILL), "what wait says")
        equal((await container.logs().read()).stdout, b"ready\n", "the log")


@case(12, "stop signal")
async def stop_signal(context: Context) -> None:
    """The configuration's signal is sent in place of TERM; kill sends any signal and leaves a process that handles it."""
    script = "trap 'echo usr1; exit 4' USR1; trap 'echo hup' HUP; trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    config = shell(context, script, stop_signal="SIGUSR1")
    if not await honoured(context, config, "stop_signal"):
        return
    async with asyncio.timeout(BOUND), context.client.container(config) as container:
        await container.start()
        await _said(container, "ready")
        for hangup in ("SIGHUP", "HUP", signal.SIGHUP):
            await container.kill(hangup)
            await _said(container, "hup")
        equal((await container.inspect()).status, ContainerStatus.RUNNING, "its state after signals that it handles")
        await container.stop(grace=30)
        equal((await container.wait()).code, 4, "the exit code")


# -- 13


def _calls(context: Context, container: Container) -> dict[str, Callable[[], Awaitable[object]]]:
    """Every operation on a container, by its name."""
    backend = context.client.backend
    container_id = container.id
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "start": container.start,
        "stop": container.stop,
        "kill": container.kill,
        "remove": container.remove,
        "remove by force": lambda: container.remove(force=True),
        "wait": container.wait,
        "inspect": container.inspect,
        "logs": lambda: container.logs().read(),
        "logs without follow": lambda: container.logs(follow=False).read(),
        "get": lambda: context.client.get(container_id),
    }
    if isinstance(backend, SupportsPause) and context.client.capabilities.supports_pause:
        calls |= {"pause": container.pause, "unpause": container.unpause}
    if isinstance(backend, SupportsStdin) and context.client.capabilities.supports_stdin:
        calls["stdin"] = container.stdin
    return calls


@case(13, "remove is final")
async def remove_is_final(context: Context) -> None:
    """After a removal in any state every call says that there is no such container, and the runtime has nothing left of it."""
    network = NetworkConfig(mode=NetworkMode.NONE)
    if supported(context, "network.port_mappings", "network.mode.bridge"):
        # A network, a port and a volume of its own: all that a removal could forget.
        network = NetworkConfig(port_mappings=[PortMapping(container_port=8080)])
    for state in ("created", "running", "exited", "stopped", "paused"):
        if state == "paused" and not context.client.capabilities.supports_pause:
            continue
        config = shell(context, "exit 6" if state == "exited" else "echo ready; " + FOREVER, network=network)
        async with asyncio.timeout(BOUND):
            container = await context.client.create(config)
            try:
                if state != "created":
                    await container.start()
                if state == "exited":
                    await exited(container)
                elif state == "stopped":
                    await _said(container, "ready")
                    await container.stop(grace=20)
                elif state == "paused":
                    await container.pause()
                    equal((await container.inspect()).status, ContainerStatus.PAUSED, "its state when paused")
            finally:
                await container.remove(force=state in ("running", "paused"))
            for name, call in _calls(context, container).items():
                async with asyncio.timeout(10):
                    with raises(ContainerNotFoundError, f"{name} after the removal of a {state} container"):
                        await call()
        left = await context.target.leftovers()
        equal(bool(left), wanted=False, what=f"that {left} is left of a {state} container")


@case(13, "a run leaves nothing")
async def run_leaves_nothing(context: Context) -> None:
    """A run that ends, one that fails to start and one that is killed for its time are all removed."""
    async with asyncio.timeout(BOUND):
        await context.client.run(shell(context, "echo done"))
        for command in (["/no/such/program"], ["/etc/passwd"]):
            with raises(StartError, f"running {command}"):
                await context.client.run(attrs.evolve(shell(context, "true"), entrypoint=command, command=()))
        with raises(RunTimeoutError, "a run beyond its time") as caught:
            await context.client.run(shell(context, "echo partial; sleep 300"), timeout=1.0)
        equal(caught.error.result.stdout, b"partial\n", "what was printed until then")
        with raises(ExitError, "a checked run that fails") as failed:
            await context.client.run(shell(context, "echo why >&2; exit 8"), check=True)
        equal((failed.error.result.exit_code, "why" in str(failed.error)), (8, True), "code and reason")
    equal(await context.client.list(), (), "the containers")
    left = await context.target.leftovers()
    equal(bool(left), wanted=False, what=f"that {left} is left")
