"""Cases 16, 17 and 19: output arrives whole, ends when it should, and is not ended by silence."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs

import asyncctr
from asyncctr.core.errors import ContainerNotFoundError, OperationTimeoutError
from asyncctr.testing.conformance.checks import equal, raises, refusal, supported
from asyncctr.testing.conformance.machines import stalled_machine
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.conformance.workloads import FOREVER, PROMPT, eventually, exited, shell, together

if TYPE_CHECKING:
    from asyncctr.client import Container
    from asyncctr.core.logs import Output
    from asyncctr.testing.conformance.suite import Context

__all__: list[str] = []

KILLED = 128 + 9

NUMBERS = b"".join(b"%d\n" % number for number in range(1, 2001))
TAIL = "seq 1 2000; printf out-tail; { seq 1 2000; printf err-tail; } >&2"


def streams_of(context: Context, stdout: bytes, stderr: bytes) -> tuple[bytes, bytes]:
    """What arrives as the two streams, where ``stderr`` was printed after ``stdout``."""
    return (stdout, stderr) if context.client.capabilities.supports_separate_stderr else (stdout + stderr, b"")


def whole(context: Context, output: Output | asyncctr.RunResult, what: str = "the run") -> None:
    """Check the output of ``TAIL``."""
    out, err = streams_of(context, NUMBERS + b"out-tail", NUMBERS + b"err-tail")
    same(output.stdout, out, f"stdout of {what}")
    same(output.stderr, err, f"stderr of {what}")


def same(data: bytes, expected: bytes, what: str) -> None:
    """Check bytes, and say where they differ."""
    if data != expected:
        common = next((i for i, pair in enumerate(zip(data, expected, strict=False)) if pair[0] != pair[1]), len(data))
        around = data[max(0, common - 20) : common + 40]
        message = f"{what}: {len(data)} bytes instead of {len(expected)}; the first {common} are right, then {around!r}, end {data[-30:]!r}"
        raise AssertionError(message)


# -- 16


@case(16, "whole output of a run", uvloop=True)
async def run_tails(context: Context) -> None:
    """Every byte of runs that print and exit at once, the last line without its end."""

    async def once() -> None:
        result = await context.client.run(shell(context, TAIL), timeout=60)
        equal(result.exit_code, 0, "the exit code")
        whole(context, result)

    await together(context.profile.tails, once)


@case(16, "whole output of a follow", uvloop=True)
async def follow_tails(context: Context) -> None:
    """The same by ``logs``: a follow that began before the start, one begun after it, and one when all is over."""

    async def once() -> None:
        async with context.client.container(shell(context, TAIL)) as container:
            before = asyncio.create_task(container.logs().read())
            await asyncio.sleep(0)
            await container.start()
            after = asyncio.create_task(container.logs().read())
            async with asyncio.timeout(30):
                await container.wait()
                whole(context, await before, "a follow from before the start")
                whole(context, await after, "a follow from after the start")
                whole(context, await container.logs().read(), "a follow from after the end")
                whole(context, await container.logs(follow=False).read(), "the log")

    await together(context.profile.tails // 2, once)


LONG = 300_000


@case(16, "long lines and raw bytes")
async def long_lines(context: Context) -> None:
    """One line far longer than any runtime's record, without its end; with timestamps the same bytes."""
    script = f"head -c {LONG} /dev/zero | tr '\\0' x; head -c {LONG} /dev/zero >&2; printf '\\r\\n\\377' >&2"
    result = await context.client.run(shell(context, script), timeout=60)
    out, err = streams_of(context, b"x" * LONG, bytes(LONG) + b"\r\n\xff")
    same(result.stdout, out, "stdout of the run")
    same(result.stderr, err, "stderr of the run")
    async with context.client.container(shell(context, script)) as container:
        await container.start()
        forms: dict[str, dict[str, Any]] = {"": {}, " with timestamps": {"timestamps": True}}
        if not supported(context, "logs.timestamps"):
            del forms[" with timestamps"]
            await refusal(context, lambda: container.logs(timestamps=True).read(), "logs.timestamps")
        streams = {f"a follow{form}": container.logs(**options) for form, options in forms.items()}
        async with asyncio.timeout(30):
            outputs = dict(
                zip(streams, await asyncio.gather(*(stream.read() for stream in streams.values())), strict=True)
            )
            await container.wait()
            for form, options in forms.items():
                outputs[f"the log{form}"] = await container.logs(follow=False, **options).read()
        for what, output in outputs.items():
            same(output.stdout, out, f"stdout of {what}")
            same(output.stderr, err, f"stderr of {what}")


