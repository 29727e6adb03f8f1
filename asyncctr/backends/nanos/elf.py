"""ELF programs of x86-64, read without trusting them: what loads them, and what they need."""

from __future__ import annotations

import os
import stat
import struct
from typing import TYPE_CHECKING, Final, NoReturn

import attrs

from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ElfFile", "read_elf"]

FIELD: Final = "program"

# System V ABI, "ELF header" and "Program header"; the AMD64 supplement gives the machine its number.
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_ENTRY: Final = struct.Struct("<qQ")
_IDENT: Final = b"\x7fELF\x02\x01\x01"
_EXECUTABLE: Final = 2
_SHARED: Final = 3
_X86_64: Final = 62
_LOAD: Final = 1
_DYNAMIC: Final = 2
_INTERPRETER: Final = 3
_NEEDED: Final = 1
_STRINGS: Final = 5
_STRINGS_SIZE: Final = 10
_RPATH: Final = 15
_RUNPATH: Final = 29

# Far beyond what linkers write, and little enough to be read whole.
_MAX_SEGMENTS: Final = 4_096
_MAX_DYNAMIC: Final = 1 << 20
_MAX_STRINGS: Final = 64 << 20
_MAX_PATH: Final = 4_096


@attrs.frozen(kw_only=True)
class ElfFile:
    """What the headers of a program or shared library say.

    Attributes:
        interpreter: the path of the loader that it asks for; empty where it asks for none.
        needed: the libraries it needs, in order (``DT_NEEDED``).
        rpath: directories to search, as they are written (``DT_RPATH``).
        runpath: likewise (``DT_RUNPATH``).
    """

    interpreter: str = ""
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()

    @property
    def is_dynamic(self) -> bool:
        """Whether it needs a loader or libraries; a position-independent static program does not."""
        return bool(self.interpreter or self.needed)


def read_elf(path: str | os.PathLike[str]) -> ElfFile:
    """The headers of a file. Blocks the thread for some reads.

    Raises:
        InvalidConfigError: it cannot be read, or is no ELF program or library of 64-bit x86, or a broken one; the field is
            ``"program"``.
    """
    try:
        # Or a fifo would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise fail(FIELD, f"{os.fspath(path)!r} cannot be opened: {reason}") from error
    try:
        return _Reader(descriptor, repr(os.fspath(path))).read()
    finally:
        os.close(descriptor)


class _Reader:
    def __init__(self, file: int, name: str) -> None:
        self._file = file
        self._name = name
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise fail(FIELD, f"{name} is no regular file")
        self._size = status.st_size

    def _broken(self, text: str) -> NoReturn:
        raise fail(FIELD, f"{self._name} is a broken ELF file: {text}")

    def _bytes(self, offset: int, size: int, what: str) -> bytes:
        if offset + size > self._size:
            self._broken(f"{what} is beyond its end")
        data = os.pread(self._file, size, offset)
        if len(data) != size:
            self._broken(f"{what} is cut off")
        return data

    def read(self) -> ElfFile:
        if self._size < _HEADER.size or not (start := os.pread(self._file, _HEADER.size, 0)).startswith(b"\x7fELF"):
            raise fail(FIELD, f"{self._name} is no ELF file; scripts go in by 'args' and 'files' of their interpreter")
        ident, kind, machine, _, _, offset, _, _, _, entry_size, count, *_ = _HEADER.unpack(start)
        if not ident.startswith(_IDENT) or machine != _X86_64:
            raise fail(FIELD, f"{self._name} is no ELF file of 64-bit x86, which is what Nanos runs here")
        if kind not in (_EXECUTABLE, _SHARED):
            raise fail(FIELD, f"{self._name} is an ELF file but neither a program nor a shared library; link it first")
        if count and entry_size != _SEGMENT.size:
            self._broken(f"its program headers have {entry_size} bytes")
        if count > _MAX_SEGMENTS:
            self._broken(f"it has {count} program headers")
        table = self._bytes(offset, count * _SEGMENT.size, "the table of program headers")
        segments = list(_SEGMENT.iter_unpack(table))
        interpreter = ""
        entries: list[tuple[int, int]] = []
        for segment_type, _, place, _, _, size, _, _ in segments:
            if segment_type == _INTERPRETER:
                interpreter = self._interpreter(place, size)
            elif segment_type == _DYNAMIC:
                entries = self._dynamic(place, size)
        return self._linked(interpreter, entries, [segment for segment in segments if segment[0] == _LOAD])

    def _interpreter(self, offset: int, size: int) -> str:
        if not 1 < size <= _MAX_PATH:
            self._broken(f"the name of its interpreter has {size} bytes")
        text = self._text(self._bytes(offset, size, "the name of its interpreter"), 0)
        if not text.startswith("/"):
            self._broken(f"its interpreter {text!r} is no absolute path")
        return text

    def _dynamic(self, offset: int, size: int) -> list[tuple[int, int]]:
        if size > _MAX_DYNAMIC:
            self._broken(f"its dynamic section has {size} bytes")
        data = self._bytes(offset, size - size % _ENTRY.size, "the dynamic section")
        entries: list[tuple[int, int]] = []
        for tag, value in _ENTRY.iter_unpack(data):
            if not tag:
                break
            entries.append((tag, value))
        return entries

    def _linked(self, interpreter: str, entries: list[tuple[int, int]], loads: Iterable[tuple[int, ...]]) -> ElfFile:
        single = dict(entries)
        wanted = [(tag, value) for tag, value in entries if tag in (_NEEDED, _RPATH, _RUNPATH)]
        if not wanted:
            return ElfFile(interpreter=interpreter)
        address, size = single.get(_STRINGS), single.get(_STRINGS_SIZE)
        if address is None or size is None or size > _MAX_STRINGS:
            self._broken("its dynamic section has no table of strings")
        for _, _, offset, start, _, length, _, _ in loads:
            if start <= address and address + size <= start + length:
                strings = self._bytes(offset + address - start, size, "the table of strings")
                break
        else:
            self._broken("its table of strings is in no segment")
        texts: dict[int, list[str]] = {_NEEDED: [], _RPATH: [], _RUNPATH: []}
        for tag, value in wanted:
            texts[tag].append(self._text(strings, value))
        return ElfFile(
            interpreter=interpreter,
            needed=tuple(texts[_NEEDED]),
            rpath=_directories(texts[_RPATH]),
            runpath=_directories(texts[_RUNPATH]),
        )

    def _text(self, data: bytes, offset: int) -> str:
        end = data.find(b"\0", offset)
        if offset >= len(data) or end < 0:
            self._broken("a string in it has no end")
        try:
            return data[offset:end].decode()
        except UnicodeDecodeError:
            self._broken("a name in it is no UTF-8")


def _directories(texts: list[str]) -> tuple[str, ...]:
    # An empty part is the working directory, which is none to search for libraries of an image.
    return tuple(part for text in texts for part in text.split(":") if part)
