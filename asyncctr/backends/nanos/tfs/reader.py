"""Reading a TFS filesystem: its root tuple, its tree, the content of its files. The image may be a stranger's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

from asyncctr.backends.nanos.tfs.log import SECTOR, Identity, read_log
from asyncctr.backends.nanos.tfs.tail import Place, Tail
from asyncctr.backends.nanos.tfs.values import FIELD, Value
from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncctr.backends.nanos.tfs.sources import Source

__all__ = ["Entry", "Extent", "Filesystem", "read_filesystem"]

_READ = 1 << 20
_MAX_SECTOR = 1 << 54
_PATH_MAX = 4096
_SHOWN = 200


@attrs.frozen
class Extent:
    """``length`` sectors of a file from its sector ``place`` on, at ``start`` of the filesystem, where ``allocated`` are its own."""

    place: int
    length: int
    start: int
    allocated: int
    # Reserved, but never written to: it reads as zeros.
    empty: bool


@attrs.frozen(kw_only=True)
class Entry:
    """A file, directory or symbolic link.

    Attributes:
        path: absolute, as the guest sees it.
        kind: ``"other"`` is what the guest makes beside: sockets and the like.
        size: bytes of a file.
        target: of a symbolic link.
        extents: where a file's data is, in the order of the file.
    """

    path: str
    kind: Literal["file", "directory", "symlink", "other"]
    size: int = 0
    target: str = ""
    extents: tuple[Extent, ...] = attrs.field(default=(), repr=False)


@attrs.frozen(kw_only=True)
class Filesystem:
    """A filesystem that has been read.

    Attributes:
        identity: its uuid and label.
        root: the root tuple, with ``children``.
        tail: where its log ends.
        numbered: what the log numbers, from 1 on.
    """

    source: Source = attrs.field(repr=False)
    identity: Identity
    root: Mapping[str, Value] = attrs.field(repr=False)
    tail: Tail = attrs.field(repr=False)
    numbered: Sequence[Value] = attrs.field(repr=False)

    def stat(self, path: str) -> Entry | None:
        """What is at an absolute path; ``None`` for nothing. Symbolic links are not followed, also not on the way.

        Raises:
            InvalidConfigError: what the log says of it is broken.
        """
        node: Value = self.root
        for name in path.split("/"):
            if name:
                children = node.get("children") if isinstance(node, dict) else None
                node = children.get(name) if isinstance(children, dict) else None
        return _entry("/" + path.strip("/"), node) if isinstance(node, dict) else None

    def place(self, path: str) -> Place:
        """Where a file of an absolute path is, or can be put; where there is something else on its way, it is in the place of that."""
        names = [name for name in path.split("/") if name]
        children = self.root["children"]
        while len(names) > 1 and isinstance(children, dict):
            node = children.get(names[0])
            below = node.get("children") if isinstance(node, dict) else None
            if not isinstance(below, dict):
                break
            children, names = below, names[1:]
        number = next(number for number, value in enumerate(self.numbered) if value is children)
        return Place(number=number, names=tuple(names))

    def walk(self) -> Iterator[Entry]:
        """All that there is, a directory before what is in it.

        Raises:
            InvalidConfigError: what the log says of something is broken.
        """
        return _walk(self.root)

    def blocks(self, path: str) -> Iterator[bytes]:
        """A file's content, in blocks of at most 1 MiB; where it has no data, zeros. Blocks the thread.

        Raises:
            InvalidConfigError: there is no such file, or the image is cut off.
        """
        entry = self.stat(path)
        if entry is None or entry.kind != "file":
            raise fail(FIELD, f"has no file {path}")
        position = 0
        for extent in entry.extents:
            start = min(extent.place * SECTOR, entry.size)
            yield from _zeros(start - position)
            position = min(start + extent.length * SECTOR, entry.size)
            if extent.empty:
                yield from _zeros(position - start)
                continue
            for offset in range(0, position - start, _READ):
                yield self.source.read(extent.start * SECTOR + offset, min(_READ, position - start - offset))
        yield from _zeros(entry.size - position)

    def read(self, path: str, *, limit: int = 16 << 20) -> bytes:
        """A file's content; of a larger file than ``limit``, that much of it."""
        data = bytearray()
        for block in self.blocks(path):
            data += block
            if len(data) >= limit:
                break
        return bytes(data[:limit])


