"""How text looks: with ``rich`` on a terminal, plain everywhere else."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from asyncctr.core.errors import AsyncctrError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

__all__ = ["Segment", "ago", "complain", "console", "discard_output", "note", "one_line", "print_line", "print_table"]

Segment = tuple[str, str]
"""Text, and its style in rich's words; an empty style for none."""

_SIZES = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


@functools.cache
def console(*, stderr: bool = False) -> Console | None:
    """A console for a terminal; ``None`` where the output is none, or rich is not installed. NO_COLOR takes its colours."""
    stream = _stream(stderr=stderr)
    if stream is None or not stream.isatty() or os.environ.get("TERM") == "dumb":
        return None
    if importlib.util.find_spec("rich") is None:
        return None
    from rich.console import Console  # noqa: PLC0415  # an extra, and slow to import

    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _stream(*, stderr: bool) -> TextIO | None:
    # Of the moment, so that tests can replace them; None where a parent closed them.
    return sys.stderr if stderr else sys.stdout


def one_line(text: str) -> str:
    """The text as one printable line: what a runtime or an image wrote must not move the cursor."""
    lines = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip()]
    joined = "".join(
        line if index == 0 else (" " if lines[index - 1].endswith((".", ":", ",", ";")) else "; ") + line
        for index, line in enumerate(lines)
    )
    return printable(joined)


def printable(text: str) -> str:
    """The text with control characters as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def print_line(*segments: Segment | str, stderr: bool = False) -> None:
    """Print one line of segments."""
    parts = [(part, "") if isinstance(part, str) else part for part in segments]
    terminal = console(stderr=stderr)
    if terminal is not None:
        from rich.text import Text  # noqa: PLC0415

        terminal.print(Text.assemble(*((text, style) for text, style in parts)))
        return
    stream = _stream(stderr=stderr)
    if stream is not None:
        line = "".join(text for text, _ in parts) + "\n"
        # Names may have what the terminal's encoding does not.
        encoding = stream.encoding or "utf-8"
        try:
            stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            if stderr:
                # There is nowhere left to tell it.
                return
            discard_output()
            raise AsyncctrError(f"cannot write the output: {error.strerror}") from error


def discard_output() -> None:
    """Have what is still buffered go nowhere: the interpreter would try to write it at its exit, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def complain(message: str) -> None:
    """One line on standard error: what went wrong."""
    print_line(("asyncctr: ", "bold red"), one_line(message), stderr=True)


def note(message: str) -> None:
    """One line on standard error: what goes on."""
    print_line(("asyncctr: ", "dim"), one_line(message), stderr=True)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Segment]]) -> None:
    """A table on standard output: fitted to a terminal's width, or in plain columns without any cut."""
    listed = [[(printable(text), style) for text, style in row] for row in rows]
    terminal = console()
    if terminal is None:
        table = [list(headers), *([text for text, _ in row] for row in listed)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for line in table:
            cells = (text.ljust(width) for text, width in zip(line, widths, strict=True))
            print_line("  ".join(cells).rstrip())
        return
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid: Any = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, header in enumerate(headers):
        # The id is what people copy: the other columns give way.
        grid.add_column(header, no_wrap=index == 0, overflow="fold")
    for row in listed:
        grid.add_row(*(Text(text, style) for text, style in row))
    terminal.print(grid, soft_wrap=False)


def ago(seconds: float) -> str:
    """A length of time in its largest unit: ``3 minutes``."""
    for length, name in _SIZES:
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {name}{'' if number == 1 else 's'}"
    return "a moment"
