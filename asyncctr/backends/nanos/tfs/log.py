"""The log of a TFS filesystem: records in a chain of extensions, each of which links the next one.

Sector 0 has the filesystem's uuid and label, and a link to the first extension. What follows in an extension: ``02 total length
data`` begins a record, ``03 length data`` goes on with it in the next extension, ``04`` is where a guest went on writing, ``05
sector sectors`` links the next extension, ``01`` is the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from asyncctr.backends.nanos.tfs.values import FIELD, Decoder, pop_varint, push_varint
from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncctr.backends.nanos.tfs.sources import Source

__all__ = ["EXTENSION", "SECTOR", "Identity", "LogEnd", "LogWriter", "ReadLog", "read_identity", "read_log"]

SECTOR = 512

EXTENSION = 1024
"""Sectors of an extension: those that the guest's own have."""

LABEL_LENGTH = 31
"""Bytes that a label may have."""

_MAGIC = b"NVMTFS"
_VERSION = 5
_END, _RECORD, _CONTINUED, _SEGMENT, _LINK = range(1, 6)
# A link is three numbers at their longest; the guest leaves as much. What begins a record takes no more.
_LINK_ROOM = 21
_FRAME_ROOM = 21
_LEAST_PIECE = 32
_UUID_LENGTH = 16
# The guest holds its log in memory while it reads it; an image of 18,000 files has 2 MiB.
_MAX_LOG = 64 << 20


@attrs.frozen(kw_only=True)
class Identity:
    """What a filesystem is known by.

    Attributes:
        uuid: 16 bytes.
        label: empty for none.
    """

    uuid: bytes
    label: str = ""

    def __attrs_post_init__(self) -> None:
        if len(self.uuid) != _UUID_LENGTH:
            raise fail("uuid", f"has {len(self.uuid)} bytes; it must have {_UUID_LENGTH}")
        data = self.label.encode(errors="surrogateescape")
        if len(data) > LABEL_LENGTH or b"\0" in data:
            raise fail("label", f"must be at most {LABEL_LENGTH} bytes without a NUL, but is {self.label!r}")


@attrs.frozen(kw_only=True)
class LogEnd:
    """Where a log ends, which is all that it takes to go on with it.

    Attributes:
        offset: of the end's mark, in bytes from the beginning of the filesystem.
        limit: where the extension that it is in ends.
        entries: how many symbols, tuples and vectors the log numbers.
        free: the first sector that nothing lies behind.
    """

    offset: int
    limit: int
    entries: int
    free: int


class LogWriter:
    """Lays records out in extensions, in memory.

    Attributes:
        pieces: what to write where, by byte offset in the filesystem; complete after :meth:`finish`.
    """

    def __init__(self, allocate: Callable[[int], int], *, at: LogEnd | None = None) -> None:
        """Begin a log, or go on with one ``at`` its end; ``allocate`` gives the first of so many free sectors."""
        self._allocate = allocate
        self.pieces: list[tuple[int, bytearray]] = []
        self._limit = 0
        if at is not None:
            self.pieces.append((at.offset, bytearray()))
            self._limit = at.limit

    def begin(self, identity: Identity) -> None:
        """Write sector 0 and link the first extension."""
        out = bytearray(_MAGIC)
        push_varint(out, _VERSION)
        push_varint(out, 1)
        out += identity.uuid + identity.label.encode(errors="surrogateescape") + b"\0"
        self.pieces.append((0, out))
        self._limit = SECTOR
        self._extend()

    def add(self, record: bytes) -> None:
        """Append a record."""
        total, kind = len(record), _RECORD
        rest = memoryview(record)
        while rest:
            offset, out = self.pieces[-1]
            room = self._limit - offset - len(out) - _LINK_ROOM - _FRAME_ROOM
            if room < min(len(rest), _LEAST_PIECE):
                self._extend()
                continue
            piece = rest[:room]
            out.append(kind)
            if kind == _RECORD:
                push_varint(out, total)
            push_varint(out, len(piece))
            out += piece
            rest, kind = rest[len(piece) :], _CONTINUED

    def finish(self, *, entries: int, free: int) -> LogEnd:
        """Mark the end."""
        offset, out = self.pieces[-1]
        end = offset + len(out)
        out.append(_END)
        return LogEnd(offset=end, limit=self._limit, entries=entries, free=free)

    def _extend(self) -> None:
        sector = self._allocate(EXTENSION)
        out = self.pieces[-1][1]
        out.append(_LINK)
        push_varint(out, sector)
        push_varint(out, EXTENSION)
        out.append(_END)
        out = bytearray(_MAGIC)
        push_varint(out, _VERSION)
        push_varint(out, EXTENSION)
        self.pieces.append((sector * SECTOR, out))
        self._limit = (sector + EXTENSION) * SECTOR


