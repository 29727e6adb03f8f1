"""Ctrl-C, SIGTERM and SIGHUP: the first asks, the second insists, the third is the kernel's."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

__all__ = ["InterruptedBySignal", "Interrupts"]

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class InterruptedBySignal(Exception):  # noqa: N818  # a way to end, not a failure
    """A signal ended the command; ``exit_code`` is 128 and its number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interrupts:
    """Handles the signals within a ``with`` block on a running loop.

    Attributes:
        first: set by the first signal.
        second: set by the second one; from then on they do what they do without handlers.
        number: of the first; 0 before.
    """

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self.number = 0

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # nohup(1) and shells' background jobs have some ignored, and so they stay.
            if signal.getsignal(number) is not signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, self._handle, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _handle(self, number: int) -> None:
        if not self.number:
            self.number = number
            self.first.set()
            return
        self.second.set()
        for other in _SIGNALS:
            if asyncio.get_running_loop().remove_signal_handler(other):
                signal.signal(other, signal.SIG_DFL)

    async def guard(self, awaitable: Awaitable[T]) -> T:
        """The awaitable's result; cancelled by the first signal.

        Raises:
            InterruptedBySignal: it was, and has ended. What finished all the same gives its result.
        """
        task = asyncio.ensure_future(awaitable)
        first = asyncio.create_task(self.first.wait())
        try:
            await asyncio.wait({task, first}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        finally:
            first.cancel()
        if task.cancelled():
            raise InterruptedBySignal(self.number)
        return task.result()
