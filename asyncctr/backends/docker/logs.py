"""The durable log as a stream: from the first byte, whole, and never ended by a connection that broke."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, ClassVar

import attrs

from asyncctr.backends.docker.errors import BACKEND
from asyncctr.backends.docker.exits import describe, open_exit_wait, wait_for_start
from asyncctr.backends.docker.growing import GrowingLog
from asyncctr.backends.docker.inspect import parse_time
from asyncctr.backends.docker.multiplex import (
    SPLIT,
    ChunkDemuxer,
    EngineReadError,
    Mender,
    RecordDemuxer,
    pieces,
    stream_name,
)
from asyncctr.core.errors import (
    ConflictError,
    ConnectionLostError,
    ContainerNotFoundError,
    OperationTimeoutError,
    UnsupportedError,
)
from asyncctr.core.logs import LogEntry, LogStream

if TYPE_CHECKING:
    from asyncctr.backends.docker.api import DockerApi, Opening
    from asyncctr.core.logs import StreamName
    from asyncctr.transport.http1 import HttpStream

__all__ = ["DockerLogStream", "LogQuery", "open_logs"]

# How many records of the log's end are compared with what a follow delivered, before the whole log is read.
_TAILS = (16, 1_024)
# Seconds an engine may take between the end of a follow and the exit that caused it.
_EXIT_GRACE = 10.0
# Seconds between readings of a log of Podman's that grows, and how many times as long as a reading took.
_PODMAN_PACE = 0.1
_PODMAN_REST = 2
# The end of a terminal's output that is looked for when a log was not followed from its beginning.
_TTY_END = 4_096
# How often in a row an engine may fail to read a log, and seconds between.
_FAILURES = 20
_FAILURE_PAUSE = 0.05
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)


@attrs.frozen(kw_only=True)
class LogQuery:
    """What is wanted of a log, and what was found out about it."""

    follow: bool
    stdout: bool
    stderr: bool
    since: datetime | None
    tail: int | None
    timestamps: bool
    tty: bool
    is_podman: bool = False
    mends: bool = False

    def params(self, *, follow: bool, timestamps: bool, tail: int | None) -> dict[str, str | int | bool]:
        """The query parameters of ``GET /containers/{id}/logs``."""
        params: dict[str, str | int | bool] = {"stdout": self.stdout, "stderr": self.stderr}
        if follow:
            params["follow"] = True
        if timestamps:
            params["timestamps"] = True
        if self.since is not None:
            # Not timestamp(): a float has too few digits.
            since = self.since - _EPOCH
            params["since"] = f"{since // _SECOND}.{since % _SECOND // _MICROSECOND:06d}"
        if tail is not None:
            params["tail"] = tail
        return params


async def open_logs(api: DockerApi, container_id: str, query: LogQuery, document: dict[str, object]) -> DockerLogStream:
    """Open the log of a container whose inspect document is given. Returns once the reader is registered."""
    status = _status(document)
    if query.tty and query.timestamps:
        message = "logs.timestamps: the log of a container with a terminal has no record boundaries to put them at"
        raise UnsupportedError(message, field="logs.timestamps", backend=BACKEND, resource=container_id)
    kind: type[DockerLogStream] = TtyLogStream if query.tty else PodmanLogStream if query.is_podman else DockerLogStream
    stream = kind(api, container_id, query, following=query.follow and status not in ("exited", "dead", "stopped"))
    if status not in ("created", "configured", "initialized") or not query.follow:
        await stream.begin()
    return stream


def _status(document: dict[str, object]) -> str:
    state = document.get("State")
    return str(state.get("Status", "")) if isinstance(state, dict) else ""


class DockerLogStream(LogStream):
    """One read of a container's log.

    A finished container's log is one response, whose chunked framing tells its end. Following one that runs is done with
    timestamps, so that the last delivered record can be found again: engines of the 20.10 line end a follow without an
    unterminated last line, and what is missing is then read from the log itself.
    """

    # Whether a follow asks for the times of records.
    _timed: ClassVar[bool] = True

    def __init__(self, api: DockerApi, container_id: str, query: LogQuery, *, following: bool) -> None:
        super().__init__()
        # Engines drop rotated records without a word.
        self.lost = None
        self._api = api
        self._id = container_id
        self._query = query
        self._following = following
        self._opening: Opening | None = None
        self._stream: HttpStream | None = None
        self._ready: deque[LogEntry] = deque()
        # Bytes delivered of each stream, and those of the present response that are to be left out.
        self._taken: dict[StreamName, int] = {"stdout": 0, "stderr": 0}
        self._skip: dict[StreamName, int] = {"stdout": 0, "stderr": 0}
        # Records by their hashes: the last that were delivered and, with tail, the last before the follow began.
        self._recent: deque[int] = deque(maxlen=max(_TAILS))
        self._anchor: list[int] = []
        # Failures of the engine to read its log since the last progress, and how much had been delivered then.
        self._failures = 0
        self._taken_at_failure = -1
        self._mender = Mender() if query.mends else None
        # Podman's log is read again as it grows, no sooner than at a time of the loop's clock.
        self._growing = GrowingLog(tty=query.tty)
        self._reading: HttpStream | None = None
        self._began = 0.0
        self._next = 0.0
        self._prepare(timed=query.timestamps)

    def _prepare(self, *, timed: bool) -> None:
        """For the next response: with or without times in front of its records."""
        self._records = timed
        self._chunks = ChunkDemuxer(self._mender)
        self._demuxer = RecordDemuxer()

    def _release(self) -> None:
        if self._opening is not None:
            self._opening.pending.close()
        for stream in (self._stream, self._reading):
            if stream is not None:
                stream.close()

    async def begin(self) -> None:
        """Ask for the log."""
        timed = self._query.timestamps or (self._following and self._timed)
        if self._following and self._timed and self._query.tail is not None:
            self._anchor = [hash(record) for record in await self._read_tail(_TAILS[0])]
        await self._request(follow=self._following, timed=timed, tail=self._query.tail)

    async def _request(self, *, follow: bool, timed: bool, tail: int | None) -> None:
        self._prepare(timed=timed)
        self._stream = await self._open(self._query.params(follow=follow, timestamps=timed, tail=tail))

    async def _open(self, params: dict[str, str | int | bool]) -> HttpStream:
        try:
            return await self._api.stream(
                "GET", f"/containers/{self._id}/logs", params=params, kind="container", resource=self._id
            )
        except ConflictError as error:
            if "marked for removal" not in error.message:
                raise
            message = f"container {self._id[:12]} was removed"
            raise ContainerNotFoundError(message, backend=BACKEND, resource=self._id, status=error.status) from error

    async def _receive(self) -> LogEntry | None:
        while not self._ready:
            if self._opening is not None:
                self._stream = await self._api.opened(self._opening, kind="container", patient=True)
                self._opening = None
            if self._stream is None:
                if not self._following:
                    return None
                await wait_for_start(self._api, self._id)
                # All of it came after this stream was asked for.
                self._query = attrs.evolve(self._query, tail=None)
                await self.begin()
                continue
            if self._following and self._query.is_podman:
                if await self._grow(self._stream):
                    continue
            elif data := await self._stream.receive():
                try:
                    self._feed(data)
                except EngineReadError as error:
                    await self._start_over(error)
                continue
            else:
                self._chunks.finish()
                self._demuxer.finish()
            self._stream.close()
            self._stream = None
            if self._following:
                await self._confirm_exit()
                self._following = False
                await self._catch_up()
        return self._ready.popleft()

    async def _start_over(self, error: EngineReadError) -> None:
        """Ask again for a log that the engine failed to read in the middle, and leave out what was delivered.

        The ``local`` driver of Docker 20.10 takes a record that is just being written for one of another length; a moment
        later it is whole.
        """
        taken = sum(self._taken.values())
        self._failures = self._failures + 1 if taken == self._taken_at_failure else 1
        self._taken_at_failure = taken
        if not self._following or self._query.tail is not None or self._failures > _FAILURES:
            raise error
        if self._stream is not None:
            self._stream.close()
        await asyncio.sleep(_FAILURE_PAUSE)
        self._skip = dict(self._taken)
        if self._mender is not None:
            self._mender = Mender()
        await self._request(follow=True, timed=self._query.timestamps or self._timed, tail=None)

    # --- following Podman ---

    async def _grow(self, bell: HttpStream) -> bool:
        """A step of following Podman, whose follow only tells that the log has grown. Whether it goes on.

        What the follow gives is not the log: where its reader comes to the end of the file inside a record, that is given as a
        line or left out, and the rest is left out (nxadm/tail, tailFileSync); once the container has exited, so are lines at
        random (sendLine: a select between sending a line and the stop). A reading without follow is right but for its end.
        """
        if self._reading is None:
            return await self._begin_reading(bell)
        data = await self._reading.receive()
        records = self._growing.feed(data) if data else self._growing.end()
        if self._growing.rotated:
            self._skip, self._taken = {"stdout": 0, "stderr": 0}, {"stdout": 0, "stderr": 0}
        if self._query.timestamps:
            self._deliver(records)
        else:
            for kind, group in groupby(records, itemgetter(0)):
                self._emit(stream_name(kind), b"".join(record for _, record in group), None)
        if not data:
            self._reading.close()
            self._reading = None
            now = asyncio.get_running_loop().time()
            self._next = now + max(_PODMAN_PACE, _PODMAN_REST * (now - self._began))
        return True

    async def _begin_reading(self, bell: HttpStream) -> bool:
        loop = asyncio.get_running_loop()
        if self._growing.waits:
            try:
                async with asyncio.timeout_at(self._next):
                    while await bell.receive():
                        pass
            except TimeoutError:
                # It goes on.
                pass
            else:
                return False
        elif await bell.receive():
            self._growing.waits = True
            return True
        else:
            return False
        try:
            document = await describe(self._api, self._id)
            if _status(document) not in ("running", "paused", "stopping"):
                # Its log is whole by now; some follows of Podman's never end.
                return False
            self._began = loop.time()
            params = self._query.params(follow=False, timestamps=self._query.timestamps, tail=None)
            self._reading = await self._open(params)
        except OperationTimeoutError:
            # Following outlasts an engine that is silent for a while.
            self._next = loop.time() + _PODMAN_PACE
        self._skip = dict(self._taken)
        self._growing.begin()
        return True

    # --- delivery ---

    def _feed(self, data: bytes) -> None:
        if self._records:
            if found := self._demuxer.records(data):
                self._recent.extend(map(hash, found[-max(_TAILS) :]))
                self._deliver(found)
        else:
            for name, chunk in self._chunks.feed(data):
                self._emit(name, chunk, None)

    def _emit(self, name: StreamName, data: bytes, time: datetime | None) -> None:
        if skip := self._skip[name]:
            self._skip[name] -= min(skip, len(data))
            data = data[skip:]
        if data:
            self._taken[name] += len(data)
            self._ready.extend(LogEntry(name, piece, time) for piece in pieces(data))

    def _deliver(self, records: list[tuple[int, bytes]]) -> None:
        """Queue records, each of which begins with its time and a space."""
        mender = self._mender
        if self._query.timestamps:
            for kind, record in records:
                time, _, payload = record.partition(b" ")
                stamp = parse_time(time.decode("ascii", errors="replace"))
                for piece in (payload,) if mender is None else mender.mend(kind, payload):
                    self._emit(stream_name(kind), piece, stamp)
            return
        current = records[0][0]
        parts: list[bytes] = []
        for kind, record in records:
            if kind != current:
                self._emit(stream_name(current), b"".join(parts), None)
                current, parts = kind, []
            payload = record[record.find(b" ") + 1 :]
            if mender is None or not (mender.busy or len(payload) == SPLIT):
                parts.append(payload)
            else:
                parts += mender.mend(kind, payload)
        self._emit(stream_name(current), b"".join(parts), None)

    # --- what a follow leaves out ---

    async def _confirm_exit(self) -> None:
        """After a follow has ended: see that the container has."""
        try:
            wait = await open_exit_wait(self._api, self._id, "not-running")
            try:
                async with asyncio.timeout(_EXIT_GRACE):
                    await wait.code()
            finally:
                wait.close()
        except TimeoutError as error:
            message = "the engine ended a log while its container went on"
            raise ConnectionLostError(message, backend=BACKEND, resource=self._id) from error
        # A removal completes waits as well.
        await describe(self._api, self._id)

    async def _catch_up(self) -> None:
        """Deliver what the log has beyond what the follow gave: from its last records, or else from the whole of it."""
        for tail in _TAILS:
            records = await self._read_tail(tail)
            position = _join(list(self._recent) or self._anchor, list(map(hash, records)), whole=len(records) < tail)
            if position is not None:
                if position < len(records):
                    self._deliver(records[position:])
                return
            if len(records) < tail:
                break
        if self._query.tail is None:
            await self._read_again()

    async def _read_tail(self, tail: int) -> list[tuple[int, bytes]]:
        stream = await self._open(self._query.params(follow=False, timestamps=True, tail=tail))
        demuxer = RecordDemuxer()
        records: list[tuple[int, bytes]] = []
        try:
            while data := await stream.receive():
                records += demuxer.records(data)
            demuxer.finish()
        finally:
            stream.close()
        return records

    async def _read_again(self) -> None:
        """Go on from the log's beginning, leaving out what was delivered."""
        self._skip, self._taken = self._taken, {"stdout": 0, "stderr": 0}
        if self._mender is not None:
            self._mender = Mender()
        await self._request(follow=False, timed=self._query.timestamps, tail=None)


