"""What machines need of an image's root filesystem, kept in a file beside its disk: reading 18,000 files' log takes a second."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import attrs

from asyncctr.backends.nanos.own_files import OWN_FILES
from asyncctr.backends.nanos.tfs.disk import find_root
from asyncctr.backends.nanos.tfs.reader import read_filesystem
from asyncctr.backends.nanos.tfs.sources import RawImage, opened
from asyncctr.backends.nanos.tfs.tail import Place, Tail
from asyncctr.core.errors import InvalidConfigError
from asyncctr.netns.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncctr.backends.nanos.tfs.values import Value

__all__ = ["SUFFIX", "RootFacts"]

logger = logging.getLogger(__name__)

SUFFIX: Final = ".facts"
"""Of the file, in place of the disk's; it goes with the disk."""
_VERSION: Final = 1
_OWN_FILE_MAX: Final = 1 << 20


@attrs.frozen(kw_only=True)
class RootFacts:
    """A root filesystem, without its files.

    Attributes:
        root: its root tuple, without ``children``.
        directories: their paths.
        own_files: what it has of the files that a machine can have its own of.
        places: where those are put.
        length: bytes that it has.
        tail: where its log ends.
    """

    root: Mapping[str, Value] = attrs.field(repr=False)
    directories: frozenset[str] = attrs.field(repr=False)
    own_files: Mapping[str, bytes] = attrs.field(repr=False)
    places: Mapping[str, Place]
    length: int
    tail: Tail = attrs.field(repr=False)

    @classmethod
    def of(cls, disk: Path) -> Self:
        """Those of a disk that is not written to any more. Blocks the thread: shortly, but for the first time.

        Raises:
            InvalidConfigError: it is no disk of Nanos.
        """
        kept = disk.with_suffix(SUFFIX)
        try:
            return cls.from_bytes(kept.read_bytes())
        except FileNotFoundError:
            # Nobody used it yet.
            pass
        except InvalidConfigError as error:
            # Of another version, or cut off by a crash of the whole machine.
            logger.info("%s is written anew: %s", kept, error)
        facts = cls.read(disk)
        try:
            write_atomic(kept, facts.to_bytes())
        except OSError as error:
            # It is read again next time.
            logger.warning("%s cannot be written: %s", kept, error.strerror)
        return facts

    @classmethod
    def read(cls, disk: Path) -> Self:
        """Those of a disk, from itself. Blocks the thread."""
        with opened(str(disk)) as file:
            source = find_root(RawImage(file))
            filesystem = read_filesystem(source)
            entries = [entry for entry in map(filesystem.stat, OWN_FILES) if entry is not None and entry.kind == "file"]
            found = {entry.path: filesystem.read(entry.path, limit=_OWN_FILE_MAX) for entry in entries}
        return cls(
            root={key: value for key, value in filesystem.root.items() if key != "children"},
            directories=frozenset(entry.path for entry in filesystem.walk() if entry.kind == "directory"),
            own_files=found,
            places={path: filesystem.place(path) for path in OWN_FILES},
            length=source.length,
            tail=filesystem.tail,
        )

    def to_bytes(self) -> bytes:
        """For :meth:`from_bytes`, on this machine."""
        head = {
            "version": _VERSION,
            "root": self.root,
            "directories": sorted(self.directories),
            "own_files": {path: data.decode("latin-1") for path, data in self.own_files.items()},
            "places": {path: attrs.astuple(place) for path, place in self.places.items()},
            "length": self.length,
        }
        data = b"%b\n%b" % (json.dumps(head).encode(), self.tail.to_bytes())
        return b"%b\n%b" % (hashlib.sha256(data).hexdigest().encode(), data)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What :meth:`to_bytes` gave.

        Raises:
            InvalidConfigError: it is not that, or of another version.
        """
        digest, _, rest = data.partition(b"\n")
        if hashlib.sha256(rest).hexdigest().encode() != digest:
            message = "what is kept beside the disk is broken"
            raise InvalidConfigError(message, field="image")
        head, _, tail = rest.partition(b"\n")
        fields = json.loads(head)
        if fields["version"] != _VERSION or set(fields["places"]) != set(OWN_FILES):
            message = f"what is kept beside the disk is of version {fields['version']}, or of other files"
            raise InvalidConfigError(message, field="image")
        return cls(
            root=fields["root"],
            directories=frozenset(fields["directories"]),
            own_files={path: data.encode("latin-1") for path, data in fields["own_files"].items()},
            places={
                path: Place(number=number, names=tuple(names)) for path, (number, names) in fields["places"].items()
            },
            length=fields["length"],
            tail=Tail.from_bytes(tail),
        )
