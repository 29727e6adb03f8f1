"""A machine's disk: a qcow2 overlay that shares its image and has what is changed of it, written and read without QEMU's tools.

A table of two levels maps clusters of the disk to clusters of the file; what is not mapped is the base's (QEMU, docs/interop/
qcow2.txt). Written is version 2, which every QEMU reads; QEMU changes mapped clusters in place.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING

import attrs

from asyncctr.backends.nanos.tfs.disk import KLOG_LENGTH, find_parts
from asyncctr.backends.nanos.tfs.log import SECTOR
from asyncctr.backends.nanos.tfs.sources import RawImage, Source, created, opened, write_at
from asyncctr.backends.nanos.tfs.values import FIELD, Value
from asyncctr.backends.nanos.tfs.writer import HEADROOM
from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncctr.backends.nanos.tfs.tail import Place, Tail

__all__ = ["Overlay", "open_overlay", "write_machine_disk", "write_overlay"]

_MAGIC = b"QFI\xfb"
# Magic, version, offset and length of the base's name, bits of a cluster, the disk's length, encryption, entries and offset of the
# first table, offset and clusters of the table of reference counts, snapshots and their offset.
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_BASE_FORMAT = struct.pack(">II8sII", 0xE2792ACA, 3, b"raw", 0, 0)
_BITS = 16
_CLUSTER = 1 << _BITS
_TABLE = _CLUSTER // 8
_COUNTS = _CLUSTER // 2
# The cluster belongs to this table alone: it is written to in place.
_OWN = 1 << 63
_COMPRESSED = 1 << 62
_OFFSET = (1 << 56) - (1 << 9)
_MAX_NAME = 1023
_MAX_LENGTH = _TABLE * _TABLE * _CLUSTER


def write_machine_disk(
    path: str,
    *,
    base: str,
    tail: Tail,
    changes: Mapping[str, Value],
    length: int = 0,
    files: Sequence[tuple[Place, bytes]] = (),
) -> None:
    """Write a machine's disk over the disk of an image: other keys of the root tuple, an empty kernel log. Takes a millisecond.

    Args:
        path: of the overlay, which must not exist yet; 0600, as it has the machine's variables.
        base: the absolute path of the image, which is raw and stays as it is while there are overlays.
        tail: of the image's root filesystem.
        changes: keys of the root tuple; ``None`` takes one away.
        length: bytes of the root filesystem at least.
        files: small ones that are other than in the image.

    Raises:
        InvalidConfigError: the base is no disk of Nanos.
        OSError: something cannot be read or written.
    """
    with opened(base) as file:
        image = RawImage(file)
        parts = find_parts(image)
        if parts is None:
            raise fail(FIELD, f"{base} has no partitions")
        override = tail.override(changes, files)
        pieces = [(parts.klog, bytes(KLOG_LENGTH))]
        pieces += [(parts.root + offset, piece) for offset, piece in override.pieces]
        length = max(length, override.free * SECTOR + HEADROOM)
        write_overlay(path, base=base, image=image, pieces=pieces, length=parts.root + length)


def write_overlay(path: str, *, base: str, image: Source, pieces: Sequence[tuple[int, bytes]], length: int = 0) -> None:
    """Write an overlay in which pieces of the base are others.

    Args:
        path: of the overlay, which must not exist yet; 0600.
        base: the absolute path of the base, a raw image.
        image: the base.
        pieces: bytes by their offset.
        length: of the disk at least: behind the base's end it has zeros.

    Raises:
        InvalidConfigError: the base's path or the disk is too long.
        OSError: something cannot be written.
    """
    name = os.fsencode(base)
    length = -(-max(length, image.length) // SECTOR) * SECTOR
    if not base.startswith("/") or len(name) > _MAX_NAME:
        raise fail("base", f"must be an absolute path of at most {_MAX_NAME} bytes, but is {base!r}")
    if length > _MAX_LENGTH:
        raise fail("length", f"is {length} bytes; a disk has at most {_MAX_LENGTH}")
    clusters: dict[int, bytearray] = {}
    for offset, piece in pieces:
        _place(clusters, image, offset, piece)
    # In the file: the header, the counts' table and the counts, the first table, the second ones, the data.
    seconds = sorted({cluster // _TABLE for cluster in clusters})
    data = 4 + len(seconds)
    total = data + len(clusters)
    if total > _COUNTS:
        raise fail("pieces", f"are {len(clusters)} clusters; at most {_COUNTS - data} can be changed")
    first = bytearray(-(-length // (_TABLE * _CLUSTER)) * 8)
    tables = {second: bytearray(_CLUSTER) for second in seconds}
    for position, second in enumerate(seconds):
        struct.pack_into(">Q", first, second * 8, (4 + position) * _CLUSTER | _OWN)
    for position, cluster in enumerate(clusters):
        struct.pack_into(">Q", tables[cluster // _TABLE], cluster % _TABLE * 8, (data + position) * _CLUSTER | _OWN)
    extended = _HEADER.size + len(_BASE_FORMAT)
    header = _HEADER.pack(
        _MAGIC, 2, extended, len(name), _BITS, length, 0, len(first) // 8, 3 * _CLUSTER, _CLUSTER, 1, 0, 0
    )
    with created(path) as file:
        contents: list[tuple[int, bytes | bytearray]] = [
            (0, header + _BASE_FORMAT + name),
            (1, struct.pack(">Q", 2 * _CLUSTER)),
            (2, b"\0\1" * total),
            (3, first),
            *enumerate(tables.values(), 4),
            *enumerate(clusters.values(), data),
        ]
        for position, content in contents:
            write_at(file, memoryview(content), position * _CLUSTER)
        os.ftruncate(file, total * _CLUSTER)


def _place(clusters: dict[int, bytearray], image: Source, offset: int, piece: bytes) -> None:
    """Put a piece into the clusters that it is in, which have the base's content besides."""
    while piece:
        cluster, start = divmod(offset, _CLUSTER)
        if cluster not in clusters:
            clusters[cluster] = bytearray(_padded(image, cluster * _CLUSTER, _CLUSTER))
        part = piece[: _CLUSTER - start]
        clusters[cluster][start : start + len(part)] = part
        offset, piece = offset + len(part), piece[len(part) :]


