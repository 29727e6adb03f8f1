"""The smallest kernel that QEMU boots: machine code in an ELF file with the note of the PVH boot protocol."""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["ENTRY", "pvh_kernel"]

ENTRY: Final = 0x10_0000
"""The physical address that code is loaded to and started at, its first byte."""

_HEADER: Final = struct.Struct("<16sHHIIIIIHHHHHH")
_SEGMENT: Final = struct.Struct("<8I")
_EXECUTABLE, _I386, _LOAD, _NOTE = 2, 3, 1, 4
# XEN_ELFNOTE_PHYS32_ENTRY, of Xen's public/elfnote.h: the address to start at in 32-bit mode.
_PHYS32_ENTRY: Final = 18


def pvh_kernel(code: bytes, *, memory: int = 0) -> bytes:
    """A kernel for ``-kernel``.

    Args:
        code: what runs at :data:`ENTRY`, in 32-bit protected mode with flat segments, without paging, interrupts off. There
            is no stack.
        memory: how many bytes from there on are the kernel's, those behind the code zero.
    """
    note = struct.pack("<III4sI", 4, 4, _PHYS32_ENTRY, b"Xen\0", ENTRY)
    note_at = _HEADER.size + 2 * _SEGMENT.size
    code_at = note_at + len(note)
    return b"".join(
        (
            # The identification: 32 bits, little-endian, version 1.
            _HEADER.pack(
                b"\x7fELF\1\1\1",
                _EXECUTABLE,
                _I386,
                1,
                ENTRY,
                _HEADER.size,
                0,
                0,
                _HEADER.size,
                _SEGMENT.size,
                2,
                0,
                0,
                0,
            ),
            _SEGMENT.pack(_LOAD, code_at, ENTRY, ENTRY, len(code), max(memory, len(code)), 7, 1),
            _SEGMENT.pack(_NOTE, note_at, 0, 0, len(note), len(note), 4, 4),
            note,
            code,
        )
    )
