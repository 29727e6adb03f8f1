"""The table of contents of a tar, read without trusting it: names, offsets and sizes, nothing extracted.

The standard library's reader takes extended headers into memory whole, however large they say they are, and calls itself for
each; archives come from anywhere, so headers are walked here, with limits (POSIX pax, GNU tar manual "Basic Tar Format").
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import attrs

from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TarIndex", "TarMember", "header", "read_tar_index"]

BLOCK = 512
FIELD = "archive"

MAX_ENTRIES = 100_000
"""Members of one archive. A bundle of a thousand images has some twenty thousand."""

_MAX_EXTENDED = 1 << 20
_MAX_NAME = 4_096
_READ = 1 << 20
_REGULAR = (b"0", b"\0", b"7")
_SHOWN = 120


@attrs.frozen
class TarMember:
    """One member.

    Attributes:
        kind: ``"file"``, ``"link"`` (hard or symbolic), or ``"other"``.
        offset: of its first byte of data in the tar.
        size: bytes of data.
        target: what a link points to, as it is written.
    """

    name: str
    kind: Literal["file", "link", "other"]
    offset: int
    size: int
    target: str = ""


@attrs.frozen(kw_only=True)
class TarIndex:
    """The members of a tar in an open file.

    Attributes:
        members: by name, without ``./`` in front; of several by one name the last, as extraction would have it.
        repeated: the names that occur more than once.
        end: the offset behind the last member, where another one can be written.
    """

    file: int = attrs.field(repr=False)
    members: Mapping[str, TarMember]
    repeated: frozenset[str]
    end: int

    def find(self, name: str) -> TarMember | None:
        """The regular file of that name."""
        member = self.members.get(name)
        return member if member is not None and member.kind == "file" else None

    def read(self, member: TarMember) -> bytes:
        """All of its data; the caller has looked at the size."""
        return b"".join(self.blocks(member))

    def blocks(self, member: TarMember) -> Iterator[bytes]:
        """Its data, in blocks of at most 1 MiB. Blocks the thread."""
        offset, left = member.offset, member.size
        while left:
            data = os.pread(self.file, min(left, _READ), offset)
            if not data:
                raise fail(FIELD, f"ends in the middle of {shown(member.name)}")
            offset += len(data)
            left -= len(data)
            yield data


def shown(text: str) -> str:
    """A name from an archive, for a message."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def header(name: str, size: int) -> bytes:
    """The header block of a regular file, owned by root and read-only (POSIX ustar)."""
    fields = [
        name.encode("ascii").ljust(100, b"\0"),
        b"0000444\0",
        b"0000000\0",
        b"0000000\0",
        f"{size:011o}\0".encode(),
        b"00000000000\0",
        b" " * 8,
        b"0",
        b"\0" * 100,
        b"ustar\x0000",
    ]
    block = bytearray(b"".join(fields).ljust(BLOCK, b"\0"))
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def read_tar_index(file: int, *, max_entries: int = MAX_ENTRIES) -> TarIndex:
    """The index of the tar in the file behind a descriptor. Blocks the thread for a read per member.

    Raises:
        InvalidConfigError: it is no tar, or a broken one, or has too many members; the field is ``"archive"``.
    """
    return _Walk(file, max_entries).walk()


