"""``asyncctr logs``: what a container has printed, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncctr.cli.codes import BROKEN_PIPE, FAILURE
from asyncctr.cli.connecting import connected
from asyncctr.cli.containers import find
from asyncctr.cli.output import Output
from asyncctr.cli.terminal import complain

if TYPE_CHECKING:
    import argparse
    from datetime import datetime

    from asyncctr.cli.interrupts import Interrupts
    from asyncctr.client import Client

__all__ = ["logs"]


async def logs(args: argparse.Namespace, interrupts: Interrupts) -> int:
    """Print a container's output on the streams that it went to."""
    async with connected(args, interrupts) as client:
        output = Output()
        try:
            await interrupts.guard(_copy(client, args, output))
        finally:
            output.close()
    if isinstance(output.error, BrokenPipeError):
        return BROKEN_PIPE
    if output.error is not None:
        complain(f"cannot write the output: {output.error.strerror}")
        return FAILURE
    return 0


async def _copy(client: Client, args: argparse.Namespace, output: Output) -> None:
    container = await client.get((await find(client, args.container)).id)
    # A record may be a part of a line, and the time belongs in front of lines.
    begins = {"stdout": True, "stderr": True}
    async with container.logs(
        follow=args.follow, since=args.since, tail=args.tail, timestamps=args.timestamps
    ) as stream:
        async for entry in stream:
            if entry.time is not None and begins[entry.stream]:
                output.put(entry.stream, _stamp(entry.time))
            begins[entry.stream] = entry.data.endswith(b"\n")
            output.put(entry.stream, entry.data)
            await output.room()
            if output.broken.is_set():
                return
    await output.flush()


def _stamp(time: datetime) -> bytes:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z").encode() + b" "
