"""Guests of the tests' own, for machines without a real Nanos: a stand-in for its kernel, and a shell that needs no fork.

They are C, compiled once for each state of the sources, in the user's cache, by whoever needs them first. The stand-in does what
a manager of Nanos relies on: it reads the root filesystem and runs its program, prints Nanos' lines, leaves the kernel's log,
ends with the program's code, hands the power button on as a SIGTERM, and keeps what is written to volumes. The shell runs on the
real Nanos as well, so that one suite serves both.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import attrs

from asyncctr.testing.cache import cache_directory
from asyncctr.testing.programs import CommandError, find, missing
from asyncctr.transport.filelock import locked

__all__ = ["Guests", "build_guests"]

_SOURCES = Path(__file__).parent
_BUILD_TIME = 120.0
_COMMON = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-static")
_PROGRAMS = {
    # No registers but the general ones, which is all that its entry keeps; at 1 MiB, where PVH's memory begins.
    "kernel.elf": (
        *("-ffreestanding", "-fno-strict-aliasing", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
        *("-mgeneral-regs-only", "-mno-red-zone", "-fcf-protection=none", "-fno-pie", "-no-pie", "-nostdlib"),
        "-Wl,-e,pvh_entry,-Ttext-segment=0x100000,--build-id=none,-z,max-page-size=4096,-z,noexecstack",
        *("entry.S", "machine.c", "virtio.c", "disk.c", "network.c", "tfs.c", "linux.c"),
    ),
    "sh": ("shell.c",),
}


@attrs.frozen(kw_only=True)
class Guests:
    """The compiled guests.

    Attributes:
        kernel: what QEMU's microvm is given as its kernel in place of Nanos'.
        shell: a static program for the image: a subset of ``sh`` whose commands are all its own, by whatever of their names it is
            called.
    """

    kernel: Path
    shell: Path


def build_guests() -> Guests:
    """Compile the guests where that is not done yet; takes two seconds the first time, and waits for others. Blocks the thread.

    Raises:
        RuntimeMissing: there is no compiler, or the machine is of another kind.
        CommandError: the compiler failed.
    """
    error = missing("guests")
    if error is not None:
        raise error
    # With the sources and the arguments in its name, so that a change of them is not answered with an older build.
    mark = hashlib.sha256(repr((_COMMON, _PROGRAMS)).encode())
    for source in sorted(_SOURCES.glob("*.[chS]")):
        mark.update(source.read_bytes())
    directory = cache_directory() / f"guests-{mark.hexdigest()[:8]}"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(directory / "lock"):
        for name, words in _PROGRAMS.items():
            if not (directory / name).exists():
                _compile(directory / name, words)
    return Guests(kernel=directory / "kernel.elf", shell=directory / "sh")


def _compile(path: Path, words: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(prefix=".build-", dir=path.parent) as made:
        command = [find("gcc"), *_COMMON, *words, "-o", os.path.join(made, path.name)]  # noqa: PTH118 - words for a program
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=_BUILD_TIME, cwd=_SOURCES)  # noqa: S603 - no shell, our own words
        except subprocess.TimeoutExpired as error:
            message = f"{' '.join(command)} did not end within {_BUILD_TIME:g} s"
            raise CommandError(message) from error
        if done.returncode:
            message = (
                f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
            )
            raise CommandError(message)
        Path(made, path.name).replace(path)
