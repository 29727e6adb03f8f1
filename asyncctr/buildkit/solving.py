"""One build in a daemon: its session, what it tells, and its end, however it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from asyncctr.buildkit.proto.control_pb2 import StatusRequest
from asyncctr.buildkit.proto.services import Control
from asyncctr.core.errors import ConnectionLostError
from asyncctr.transport.cleanup import Janitor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncctr.buildkit.channel import BuildkitChannel
    from asyncctr.buildkit.progress import BuildProgress
    from asyncctr.buildkit.proto.control_pb2 import SolveRequest
    from asyncctr.buildkit.session import Session

__all__ = ["Solving"]

# Seconds that the story of a build which is over may take to its end, and that of one which failed before it had begun.
_STORY = 5.0
_STORY_OF_NOTHING = 0.2
_END = 5.0


class Solving:
    """Requests in one session, one after the other. A context manager, which ends the session.

    Args:
        channel: to the daemon.
        session: served meanwhile.
        failures: what has gone wrong on this side, of which the daemon only knows the consequences.
    """

    def __init__(self, channel: BuildkitChannel, session: Session, failures: Sequence[Exception]) -> None:
        self._channel = channel
        self._session = session
        self._serving: asyncio.Task[None] | None = None
        self._failures = failures

    async def __aenter__(self) -> Self:
        ready = asyncio.Event()
        self._serving = asyncio.create_task(self._session.serve(ready), name="asyncctr build session")
        opening = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait({self._serving, opening}, return_when=asyncio.FIRST_COMPLETED)
            if self._serving.done():
                self._serving.result()
        except BaseException:  # a cancellation, too
            await self._end(self._serving)
            raise
        finally:
            opening.cancel()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._serving is not None:
            await self._end(self._serving)

    async def solve(self, request: SolveRequest, progress: BuildProgress | None) -> Mapping[str, str]:
        """Have the daemon do it; what its exporter said of the result.

        Raises:
            GRPCError: the daemon's own status: the build failed.
            ConnectionLostError: the daemon, or its connection for the session, has gone.
            Exception: what went wrong on this side, or what ``progress`` raised.
        """
        if self._serving is None:
            msg = "solve outside of the context manager"
            raise RuntimeError(msg)
        solving = asyncio.create_task(self._channel.call(Control.Solve, request), name="asyncctr build")
        watching = asyncio.create_task(self._watch(request.ref, progress), name="asyncctr build status")
        try:
            while not solving.done():
                pending = {task for task in (solving, watching, self._serving) if not task.done()}
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if watching.done():
                    watching.result()
                if self._serving.done() and not solving.done():
                    # The daemon would go on without it, and wait for what it asked for.
                    self._serving.result()
            await self._story(solving, watching, progress)
            try:
                return solving.result().exporter_response
            except GRPCError as error:
                if error.status is Status.CANCELLED and self._serving.done():
                    self._serving.result()
                raise
        except (GRPCError, ConnectionLostError) as error:
            if self._failures:
                raise self._failures[0] from error
            raise
        finally:
            await self._end(solving, watching)

    async def _watch(self, ref: str, progress: BuildProgress | None) -> None:
        try:
            async with self._channel.stream(Control.Status, Cardinality.UNARY_STREAM) as stream:
                await stream.send_message(StatusRequest(ref=ref), end=True)
                while (status := await stream.recv_message()) is not None:
                    if progress is not None:
                        progress.feed(status)
        except GRPCError:
            # There was no such build, because it failed at once; that one tells why.
            return

    @staticmethod
    async def _story(
        solving: asyncio.Task[object], watching: asyncio.Task[None], progress: BuildProgress | None
    ) -> None:
        """Wait for the rest of what the daemon tells of a build that is over."""
        nothing = solving.exception() is not None and (progress is None or not progress.begun)
        await asyncio.wait({watching}, timeout=_STORY_OF_NOTHING if nothing else _STORY)
        if watching.done():
            watching.result()

    @staticmethod
    async def _end(*tasks: asyncio.Task[object]) -> None:
        """End tasks and wait for them, so that nothing of theirs is left; a cancellation waits for that, too."""
        for task in tasks:
            task.cancel()

        async def ended() -> None:
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    # Nobody asks for it any more.
                    task.exception()

        held = await Janitor(_END).finish(ended(), "end a build")
        if held is not None:
            raise held
