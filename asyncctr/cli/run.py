"""``asyncctr run``: one container, its output as it comes, its exit code."""

from __future__ import annotations

import asyncio
import functools
import re
from typing import TYPE_CHECKING, Protocol, TypeVar

from asyncctr.cli.arguments import container_config
from asyncctr.cli.codes import BROKEN_PIPE, NOT_EXECUTABLE, NOT_FOUND, RUN_FAILURE, TIMED_OUT
from asyncctr.cli.connecting import connected
from asyncctr.cli.output import Output
from asyncctr.cli.progress import pull_progress
from asyncctr.cli.stdin import pass_stdin
from asyncctr.cli.terminal import complain, note, print_line
from asyncctr.core.backend import SupportsLaunch, SupportsStdin
from asyncctr.core.errors import (
    AsyncctrError,
    ContainerNotFoundError,
    ImageNotFoundError,
    InvalidConfigError,
    InvalidStateError,
    StartError,
    UnsupportedError,
)
from asyncctr.core.images import PullPolicy
from asyncctr.transport.cleanup import Janitor

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from asyncctr.cli.interrupts import Interrupts
    from asyncctr.client import Client
    from asyncctr.core.backend import Backend, Launched
    from asyncctr.core.config import ContainerConfig
    from asyncctr.core.logs import LogStream
    from asyncctr.core.status import ContainerId, ExitStatus

__all__ = ["failure_code", "run"]

T = TypeVar("T")

GRACE = 10.0
"""Seconds from the stop signal to SIGKILL."""
CLEANUP = 20.0
"""Seconds that removing the container may take."""
LAST_OUTPUT = 2.0
"""Seconds that a slow reader has for the rest of the output of a container that was ended."""

_NO_COMMAND = re.compile(r"executable file .*not found|no such file or directory", re.IGNORECASE)
_NO_PERMISSION = re.compile(r"permission denied|is a directory|exec format error", re.IGNORECASE)


def failure_code(error: AsyncctrError) -> int:
    """The exit code for an error, as ``docker run`` chooses it."""
    if isinstance(error, StartError):
        if _NO_COMMAND.search(error.message):
            return NOT_FOUND
        if _NO_PERMISSION.search(error.message):
            return NOT_EXECUTABLE
    return RUN_FAILURE


async def run(args: argparse.Namespace, interrupts: Interrupts) -> int:
    """Run a container, and give its exit code."""
    for option in ("interactive", "timeout"):
        if args.detach and getattr(args, option):
            raise InvalidConfigError(f"--{option}: not with --detach, which does not stay to see to it", field=option)
    config = container_config(args)
    async with connected(args, interrupts) as client:
        if args.detach:
            container_id = await interrupts.guard(
                _with_image(client, config.image, args.pull, lambda: _start_detached(client, config))
            )
            print_line(container_id)
            return 0
        backend = client.backend
        if args.interactive and not isinstance(backend, SupportsStdin):
            raise UnsupportedError("--interactive: this runtime cannot be written to", field="stdin")
        output = Output()
        try:
            running = await interrupts.guard(
                _with_image(client, config.image, args.pull, lambda: _launch(client, config, output))
            )
            return await _attend(backend, running, output, interrupts, args.timeout, interactive=args.interactive)
        finally:
            output.close()


async def _with_image(client: Client, name: str, policy: str, operation: Callable[[], Awaitable[T]]) -> T:
    """Do what needs an image, which is pulled first where the policy says so; one that is here costs no call."""

    async def pull() -> None:
        with pull_progress(name) as on_progress:
            await client.image(name).pull(on_progress=on_progress)

    if policy == PullPolicy.ALWAYS:
        await pull()
        return await operation()
    try:
        return await operation()
    except ImageNotFoundError:
        if policy == PullPolicy.NEVER:
            raise
    await pull()
    return await operation()


async def _start_detached(client: Client, config: ContainerConfig) -> ContainerId:
    container = await client.create(config, detached=True, pull=PullPolicy.NEVER)
    try:
        await container.start()
    except BaseException:
        await _remove(client.backend, container.id)
        raise
    return container.id


# --- a container whose output goes to ours


class _Running(Protocol):
    """A started container whose output goes to an ``Output``."""

    @property
    def id(self) -> ContainerId: ...

    async def finish(self) -> ExitStatus:
        """How it ended, after all it printed was handed over."""
        ...

    async def aclose(self) -> None: ...


class _Attached:
    """By ``launch``, whose sink cannot wait: while the reader is behind, nothing is asked of the runtime."""

    def __init__(self, launched: Launched, output: Output) -> None:
        self._launched, self._output = launched, output

    @property
    def id(self) -> ContainerId:
        return self._launched.id

    async def finish(self) -> ExitStatus:
        while True:
            waiting = asyncio.ensure_future(self._launched.wait())
            self._output.on_full = functools.partial(_cancel, waiting)
            try:
                await asyncio.wait({waiting})
            finally:
                self._output.on_full = None
                waiting.cancel()
            if not waiting.cancelled():
                return waiting.result()
            await self._output.room()

    async def aclose(self) -> None:
        await self._launched.aclose()


