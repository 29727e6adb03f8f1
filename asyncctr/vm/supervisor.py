"""The supervisor of a virtual machine: a shell of a session of its own, which writes down how the machine's process ended.

It outlives the SDK. In the machine's directory, which is its working directory and the process's, it keeps the file ``vmm``, a line
for each thing that happens::

    starter BOOT/NAMESPACE/PID/START        written by who starts it; tells boot and pid namespace of the others
    supervisor /proc/self/stat              itself
    vmm /proc/self/stat                     the process, before it becomes the program
    exit CODE                               as the shell has it, 128 + n after signal n; without its line end it does not count
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.transport.ownership import Owner, parse_start

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["OUTPUT", "STATE", "Noted", "begin", "read", "spawn"]

STATE: Final = "vmm"
OUTPUT: Final = "vmm.log"

# Nothing of what is run is part of the text. Whoever has started it has gone where echo fails, by SIGPIPE or by itself: it does not
# become a machine that nobody knows. What is sent to the whole session ends the process, and the shell still tells so.
_SCRIPT: Final = f"""\
trap '' HUP INT TERM
read -r stat </proc/self/stat && echo "supervisor $stat" >>{STATE} || exit
(
trap - HUP INT TERM
read -r stat </proc/self/stat && echo "vmm $stat" >>{STATE} && echo || exit
exec "$@" >&2
)
echo "exit $?" >>{STATE}
"""


@attrs.frozen(kw_only=True)
class Noted:
    """What is written down of a start.

    Attributes:
        supervisor: the shell; ``None`` where it did not get so far.
        vmm: the machine's process; likewise.
        code: how that ended.
    """

    supervisor: Owner | None = None
    vmm: Owner | None = None
    code: int | None = None


def begin(directory: Path) -> None:
    """Write down that this process starts one, instead of what was written down of the one before."""
    path = f"{directory}/{STATE}"
    try:
        os.unlink(path)  # noqa: PTH108  # a string, on the hot path
    except FileNotFoundError:
        pass
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # Of the rest of its first block there is room for what follows, however full the disk gets.
        os.write(descriptor, f"starter {Owner.current()}\n".encode())
    finally:
        os.close(descriptor)


def read(directory: Path) -> Noted | None:
    """What is written down; ``None`` where nothing was ever started."""
    try:
        with open(f"{directory}/{STATE}", "rb") as file:  # noqa: PTH123  # a string, on the hot path
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    noted = Noted()
    starter: Owner | None = None
    # What has no line end is still being written, or there was no room for it.
    for line in text.split(b"\n")[:-1]:
        kind, _, value = line.partition(b" ")
        try:
            if kind == b"starter":
                starter = Owner.parse(value.decode())
            elif kind == b"supervisor" and starter is not None:
                noted = attrs.evolve(noted, supervisor=_process(starter, value))
            elif kind == b"vmm" and starter is not None:
                noted = attrs.evolve(noted, vmm=_process(starter, value))
            elif kind == b"exit" and value.isdigit() and int(value) < 256:
                noted = attrs.evolve(noted, code=int(value))
        except (ValueError, IndexError):
            continue
    return noted


def _process(starter: Owner, stat: bytes) -> Owner:
    return Owner(starter.boot, starter.namespace, int(stat.split(b" ", 1)[0]), parse_start(stat) or 0)


def spawn(
    directory: Path, argv: Sequence[str], env: Mapping[str, str], *, pass_fds: Sequence[int] = ()
) -> tuple[int, int]:
    """Start a supervisor, as a child that is to be reaped.

    Returns:
        Its pid, and a descriptor that reads a byte once the process is written down, and the end without it.

    Raises:
        OSError: it cannot be started.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.set_blocking(writer, True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        output = os.open(f"{directory}/{OUTPUT}", flags, 0o600)
        try:
            child = subprocess.Popen(  # noqa: S603  # the shell's text is ours
                ["/bin/sh", "-c", _SCRIPT, "asyncctr-vm", *argv],
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=output,
                cwd=directory,
                env=dict(env),
                umask=0o077,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        finally:
            os.close(output)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    # It is waited for by a pidfd; this object would complain that it is not done.
    child.returncode = 0
    return child.pid, reader
