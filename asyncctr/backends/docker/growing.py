"""What is whole of a log that is read while it is being written, and read again as it grows."""

from __future__ import annotations

from asyncctr.backends.docker.multiplex import RecordDemuxer

__all__ = ["GrowingLog"]


class GrowingLog:
    """Readings of one log, each from its beginning, to the records that are certain.

    The last record of a reading may be torn: conmon writes its log 128 segments at a time, which may end inside a record, and
    Podman makes a whole line of what is there. So the last one only counts when the next reading ends with it as well.

    Args:
        tty: the readings are bytes without frames; lines take the place of records.
    """

    __slots__ = ("_count", "_demuxer", "_first", "_held", "_last", "_rest", "_tty", "rotated", "waits")

    def __init__(self, *, tty: bool) -> None:
        self._tty = tty
        # The first record and the last of the readings before this one, with their number.
        self._first: tuple[int, bytes] | None = None
        self._last: tuple[int, tuple[int, bytes] | None] = (0, None)
        self.waits = False
        """Whether another reading is needed to tell what the last record is."""
        self.begin()

    def begin(self) -> None:
        """Begin a reading."""
        self._demuxer = RecordDemuxer()
        self._rest = b""
        self._count = 0
        self._held: tuple[int, bytes] | None = None
        self.rotated = False
        """Whether it has just come out that this reading is of another log than those before."""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The records that are certain by now, with their type number."""
        return self._but_last(self._lines(data) if self._tty else self._demuxer.records(data))

    def _lines(self, data: bytes) -> list[tuple[int, bytes]]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [(1, line + b"\n") for line in lines]

    def _but_last(self, records: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        self.rotated = False
        if not records:
            return []
        begun = self._count > 1
        self._count += len(records)
        if self._held is not None:
            records.insert(0, self._held)
        self._held = records.pop()
        if records and not begun:
            self.rotated = self._first not in (None, records[0])
            if self.rotated:
                self._last = (0, None)
            self._first = records[0]
        return records

    def end(self) -> list[tuple[int, bytes]]:
        """The reading has ended: what is certain now."""
        self._demuxer.finish()
        records = self._but_last([(1, self._rest)] if self._rest else [])
        last, self._last = self._last, (self._count, self._held)
        if self._count < last[0]:
            # Of the same first line. The next reading gives it from its beginning.
            self.rotated = self.waits = True
            return []
        self.waits = self._last != last
        if not self.waits and self._held is not None:
            records.append(self._held)
        return records
