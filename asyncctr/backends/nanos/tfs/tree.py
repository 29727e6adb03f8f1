"""What a filesystem is to hold, before it is written: files of the host or in memory, directories, symbolic links."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, TypeAlias

import attrs

from asyncctr.backends.nanos.tfs.values import FIELD, Value
from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PAGE_SECTORS",
    "Content",
    "Directory",
    "HostFile",
    "Node",
    "Root",
    "Symlink",
    "file_value",
    "read_directory",
]

_NAME_MAX = 255
PAGE_SECTORS = 8
"""A guest writes whole pages: two files must not share one, and each begins at one."""
_SECTOR = 512


@attrs.frozen
class HostFile:
    """A regular file of the host, which is read when the filesystem is written.

    Attributes:
        path: where it is; symbolic links are followed.
    """

    path: str


@attrs.frozen
class Content:
    """A file from memory."""

    data: bytes = attrs.field(repr=False)


@attrs.frozen
class Symlink:
    """A symbolic link, written as it is."""

    target: str


@attrs.frozen
class Directory:
    """A directory.

    Attributes:
        children: by name. A name is what a file can be called: no ``/``, not ``.`` or ``..``, at most 255 bytes.
    """

    children: Mapping[str, Node] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for name in self.children:
            if name in ("", ".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > _NAME_MAX:
                raise fail(FIELD, f"cannot have a file of the name {name!r}")


Node: TypeAlias = HostFile | Content | Symlink | Directory


@attrs.frozen(kw_only=True)
class Root:
    """What the root tuple tells the kernel, beside the files.

    Attributes:
        program: the path of the ELF to run, in the image.
        arguments: all of them, the first is ``argv[0]``.
        environment: the program's variables.
        cwd: where it starts; empty for ``/``.
        mounts: the directory of each volume, which must exist, by the volume's label or uuid; ``:ro`` behind the directory for
            reading only. ``%N`` is the SCSI disk whose device id is ``persistent-disk-N``.
        debug_exit: whether the machine ends with the program, by the exit device.
        settings: further keys: ``ipaddr``, ``netmask``, ``gateway``, ``exec_wait_for_ip4_secs`` and so on.
    """

    program: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    cwd: str = ""
    mounts: Mapping[str, str] = attrs.field(factory=dict)
    debug_exit: bool = True
    settings: Mapping[str, Value] = attrs.field(factory=dict)

    def values(self) -> dict[str, Value]:
        """As the root tuple has them."""
        values: dict[str, Value] = {
            "program": self.program,
            "arguments": self.arguments or (self.program,),
            "environment": self.environment,
        }
        if self.cwd:
            values["cwd"] = self.cwd
        if self.mounts:
            values["mounts"] = self.mounts
        if self.debug_exit:
            values["debug_exit"] = "t"
        return values | dict(self.settings)


def file_value(start: int, size: int) -> dict[str, Value]:
    """The tuple of a file of so many bytes at a sector, in pages of its own."""
    if not size:
        return {"extents": {}, "filelength": 0}
    allocated = -(-size // (PAGE_SECTORS * _SECTOR)) * PAGE_SECTORS
    extent: dict[str, Value] = {"length": -(-size // _SECTOR), "offset": start, "allocated": allocated}
    return {"extents": {"0": extent}, "filelength": size}


def read_directory(path: str) -> Directory:
    """A directory of the host with all that is below it; nothing is read but the names. Blocks the thread.

    Raises:
        InvalidConfigError: something in it is neither a file, a directory nor a symbolic link.
        OSError: it cannot be read.
    """
    top: dict[str, Node] = {}
    pending = [(path, top)]
    while pending:
        place, children = pending.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_symlink():
                    children[entry.name] = Symlink(os.readlink(entry.path))  # noqa: PTH115 - of a scan
                elif entry.is_dir():
                    below: dict[str, Node] = {}
                    children[entry.name] = Directory(below)
                    pending.append((entry.path, below))
                elif entry.is_file():
                    children[entry.name] = HostFile(entry.path)
                else:
                    kind = stat.filemode(entry.stat(follow_symlinks=False).st_mode)[0]
                    raise fail("path", f"{entry.path} is no file, directory or link, but of the kind {kind!r}")
    return Directory(top)
