"""How machines end: what QEMU's process, the kernel's log on the disk and this backend's own kill say, put together."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncctr.backends.nanos.facts import Facts
from asyncctr.backends.nanos.qmp import BACKEND
from asyncctr.backends.nanos.tfs.disk import read_kernel_log
from asyncctr.backends.nanos.tfs.overlay import open_overlay
from asyncctr.core.errors import BackendUnavailableError, ContainerNotFoundError, InvalidConfigError
from asyncctr.core.status import ExitStatus
from asyncctr.transport.waits import ExitLostError, SharedWaits
from asyncctr.vm.process import VmProcess, output
from asyncctr.vm.supervisor import STATE

if TYPE_CHECKING:
    from asyncctr.transport.records import Record, Records
    from asyncctr.vm.process import VmmExit

__all__ = ["CONSOLE", "DISK", "Exits", "console_end"]

CONSOLE: Final = "stdout"
DISK: Final = "disk.qcow2"

_CONSOLE_END: Final = 4_096
_SIGKILL: Final = 9
_WARNING: Final = ": warning: "
"""In QEMU's lines after which it goes on, such as of a shared directory with another file system in it."""


class Exits:
    """The exits of one backend's machines: one wait for each, whoever asks.

    Args:
        records: where what was seen is written down.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._waits = SharedWaits(self._watch, backend=BACKEND)

    async def wait(self, container_id: str) -> ExitStatus:
        """How a machine ended; see :meth:`asyncctr.Backend.wait`."""
        record = self._records.of(container_id)
        if status := record.read().exit:
            return status
        return await self._waits.wait(container_id)

    async def _watch(self, container_id: str) -> ExitStatus:
        record = self._records.of(container_id)
        while True:
            known = record.read()
            if known.exit is not None:
                return known.exit
            if not record.exists:
                raise _removed(record)
            if known.failure is not None:
                raise known.failure
            if known.started_at is not None:
                return await self._ended(record)
            await record.changed(known)

    async def _ended(self, record: Record) -> ExitStatus:
        process = VmProcess.adopt(record.directory, backend=BACKEND)
        if process is None:
            return await self.settle(record, None)
        try:
            return await self.settle(record, await process.ended())
        finally:
            process.close()

    async def settle(self, record: Record, ended: VmmExit | None) -> ExitStatus:
        """The status of a machine whose process has ended, written down.

        Raises:
            ExitLostError: nobody can tell.
            ContainerNotFoundError: it was removed meanwhile.
            ResourceExhaustedError: no descriptor is left to look with.
        """
        if status := record.read().exit:
            return status
        facts = Facts.read(record)
        if facts is None:
            raise _removed(record)
        try:
            code = await asyncio.to_thread(_code, record, facts, ended)
        except ExitLostError as error:
            if not record.exists:
                # With it went what would have told.
                raise _removed(record) from error
            raise
        status = ExitStatus.from_code(code, oom_killed=None, finished_at=_finished_at(record, ended))
        record.note_exit(status)
        return status

    async def aclose(self) -> None:
        """End what still waits."""
        await self._waits.aclose()


def _removed(record: Record) -> ContainerNotFoundError:
    message = f"container {record.container_id[:12]} was removed"
    return ContainerNotFoundError(message, backend=BACKEND, resource=record.container_id)


def _finished_at(record: Record, ended: VmmExit | None) -> datetime:
    """When its supervisor wrote down the end, which nobody may have asked for since; now, where it did not."""
    if ended is not None and ended.code is not None:
        try:
            written = os.stat(record.path(STATE)).st_mtime  # noqa: PTH116  # a string, as the record's are
        except FileNotFoundError:
            # It was removed meanwhile.
            pass
        else:
            # A file's time is that of the clock's last tick.
            at = datetime.fromtimestamp(written, UTC)
            return max(at, record.read().started_at or at)
    return datetime.now(UTC)


def _code(record: Record, facts: Facts, ended: VmmExit | None) -> int:
    """The exit code.

    QEMU ends with twice the guest's code and 1, of which a byte is left. A guest whose code is not 0 has written it to the
    kernel's log on its disk. Code 0 takes both: QEMU's 1, and nothing in the log; and no word of QEMU's own, for 1 is what it
    ends with by itself, too.
    """
    container_id = record.container_id
    readable = True
    try:
        with record.files, open_overlay(record.path(DISK), base=facts.disk) as disk:
            log = read_kernel_log(disk)
    except (InvalidConfigError, BackendUnavailableError):
        # A guest may do to its disk what it likes. QEMU's 1 alone is code 128's, too.
        log, readable = None, False
    if log is not None:
        return log.exit_code & 0xFF
    code = None if ended is None else ended.code
    if code == 128 + _SIGKILL:
        return code
    said = "\n".join(line for line in output(record.directory).splitlines() if _WARNING not in line)
    if code == 1 and readable and not said:
        return 0
    if code is None:
        message = f"container {container_id[:12]} has ended, and its exit code was lost: whoever watched over its machine was killed, too"
        raise ExitLostError(message, backend=BACKEND, resource=container_id)
    what = f"with {code}" if code else "without its guest's exit"
    message = f"the machine of container {container_id[:12]} ended {what}: {said or console_end(record) or 'its console is empty'}"
    raise ExitLostError(message, backend=BACKEND, resource=container_id, status=code)


def console_end(record: Record) -> str:
    """The last of what a machine's console has, for errors."""
    try:
        with Path(record.path(CONSOLE)).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _CONSOLE_END))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
