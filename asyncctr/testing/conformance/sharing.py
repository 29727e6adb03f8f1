"""Cases 23, 24 and 26: several tasks, clients and processes with the same containers, and one of them that dies."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

import asyncctr
from asyncctr.core.errors import AsyncctrError, ConflictError, ContainerNotFoundError, InvalidStateError
from asyncctr.core.network import NetworkConfig, PortMapping
from asyncctr.core.status import ContainerId
from asyncctr.testing.conformance.checks import equal, raises, refusal, supported, unique
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.conformance.workloads import FOREVER, eventually, exited, shell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asyncctr.client import Client, Container
    from asyncctr.testing.conformance.suite import Context

__all__: list[str] = []

MANY = 5

# -- 23


async def at_once(calls: Sequence[Callable[[], Awaitable[object]]], *allowed: type[AsyncctrError]) -> None:
    """Make all calls at the same time; each succeeds, or fails as it may."""
    for result in await asyncio.gather(*(call() for call in calls), return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, allowed):
            raise result


@case(23, "concurrent and repeated stop")
async def stops(context: Context) -> None:
    """Many stops of one container at once, from two clients, and stops of what has ended, all succeed."""
    async with asyncio.timeout(60), asyncctr.connect(context.target.config) as second:
        async with context.client.container(shell(context, FOREVER)) as container:
            await container.start()
            same = await second.get(container.id)
            await at_once([container.stop, same.stop] * MANY)
            equal((await container.inspect()).status, asyncctr.ContainerStatus.EXITED)
            status = await container.wait()
            await at_once([container.stop, same.stop] * 2)
            equal(await container.wait(), status, "the exit status after further stops")
        async with context.client.container(shell(context, "exit 4")) as container:
            await container.stop()
            await container.start()
            await exited(container)
            await container.stop()
            equal((await container.wait()).code, 4)


@case(23, "concurrent and repeated remove")
async def removes(context: Context) -> None:
    """All removals of one container that are made at once succeed; from then on it is not found."""
    for running in (True, False):
        async with asyncio.timeout(60), asyncctr.connect(context.target.config) as second:
            container = await context.client.create(shell(context, FOREVER))
            remove = partial(container.remove, force=True)
            try:
                if running:
                    await container.start()
                    with raises(InvalidStateError, "removing a running container"):
                        await container.remove()
                same = await second.get(container.id)
            finally:
                # One of them is cancelled, and one does not ask for force: the others are served all the same.
                cancelled = asyncio.create_task(remove())
                asyncio.get_running_loop().call_later(0.03, cancelled.cancel)
                gentle = asyncio.create_task(container.remove())
                await at_once([remove] * MANY)
                await at_once([lambda task=gentle: task], InvalidStateError)  # type: ignore[misc]
                await asyncio.wait({cancelled})
            # A call that reaches the runtime when all is over cannot know that it was not over when it was made.
            await at_once([partial(same.remove, force=True)] * MANY, ContainerNotFoundError)
            await everything_fails(container, second)


@case(23, "removes from two clients")
async def removes_from_two(context: Context) -> None:
    """Two clients remove the same container at the same moment: it goes, and neither is told of a conflict."""
    for turn in range(4):
        async with asyncio.timeout(60), asyncctr.connect(context.target.config) as second:
            container = await context.client.create(shell(context, FOREVER))
            await container.start()
            same = await second.get(container.id)
            calls = [partial(container.remove, force=True), partial(same.remove, force=True)] * 2
            await at_once(calls[turn % 2 :], ContainerNotFoundError)
            await everything_fails(container, second)


async def everything_fails(container: Container, second: Client) -> None:
    """Every call on a container that is gone says so."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "start": container.start,
        "stop": container.stop,
        "kill": container.kill,
        "wait": container.wait,
        "logs": lambda: container.logs().read(),
        "logs without follow": lambda: container.logs(follow=False).read(),
        "inspect": container.inspect,
        "remove": container.remove,
        "remove by force": lambda: container.remove(force=True),
        "get": lambda: second.get(container.id),
    }
    for name, call in calls.items():
        with raises(ContainerNotFoundError, f"{name} after the removal") as caught:
            await call()
        equal(caught.error.resource, container.id, f"the resource in the error of {name}")


@case(23, "not found from the start")
async def never_was(context: Context) -> None:
    """The same for an id that no container ever had, and for what is no full id; no name or prefix is taken for one."""
    async with asyncio.timeout(60), context.client.container(shell(context, "true")) as container:
        for text in ("0" * 64, container.id[:12], (await container.inspect()).name or "none"):
            with raises(ContainerNotFoundError, f"get of {text!r}"):
                await context.client.get(ContainerId(text))
            with raises(ContainerNotFoundError, f"remove of {text!r}"):
                await context.client.backend.remove(ContainerId(text), force=True)


@case(23, "a name is taken")
async def name_taken(context: Context) -> None:
    """Of several creates with one name at the same time, one succeeds."""
    if not supported(context, "name"):
        await refusal(context, lambda: context.client.create(shell(context, "true", name="refused")), "name")
        return
    config = shell(context, "true", name=unique("taken"))
    async with asyncio.timeout(60):
        made = await asyncio.gather(*(context.client.create(config) for _ in range(MANY)), return_exceptions=True)
        winners = [item for item in made if isinstance(item, asyncctr.Container)]
        try:
            equal(len(winners), 1, "the number of containers with one name")
            for item in made:
                if item not in winners:
                    equal(isinstance(item, ConflictError), True, f"that {item!r} is a ConflictError")
        finally:
            for container in winners:
                await container.remove(force=True)


# -- 24


