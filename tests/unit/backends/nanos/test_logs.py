"""The last lines of a console whose beginning is taken away while it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncctr.backends.nanos.logs import ConsoleStream
from asyncctr.transport.logfile import LogFiles, follow_files
from asyncctr.transport.logspace import enforce_limit

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_what_was_printed_later_is_not_cut_with_what_was_there(directory: Path) -> None:
    files = LogFiles.create(directory, tty=True)
    text = b"".join(b"line %d\n" % number for number in range(3_000))
    with open(files.stdout, "wb") as file:  # noqa: ASYNC230, PTH123  # of a test's
        file.write(text)
    console = await follow_files(files, follow=False)
    dropped = await enforce_limit(files, 16 << 10)
    # All that was there when it was asked for is gone.
    async with ConsoleStream(console, tail=0, present=dropped - 10) as stream:
        assert b"".join([entry.data async for entry in stream]) == text[dropped:]
        assert stream.lost == dropped