@case(16, "a part of the output")
async def part_of_output(context: Context) -> None:
    """One stream alone, the last lines, and what is newer than a moment; each is honoured or refused by its name."""
    script = "echo complaint >&2; sleep 0.5; echo one; echo two; sleep 4; echo three"
    async with asyncio.timeout(60), context.client.container(shell(context, script)) as container:
        await container.start()
        await exited(container)
        info = await container.inspect()
        apart, out, err = context.client.capabilities.supports_separate_stderr, b"one\ntwo\nthree\n", b"complaint\n"
        options: dict[str, Any]
        for options, stdout, stderr in (
            ({"stderr": False}, out if apart else err + out, b""),
            ({"stdout": False}, b"", err if apart else b""),
            ({"tail": 0}, b"", b""),
            ({"tail": 2, "stderr": False}, b"two\nthree\n", b""),
            ({"tail": 100}, *((out, err) if apart else (err + out, b""))),
            ({"since": (info.finished_at or datetime.now(UTC)) - timedelta(seconds=2)}, b"three\n", b""),
        ):
            fields = [f"logs.{name}" for name in options if name in ("tail", "since")]
            for follow in (False, True):
                read = container.logs(follow=follow, **options).read
                if supported(context, *fields):
                    output = await read()
                    equal((output.stdout, output.stderr), (stdout, stderr), f"the log with {follow=} and {options}")
                else:
                    await refusal(context, read, *fields)


# -- 17


async def ends_promptly(container: Container, task: asyncio.Task[Output], what: str) -> Output:
    try:
        async with asyncio.timeout(PROMPT):
            return await task
    except TimeoutError:
        message = f"{what}: the follow of {container.id[:12]} did not end within {PROMPT:g} s"
        raise AssertionError(message) from None


async def reading(container: Container) -> asyncio.Task[Output]:
    """A follow that is registered, being read."""
    stream = await container.logs()
    return asyncio.create_task(stream.read())


@case(17, "follow ends with the container")
async def follow_ends(context: Context) -> None:
    """Of a container that runs, has just exited, and exited long ago."""
    async with context.client.container(shell(context, "echo one; sleep 1; echo two")) as container:
        await container.start()
        task = await reading(container)
        async with asyncio.timeout(30):
            await container.wait()
        equal((await ends_promptly(container, task, "running")).stdout, b"one\ntwo\n")
        equal((await ends_promptly(container, await reading(container), "just exited")).stdout, b"one\ntwo\n")
        await asyncio.sleep(2)
        equal((await ends_promptly(container, await reading(container), "long exited")).stdout, b"one\ntwo\n")
    async with context.client.container(shell(context, f"echo out; {FOREVER}")) as container:
        task = await reading(container)
        await container.start()
        await eventually(lambda: printed(container), "the container prints")
        await container.kill()
        async with asyncio.timeout(30):
            equal((await container.wait()).code, KILLED)
        equal((await ends_promptly(container, task, "killed")).stdout, b"out\n")


async def printed(container: Container) -> bool:
    return bool((await container.logs(follow=False).read()).stdout)


