"""What the SDK keeps in files where no daemon does: each container's directory with its logs and what became of it, and names.

containerd forgets a task once it is deleted, or when its shim is gone, and a virtual machine has nobody else; what was seen of its
start and exit is written here at once, so that any process can tell it at any later time.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import logging
import os
import shutil
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from asyncctr.core.errors import (
    ConflictError,
    ContainerNotFoundError,
    StartError,
)
from asyncctr.core.status import ExitStatus
from asyncctr.transport.deadline import Deadline
from asyncctr.transport.filelock import FileLock
from asyncctr.transport.hostfiles import host_files
from asyncctr.transport.inotify import Inotify
from asyncctr.transport.logfile import LogFiles
from asyncctr.transport.ownership import Owner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

__all__ = ["Known", "Record", "Records"]

logger = logging.getLogger(__name__)

_STATE = "state"
_LOGS = ("stdout", "stderr")


@attrs.frozen(kw_only=True)
class Known:
    """What was written down of a container.

    Attributes:
        attempted: whether a start has begun and did not end: it is under way, or whoever made it was killed.
        started_at: when it was started; ``None`` when it was not.
        failure: why the last attempt to start it failed.
        exit: how it ended; ``None`` when nobody saw that yet.
    """

    # No change that anybody waits for.
    attempted: bool = attrs.field(default=False, eq=False)
    started_at: datetime | None = None
    failure: StartError | None = None
    exit: ExitStatus | None = None


@attrs.frozen
class Record:
    """The directory of one container. Its file ``state`` gets a line for each thing that happens.

    Attributes:
        directory: named by the container's id.
        backend: for errors.
    """

    directory: Path
    backend: str

    @property
    def container_id(self) -> str:
        """Whose it is."""
        return self.directory.name

    def path(self, name: str) -> str:
        """A file in it."""
        return f"{self.directory}/{name}"

    @property
    def stdin(self) -> str:
        """The FIFO that its standard input comes from."""
        return self.path("stdin")

    def log_files(self, *, tty: bool) -> LogFiles:
        """Where its output is."""
        return LogFiles(stdout=self.path("stdout"), stderr="" if tty else self.path("stderr"))

    @property
    def files(self) -> AbstractContextManager[None]:
        """Around what is done with the files in it: what fails is an error of the tree."""
        return host_files(f"the record of container {self.container_id[:12]}", self.container_id, backend=self.backend)

    @property
    def exists(self) -> bool:
        """Whether it is there."""
        return os.path.exists(self.path(_STATE))  # noqa: PTH110  # strings, on the hot path

    def make(self) -> None:
        """Make the directory, for this user alone, with who makes it; what cannot be made leaves nothing.

        Raises:
            ResourceExhaustedError: the disk is full, or no descriptor is left.
        """
        with self.files:
            os.mkdir(self.directory, mode=0o700)  # noqa: PTH102  # strings, on the hot path
            try:
                self._append({"owner": str(Owner.current())}, os.O_CREAT | os.O_EXCL)
            except BaseException:
                self.remove()
                raise

    async def lock(self, seconds: float) -> FileLock:
        """Be the one who starts or removes it, among all processes. It ends with the process, however that ends.

        Raises:
            ContainerNotFoundError: there is no such record, any more.
            OperationTimeoutError: somebody else is at it all the time.
        """
        short = self.container_id[:12]
        gone = ContainerNotFoundError(
            f"there is no record of container {short}", backend=self.backend, resource=self.container_id
        )
        waiting = Deadline(
            seconds,
            f"others did not end their start or removal of container {short}",
            backend=self.backend,
            resource=self.container_id,
        )
        with self.files:
            try:
                async with waiting:
                    lock = await FileLock.take(self.directory)
            except (FileNotFoundError, NotADirectoryError):
                raise gone from None
        if not self.exists:
            lock.release()
            raise gone
        return lock

    def note_attempt(self) -> None:
        """Write down that it is being started."""
        with self.files:
            self._append({"starting": True})

    def note_start(self) -> None:
        """Write down that it was started, now.

        Raises:
            ResourceExhaustedError: the disk is full.
        """
        with self.files:
            self._append({"started": datetime.now(UTC).isoformat()})

    def note_failure(self, error: StartError) -> None:
        """Write down why it could not be started."""
        self._try({"failed": error.message, "status": error.status})

    def note_exit(self, status: ExitStatus) -> None:
        """Write down how it ended."""
        finished = status.finished_at
        self._try(
            {
                "exited": status.code,
                "oom_killed": status.oom_killed,
                "at": None if finished is None else finished.isoformat(),
            }
        )

    def read(self) -> Known:
        """What is written down; nothing where there is no such container."""
        known = Known()
        for event in self._events():
            if "starting" in event:
                known = attrs.evolve(known, attempted=True)
            elif "started" in event:
                started = datetime.fromisoformat(event["started"])
                known = attrs.evolve(known, attempted=False, started_at=started, failure=None)
            elif "failed" in event:
                failure = StartError(
                    event["failed"], backend=self.backend, resource=self.container_id, status=event["status"]
                )
                known = attrs.evolve(known, attempted=False, failure=failure)
            elif "exited" in event and known.exit is None:
                at = event["at"]
                status = ExitStatus.from_code(
                    event["exited"],
                    oom_killed=event["oom_killed"],
                    finished_at=None if at is None else datetime.fromisoformat(at),
                )
                known = attrs.evolve(known, exit=status)
        return known

    @property
    def is_abandoned(self) -> bool:
        """Whether the process that made it has ended for certain: of a record without a container, nobody else is at work on it."""
        event = next(self._events(), {})
        owner = Owner.parse(event.get("owner", ""))
        # Nothing written: killed between the directory and its file, or about to write.
        return owner is not None and owner.has_ended

    def _events(self) -> Iterator[dict[str, Any]]:
        with self.files:
            try:
                with open(self.path(_STATE), encoding="utf-8", errors="replace") as file:  # noqa: PTH123  # strings, on the hot path
                    text = file.read()
            except (FileNotFoundError, NotADirectoryError):
                return
        # What has no line end is still being written.
        for line in text.split("\n")[:-1]:
            try:
                event = json.loads(line)
            except ValueError:
                # Empty, or half of what a full disk had no room for.
                continue
            if isinstance(event, dict):
                yield event

    async def changed(self, since: Known) -> None:
        """Until something more was written down, or the directory is removed."""
        with self.files:
            try:
                descriptor = os.open(self.path(_STATE), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            try:
                await self._changed(descriptor, since)
            finally:
                os.close(descriptor)

    async def _changed(self, descriptor: int, since: Known) -> None:
        inotify = Inotify.of_running_loop()
        while True:
            told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            wake = partial(_tell, told)
            watch = inotify.arm(descriptor, wake)
            try:
                # Only from now on is a change told.
                if not self.exists or self.read() != since:
                    return
                await told
            finally:
                inotify.disarm(watch, wake)

    def remove(self) -> None:
        """Remove the directory; a large log takes its time, and a busy disk too, so call this in a thread."""
        try:
            # First what says that it exists: whoever waits for a change must not find it half there.
            for name in (_STATE, *_LOGS):
                os.unlink(self.path(name))  # noqa: PTH108  # strings, on the hot path
            os.rmdir(self.directory)  # noqa: PTH106
        except OSError:
            # There is less than that, or more.
            shutil.rmtree(self.directory, ignore_errors=True)

    def _append(self, event: dict[str, Any], flags: int = 0) -> None:
        # On a line of its own, whatever half of a line may be before it.
        line = "\n" + json.dumps(event) + "\n"
        try:
            descriptor = os.open(self.path(_STATE), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)
        except FileNotFoundError:
            # The container was removed meanwhile, and with it what there was to remember.
            return
        try:
            if os.write(descriptor, line.encode()) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)

    def _try(self, event: dict[str, Any]) -> None:
        """Write down what is known without it, too: to whoever sees it first."""
        try:
            self._append(event)
        except OSError as error:
            short = self.container_id[:12]
            logger.warning("what became of container %s cannot be written down: %s", short, error.strerror)


def _tell(future: asyncio.Future[None], _: int) -> None:
    if not future.done():
        future.set_result(None)


class Records:
    """The records of all containers of one place, such as a namespace of containerd.

    Args:
        directory: which nothing else uses.
        backend: for errors.
    """

    def __init__(self, directory: Path, backend: str) -> None:
        self._backend = backend
        self._containers = directory / "containers"
        self._names = directory / "names"
        self._lock = directory / "names.lock"

    def open(self) -> None:
        """Make what is missing."""
        for path in (self._containers, self._names):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def of(self, container_id: str) -> Record:
        """The record of a container, whether or not there is one."""
        return Record(self._containers / container_id, self._backend)

    def all(self) -> list[Record]:
        """Those that there are. Call this in a thread."""
        with os.scandir(self._containers) as entries:
            found = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        return [Record(path, self._backend) for path in found]

    def abandoned(self) -> list[Record]:
        """Those whose makers have ended, whether or not there is a container. It looks at every one: call this in a thread."""
        return [record for record in self.all() if record.is_abandoned]

    def release_all(self) -> None:
        """Give back the names of containers that have no record."""
        with os.scandir(self._names) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            with self._naming():
                path = self._names / name
                try:
                    taken = self.of(os.readlink(path)).exists  # noqa: PTH115  # no path, an id
                except FileNotFoundError:
                    continue
                if not taken:
                    path.unlink()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        with open(self._lock, "ab") as lock:  # noqa: PTH123  # closed again at once
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def claim(self, name: str, container_id: str) -> None:
        """Take a name for a container whose record exists. It waits for others who are at it: call this in a thread.

        Raises:
            ConflictError: another container has it.
        """
        # A link holds the id, and is made or not made at once.
        path = self._names / name
        with self.of(container_id).files, self._naming():
            try:
                holder = os.readlink(path)  # noqa: PTH115  # no path, an id
            except FileNotFoundError:
                holder = ""
            if holder and self.of(holder).exists:
                message = (
                    f"the name {name!r} is in use by container {holder[:12]}: remove that one, or take another name"
                )
                raise ConflictError(message, backend=self._backend, resource=name)
            path.unlink(missing_ok=True)
            path.symlink_to(container_id)

    def release(self, name: str, container_id: str) -> None:
        """Give a name back, if it is that container's."""
        path = self._names / name
        try:
            if os.readlink(path) == container_id:  # noqa: PTH115  # no path, an id
                path.unlink()
        except FileNotFoundError:
            # Another process was faster.
            pass