@attrs.frozen(kw_only=True)
class ReadLog:
    """A log that has been read.

    Attributes:
        identity: the filesystem's.
        decoder: what its records made.
        end: where it ends; ``free`` is behind its extensions only.
    """

    identity: Identity
    decoder: Decoder
    end: LogEnd


def read_identity(source: Source) -> Identity:
    """The uuid and label of a filesystem.

    Raises:
        InvalidConfigError: it is none, or of another version.
    """
    return _identity(source.read(0, SECTOR))[0]


def read_log(source: Source) -> ReadLog:
    """The log of a filesystem, which may be a stranger's. Blocks the thread.

    Raises:
        InvalidConfigError: it is broken, or too large.
    """
    data = source.read(0, SECTOR)
    identity, offset = _identity(data)
    decoder = Decoder()
    pending = bytearray()
    start, missing, taken, free = 0, 0, 0, 1
    while True:
        kind, offset = _byte(data, offset)
        if kind == _END:
            break
        if kind == _LINK:
            sector, offset = pop_varint(data, offset)
            sectors, offset = pop_varint(data, offset)
            taken += sectors * SECTOR
            if not sectors or taken > _MAX_LOG:
                raise fail(FIELD, f"has a log that is broken, or larger than {_MAX_LOG >> 20} MiB")
            start, free = sector * SECTOR, max(free, sector + sectors)
            data = source.read(start, sectors * SECTOR)
            offset = _header(data, sectors)
        elif kind in (_RECORD, _CONTINUED):
            if (kind == _RECORD) == bool(missing):
                raise fail(FIELD, "has a record in the middle of another, or the end of none")
            if kind == _RECORD:
                missing, offset = pop_varint(data, offset)
            length, offset = pop_varint(data, offset)
            if not 0 < length <= min(missing, len(data) - offset):
                raise fail(FIELD, f"has {length} bytes of a record where {missing} are missing")
            pending += memoryview(data)[offset : offset + length]
            offset, missing = offset + length, missing - length
            if not missing:
                decoder.decode(bytes(pending))
                pending.clear()
        elif kind != _SEGMENT:
            raise fail(FIELD, f"has a log with something unknown in it, {kind}, at byte {start + offset - 1}")
    if missing:
        raise fail(FIELD, f"has a log that ends {missing} bytes before its last record does")
    end = LogEnd(offset=start + offset - 1, limit=start + len(data), entries=len(decoder.dictionary) - 1, free=free)
    return ReadLog(identity=identity, decoder=decoder, end=end)


def _header(data: bytes, sectors: int) -> int:
    """The offset behind the header of an extension of so many sectors."""
    if not data.startswith(_MAGIC):
        raise fail(FIELD, "is no TFS filesystem")
    version, offset = pop_varint(data, len(_MAGIC))
    if version != _VERSION:
        raise fail(FIELD, f"is a TFS filesystem of version {version}; only {_VERSION} is known")
    length, offset = pop_varint(data, offset)
    if length != sectors:
        raise fail(FIELD, f"has a log extension of {length} sectors that is linked as one of {sectors}")
    return offset


def _identity(data: bytes) -> tuple[Identity, int]:
    """What sector 0 has besides, and the offset behind it."""
    offset = _header(data, 1)
    uuid = data[offset : offset + _UUID_LENGTH]
    offset += _UUID_LENGTH
    end = data.find(b"\0", offset, offset + LABEL_LENGTH + 1)
    if end < 0:
        raise fail(FIELD, "has a label without an end")
    return Identity(uuid=uuid, label=data[offset:end].decode(errors="surrogateescape")), end + 1


def _byte(data: bytes, offset: int) -> tuple[int, int]:
    if offset >= len(data):
        raise fail(FIELD, "has a log extension without an end")
    return data[offset], offset + 1
