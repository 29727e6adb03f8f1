from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncctr.backends.nanos.elf import ElfFile, read_elf
from asyncctr.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FULL = {
    "interpreter": "/lib64/ld-linux-x86-64.so.2",
    "needed": ["liba.so.1", "libb.so"],
    "rpath": "/opt/lib:$ORIGIN",
    "runpath": "$ORIGIN/../lib::",
}


def test_headers_say_what_a_program_needs(tmp_path: Path, make_elf: Callable[..., bytes]) -> None:
    path = tmp_path / "program"
    path.write_bytes(make_elf(**_FULL))
    elf = read_elf(path)
    assert elf == ElfFile(
        interpreter="/lib64/ld-linux-x86-64.so.2",
        needed=("liba.so.1", "libb.so"),
        rpath=("/opt/lib", "$ORIGIN"),
        runpath=("$ORIGIN/../lib",),
    )
    assert elf.is_dynamic
    path.write_bytes(make_elf(kind=2))
    assert not read_elf(path).is_dynamic


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"machine": 183}, "64-bit x86"),
        ({"ident": b"\x7fELF\x01\x01\x01"}, "64-bit x86"),
        ({"kind": 1}, "link it first"),
        ({"interpreter": "lib/ld.so"}, "no absolute path"),
    ],
)
def test_what_nanos_cannot_run_is_refused(
    tmp_path: Path, make_elf: Callable[..., bytes], change: dict[str, object], said: str
) -> None:
    path = tmp_path / "program"
    path.write_bytes(make_elf(**{**_FULL, **change}))
    with pytest.raises(InvalidConfigError, match=said) as caught:
        read_elf(path)
    assert caught.value.field == "program"


def test_what_is_no_elf_file_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (script, fifo, tmp_path, tmp_path / "missing", "nul\0"):
        with pytest.raises(InvalidConfigError):
            read_elf(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    cut=st.integers(0, 1 << 12),
    changes=st.lists(st.tuples(st.integers(0, 1 << 10), st.binary(min_size=1, max_size=8)), max_size=6),
)
def test_a_hostile_file_is_read_or_refused(
    tmp_path: Path, make_elf: Callable[..., bytes], cut: int, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(make_elf(**_FULL))
    for offset, replacement in changes:
        place = offset % len(data)
        data[place : place + len(replacement)] = replacement
    path = tmp_path / "program"
    path.write_bytes(data[:cut])
    try:
        read_elf(path)
    except InvalidConfigError as error:
        assert error.field == "program"


def test_this_python_is_read() -> None:
    assert read_elf(os.path.realpath(sys.executable)).interpreter.startswith("/")