@case(17, "follow and wait end with removal")
async def follow_removed(context: Context) -> None:
    """Removal gives the rest and the status if the exit was seen, else ``ContainerNotFoundError``; soon, either way."""
    for started in (True, False):
        container = await context.client.create(shell(context, f"echo begun; {FOREVER}"))
        try:
            if started:
                await container.start()
            task = await reading(container)
            wait = asyncio.create_task(container.wait())
            await asyncio.sleep(0.5)
            if started:
                await eventually(lambda: printed(container), "the container prints")  # noqa: B023  # awaited here
            equal(
                (task.done(), wait.done()),
                (False, False),
                "whether a follow and a wait have ended while nothing happened",
            )
        finally:
            await container.remove(force=True)
        what = "removed while running" if started else "removed before its start"
        try:
            output = await ends_promptly(container, task, what)
        except ContainerNotFoundError:
            pass
        else:
            equal(
                started, True, "whether a follow that ended as if it had finished was of a container that was started"
            )
            equal(output.stdout, b"begun\n")
        try:
            async with asyncio.timeout(PROMPT):
                status = await wait
        except ContainerNotFoundError:
            pass
        else:
            equal(started, True, f"whether a wait that gave {status} was for a container that was started")
            equal(status.code, KILLED, f"the code of what was removed by force, in {status},")


# -- 19


SILENCE = 5


@case(19, "silence is not death")
async def silence(context: Context) -> None:
    """Streams that are silent for several times ``op_timeout`` go on."""
    config = attrs.evolve(context.target.config, op_timeout=1.5)
    async with asyncctr.connect(config) as client:
        script = f"echo one; sleep {SILENCE}; echo two; exit 3"
        running = asyncio.create_task(client.run(shell(context, script)))
        async with asyncio.timeout(60), client.container(shell(context, script)) as container:
            await container.start()
            task = await reading(container)
            equal((await container.wait()).code, 3)
            equal((await task).stdout, b"one\ntwo\n", "a follow's output")
            result = await running
        equal((result.exit_code, result.stdout), (3, b"one\ntwo\n"), "a run's code and output")


@case(19, "a follow from the start of silence")
async def silent_start(context: Context) -> None:
    """Following what has printed nothing for longer than ``op_timeout``, and what is printed from now on (``tail=0``)."""
    config = attrs.evolve(context.target.config, op_timeout=1.5)
    async with asyncctr.connect(config) as client:
        script = "sleep 4; echo one; sleep 4; printf two"
        async with asyncio.timeout(60), client.container(shell(context, script)) as container:
            await container.start()
            task = await reading(container)
            await eventually(lambda: printed(container), "the container prints")
            late = await container.logs(tail=0)
            last = await container.logs(tail=1)
            equal((await late.read()).stdout, b"two", "a follow with tail=0")
            equal((await last.read()).stdout, b"one\ntwo", "a follow with tail=1")
            equal((await task).stdout, b"one\ntwo", "a follow from the silent start")


@case(19, "a stalled runtime is noticed")
async def stalled(context: Context) -> None:
    """Calls to a runtime that stops answering end by ``op_timeout``; when it comes back, streams have lost nothing."""
    if not context.target.has_daemon:
        await stalled_machine(context)
        return
    async with context.target.proxied() as (proxy, config):
        config = attrs.evolve(config, op_timeout=1.5, cleanup_timeout=5.0)  # noqa: PLW2901  # the same, less patient
        script = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done; exit 3"
        async with asyncctr.connect(config) as client, client.container(shell(context, script)) as container:
            await container.start()
            task = await reading(container)
            wait = asyncio.create_task(container.wait())
            await asyncio.sleep(0.5)
            proxy.stall()
            try:
                async with asyncio.timeout(20):
                    with raises(OperationTimeoutError, "a call to a stalled runtime"):
                        await container.inspect()
                await asyncio.sleep(3)
            finally:
                proxy.resume()
            async with asyncio.timeout(30):
                equal((await wait).code, 3)
                equal((await task).stdout, b"1\n2\n3\n4\n5\n6\n7\n8\n", "the output of a follow that was stalled")