@attrs.frozen(kw_only=True)
class Overlay:
    """An overlay, read through to its base. QEMU must have ended, or what it keeps in memory is not there.

    Attributes:
        file: the overlay.
        base: the image below.
        length: of the disk.
    """

    file: RawImage
    base: Source
    length: int
    first: tuple[int, ...] = attrs.field(repr=False)

    def read(self, offset: int, length: int) -> bytes:
        """That many bytes of the disk."""
        if offset + length > self.length:
            raise fail(
                FIELD, f"is cut off: it has {self.length} bytes, and something in it goes on to {offset + length}"
            )
        out = bytearray()
        while length:
            count = min(length, _CLUSTER - offset % _CLUSTER)
            out += self._read(offset, count)
            offset, length = offset + count, length - count
        return bytes(out)

    def _read(self, offset: int, count: int) -> bytes:
        """Bytes of one cluster."""
        second, index = divmod(offset // _CLUSTER, _TABLE)
        place = self.first[second] & _OFFSET
        entry = 0
        if place:
            (entry,) = struct.unpack(">Q", self.file.read(place + index * 8, 8))
        if entry & _COMPRESSED:
            raise fail(FIELD, "has compressed clusters, which no machine's disk has")
        if entry & _OFFSET:
            return self.file.read((entry & _OFFSET) + offset % _CLUSTER, count)
        return _padded(self.base, offset, count)


@contextlib.contextmanager
def open_overlay(path: str, *, base: str) -> Iterator[Overlay]:
    """An overlay, to read. Blocks the thread.

    Args:
        path: of the overlay, which :func:`write_overlay` wrote, whatever a machine wrote to it since.
        base: of the image below. What the overlay says is not followed: it may be a stranger's, and name any file.

    Raises:
        InvalidConfigError: it is no such overlay.
        OSError: it cannot be opened.
    """
    with opened(path) as file, opened(base) as below:
        raw = RawImage(file)
        magic, version, _, _, bits, length, encrypted, entries, first, *_ = _HEADER.unpack(raw.read(0, _HEADER.size))
        if (magic, version, bits, encrypted) != (_MAGIC, 2, _BITS, 0) or length > _MAX_LENGTH:
            raise fail(FIELD, f"{path} is no overlay of the kind that is written here")
        if not -(-length // (_TABLE * _CLUSTER)) <= entries <= _TABLE:
            raise fail(FIELD, f"{path} has a table of {entries} entries for {length} bytes")
        table = struct.unpack(f">{entries}Q", raw.read(first, entries * 8))
        yield Overlay(file=raw, base=RawImage(below), length=length, first=table)


def _padded(image: Source, offset: int, count: int) -> bytes:
    """Bytes of an image, and zeros behind its end."""
    there = max(0, min(count, image.length - offset))
    return (image.read(offset, there) if there else b"").ljust(count, b"\0")
