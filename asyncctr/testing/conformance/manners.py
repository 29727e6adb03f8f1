"""Case 30: the loop is never blocked, and nothing is left open, running or unheard of."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import asyncctr
from asyncctr.core.config import ContainerConfig
from asyncctr.core.errors import ImageNotFoundError, RunTimeoutError, StartError
from asyncctr.core.network import NetworkConfig, NetworkMode
from asyncctr.testing.conformance.checks import equal, raises
from asyncctr.testing.conformance.measuring import open_descriptors
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.conformance.workloads import FOREVER, eventually, shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from asyncctr.testing.conformance.suite import Context

__all__: list[str] = []

# Audit events (docs.python.org, "Audit events table") of calls that would hold the loop up.
BLOCKING = frozenset(
    {"time.sleep", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "os.system", "os.fork"}
)


# Who may start a process on the loop: asyncio, which does it there itself, and what starts machines, as asyncio would.
STARTERS = frozenset({"asyncio.base_subprocess", "asyncctr.vm.supervisor"})


def _by_starter() -> bool:
    """Whether one of them is at it."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # the interpreter's own, for this purpose
    while frame is not None:
        if frame.f_globals.get("__name__") in STARTERS:
            return True
        frame = frame.f_back
    return False


class Complaints(logging.Handler):
    """All that Python and the loop complain of, and calls that block, while the block runs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []
        self._thread: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """One of asyncio's own warnings, such as that of a callback that took long."""
        self.found.append(f"log: {record.getMessage()}")

    def of_loop(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What nobody awaited or closed."""
        self.found.append(f"loop: {context.get('message')}: {context.get('exception')!r}")

    def unraisable(self, problem: sys.UnraisableHookArgs) -> None:
        """An exception where none can be raised."""
        self.found.append(f"unraisable: {problem.exc_value!r} in {problem.object!r}")

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """A call that Python reports; hooks cannot be taken back, so this one goes deaf."""
        if event in BLOCKING and threading.get_ident() == self._thread and not _by_starter():
            self.found.append(f"blocking call: {event} {arguments!r:.100}")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear everything in this block."""
        loop = asyncio.get_running_loop()
        log = logging.getLogger("asyncio")
        handler, hook, debug, slow = (
            loop.get_exception_handler(),
            sys.unraisablehook,
            loop.get_debug(),
            loop.slow_callback_duration,
        )
        loop.set_exception_handler(self.of_loop)
        sys.unraisablehook = self.unraisable
        sys.addaudithook(self.audit)
        self._thread = threading.get_ident()
        # In debug mode the loop also finds calls from wrong threads.
        loop.set_debug(True)
        loop.slow_callback_duration = 0.5
        log.addHandler(self)
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                yield
                gc.collect()
            self.found += [f"warning: {one.category.__name__}: {one.message}" for one in warned]
        finally:
            log.removeHandler(self)
            self._thread = None
            loop.set_debug(debug)
            loop.slow_callback_duration = slow
            sys.unraisablehook = hook
            loop.set_exception_handler(handler)


@case(30, "nothing left and nothing blocked", uvloop=True)
async def manners(context: Context) -> None:
    """Everyday things and things that go wrong, with Python's own checks turned on."""
    # Imports that come with the first use, and pooled connections, are not what this is about.
    await everyday(context)
    gc.collect()
    await asyncio.sleep(0.1)
    tasks, descriptors = asyncio.all_tasks(), open_descriptors()
    complaints = Complaints()
    with complaints.listening():
        async with asyncio.timeout(120):
            await everyday(context)
        # What was dropped is closed through the loop.
        gc.collect()
        await asyncio.sleep(0.1)
    equal(complaints.found, [], "complaints")

    async def settled() -> bool:
        return not (asyncio.all_tasks() - tasks) and open_descriptors() <= descriptors

    try:
        await eventually(settled, "all is closed", seconds=5)
    except AssertionError:
        left = [repr(task) for task in asyncio.all_tasks() - tasks]
        message = f"left: tasks {left}; {open_descriptors()} descriptors, {descriptors} before"
        raise AssertionError(message) from None


async def everyday(context: Context) -> None:
    """A client's life with its accidents."""
    async with asyncctr.connect(context.target.config) as client:
        equal((await client.run(shell(context, "echo a; echo b >&2; exit 2"))).exit_code, 2)
        with raises(StartError):
            await client.run(
                ContainerConfig(context.image, entrypoint=["/no/such"], network=NetworkConfig(mode=NetworkMode.NONE))
            )
        with raises(RunTimeoutError):
            await client.run(shell(context, FOREVER), timeout=0.2)
        with raises(ImageNotFoundError):
            await client.image("127.0.0.1:9/none:latest").digest()
        async with client.container(shell(context, f"yes | head -n 1000; {FOREVER}")) as container:
            waiting = asyncio.create_task(container.wait())
            await container.start()
            async for _ in container.logs():
                break
            async for _ in container.logs().lines():
                break
            stream = await container.logs()
            del stream
            reading = asyncio.create_task(container.logs().read())
            await asyncio.sleep(0.1)
            for task in (reading, waiting):
                task.cancel()
            await asyncio.wait({reading, waiting})
        run = asyncio.create_task(client.run(shell(context, FOREVER)))
        await asyncio.sleep(0.2)
        run.cancel()
        await asyncio.wait({run})
        await client.list()
        await client.health_check()


@case(30, "dropped in another thread")
async def dropped_elsewhere(context: Context) -> None:
    """A stream whose last reference goes in another thread is closed by the loop, not under its feet."""
    complaints = Complaints()
    async with context.client.container(shell(context, f"echo a; {FOREVER}")) as container:
        await container.start()
        before = open_descriptors()
        with complaints.listening():
            for _ in range(5):
                box = [await container.logs()]
                await anext(box[0])
                await asyncio.to_thread(box.clear)
            await asyncio.sleep(0.1)
        equal(complaints.found, [], "complaints")

        async def settled() -> bool:
            return open_descriptors() <= before + 1

        await eventually(settled, "dropped streams are closed", seconds=5)
