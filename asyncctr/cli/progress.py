"""What a pull shows on standard error: bars on a terminal with rich, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asyncctr.cli.terminal import console, note, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from asyncctr.core.images import Progress, ProgressCallback

__all__ = ["pull_progress"]

# Not worth a line of their own: each layer goes through all of them.
_PASSING = ("pulling fs layer", "waiting", "verifying checksum", "download complete", "downloading", "extracting")
_DONE = ("pull complete", "already exists")
_MIB = 1 << 20
_QUARTERS = 4
# A layer smaller than this is there before anyone has read about its quarters.
_LARGE = 8 * _MIB


@contextmanager
def pull_progress(image: str) -> Iterator[ProgressCallback]:
    """Tell of one pull."""
    began = time.monotonic()
    terminal = console(stderr=True)
    note(f"pulling {image}")
    if terminal is None:
        yield _Lines()
    else:
        from rich.progress import BarColumn, TextColumn  # noqa: PLC0415  # an extra, and slow to import
        from rich.progress import Progress as RichProgress  # noqa: PLC0415

        columns = (
            TextColumn("  {task.fields[layer]:<12}", style="cyan", markup=False),
            TextColumn("{task.description:<18}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[size]}", style="dim", markup=False),
        )
        # Whatever the container prints later is none of its business.
        bars = RichProgress(*columns, console=terminal, transient=True, redirect_stdout=False, redirect_stderr=False)
        with bars:
            yield _Bars(bars)
    note(f"pulled {image} in {time.monotonic() - began:.1f} s")


def _is_layer(progress: Progress) -> bool:
    # The first line of Docker's answer has the tag where the others have a layer's id.
    return bool(progress.id) and not progress.action.lower().startswith("pulling from")


class _Lines:
    """A line when a layer is done, and at each quarter of a large one."""

    def __init__(self) -> None:
        self._actions: dict[str, str] = {}
        self._quarters: dict[str, int] = {}

    def __call__(self, progress: Progress, /) -> None:
        if not _is_layer(progress):
            return
        action = progress.action.lower()
        if action == "downloading" and progress.total and progress.total >= _LARGE and progress.current is not None:
            quarter = min(_QUARTERS, _QUARTERS * progress.current // progress.total)
            if quarter > self._quarters.get(progress.id, 0):
                self._quarters[progress.id] = quarter
                note(f"{progress.id}: {100 * quarter // _QUARTERS}% of {progress.total / _MIB:.0f} MiB")
        if action != self._actions.get(progress.id) and action not in _PASSING:
            note(f"{progress.id}: {action}")
        self._actions[progress.id] = action


class _Bars:
    """A bar for each layer."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, progress: Progress, /) -> None:
        if not _is_layer(progress):
            return
        if progress.id not in self._tasks:
            self._tasks[progress.id] = self._bars.add_task("", total=None, layer=one_line(progress.id)[:12], size="")
        task = self._tasks[progress.id]
        description = one_line(progress.action)
        if progress.total:
            current = progress.current or 0
            size = f"{current / _MIB:.1f}/{progress.total / _MIB:.1f} MiB"
            self._bars.update(task, description=description, completed=current, total=progress.total, size=size)
        elif progress.action.lower() in _DONE:
            self._bars.update(task, description=description, completed=1, total=1, size="")
        else:
            self._bars.update(task, description=description)
