"""How a case is run: on an open client, watched for a blocked loop, and checked for what it leaves."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import traceback
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncctr
from asyncctr.testing.conformance.suite import Context, profile_from_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncctr.testing.conformance.suite import Case, Profile, Target

__all__ = ["LoopBlockedError", "run", "watched_loop"]

BLOCKED = 1.0
"""Seconds after which a callback counts as blocking. Above what a busy two-core machine takes from a process at times."""


class LoopBlockedError(AssertionError):
    """Something blocked the event loop."""


@contextmanager
def watched_loop(limit: float = BLOCKED) -> Iterator[None]:
    """Fail when the running loop does not turn for ``limit`` seconds; the error has the stack that held it up."""
    loop = asyncio.get_running_loop()
    loop_thread = threading.get_ident()
    stop = threading.Event()
    found: list[str] = []
    beat = [time.monotonic()]

    def tick() -> None:
        beat[0] = time.monotonic()
        if not stop.is_set():
            handle[0] = loop.call_later(limit / 10, tick)

    handle = [loop.call_soon(tick)]

    def watch() -> None:
        while not stop.wait(limit / 4):
            if time.monotonic() - beat[0] > limit and not found:
                frame = sys._current_frames().get(loop_thread)  # noqa: SLF001  # the interpreter's own, for this purpose
                # A loop that waits in select is idle, whatever the clock says (a suspended machine).
                if frame is not None and frame.f_code.co_name not in ("select", "poll", "_run_once", "run_forever"):
                    found.append("".join(traceback.format_stack(frame)))

    thread = threading.Thread(target=watch, name="asyncctr loop watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        handle[0].cancel()
        thread.join()
    if found:
        message = f"the event loop did not turn for {limit:g} s:\n{found[0]}"
        raise LoopBlockedError(message)


async def run(case: Case, target: Target, profile: Profile | None = None) -> None:
    """Run one case on its target. Afterwards nothing with this SDK's labels may be left in the runtime."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with watched_loop():
            async with asyncctr.connect(target.config) as client:
                await case.function(
                    Context(target=target, client=client, profile=profile or profile_from_environment())
                )
        # Unclosed transports and sockets complain when they are collected; that is here, not in a later case.
        gc.collect()
    left = await target.leftovers()
    assert not left, f"case {case} left {left} in {target.name}"  # noqa: S101  # this is a test suite