def _join(recent: list[int], end: list[int], *, whole: bool) -> int | None:
    """Where in ``end``, the log's last records, goes on what ended with ``recent``; ``None`` when that is not certain.

    Args:
        recent: the last records that were delivered, in this order.
        end: the log's last records.
        whole: there are no others.
    """
    if not recent:
        return 0 if whole else None
    found: list[int] = []
    for position in range(len(end), 0, -1):
        if end[position - 1] != recent[-1]:
            continue
        size = min(position, len(recent))
        if end[position - size : position] == recent[-size:]:
            found.append(position)
            if len(found) > 1:
                # Like a run of equal lines of one moment.
                return None
    return found[0] if found else None


class PodmanLogStream(DockerLogStream):
    """One read of a log of Podman's.

    Its follow leaves out lines at the end, its times have no fractions to find a record by, its ``tail`` garbles lines that
    came in parts, and no head comes before the first of the output. So positions are counted in bytes, and ``tail`` is done here.
    """

    _timed = False

    async def begin(self) -> None:
        if self._query.tail is not None:
            await self._find_tail(self._query.tail)
        await super().begin()

    async def _request(self, *, follow: bool, timed: bool, tail: int | None) -> None:  # noqa: ARG002
        if not follow:
            await super()._request(follow=follow, timed=timed, tail=None)
            return
        self._prepare(timed=timed)
        self._opening = await self._api.open(
            "GET",
            f"/containers/{self._id}/logs",
            params=self._query.params(follow=True, timestamps=timed, tail=None),
            resource=self._id,
        )

    async def _find_tail(self, count: int) -> None:
        """Have all but the last ``count`` lines of what is there now left out."""
        totals: dict[StreamName, int] = {"stdout": 0, "stderr": 0}
        partial: dict[StreamName, int] = {"stdout": 0, "stderr": 0}
        lines: deque[tuple[StreamName, int]] = deque(maxlen=count)
        demuxer = RecordDemuxer()
        stream = await self._open(self._query.params(follow=False, timestamps=False, tail=None))
        try:
            while data := await stream.receive():
                for kind, record in demuxer.records(data):
                    name = stream_name(kind)
                    totals[name] += len(record)
                    partial[name] += len(record)
                    if record.endswith(b"\n"):
                        lines.append((name, partial[name]))
                        partial[name] = 0
            demuxer.finish()
        finally:
            stream.close()
        lines.extend((name, size) for name, size in partial.items() if size)
        for name, size in lines:
            totals[name] -= size
        # What is left out counts as taken, for the second reading.
        self._skip, self._taken = totals, dict(totals)

    async def _catch_up(self) -> None:
        await self._read_again()


