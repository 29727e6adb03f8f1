"""Cases 15, 18, 25 and 27: a runtime that hangs, is cut off, fails half-way, or dies."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import signal
import tarfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs

import asyncctr
from asyncctr.core.build import DockerfileBuildInput
from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    BuildError,
    BuildNotSupportedError,
    ConnectionLostError,
    ContainerNotFoundError,
    ImagePullError,
    OperationTimeoutError,
)
from asyncctr.testing.conformance.checks import equal, raises, supported, unique
from asyncctr.testing.conformance.machines import machine_lost, machine_of_run_lost, stopped_machines
from asyncctr.testing.conformance.store import without_oci
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.conformance.workloads import FOREVER, eventually, exited, shell
from asyncctr.testing.images import ImageSpec, push

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from asyncctr.client import Container
    from asyncctr.core.backend_config import BackendConfig
    from asyncctr.core.images import Progress
    from asyncctr.core.logs import LogStream, Output
    from asyncctr.testing.conformance.suite import Context
    from asyncctr.testing.proxy import FaultProxy

__all__: list[str] = []

# -- 15

DEADLINE = 2.0
"""Seconds that operations and clean-up get in the cases with a runtime that hangs."""
MARGIN = 4.0
"""Seconds that a busy machine may take beyond a deadline."""


def impatient(config: BackendConfig) -> BackendConfig:
    return attrs.evolve(config, op_timeout=DEADLINE, cleanup_timeout=DEADLINE)


@asynccontextmanager
async def within(seconds: float, what: str) -> AsyncIterator[None]:
    """Fail when the block takes longer. It is not cancelled at the deadline, which would hide what hangs, but later."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(seconds + 30):
            yield
    finally:
        taken = loop.time() - began
        if taken > seconds:
            message = f"{what} took {taken:.1f} s; {seconds:g} s are allowed"
            raise AssertionError(message)


@case(15, "connecting to a silent runtime")
async def silent_from_the_start(context: Context) -> None:
    """A runtime that accepts and never answers: connecting fails by ``op_timeout``, and can be cancelled."""
    async with context.target.unresponsive() as config:
        with raises(AsyncctrError, "connecting to it") as caught:
            async with within(2 * DEADLINE + MARGIN, "connecting"), asyncctr.connect(impatient(config)):
                pass
        equal(
            isinstance(caught.error, BackendUnavailableError | OperationTimeoutError),
            True,
            f"that {caught.error!r} says so",
        )
        async with within(MARGIN, "a cancelled connect"):
            with raises(TimeoutError, "the timeout around it"):
                async with asyncio.timeout(0.3), asyncctr.connect(config):
                    pass


@case(15, "teardown when the runtime goes silent")
async def silent_later(context: Context) -> None:
    """Leaving ``async with``, a cancelled run, and closing, all return by the deadline."""
    if not context.target.has_daemon:
        await silent_machines(context)
        return
    async with context.target.proxied() as (proxy, config):
        client = await asyncctr.connect(impatient(config), cleanup_timeout=DEADLINE)
        try:
            async with asyncio.timeout(60):
                run = asyncio.create_task(
                    client.run(shell(context, f"echo run; {FOREVER}", labels={"conformance": "silent"}))
                )
                container = await client.create(shell(context, FOREVER))
                await container.start()
                wait = asyncio.create_task(container.wait())
                reader = asyncio.create_task(container.logs().read())
                await eventually(lambda: _running(context, {"conformance": "silent"}), "the run runs")
            async with within(2 * DEADLINE + MARGIN, "leaving async with"), client.container(shell(context, FOREVER)):
                proxy.stall()
            run.cancel()
            async with within(2 * DEADLINE + MARGIN, "a cancelled run"):
                await asyncio.wait({run})
            equal(run.cancelled(), True, "whether the cancellation came out of the run")
            async with within(2 * DEADLINE + MARGIN, "closing the client"):
                await client.aclose()
            wait.cancel()
            reader.cancel()
            async with within(MARGIN, "cancelling a wait and a read"):
                await asyncio.wait({wait, reader})
        finally:
            proxy.resume()
            await client.aclose()
            await _clean(context)


