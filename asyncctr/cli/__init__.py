"""The ``asyncctr`` command: ``doctor``, ``run``, ``ps``, ``logs`` and ``reap``, over the same client that programs use."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and tell the exit code.

    Args:
        argv: the arguments; ``None`` for the process's own.
    """
    handler = signal.getsignal(signal.SIGINT)
    ours = handler is signal.default_int_handler
    if ours:
        # Nothing has begun that would need an end: a Ctrl-C while the rest is imported is no traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from asyncctr.cli.app import main as command  # noqa: PLC0415

    if ours:
        signal.signal(signal.SIGINT, handler)
    return command(argv)