class _Walk:
    def __init__(self, file: int, max_entries: int) -> None:
        self._file = file
        self._length = os.fstat(file).st_size
        self._max_entries = max_entries
        # From an extended header, for the member after it.
        self._name: str | None = None
        self._target: str | None = None
        self._size: int | None = None

    def walk(self) -> TarIndex:
        members: dict[str, TarMember] = {}
        repeated: set[str] = set()
        offset = end = headers = 0
        while block := self._header(offset):
            headers += 1
            if headers > 3 * self._max_entries or len(members) > self._max_entries:
                raise fail(FIELD, f"has more than {self._max_entries} entries")
            kind = block[156:157]
            # A global header's records are about all members, which have none that matter here.
            extended = kind in b"xgXLK"
            size = _number(block[124:136])
            if not extended and self._size is not None:
                size = self._size
            data = offset + BLOCK
            if data + size > self._length:
                raise fail(FIELD, f"is cut off: it has {self._length} bytes, and a member goes on to {data + size}")
            offset = data + -(-size // BLOCK) * BLOCK
            if extended:
                self._extend(kind, data, size)
                continue
            end = offset
            member = self._member(block, kind, data, size)
            if member.name in members and member.kind != "other":
                repeated.add(member.name)
            members[member.name] = member
        if not members:
            raise fail(FIELD, "is empty: a tar without members")
        return TarIndex(file=self._file, members=members, repeated=frozenset(repeated), end=end)

    def _header(self, offset: int) -> bytes | None:
        block = os.pread(self._file, BLOCK, offset)
        if not block.strip(b"\0") and offset:
            # Two zero blocks end a tar; many a tool writes one, or none.
            return None
        if len(block) < BLOCK or not _is_header(block):
            raise fail(FIELD, f"has a broken header at byte {offset}" if offset else "is no tar")
        return block

    def _member(self, block: bytes, kind: bytes, data: int, size: int) -> TarMember:
        name = self._name
        if name is None:
            name = _text(block[:100])
            if block[257:263] == b"ustar\0" and block[345]:
                name = f"{_text(block[345:500])}/{name}"
        target = self._target if self._target is not None else _text(block[157:257])
        self._name = self._target = self._size = None
        while name.startswith("./"):
            name = name[2:].lstrip("/")
        if kind in _REGULAR and not name.endswith("/"):
            return TarMember(name, "file", data, size)
        return TarMember(name.rstrip("/"), "link" if kind in b"12" else "other", data, size, target)

    def _extend(self, kind: bytes, data: int, size: int) -> None:
        if size > _MAX_EXTENDED:
            raise fail(FIELD, f"has an extended header of {size} bytes; at most {_MAX_EXTENDED} are read")
        if kind in b"gX":
            return
        content = os.pread(self._file, size, data)
        if kind == b"L":
            self._name = _text(content)
        elif kind == b"K":
            self._target = _text(content)
        else:
            self._records(content)

    def _records(self, content: bytes) -> None:
        """A pax header's records: ``length key=value``, each with a line's end (POSIX pax, "pax Extended Header")."""
        while content:
            length, _, _ = content[:20].partition(b" ")
            if not length.isdigit() or not 0 < int(length) <= len(content):
                raise fail(FIELD, "has a broken extended header")
            key, _, value = content[len(length) + 1 : int(length) - 1].partition(b"=")
            content = content[int(length) :]
            if key == b"path":
                self._name = _text(value)
            elif key == b"linkpath":
                self._target = _text(value)
            elif key == b"size" and value.isdigit():
                self._size = int(value[:20])
            elif key.startswith(b"GNU.sparse."):
                raise fail(FIELD, "has sparse members; write it without")


def _is_header(block: bytes) -> bool:
    try:
        wanted = _number(block[148:156])
    except ValueError:
        return False
    plain = sum(block) - sum(block[148:156]) + 8 * 32
    # Old tars summed signed characters.
    return wanted in (plain, plain - 256 * sum(byte > 127 for byte in block[:148] + block[156:]))


def _number(field: bytes) -> int:
    if field[0] == 0x80:
        # GNU tar's base 256, for what does not fit into octal digits.
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0").partition(b"\0")[0]
    if not text:
        return 0
    if text.strip(b"01234567"):
        raise fail(FIELD, "has a broken header: a number in it is none")
    return int(text, 8)


def _text(field: bytes) -> str:
    text = field.partition(b"\0")[0]
    if len(text) > _MAX_NAME:
        raise fail(FIELD, f"has a member whose name is longer than {_MAX_NAME} bytes")
    return text.decode(errors="surrogateescape")
