"""Trees of files that a build may ask for: a directory, an archive, or a few files that are made up."""
# ruff: noqa: PTH115, PTH118, PTH123 - paths here are joined by the ten thousand, and need not be valid Unicode

from __future__ import annotations

import io
import os
import posixpath
import stat
import tarfile
import threading
from typing import IO, TYPE_CHECKING, Protocol

import attrs

from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ArchiveTree", "DirectoryTree", "Entry", "MemoryTree", "Tree"]


@attrs.frozen
class Entry:
    """A file, directory, symbolic link or named pipe of a tree.

    Attributes:
        name: the last part of its path.
        mode: as ``st_mode``.
        size: of a file, in bytes.
        changed: when it was modified, in nanoseconds.
        target: of a symbolic link.
        same: equal for the names of one file that has several; ``None`` for one that has not.
    """

    name: str
    mode: int
    size: int = 0
    changed: int = 0
    target: str = ""
    same: object = None

    @property
    def is_directory(self) -> bool:
        """Whether it is one, and no link to one."""
        return stat.S_ISDIR(self.mode)


class Tree(Protocol):
    """Paths are relative and with ``/``; ``""`` is the tree itself. All methods block, and are called in threads.

    Names that are not UTF-8 are as :func:`os.fsdecode` has them.
    """

    def entries(self, directory: str) -> Sequence[Entry]:
        """What is in a directory, in any order; nothing where there is none.

        Raises:
            InvalidConfigError: it cannot be read.
        """
        ...

    def entry(self, path: str) -> Entry | None:
        """What is at that path, which is not ``""``; ``None`` for nothing."""
        ...

    def open(self, path: str) -> IO[bytes]:
        """A file's content.

        Raises:
            FileNotFoundError: it has gone.
            InvalidConfigError: it cannot be read.
        """
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class DirectoryTree:
    """A directory of this machine's."""

    def __init__(self, root: str) -> None:
        self._root = root

    def entries(self, directory: str) -> list[Entry]:
        """See :meth:`Tree.entries`."""
        found: list[Entry] = []
        try:
            with os.scandir(os.path.join(self._root, directory)) as scan:
                for item in scan:
                    try:
                        entry = self._entry(item.path, item.name, item.stat(follow_symlinks=False))
                    except FileNotFoundError:
                        # Gone since it was listed, as temporary files go.
                        continue
                    if entry is not None:
                        found.append(entry)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise fail("context", f"the directory {directory or '.'!r} cannot be read: {error.strerror}") from error
        return found

    def entry(self, path: str) -> Entry | None:
        """See :meth:`Tree.entry`."""
        full = os.path.join(self._root, path)
        try:
            return self._entry(full, posixpath.basename(path), os.lstat(full))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise fail("context", f"{path!r} cannot be read: {error.strerror}") from error

    @staticmethod
    def _entry(full: str, name: str, found: os.stat_result) -> Entry | None:
        mode = found.st_mode
        if stat.S_ISREG(mode):
            same = (found.st_dev, found.st_ino) if found.st_nlink > 1 else None
            return Entry(name, mode, found.st_size, found.st_mtime_ns, "", same)
        if stat.S_ISLNK(mode):
            return Entry(name, mode, 0, found.st_mtime_ns, os.readlink(full))
        # Sockets are of no use in an image, and no daemon should make devices of what somebody has lying about.
        if stat.S_ISDIR(mode) or stat.S_ISFIFO(mode):
            return Entry(name, mode, 0, found.st_mtime_ns)
        return None

    def open(self, path: str) -> IO[bytes]:
        """See :meth:`Tree.open`."""
        try:
            return open(os.path.join(self._root, path), "rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise fail("context", f"{path!r} cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Do nothing: it holds nothing."""


class MemoryTree:
    """Files by their names, without directories."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def entries(self, directory: str) -> list[Entry]:
        """See :meth:`Tree.entries`."""
        return [] if directory else [Entry(name, stat.S_IFREG | 0o644, len(data)) for name, data in self._files.items()]

    def entry(self, path: str) -> Entry | None:
        """See :meth:`Tree.entry`."""
        return next((entry for entry in self.entries("") if entry.name == path), None)

    def open(self, path: str) -> IO[bytes]:
        """See :meth:`Tree.open`."""
        return io.BytesIO(self._files[path])

    def close(self) -> None:
        """Do nothing: it holds nothing."""


_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.AREGTYPE: stat.S_IFREG,
    tarfile.CONTTYPE: stat.S_IFREG,
    tarfile.GNUTYPE_SPARSE: stat.S_IFREG,
    tarfile.LNKTYPE: stat.S_IFREG,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


@attrs.frozen
class _Kept:
    entry: Entry
    member: tarfile.TarInfo | None


class ArchiveTree:
    """A tar in a file that can be read anywhere, which belongs to the tree from then on; not compressed.

    Raises:
        InvalidConfigError: it is no tar, or a path in it leads out of it.
    """

    def __init__(self, file: IO[bytes]) -> None:
        # One position in the file for all who read.
        self._lock = threading.Lock()
        self._directories: dict[str, dict[str, _Kept]] = {"": {}}
        try:
            self._archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  # close does
            for member in self._archive:
                self._add(member)
        except (tarfile.TarError, ValueError) as error:
            raise fail("context", f"is no tar archive: {error}") from error

    def _add(self, member: tarfile.TarInfo) -> None:
        path = posixpath.normpath(member.name).lstrip("/")
        if path in ("", "."):
            return
        if path == ".." or path.startswith("../"):
            raise fail("context", f"the archive's {member.name!r} leads out of it")
        kind = _KINDS.get(member.type)
        if kind is None:
            return
        directory, _, name = path.rpartition("/")
        held = self._directory(directory)
        changed = round(member.mtime * 1_000_000_000)
        entry = Entry(
            name, kind | member.mode & 0o7777, member.size, changed, member.linkname if member.issym() else ""
        )
        if member.islnk():
            first = self._find(posixpath.normpath(member.linkname).lstrip("/"))
            if first is None or first.member is None:
                raise fail("context", f"the archive's {member.name!r} is a link to what is not in it")
            if first.entry.same is None:
                # Found by its content's place from now on.
                same = attrs.evolve(first.entry, same=first.member.offset)
                self._put(posixpath.normpath(member.linkname).lstrip("/"), _Kept(same, first.member))
            held[name] = _Kept(attrs.evolve(first.entry, name=name, same=first.member.offset), first.member)
            return
        if kind == stat.S_IFDIR:
            self._directories.setdefault(path, {})
        elif path in self._directories:
            for below in [key for key in self._directories if key == path or key.startswith(f"{path}/")]:
                del self._directories[below]
        held[name] = _Kept(entry, member)

    def _directory(self, path: str) -> dict[str, _Kept]:
        """The entries of a directory, which is made where the archive has not told of it."""
        if path not in self._directories:
            parent, _, name = path.rpartition("/")
            self._directory(parent)[name] = _Kept(Entry(name, stat.S_IFDIR | 0o755), None)
            self._directories[path] = {}
        return self._directories[path]

    def _find(self, path: str) -> _Kept | None:
        directory, _, name = path.rpartition("/")
        return self._directories.get(directory, {}).get(name)

    def _put(self, path: str, kept: _Kept) -> None:
        directory, _, name = path.rpartition("/")
        self._directories[directory][name] = kept

    def entries(self, directory: str) -> list[Entry]:
        """See :meth:`Tree.entries`."""
        return [kept.entry for kept in self._directories.get(directory, {}).values()]

    def entry(self, path: str) -> Entry | None:
        """See :meth:`Tree.entry`."""
        kept = self._find(path)
        return None if kept is None else kept.entry

    def open(self, path: str) -> IO[bytes]:
        """See :meth:`Tree.open`."""
        kept = self._find(path)
        file = None if kept is None or kept.member is None else self._archive.extractfile(kept.member)
        if file is None:
            raise FileNotFoundError(path)
        return io.BufferedReader(_Locked(file, self._lock), 1 << 16)

    def close(self) -> None:
        """Close the file."""
        self._archive.close()
        if self._archive.fileobj is not None:
            self._archive.fileobj.close()


class _Locked(io.RawIOBase):
    """A member of an archive whose file others read as well."""

    def __init__(self, file: IO[bytes], lock: threading.Lock) -> None:
        self._file = file
        self._lock = lock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what a buffered reader gives it
        with self._lock:
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
