"""Named volumes: directories on the daemon's host, kept when containers go, and filled for the first of them."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncctr.backends.containerd.daemon.programs import interpreter
from asyncctr.backends.containerd.errors import host_files
from asyncctr.core.errors import ConflictError
from asyncctr.transport import volumes
from asyncctr.transport.filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncctr.netns.runner import Runner

__all__ = ["VolumeStore"]

_DATA: Final = "_data"
_UNSETTLED: Final = "unsettled"
"""There until the first container was to have the volume, and what its image has there was copied."""
_FILLING: Final = Path(__file__).with_name("filling.py")


class VolumeStore(volumes.VolumeStore):
    """The volumes of one containerd namespace.

    Args:
        directory: which no other namespace or daemon uses.
        runner: runs programs where the owners of files are what they are in containers.
        backend: for errors.
    """

    def __init__(self, directory: Path, *, runner: Runner, backend: str) -> None:
        super().__init__(directory, backend=backend)
        self._runner = runner

    def path(self, name: str) -> str:
        """Where a volume's data is, whether or not there is one."""
        return str(self._place(name) / _DATA)

    def is_settled(self, name: str) -> bool:
        """Whether there is a volume of that name that a container had."""
        data = self.path(name)
        return os.path.isdir(data) and not os.path.exists(f"{os.path.dirname(data)}/{_UNSETTLED}")  # noqa: PTH110, PTH112, PTH120

    async def settle(self, name: str, path: str, image: Sequence[str]) -> None:
        """Make a volume where there is none of that name, and fill it for its first container; of several at once, one does.

        Cancelled or killed, it is filled by the next one.

        Args:
            name: its name.
            path: where it is to be mounted: it gets what the image has there, and owner and mode of that.
            image: how that is mounted, as type, source and options; empty for one that has nothing.

        Raises:
            ResourceExhaustedError: the disk is full, or no descriptor is left.
        """
        directory = self._place(name)
        with host_files(f"the volume {name!r}", name):
            while not self.is_settled(name):
                try:
                    await asyncio.to_thread(self.create, name, {})
                except ConflictError:
                    # Made with labels, which a mount does not speak of.
                    pass
                try:
                    with await FileLock.take(directory) as lock:
                        # It may have been removed, and made again, before or meanwhile.
                        if not self.is_settled(name) and os.path.samestat(os.fstat(lock.fileno()), directory.stat()):
                            await self._fill(directory, path, image, lock)
                except FileNotFoundError:
                    if directory.exists():
                        raise

    async def _fill(self, directory: Path, path: str, image: Sequence[str], lock: FileLock) -> None:
        data = directory / _DATA
        # There is something where this was done, but not noted.
        if image and not await asyncio.to_thread(os.listdir, data):
            new = self._new()
            try:
                new.mkdir()
                await self._copy(path, image, new, lock)
                # Over the empty one, which nobody has mounted yet.
                (new / _DATA).replace(data)
            finally:
                await self._discard(new)
        (directory / _UNSETTLED).unlink()

    async def _copy(self, path: str, image: Sequence[str], new: Path, lock: FileLock) -> None:
        places = (new / _DATA, new / "image")
        for made in places:
            made.mkdir()
        words = [interpreter(), "-I", "-S", str(_FILLING), *map(str, places), path, *image]
        # It goes on holding the lock when this process is killed.
        done = await self._runner.run(*words, timeout=None, pass_fds=[lock.fileno()])
        if done.returncode:
            number, _, reason = done.words.partition(" ")
            raise OSError(int(number), reason) if number.isdecimal() else OSError(errno.EIO, done.words)

    def _furnish(self, new: Path, name: str) -> None:
        del name
        (new / _DATA).mkdir()
        (new / _UNSETTLED).touch()

    async def _discard(self, directory: Path) -> str:
        # In the daemon's namespaces: without root, what is in it may belong to other ids of this user's.
        done = await self._runner.run("rm", "-rf", "--", str(directory), timeout=None)
        return (done.words or "rm failed") if done.returncode else ""