async def silent_machines(context: Context) -> None:
    """As above, where it is the machines that do not answer any more."""
    async with asyncctr.connect(impatient(context.target.config), cleanup_timeout=DEADLINE) as client:
        label = {"conformance": "silent"}
        run = asyncio.create_task(client.run(shell(context, FOREVER, labels=label)))
        container = await client.create(shell(context, FOREVER))
        try:
            await container.start()
            wait = asyncio.create_task(container.wait())
            reader = asyncio.create_task(container.logs().read())
            await eventually(lambda: _running(context, label), "the run runs")
            (info,) = await context.client.list(labels=label)
            async with (
                within(2 * DEADLINE + 2 * MARGIN, "leaving async with"),
                client.container(shell(context, FOREVER)) as other,
            ):
                await other.start()
                # Nobody lets it go on.
                os.kill(context.target.machine(other.id)[1], signal.SIGSTOP)
            with stopped_machines(context, container.id, info.id):
                run.cancel()
                async with within(2 * DEADLINE + MARGIN, "a cancelled run"):
                    await asyncio.wait({run})
                equal(run.cancelled(), True, "whether the cancellation came out of the run")
                async with within(2 * DEADLINE + MARGIN, "a stop"):
                    await container.stop(grace=0.5)
                async with within(2 * DEADLINE + MARGIN, "closing the client"):
                    await client.aclose()
                wait.cancel()
                reader.cancel()
                async with within(MARGIN, "cancelling a wait and a read"):
                    await asyncio.wait({wait, reader})
        finally:
            await _clean(context)


async def _running(context: Context, labels: dict[str, str]) -> bool:
    return any(info.started_at for info in await context.client.list(labels=labels))


async def _clean(context: Context) -> None:
    """Remove what a client that was cut off for good could not."""
    for info in await context.client.list():
        try:
            await (await context.client.get(info.id)).remove(force=True)
        except ContainerNotFoundError:
            # What the silent runtime had been asked to remove, it removes once it is back.
            continue


# -- 18


def same_line(size: int) -> str:
    """A script that prints so many bytes, all lines alike, so that nothing in them tells where a stream was cut."""
    return f"yes {'same' * 16} | head -c {size}"


