"""Docker's multiplexed output (Engine API, ContainerAttach "Stream format"): frames of an 8-byte header and a payload."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from asyncctr.backends.docker.errors import BACKEND
from asyncctr.core.errors import AsyncctrError, ConnectionLostError
from asyncctr.core.logs import MAX_ENTRY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncctr.core.logs import StreamName

__all__ = ["SPLIT", "ChunkDemuxer", "EngineReadError", "Mender", "RecordDemuxer", "pieces", "stream_name"]

_HEADER = Struct(">BxxxL")
_unpack = _HEADER.unpack_from
_NAMES: tuple[StreamName, ...] = ("stdout", "stdout", "stderr")
_STDERR = 2
_SYSTEM_ERROR = 3
_RECORD_LIMIT = 64 << 20
# Bytes at which Docker splits a line (daemon/logger/copier.go, defaultBufSize).
SPLIT = 16 << 10


class EngineReadError(AsyncctrError):
    """The engine could not read its own log, and said so in the middle of it."""


def _bad_frame(kind: int, size: int) -> ConnectionLostError:
    return ConnectionLostError(
        f"the engine's output stream is garbled: a frame of type {kind} with {size} bytes", backend=BACKEND
    )


def _check(kind: int, payload: bytes) -> None:
    if kind == _SYSTEM_ERROR:
        # The daemon's own failure to read a log, sent inside a successful response.
        raise EngineReadError(
            f"the engine failed to read the output: {payload.decode(errors='replace').strip()}", backend=BACKEND
        )
    if kind > _SYSTEM_ERROR:
        raise _bad_frame(kind, len(payload))


def pieces(data: bytes) -> Iterator[bytes]:
    """``data`` in parts that a ``LogEntry`` may carry."""
    if len(data) <= MAX_ENTRY:
        yield data
    else:
        for start in range(0, len(data), MAX_ENTRY):
            yield data[start : start + MAX_ENTRY]


class ChunkDemuxer:
    """Frames to as few chunks as possible: neighbouring frames of one stream are joined.

    Args:
        mender: what each frame goes through, if it needs it.
    """

    __slots__ = ("_mender", "_rest")

    def __init__(self, mender: Mender | None = None) -> None:
        self._rest = b""
        self._mender = mender

    def feed(self, data: bytes) -> list[tuple[StreamName, bytes]]:
        """The whole frames in what has come so far, in order."""
        if self._rest:
            data = self._rest + data
        runs: list[tuple[StreamName, bytes]] = []
        parts: list[bytes] = []
        append = parts.append
        mender = self._mender
        current, position, size = -1, 0, len(data)
        while position + 8 <= size:
            kind, length = _unpack(data, position)
            end = position + 8 + length
            if end > size:
                if length > _RECORD_LIMIT or kind > _SYSTEM_ERROR:
                    raise _bad_frame(kind, length)
                break
            if kind != current:
                if kind > _STDERR:
                    _check(kind, data[position + 8 : end])
                if parts:
                    runs.extend((_NAMES[current], piece) for piece in pieces(b"".join(parts)))
                    parts.clear()
                current = kind
            if mender is not None and (length == SPLIT or mender.busy):
                parts += mender.mend(kind, data[position + 8 : end])
            else:
                append(data[position + 8 : end])
            position = end
        if parts:
            runs.extend((_NAMES[current], piece) for piece in pieces(b"".join(parts)))
        self._rest = data[position:]
        return runs

    def finish(self) -> None:
        """Check that the stream ended between frames."""
        if self._rest:
            message = f"the connection ended inside a frame: {len(self._rest)} bytes of it came"
            raise ConnectionLostError(message, backend=BACKEND)


class RecordDemuxer(ChunkDemuxer):
    """Frames one by one, for logs with timestamps: each frame is a record, ``"<time> <payload>"``."""

    __slots__ = ()

    def records(self, data: bytes) -> list[tuple[int, bytes]]:
        """The whole frames in what has come so far, in order, with their type number."""
        if self._rest:
            data = self._rest + data
        found: list[tuple[int, bytes]] = []
        position, size = 0, len(data)
        while position + 8 <= size:
            kind, length = _unpack(data, position)
            end = position + 8 + length
            if kind > _STDERR and end <= size:
                _check(kind, data[position + 8 : end])
            if end > size:
                if length > _RECORD_LIMIT or kind > _SYSTEM_ERROR:
                    raise _bad_frame(kind, length)
                break
            found.append((kind, data[position + 8 : end]))
            position = end
        self._rest = data[position:]
        return found


def stream_name(kind: int) -> StreamName:
    """The stream of a frame's type number."""
    return _NAMES[kind]


class Mender:
    """Puts newlines back that the ``local`` log driver of Docker 20.10 drops at the ends of long lines.

    It stores a line in records of 16 KiB, and leaves out the newline of the last of them (daemon/logger/local/read.go takes a
    record with any partial metadata for an unfinished line; mended in 23.0). A shorter record without a newline can otherwise
    only be the last of its stream, so that the next one of the stream tells that a newline is missing. Behind the very last
    record it cannot be told, and none is added.
    """

    __slots__ = ("_owed", "_split", "busy")

    def __init__(self) -> None:
        self.busy = False
        self._split = [False, False, False]
        self._owed = [False, False, False]

    def mend(self, kind: int, payload: bytes) -> tuple[bytes, ...]:
        """What to deliver for the next record of a stream."""
        split, owed = self._split[kind], self._owed[kind]
        if not split and not owed and len(payload) != SPLIT:
            # Nearly all records.
            return (payload,)
        self._owed[kind] = False
        given = (b"\n", payload) if owed else (payload,)
        if payload.endswith(b"\n"):
            self._split[kind] = False
        elif len(payload) == SPLIT:
            self._split[kind] = True
        elif not payload:
            # Only a newline that is not there makes an empty record.
            self._split[kind] = False
            given = (*given[:-1], b"\n")
        else:
            self._split[kind] = False
            self._owed[kind] = split
        self.busy = any(self._split) or any(self._owed)
        return given