@case(24, "picked ports")
async def ports(context: Context) -> None:
    """Many containers start at the same time with ports that the backend picks: all differ, and are known at once."""
    mappings = (PortMapping(container_port=80), PortMapping(container_port=53, protocol="udp"))
    config = shell(context, FOREVER, network=NetworkConfig(port_mappings=mappings))
    if not (context.client.capabilities.supports_networking and supported(context, "network", "network.port_mappings")):
        await refusal(context, lambda: context.client.create(config), "network", "network.port_mappings")
        return
    found: list[tuple[str, int]] = []

    async def one() -> None:
        async with context.client.container(config) as container:
            await container.start()
            info = await container.inspect()
            equal(
                {(port.container_port, port.protocol) for port in info.ports}, {(80, "tcp"), (53, "udp")}, "the ports"
            )
            equal({port.host_ip for port in info.ports}, {"127.0.0.1"}, "the host addresses")
            found.extend((port.protocol, port.host_port) for port in info.ports)
            # All run at the same time, so that none is given a port that another one has had.
            await barrier.wait()

    barrier = asyncio.Barrier(context.profile.ports)
    async with asyncio.timeout(240), asyncio.TaskGroup() as group:
        for _ in range(context.profile.ports):
            group.create_task(one())
    equal(len(set(found)), 2 * context.profile.ports, "the number of different ports")
    equal([port for _, port in found if not 0 < port < 65_536], [], "ports that are none")


# -- 26

# Prints the ids, reads along with the output of the first, and is killed while it does.
OWNER = """
import asyncio, base64, json, pickle, sys
import asyncctr
config, owned, detached = pickle.loads(base64.b64decode(sys.stdin.readline()))
async def main():
    async with asyncctr.connect(config) as client:
        first = await client.create(owned)
        second = await client.create(detached, detached=True)
        await first.start()
        await second.start()
        print(json.dumps([first.id, second.id]), flush=True)
        async for entry in first.logs():
            print(json.dumps(entry.data.decode()), flush=True)
asyncio.run(main())
"""
LINES = 40
PRINTING = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.1; done; printf tail; exit 6"
PRINTED = b"".join(b"line %d\n" % number for number in range(1, LINES + 1)) + b"tail"


@case(26, "the SDK dies")
async def owner_dies(context: Context) -> None:
    """A process is killed in the middle of its container's output: another one finds all of it, and reaps what was owned."""
    client = context.client
    owned, detached = shell(context, PRINTING), shell(context, FOREVER)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018  # they are pipes
    ids: list[str] = []
    try:
        async with asyncio.timeout(120):
            process.stdin.write(base64.b64encode(pickle.dumps((context.target.config, owned, detached))) + b"\n")
            ids = json.loads(await process.stdout.readline())
            # In the middle of the output.
            equal(json.loads(await process.stdout.readline()).startswith("line 1\n"), True, "that it reads along")
            await process.stdout.readline()
            equal([info.id for info in await client.reap()], [], "what is reaped while the owner lives")
            process.send_signal(signal.SIGKILL)
            await process.wait()
            await _survived(context, ids)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        # The transport of its output, which nobody has read to the end.
        await process.stdout.read()
        for info in await client.list():
            if info.id in ids:
                await (await client.get(info.id)).remove(force=True)


async def _survived(context: Context, ids: list[str]) -> None:
    client = context.client
    listed = {info.id: info for info in await client.list()}
    equal(set(ids) - set(listed), set(), "containers of the dead owner that are not listed")
    container, other = await client.get(ids[0]), await client.get(ids[1])
    equal(
        (await container.inspect()).status,
        asyncctr.ContainerStatus.RUNNING,
        "the state of the container whose owner was killed",
    )
    equal((await container.logs().read()).stdout, PRINTED, "the whole log, read by another process")
    equal((await container.wait()).code, 6, "the exit code, asked by another process")
    equal([info.id for info in await client.reap(older_than=3600)], [], "what is reaped of what is an hour old")
    equal([info.id for info in await client.reap(dry_run=True)], [container.id], "what would be reaped")
    equal([info.id for info in await client.reap()], [container.id], "what is reaped")
    with raises(ContainerNotFoundError, "inspecting what was reaped"):
        await container.inspect()
    equal((await other.inspect()).status, asyncctr.ContainerStatus.RUNNING, "the state of the detached container")
    equal([info.id for info in await client.reap()], [], "what is reaped the second time")


@case(26, "the SDK dies at any time")
async def owner_dies_early(context: Context) -> None:
    """Killed before, while and after a run starts its container: whatever is there by then is found and reaped."""
    label = {"conformance": unique("early")}
    code = (
        "import asyncio, base64, pickle, sys, asyncctr\n"
        "config, container = pickle.loads(base64.b64decode(sys.stdin.readline()))\n"
        "async def main():\n"
        "    async with asyncctr.connect(config) as client:\n"
        "        print('go', flush=True)\n"
        "        await client.run(container)\n"
        "asyncio.run(main())\n"
    )
    data = base64.b64encode(pickle.dumps((context.target.config, shell(context, FOREVER, labels=label)))) + b"\n"
    async with asyncio.timeout(120):
        for delay in (0.0, 0.03, 0.1, 0.3, 0.6):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018  # they are pipes
            try:
                process.stdin.write(data)
                equal(await process.stdout.readline(), b"go\n", "what the process says")
                await asyncio.sleep(delay)
            finally:
                process.kill()
                await process.wait()
                await process.stdout.read()
        # A create that was under way may still be.
        await asyncio.sleep(1)
        reaped = [info.id for info in await context.client.reap()]

        async def none() -> bool:
            return not await context.client.list(labels=label)

        await eventually(none, f"all are gone once {len(reaped)} were reaped")
