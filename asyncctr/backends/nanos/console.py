r"""A console's bytes without the kernel's own lines: what the program printed.

Nanos writes both to the serial port as they are, without translating line ends. The kernel writes each of its lines in one piece,
in whatever column the program is:

- ``[S.ffffff] text``, its messages. At the start of a line they are told by the time stamp; in the middle of a program's line only
  those are that every healthy machine prints, about the addresses of its interfaces.
- its last words, where a signal ended the program or the kernel failed. They end the console: the same text with more behind it
  than a dump has is the program's.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ConsoleFilter"]

# The longest dump: the registers, 32 frames and 32 words of the stack, twice, and the names of symbols with them.
_DUMP_MAX: Final = 32 * 1024

# Of a pattern's parts, bytes are literal, and a str matches some characters of a class.
_Parts = tuple[bytes | str, ...]
_DIGITS: Final = r"\d{1,10}"

# The fraction of the second has six digits, and the seconds are not padded, as they are in Linux's messages.
_STAMP_PARTS: Final[_Parts] = (b"[", _DIGITS, b".", *6 * (r"\d",), b"] ")
_ASSIGNED_PARTS: Final[_Parts] = (*2 * ("[a-z]",), r"\d{1,3}", b": assigned ", "[0-9A-Fa-f.:]{1,45}", b"\n")
_LAST_WORDS: Final[tuple[_Parts, ...]] = (
    # The names are those of the kernel's source files. unix/signal.c, for every signal that ends the program but SIGTERM:
    (
        *(b"*** signal ", _DIGITS, b" received by tid ", _DIGITS, b", errno ", "-?", _DIGITS),
        *(b", code ", "-?", _DIGITS, b"\n"),
    ),
    # unix/thread.c
    (b"Process abort: SIGKILL received by thread ", _DIGITS, b"\n"),
    (b"Process abort: SIGSTOP received by thread ", _DIGITS, b"\n"),
    (b"Process abort: Unhandled SIGSEGV received by thread ", _DIGITS, b"\n"),
    # x86_64/interrupt.c
    (
        *(b"cpu ", *16 * ("[0-9a-f]",), b", state ", "[a-z ]{1,12}", b", vector ", *16 * ("[0-9a-f]",)),
        *(b"\n", b"lastvector: "),
    ),
)
# unix/signal.c, for SIGTERM; nothing comes behind it.
_TERMINATE: Final[_Parts] = (b"   terminate\n",)
_OPENING_MAX: Final = 100


def _atoms(parts: _Parts) -> list[bytes]:
    atoms: list[bytes] = []
    for part in parts:
        atoms += [part.encode()] if isinstance(part, str) else [re.escape(bytes((byte,))) for byte in part]
    return atoms


def _whole(parts: _Parts) -> bytes:
    return b"".join(_atoms(parts))


def _begun(parts: _Parts) -> bytes:
    """What any beginning of the parts, but an empty one, matches where the input ends."""
    pattern = b""
    for atom in reversed(_atoms(parts)):
        pattern = atom + (b"(?:%s)?" % pattern if pattern else b"")
    return pattern + rb"\Z"


_STAMP: Final = re.compile(_whole(_STAMP_PARTS))
_ASSIGNED: Final = re.compile(_whole(_ASSIGNED_PARTS))
_OPENING: Final = re.compile(_begun(_STAMP_PARTS + _ASSIGNED_PARTS))

# From the end of the line before. An empty line in front is the kernel's: it cannot know where the program's line ended.
_ENDING_PATTERNS: Final = (*map(_whole, _LAST_WORDS), _whole(_TERMINATE) + rb"\Z")
_ENDING: Final = re.compile(rb"\n(\n?(?:%s))" % b"|".join(_ENDING_PATTERNS))
_POSSIBLE_ENDING: Final = re.compile(
    rb"\n(\n?(?:%s)|\n\Z)" % b"|".join((*_ENDING_PATTERNS, *map(_begun, (*_LAST_WORDS, _TERMINATE))))
)
_NEWLINE: Final = ord("\n")


class ConsoleFilter:
    """Takes a console's bytes as they come, and gives the program's back, at once but for what may still be the kernel's."""

    def __init__(self) -> None:
        # The byte before, then those that are undecided. The console begins at the start of a line.
        self._rest = b"\n"
        self._within = False  # a message of the kernel's, up to the end of its line

    def feed(self, data: bytes) -> bytes:
        """What is known by now to be the program's."""
        text = self._rest + data
        end = len(text)
        ending = _POSSIBLE_ENDING.search(text, max(0, end - _DUMP_MAX - 1))
        if ending is not None:
            end = ending.start(1)
        else:
            opening = text.rfind(b"[", max(1, end - _OPENING_MAX))
            if opening > 0 and _OPENING.match(text, opening):
                end = opening
        return self._take(text, end)

    def finish(self) -> bytes:
        """What is left of the program's: the console has ended."""
        ending = _ENDING.search(self._rest)
        return self._take(self._rest, len(self._rest) if ending is None else ending.start(1))

    def _take(self, text: bytes, end: int) -> bytes:
        """The program's bytes of ``text[1:end]``; the others are kept."""
        pieces: list[bytes] = []
        start = 1
        if self._within:
            start = self._behind_line(text, start, end)
        for stamp in _STAMP.finditer(text, start, end):
            if stamp.start() < start:
                continue
            if text[stamp.start() - 1] == _NEWLINE:
                pieces.append(text[start : stamp.start()])
                start = self._behind_line(text, stamp.end(), end)
            elif message := _ASSIGNED.match(text, stamp.end(), end):
                pieces.append(text[start : stamp.start()])
                start = message.end()
        pieces.append(text[start:end])
        self._rest = text[end - 1 :]
        return b"".join(pieces)

    def _behind_line(self, text: bytes, start: int, end: int) -> int:
        newline = text.find(b"\n", start, end)
        self._within = newline < 0
        return end if newline < 0 else newline + 1