def read_filesystem(source: Source) -> Filesystem:
    """Read a filesystem's log and what it says of the tree. Blocks the thread.

    Raises:
        InvalidConfigError: it is none, or a broken one.
    """
    log = read_log(source)
    root = log.decoder.root
    free = log.end.free
    for entry in _walk(root):
        for extent in entry.extents:
            free = max(free, extent.start + extent.allocated)
    symbols = {name: number for number, name in enumerate(log.decoder.dictionary) if number and isinstance(name, str)}
    tail = Tail.of(attrs.evolve(log.end, free=free), symbols)
    return Filesystem(source=source, identity=log.identity, root=root, tail=tail, numbered=log.decoder.dictionary)


def _walk(root: Mapping[str, Value]) -> Iterator[Entry]:
    if not isinstance(root.get("children"), dict):
        raise fail(FIELD, "has a root that is no directory")
    yield _entry("/", root)
    # The log may name a directory in itself, which would have no end.
    seen = {id(root)}
    pending = [_children("", root)]
    while pending:
        for path, node in pending[-1]:
            if id(node) in seen or len(path) > _PATH_MAX:
                raise fail(FIELD, f"has {path[:_SHOWN]} in two places, or too deep")
            seen.add(id(node))
            entry = _entry(path, node)
            yield entry
            if entry.kind == "directory":
                pending.append(_children(path, node))
                break
        else:
            pending.pop()


def _children(path: str, node: Mapping[str, Value]) -> Iterator[tuple[str, Mapping[str, Value]]]:
    children = node["children"]
    if not isinstance(children, dict):
        return
    for name, child in children.items():
        # A guest keeps the names of the directory itself in it, too.
        if name in (".", ".."):
            continue
        if not name or "/" in name or not isinstance(child, dict):
            raise fail(FIELD, f"has something broken in the directory {path or '/'}")
        yield f"{path}/{name}", child


def _entry(path: str, node: Mapping[str, Value]) -> Entry:
    if isinstance(node.get("children"), dict):
        return Entry(path=path, kind="directory")
    target = node.get("linktarget")
    if isinstance(target, str):
        return Entry(path=path, kind="symlink", target=target)
    extents = node.get("extents")
    if not isinstance(extents, dict):
        return Entry(path=path, kind="other")
    found = sorted((_extent(path, place, extent) for place, extent in extents.items()), key=lambda extent: extent.place)
    end = 0
    for extent in found:
        if extent.place < end:
            raise fail(FIELD, f"has two places for the same part of {path}")
        end = extent.place + extent.length
    size = _integer(node.get("filelength", 0))
    if size is None:
        raise fail(FIELD, f"has a broken length for {path}")
    return Entry(path=path, kind="file", size=size, extents=tuple(found))


def _extent(path: str, place: str, extent: Value) -> Extent:
    if isinstance(extent, dict):
        at, length, start, allocated = (
            _integer(v) for v in (place, *map(extent.get, ("length", "offset", "allocated")))
        )
        if at is not None and length is not None and start is not None and allocated is not None:
            return Extent(at, length, start, allocated, empty="uninited" in extent)
    raise fail(FIELD, f"has a broken place for {path}")


def _integer(value: Value) -> int | None:
    """A number, which some writers have as a string."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    return value if isinstance(value, int) and 0 <= value < _MAX_SECTOR else None


def _zeros(count: int) -> Iterator[bytes]:
    for offset in range(0, count, _READ):
        yield bytes(min(_READ, count - offset))