class TtyLogStream(DockerLogStream):
    """The log of a container with a terminal: bytes without frames, so that what was delivered is known by its length."""

    _timed = False

    def __init__(self, api: DockerApi, container_id: str, query: LogQuery, *, following: bool) -> None:
        super().__init__(api, container_id, query, following=following)
        self._end = b""

    async def begin(self) -> None:
        if self._following and self._query.is_podman and (count := self._query.tail) is not None:
            # Following is reading again there, so that the tail is what is not left out.
            whole = await self._read_whole()
            ends = [match.end() for match in re.finditer(rb"\n|[^\n]\Z", whole)]
            self._taken["stdout"] = ends[-count - 1] if count < len(ends) else 0
            self._query = attrs.evolve(self._query, tail=None)
        await super().begin()

    async def _request(self, *, follow: bool, timed: bool, tail: int | None) -> None:
        if follow and self._query.is_podman:
            self._opening = await self._api.open(
                "GET",
                f"/containers/{self._id}/logs",
                params=self._query.params(follow=True, timestamps=False, tail=tail),
                resource=self._id,
            )
            return
        await super()._request(follow=follow, timed=timed, tail=tail)

    def _feed(self, data: bytes) -> None:
        self._end = (self._end + data[-_TTY_END:])[-_TTY_END:]
        self._emit("stdout", data, None)

    async def _catch_up(self) -> None:
        if self._query.tail is None:
            await self._read_again()
            return
        whole = await self._read_whole()
        found = whole.rfind(self._end)
        if found >= 0 and (missing := bytes(whole[found + len(self._end) :])):
            self._feed(missing)

    async def _read_whole(self) -> bytearray:
        stream = await self._open(self._query.params(follow=False, timestamps=False, tail=None))
        whole = bytearray()
        try:
            while data := await stream.receive():
                whole += data
        finally:
            stream.close()
        return whole
