"""Real QEMUs with guests of a few bytes, each in a directory of its own; and ELF files made by hand, for what no compiler makes."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from asyncctr.backends.nanos.machine import VirtualMachine, qemu_arguments
from asyncctr.backends.nanos.pvh import pvh_kernel
from asyncctr.backends.nanos.qmp import Monitor, listening_socket
from asyncctr.testing.programs import find

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

HALT = bytes.fromhex("fa f4 eb fd")  # cli; 1: hlt; jmp 1b


@attrs.frozen
class Running:
    monitor_path: str
    console: Path
    process: asyncio.subprocess.Process

    def monitor(self, seconds: float | None = 20) -> Monitor:
        return Monitor(self.monitor_path, timeout=seconds, resource="vm")

    async def ended(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()

    async def said(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()


class Starter:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[asyncio.subprocess.Process] = []

    async def __call__(self, code: bytes = HALT, *, by_path: bool = False, **description: Any) -> Running:
        directory = self.directory / str(len(self.processes))
        directory.mkdir()
        kernel, socket_path = directory / "kernel", str(directory / "qmp")
        kernel.write_bytes(pvh_kernel(code))
        console = directory / "console, file"
        with listening_socket(socket_path) as listener:
            descriptor = listener.fileno()
            vm = VirtualMachine(
                kernel=str(kernel),
                monitor=socket_path if by_path else descriptor,
                console=str(console),
                memory=64 << 20,
            )
            if by_path:
                os.unlink(socket_path)  # noqa: PTH108 - at once, on the loop
            process = await asyncio.create_subprocess_exec(
                find("qemu-system-x86_64"),
                *qemu_arguments(attrs.evolve(vm, **description)),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=() if by_path else (descriptor,),
            )
        self.processes.append(process)
        return Running(socket_path, console, process)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for sockets."""
    path = tempfile.mkdtemp(prefix="nanos, ü ")
    yield Path(path)
    shutil.rmtree(path)


@pytest.fixture
async def start(directory: Path) -> AsyncIterator[Starter]:
    starter = Starter(directory)
    yield starter
    for process in starter.processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _elf(
    *,
    interpreter: str = "",
    needed: Sequence[str] = (),
    rpath: str = "",
    runpath: str = "",
    kind: int = 3,
    machine: int = 62,
    ident: bytes = b"\x7fELF\x02\x01\x01",
) -> bytes:
    strings = bytearray(b"\0")

    def string(text: str) -> int:
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text.encode()) - 1

    entries = [(1, string(name)) for name in needed]
    entries += [(15, string(rpath))] if rpath else []
    entries += [(29, string(runpath))] if runpath else []
    loader = interpreter.encode() + b"\0" if interpreter else b""
    linked = bool(entries)
    count = 1 + bool(loader) + linked
    start = 64 + 56 * count
    table = start + len(loader)
    base = 0x400000
    entries += [(5, base + table), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries) if linked else b""
    place = table + len(strings)
    size = place + len(dynamic)

    def segment(segment_type: int, offset: int, length: int) -> bytes:
        return struct.pack("<IIQQQQQQ", segment_type, 5, offset, base + offset, base + offset, length, length, 1)

    segments = segment(1, 0, size)
    segments += segment(3, start, len(loader)) if loader else b""
    segments += segment(2, place, len(dynamic)) if linked else b""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident.ljust(16, b"\0"), kind, machine, 1, base, 64, 0, 0, 64, 56, count, 0, 0, 0
    )
    return header + segments + loader + bytes(strings) + dynamic


@pytest.fixture(scope="session")
def make_elf() -> Callable[..., bytes]:
    return _elf
