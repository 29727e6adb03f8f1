"""The store of disk images: built, pulled or loaded, named, used by VMs, and shared by all processes of a user."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

from asyncctr.backends.nanos.image_index import BACKEND, ImageIndex, Record, StoredImage, canonical, sync
from asyncctr.core.errors import ConflictError, ResourceExhaustedError, UnsupportedError
from asyncctr.core.validation import fail
from asyncctr.netns.files import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from asyncctr.backends.nanos.document import ImageDocument

__all__ = ["ImageStore", "NewDisk", "StoredImage"]

T = TypeVar("T")

_READ: Final = 1 << 20
_STEP: Final = 64 << 20
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ImageStore:
    """A store of images in a directory. Any number of processes may use it at once. It keeps nothing open.

    Args:
        index: the directory; see :meth:`open`.
    """

    def __init__(self, index: ImageIndex) -> None:
        self._index = index

    @classmethod
    async def open(cls, directory: str | os.PathLike[str]) -> Self:
        """The store in a directory, made if need be; what killed writers left is removed.

        Raises:
            InvalidConfigError: what is in the directory is no store, or one of a later version.
            UnsupportedError: the directory cannot be used.
            ResourceExhaustedError: there is no room.
        """
        index = ImageIndex(Path(os.fspath(directory)))
        await run(index.prepare)
        return cls(index)

    async def get(self, name: str) -> StoredImage:
        """The image of a name, or of a digest: ``"sha256:…"`` alone, or behind a repository's name.

        Raises:
            ImageNotFoundError: it is not here.
            InvalidConfigError: the name is none.
        """
        return await run(lambda: self._index.find(self._index.read(), name))

    async def images(self) -> tuple[StoredImage, ...]:
        """All images, by their first name."""

        def read() -> tuple[StoredImage, ...]:
            images = self._index.read()
            stored = (self._index.stored(digest, images) for digest in images)
            return tuple(sorted(stored, key=lambda image: image.names))

        return await run(read)

    async def tag(self, name: str, new: str) -> StoredImage:
        """Give an image another name, which is taken from the image that had it.

        Raises:
            ImageNotFoundError: it is not here.
            InvalidConfigError: a name is none.
        """
        reference = canonical(new)

        def change() -> StoredImage:
            index = self._index
            with index.changing():
                images = index.read()
                digest = index.find(images, name).digest
                index.rename(images, digest, [reference])
                index.write(images)
                return index.stored(digest, images)

        return await run(change)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Take a name from its image, and remove the image when that was the last; by its digest, it goes with all names.

        Args:
            name: as for :meth:`get`.
            force: also where VMs use it: its names go, and its disk when the last of them does.

        Raises:
            ImageNotFoundError: it is not here.
            ConflictError: VMs use it.
        """

        def change() -> None:
            index = self._index
            with index.changing():
                images = index.read()
                image = index.find(images, name)
                left = index.unname(images, name)
                users = index.users(image.digest)
                if users and not left and not force:
                    message = f"the image {name!r} is in use by {', '.join(users)}: remove these first, or use force"
                    raise ConflictError(message, backend=BACKEND, resource=name)
                images[image.digest].names = left
                index.write(images)

        await run(change)

    async def hold(self, name: str, user: Path) -> StoredImage:
        """The image of a name, kept until :meth:`release` is called, or the directory ``user`` is gone.

        Args:
            name: as for :meth:`get`.
            user: the state directory of a VM, an absolute path whose last part is the VM's id.

        Raises:
            ImageNotFoundError: it is not here.
        """

        def change() -> StoredImage:
            with self._index.changing():
                image = self._index.find(self._index.read(), name)
                self._index.use(image.digest, user)
                return image

        return await run(change)

    async def release(self, digest: str, user: Path) -> None:
        """End a use; an image that has lost its names meanwhile goes with its last use. Idempotent."""

        def change() -> None:
            with self._index.changing():
                self._index.disuse(digest, user)
                images = self._index.read()
                if digest in images and not images[digest].names:
                    self._index.write(images)

        await run(change)

    async def create(self) -> NewDisk:
        """A place for the disk of a new image, which is removed with the handle unless it was committed.

        Raises:
            ResourceExhaustedError: there is no room.
        """
        made: list[NewDisk] = []
        try:
            await run(lambda: made.append(NewDisk(self._index, *self._index.new_disk())))
        except asyncio.CancelledError:
            # It is known by now whether there is one.
            for disk in made:
                await disk.aclose()
            raise
        return made[0]


class NewDisk:
    """The disk of a new image, to be written by whoever asked for it. An async context manager.

    Attributes:
        path: where it is to be written; there is nothing yet.
    """

    def __init__(self, index: ImageIndex, directory: Path, lock: int) -> None:
        self._index = index
        self._directory = directory
        self._lock = lock
        self.path = directory / "disk.img"

    async def digest(self) -> str:
        """The digest of what was written, for a writer that has not seen it pass."""
        digest = hashlib.sha256()

        def step(start: int) -> int:
            with self.path.open("rb", buffering=0) as reader:
                for offset in range(start, start + _STEP, _READ):
                    data = os.pread(reader.fileno(), _READ, offset)
                    if not data:
                        return -1
                    digest.update(data)
            return start + _STEP

        offset = 0
        while offset >= 0:
            # In steps, between which whoever waits may be cancelled.
            offset = await run(partial(step, offset))
        return f"sha256:{digest.hexdigest()}"

    async def commit(self, names: Sequence[str], document: ImageDocument) -> StoredImage:
        """Make an image of what was written. The names are taken from images that had them.

        Args:
            names: its references; at least one.
            document: what is said of it; that the digest in it is that of the bytes is for the caller to know.

        Raises:
            InvalidConfigError: the document is of another size, or a name is none.
            ResourceExhaustedError: there is no room.
        """
        references = [canonical(name) for name in names]
        if not references:
            raise fail("image", "must have at least one name")
        size = (await run(self.path.stat)).st_size
        if size != document.disk_size:
            raise fail("image", f"the disk has {size} bytes, not {document.disk_size} as its configuration says")
        index = self._index
        target = index.disk(document)

        def commit() -> StoredImage:
            if not target.exists():
                # Before anybody has to wait for it.
                sync(self.path)
            with index.changing():
                images = index.read()
                if not target.exists():
                    sync(self.path)
                    index.place(self.path, target)
                # Else the same bytes are there, and this one goes with the handle.
                images.setdefault(document.digest, Record(document, []))
                index.rename(images, document.digest, references)
                index.write(images)
                return index.stored(document.digest, images)

        return await run(commit)

    async def aclose(self) -> None:
        """Remove what was written, unless it has become an image. Idempotent."""
        lock, self._lock = self._lock, -1
        if lock < 0:
            return

        def close() -> None:
            try:
                shutil.rmtree(self._directory)
            finally:
                os.close(lock)

        await in_thread(close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


async def run(call: Callable[[], T]) -> T:
    """Call what uses the disk in a thread, and wait for its end even when cancelled; its errors are those of the tree."""
    try:
        return await in_thread(call)
    except OSError as error:
        where = error.filename or "the directory of images"
        if error.errno in _NO_ROOM:
            message = f"no room for images: {where}: {error.strerror}; 'work_dir' names another directory"
            raise ResourceExhaustedError(message, backend=BACKEND, status=error.errno) from error
        message = f"{where} cannot be used: {error.strerror}; 'work_dir' names another directory"
        raise UnsupportedError(message, field="work_dir", backend=BACKEND, status=error.errno) from error
