"""The end of a log and what is known at it, so that one more record can be appended without reading the log.

A machine's arguments, variables and mounts replace those of its image's root tuple, in a record of their own behind the image's.
That record must number its symbols as a reader of the whole log would. An image keeps its tail beside it; finding a name in
18,000 takes microseconds, decoding their log a quarter of a second.
"""

from __future__ import annotations

import json
from array import array
from typing import TYPE_CHECKING, Any, Self

import attrs

from asyncctr.backends.nanos.tfs.log import SECTOR, LogEnd, LogWriter
from asyncctr.backends.nanos.tfs.tree import PAGE_SECTORS, file_value
from asyncctr.backends.nanos.tfs.values import FIELD, Encoder, Value
from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Override", "Place", "Tail"]


@attrs.frozen(kw_only=True)
class Override:
    """What to write over a filesystem for one machine.

    Attributes:
        pieces: bytes by their offset in the filesystem.
        free: the first sector that nothing lies behind, then.
    """

    pieces: tuple[tuple[int, bytes], ...] = attrs.field(repr=False)
    free: int


@attrs.frozen(kw_only=True)
class Place:
    """Where a file is, or can be put.

    Attributes:
        number: of the tuple of children of the last directory on its path that there is.
        names: the rest of the path.
    """

    number: int
    names: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Tail:
    """The end of a filesystem's log.

    Attributes:
        end: where it is.
        names: its symbols, each between two NULs.
        numbers: those of the symbols, in the same order.
    """

    end: LogEnd
    names: bytes = attrs.field(repr=False)
    numbers: array[int] = attrs.field(repr=False)

    @classmethod
    def of(cls, end: LogEnd, symbols: Mapping[str, int]) -> Self:
        """The tail of a log with these symbols."""
        names = "\0".join(["", *symbols, ""]).encode(errors="surrogateescape")
        return cls(end=end, names=names, numbers=array("I", symbols.values()))

    def number(self, name: str) -> int | None:
        """The number of a symbol."""
        position = self.names.find(b"\0%b\0" % name.encode(errors="surrogateescape"))
        return None if position < 0 else self.numbers[self.names.count(b"\0", 0, position)]

    def to_bytes(self) -> bytes:
        """For a file beside the image, of this machine."""
        head = json.dumps({**attrs.asdict(self.end), "names": len(self.names)})
        return b"%b\n%b%b" % (head.encode(), self.names, self.numbers.tobytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What :meth:`to_bytes` gave.

        Raises:
            InvalidConfigError: it is not that.
        """
        head, _, rest = data.partition(b"\n")
        numbers = array("I")
        try:
            fields = json.loads(head)
            length = fields.pop("names")
            numbers.frombytes(rest[length:])
            tail = cls(end=LogEnd(**fields), names=rest[:length], numbers=numbers)
        except (ValueError, TypeError, KeyError) as error:
            raise fail(FIELD, "has a broken tail beside it") from error
        if tail.names.count(b"\0") != len(numbers) + 1:
            raise fail(FIELD, "has a tail beside it that is cut off")
        return tail

    def override(self, changes: Mapping[str, Value], files: Sequence[tuple[Place, bytes]] = ()) -> Override:
        """Set keys of the root tuple, and take away those that are ``None``; put small files in the place of others."""
        free = self.end.free

        def allocate(sectors: int) -> int:
            nonlocal free
            start, free = free, free + sectors
            return start

        encoder = Encoder(self.end.entries, self.number)
        log = LogWriter(allocate, at=self.end)
        log.add(encoder.update(changes))
        data: list[tuple[int, bytes]] = []
        updates: dict[int, dict[str, Any]] = {}
        for place, content in files:
            free = -(-free // PAGE_SECTORS) * PAGE_SECTORS
            size = -(-len(content) // (PAGE_SECTORS * SECTOR)) * PAGE_SECTORS
            start = allocate(size)
            data.append((start * SECTOR, content.ljust(size * SECTOR, b"\0")))
            children = updates.setdefault(place.number, {})
            for name in place.names[:-1]:
                children = children.setdefault(name, {"children": {}})["children"]
            children[place.names[-1]] = file_value(start, len(content))
        for number, children in updates.items():
            log.add(encoder.update(children, number))
        log.finish(entries=encoder.entries, free=free)
        pieces = [(offset, bytes(piece)) for offset, piece in log.pieces]
        return Override(pieces=(*pieces, *data), free=free)
