"""Progress, handed on no faster than people can read it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncctr.core.images import Progress, ProgressCallback

__all__ = ["ProgressThrottle"]

_INTERVAL: Final = 0.1


class ProgressThrottle:
    """Hands progress on: at most ten times a second per id, and the last of each. What the callback raises goes to the caller."""

    def __init__(self, callback: ProgressCallback | None) -> None:
        self._callback = callback
        self._sent: dict[str, tuple[str, float]] = {}
        self._held: dict[str, Progress] = {}

    def feed(self, progress: Progress) -> None:
        """One step."""
        if self._callback is None:
            return
        now = asyncio.get_running_loop().time()
        action, sent = self._sent.get(progress.id, ("", 0.0))
        if progress.id and progress.action == action and now - sent < _INTERVAL:
            self._held[progress.id] = progress
            return
        held = self._held.pop(progress.id, None)
        if held is not None and held.action != progress.action:
            # The last of an action is never left out, so that what was counted reaches its total.
            self._callback(held)
        self._sent[progress.id] = (progress.action, now)
        self._callback(progress)

    def finish(self) -> None:
        """Hand on what was held back."""
        held, self._held = self._held, {}
        for progress in held.values():
            if self._callback is not None:
                self._callback(progress)