def printed_by_same_line(size: int) -> bytes:
    line = b"same" * 16 + b"\n"
    return (line * (size // len(line) + 1))[:size]


async def lost(context: Context, read: Awaitable[Output], whole: bytes, what: str) -> None:
    """What a read gives whose connection was cut: an error. A log that is a file may be read to its end, which is the true one."""
    try:
        output = await read
    except ConnectionLostError:
        return
    if context.target.logs_over_connection:
        message = f"{what} raised no ConnectionLostError"
        raise AssertionError(message)
    equal(len(output.stdout), len(whole), f"the length of {what}")
    equal(output.stdout == whole, True, f"whether {what} is what was printed")


@case(18, "a severed follow and wait")
async def severed_follow(context: Context) -> None:
    """The connection breaks while a container runs: an error comes out of each pending call, and the container lives on."""
    size = 100_000
    if not context.target.has_daemon:
        await machine_lost(context, f"{same_line(size)}; {FOREVER}", printed_by_same_line(size))
        return
    for reset in (False, True):
        async with (
            context.target.proxied() as (proxy, config),
            asyncctr.connect(config) as client,
            client.container(shell(context, f"{same_line(size)}; {FOREVER}")) as container,
        ):
            await container.start()
            stream = await container.logs()
            wait, read = asyncio.create_task(container.wait()), asyncio.create_task(stream.read())
            await asyncio.sleep(0.5)
            proxy.cut(reset=reset)
            async with within(MARGIN, "noticing the cut"):
                with raises(ConnectionLostError, f"a wait cut with {reset=}"):
                    await wait
                if context.target.logs_over_connection:
                    await lost(context, read, b"", f"a follow cut with {reset=}")
            equal((await container.inspect()).status, asyncctr.ContainerStatus.RUNNING)
            if not context.target.logs_over_connection:
                equal(
                    read.done() and not read.exception(), False, "whether a follow ended as if the container had, which"
                )
                await container.kill()
                async with within(MARGIN, "the end of a follow that went on"):
                    await lost(context, read, printed_by_same_line(size), f"a follow cut with {reset=}")


@case(18, "a severed log of what has ended")
async def severed_log(context: Context) -> None:
    """A big log is cut in the middle of its identical lines: an error, never an end, however it is read."""
    size = 6 << 20
    if not context.target.has_daemon:
        await machine_lost(context, f"printf first; {FOREVER}", b"first")
        return
    async with context.client.container(shell(context, same_line(size))) as container:
        await container.start()
        await exited(container)
        for reset, follow, timestamps in itertools.product((False, True), (True, False), (True, False)):
            if timestamps and not supported(context, "logs.timestamps"):
                continue
            what = f"a log cut with {reset=}, {follow=}, {timestamps=}"
            async with context.target.proxied() as (proxy, config), asyncctr.connect(config) as client:
                same = await client.get(container.id)
                stream = await same.logs(follow=follow, timestamps=timestamps)
                async with asyncio.timeout(60):
                    await lost(
                        context, severed_read(context, stream, proxy, reset=reset), printed_by_same_line(size), what
                    )


async def severed_read(
    context: Context, stream: LogStream, proxy: FaultProxy, *, reset: bool, after: int = 1 << 20, size: int = 0
) -> Output:
    """Read a log whose connection is cut ``after`` so many bytes; at ``size`` bytes a container that goes on is killed."""
    if context.target.logs_over_connection:
        proxy.cut_after(after, reset=reset)
        return await stream.read()
    parts: list[bytes] = []
    taken = 0
    async for entry in stream:
        if taken < after <= taken + len(entry.data):
            proxy.cut(reset=reset)
        parts.append(entry.data)
        taken += len(entry.data)
        if taken == size:
            (info,) = await context.client.list()
            await (await context.client.get(info.id)).kill()
    return asyncctr.Output(b"".join(parts), b"")


@case(18, "a severed follow of a flood")
async def severed_flood(context: Context) -> None:
    """A follow is cut in the middle of what is being printed."""
    size = 20 << 20
    if not context.target.has_daemon:
        await machine_of_run_lost(context, f"while :; do {same_line(size)}; done")
        return
    for reset in (False, True):
        async with (
            context.target.proxied() as (proxy, config),
            asyncctr.connect(config) as client,
            client.container(shell(context, f"{same_line(size)}; {FOREVER}")) as container,
        ):
            await container.start()
            stream = await container.logs()
            read = severed_read(context, stream, proxy, reset=reset, after=2 << 20, size=size)
            async with asyncio.timeout(60):
                await lost(context, read, printed_by_same_line(size), f"a follow cut with {reset=}")


@case(18, "a severed run")
async def severed_run(context: Context) -> None:
    """A run is cut while it is silent, and while it prints: an error, and the container is removed all the same."""
    if not context.target.has_daemon:
        await machine_of_run_lost(context)
        return
    for reset in (False, True):
        for script in (FOREVER, f"{same_line(20 << 20)}; {FOREVER}"):
            async with context.target.proxied() as (proxy, config), asyncctr.connect(config) as client:
                label = {"conformance": unique("severed")}
                run = asyncio.create_task(client.run(shell(context, script, labels=label)))
                await eventually(lambda label=label: _running(context, label), "the run runs")  # type: ignore[misc]
                proxy.cut(reset=reset)
                async with within(MARGIN + 10, "the severed run's end"):
                    with raises(ConnectionLostError, f"a run cut with {reset=}"):
                        await run
                equal(tuple(await context.client.list(labels=label)), (), "what the severed run left")


@case(18, "a severed create")
async def severed_create(context: Context) -> None:
    """The answer to a create is lost, before and after the container was made: an error, and no container stays."""
    if not context.target.has_daemon:
        # There is nothing between client and runtime that could lose the answer.
        await machine_of_run_lost(context, "true; " + FOREVER)
        return
    for pause in (0.0, 0.02, 1.0):
        async with context.target.proxied() as (proxy, config), asyncctr.connect(config) as client:
            proxy.stall("down")
            label = {"conformance": unique("severed")}
            create = asyncio.create_task(client.create(shell(context, "true", labels=label)))
            await asyncio.sleep(0.1 + pause)
            proxy.cut()
            proxy.resume()
            async with within(MARGIN + 10, "the severed create's end"):
                with raises(ConnectionLostError, "a severed create"):
                    await create
            equal(tuple(await context.client.list(labels=label)), (), "what the severed create left")


@case(18, "a severed pull")
async def severed_pull(context: Context) -> None:
    """A pull is cut before its answer, and in the middle of its progress."""
    if await without_oci(context):
        return
    registry = context.target.registries["plain"]
    repository = unique("severed")
    await push(ImageSpec(padding=16 << 20, compression="none"), registry.host, repository, "latest")
    name = registry.reference(repository)
    for reset in (False, True):
        async with context.target.proxied() as (proxy, config), asyncctr.connect(config) as client:
            image = client.image(name)
            proxy.stall("down")
            pull = asyncio.create_task(image.pull())
            await asyncio.sleep(0.3)
            proxy.cut(reset=reset)
            proxy.resume()
            with raises(ConnectionLostError, f"a pull cut before its answer, {reset=}"):
                async with within(MARGIN, "noticing the cut"):
                    await pull

            def cut(progress: Progress, proxy: FaultProxy = proxy, reset: bool = reset) -> None:  # noqa: ARG001
                proxy.stall("down")
                proxy.cut(reset=reset)

            with raises(ConnectionLostError, f"a pull cut in its middle, {reset=}"):
                async with within(60, "noticing the cut"):
                    await image.pull(on_progress=cut)
            proxy.resume()
    image = context.client.image(name)
    # Nothing half-done is in its way.
    async with asyncio.timeout(60):
        await image.pull()
    await image.remove(force=True)


# -- 25


@case(25, "an error inside a successful pull")
async def pull_error(context: Context) -> None:
    """The registry's blob is not what its digest says, which shows when the answer has long begun."""
    if await without_oci(context):
        return
    registry = context.target.registries["plain"]
    repository = unique("corrupt")
    # Padding of its own, so that the layer is in no image that is here already.
    built = await push(
        ImageSpec(padding=3 << 20, files={"/unique": repository.encode()}, compression="none"),
        registry.host,
        repository,
        "latest",
    )
    path = registry.blob_path(built.layers[-1])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    image = context.client.image(registry.reference(repository))
    async with asyncio.timeout(120):
        with raises(ImagePullError, "pulling a corrupted layer"):
            await image.pull()
    equal(await image.exists(), False, "whether the image exists after its pull failed")


@case(25, "an error inside a successful build")
async def build_error(context: Context) -> None:
    """A step fails when the builder's answer has long begun."""
    source = f"FROM {context.image}\nRUN echo reached; echo complaint >&2; exit 9\n".encode()
    build_input = DockerfileBuildInput(context=_tar({"Dockerfile": source}), network_mode="none")
    image = context.client.image(f"asyncctr.test/{unique('failing')}:latest")
    async with asyncio.timeout(120):
        if not (context.client.capabilities.supports_build and supported(context, "build.context")):
            with raises(BuildNotSupportedError, "building"):
                await image.build(build_input)
            return
        with raises(BuildError, "a step that fails") as caught:
            await image.build(build_input)
    equal(await image.exists(), False, "whether the image exists after its build failed")
    equal(caught.error.exit_code, 9, f"the exit code in {caught.error}")
    equal(
        "complaint" in "\n".join(caught.error.output), True, f"whether {caught.error.output} has what the step printed"
    )


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


# -- 27

COUNT = 60
COUNTING = f"i=0; while [ $i -lt {COUNT} ]; do i=$((i+1)); echo line $i; sleep 0.2; done; printf tail; exit 5"
COUNTED = b"".join(b"line %d\n" % number for number in range(1, COUNT + 1)) + b"tail"


@case(27, "the runtime dies")
async def runtime_dies(context: Context) -> None:
    """The daemon is killed and started again: pending calls fail, new ones work, and what lived on is whole."""
    client = context.client
    if not context.target.has_daemon:
        async with asyncio.timeout(60), client.container(shell(context, COUNTING)) as container:
            await container.start()
            await machine_of_run_lost(context)
            await _whole_after(context, container)
        return
    label = {"conformance": unique("restart")}
    async with asyncio.timeout(180), client.container(shell(context, COUNTING)) as container:
        await container.start()
        run = asyncio.create_task(client.run(shell(context, FOREVER, labels=label)))
        stream = await container.logs()
        follow = asyncio.create_task(stream.read())
        pending: dict[str, asyncio.Task[Any]] = {"a wait": asyncio.create_task(container.wait()), "a run": run}
        if context.target.logs_over_connection:
            pending["a follow"] = follow
        await eventually(lambda: _running(context, label), "the run runs")
        await context.target.restart()
        for what, task in pending.items():
            async with within(MARGIN + 10, f"{what} in a dead runtime"):
                with raises(ConnectionLostError, f"{what} in a dead runtime"):
                    await task
        equal(tuple(await client.list(labels=label)), (), "what the run left")
        await _whole_after(context, container)
        async with within(MARGIN, "the end of a follow that began before"):
            await lost(context, follow, COUNTED, "a follow that began before")


async def _whole_after(context: Context, container: Container) -> None:
    if not context.target.survives_restart:
        equal((await container.inspect()).status, asyncctr.ContainerStatus.EXITED)
        return
    reader = asyncio.create_task(container.logs().read())
    status = await container.wait()
    equal(status.code, 5, "the exit code of the container that lived on")
    equal((await reader).stdout, COUNTED, "the followed log of the container that lived on")
    equal((await container.logs(follow=False).read()).stdout, COUNTED, "the log of the container that lived on")