class _Followed:
    """By the plain calls, for runtimes without ``launch``."""

    def __init__(self, backend: Backend, container_id: ContainerId, stream: LogStream, output: Output) -> None:
        self._backend, self.id, self._stream, self._output = backend, container_id, stream, output

    async def finish(self) -> ExitStatus:
        async with self._stream:
            async for entry in self._stream:
                self._output.put(entry.stream, entry.data)
                await self._output.room()
        return await self._backend.wait(self.id)

    async def aclose(self) -> None:
        await self._stream.aclose()


def _cancel(task: asyncio.Future[ExitStatus]) -> None:
    task.cancel()


async def _launch(client: Client, config: ContainerConfig, output: Output) -> _Running:
    backend = client.backend
    if isinstance(backend, SupportsLaunch):
        return _Attached(await backend.launch(config, output.put), output)
    container = await client.create(config, pull=PullPolicy.NEVER)
    try:
        stream = await container.logs()
        await container.start()
    except BaseException:
        await _remove(backend, container.id)
        raise
    return _Followed(backend, container.id, stream, output)


async def _attend(
    backend: Backend,
    running: _Running,
    output: Output,
    interrupts: Interrupts,
    seconds: float | None,
    *,
    interactive: bool,
) -> int:
    """Stay with a started container until it has ended, whatever ends it, and remove it."""
    finishing = asyncio.create_task(running.finish())
    others = [asyncio.create_task(interrupts.first.wait()), asyncio.create_task(output.broken.wait())]
    if interactive and isinstance(backend, SupportsStdin):
        feeding = asyncio.create_task(pass_stdin(backend, running.id))
    else:
        feeding = asyncio.create_task(asyncio.sleep(0))
    try:
        done, _ = await asyncio.wait({finishing, *others}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if finishing in done:
            status = finishing.result()
            flushing = asyncio.create_task(output.flush())
            await asyncio.wait({flushing, others[0]}, return_when=asyncio.FIRST_COMPLETED)
            flushing.cancel()
            code = interrupts.number and 128 + interrupts.number
            return code or _broken_code(output) or status.code
        if interrupts.number:
            await _stop(backend, running.id, interrupts)
            await _last_output(finishing, output)
            return 128 + interrupts.number
        if output.broken.is_set():
            return _broken_code(output)
        complain(f"the container ran longer than {seconds:g} s and was killed")
        await _kill(backend, running.id)
        await _last_output(finishing, output)
        return TIMED_OUT
    finally:
        for task in (finishing, feeding, *others):
            task.cancel()
        await asyncio.gather(finishing, feeding, *others, return_exceptions=True)
        await running.aclose()
        await _remove(backend, running.id)


def _broken_code(output: Output) -> int:
    if output.error is None:
        return 0
    if isinstance(output.error, BrokenPipeError):
        # What a program is expected to die of; `| head -1` is no failure to tell anybody of.
        return BROKEN_PIPE
    complain(f"cannot write the output: {output.error.strerror}")
    return RUN_FAILURE


async def _stop(backend: Backend, container_id: ContainerId, interrupts: Interrupts) -> None:
    """Stop it, with some grace that a second signal ends."""
    stopping = asyncio.create_task(backend.stop(container_id, grace=GRACE))
    second = asyncio.create_task(interrupts.second.wait())
    told = asyncio.get_running_loop().call_later(
        1.0, note, f"waiting up to {GRACE:g} s for the container to stop; Ctrl-C kills it"
    )
    try:
        await asyncio.wait({stopping, second}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            stopping.result()
        else:
            await _kill(backend, container_id)
    except ContainerNotFoundError:
        # Somebody removed it: as stopped as can be.
        return
    finally:
        told.cancel()
        stopping.cancel()
        second.cancel()
        await asyncio.gather(stopping, second, return_exceptions=True)


async def _kill(backend: Backend, container_id: ContainerId) -> None:
    try:
        await backend.kill(container_id)
    except (InvalidStateError, ContainerNotFoundError):
        # It has ended by itself.
        return


async def _last_output(finishing: asyncio.Task[ExitStatus], output: Output) -> None:
    """What an ended container printed last, as far as the reader takes it soon."""

    async def rest() -> None:
        await asyncio.wait({finishing})
        await output.flush()

    try:
        async with asyncio.timeout(LAST_OUTPUT):
            await rest()
    except TimeoutError:
        # The reader is stuck, which the one who ends the command need not wait for.
        return


async def _remove(backend: Backend, container_id: ContainerId) -> None:
    """Remove it in any case: neither a cancellation nor a silent runtime gets in between."""
    failures: list[AsyncctrError] = []

    async def remove() -> None:
        try:
            await backend.remove(container_id, force=True)
        except ContainerNotFoundError:
            # Somebody was faster.
            return
        except AsyncctrError as error:
            failures.append(error)

    held = await Janitor(CLEANUP).finish(remove(), f"remove {container_id[:12]}")
    if failures:
        complain(f"container {container_id[:12]} may still be there (`asyncctr reap` removes it): {failures[0]}")
    if held is not None:
        raise held
