"""Images of the local store: built from programs, pulled, loaded, named."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from asyncctr.backends.nanos import artifact
from asyncctr.backends.nanos.document import ImageDocument
from asyncctr.backends.nanos.manifest import build_manifest
from asyncctr.backends.nanos.qmp import BACKEND
from asyncctr.backends.nanos.tfs.disk import write_disk
from asyncctr.core.build import BuildEvent, BuildResult, NanosBuildInput
from asyncctr.core.errors import BuildNotSupportedError, ImageNotFoundError, UnsupportedError
from asyncctr.core.validation import check_token
from asyncctr.transport.cleanup import Janitor
from asyncctr.transport.hostfiles import host_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Sequence
    from os import PathLike

    from asyncctr.backends.nanos.site import Site
    from asyncctr.backends.nanos.tfs.disk import Disk
    from asyncctr.core.build import BuildInput
    from asyncctr.core.images import ProgressCallback, RegistryAuth

__all__ = ["NanosImage"]

_PLATFORMS = ("nanos/amd64", "linux/amd64")


class NanosImage:
    """One image, by its name."""

    def __init__(self, site: Site, name: str) -> None:
        self._site = site
        self._name = check_token("name", name)

    @property
    def name(self) -> str:
        """As it was given."""
        return self._name

    async def pull(
        self,
        *,
        auth: RegistryAuth | None = None,
        platform: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> None:
        """Fetch a disk image that was published as an OCI artifact; see :meth:`asyncctr.Image.pull`."""
        self._site.check_open()
        if platform and platform not in _PLATFORMS:
            message = f"platform: unikernels here are for amd64, not for {platform!r}"
            raise UnsupportedError(message, field="platform", backend=BACKEND, resource=self._name)
        await artifact.pull(
            self._site.images, self._name, auth=auth, op_timeout=self._site.config.op_timeout, on_progress=on_progress
        )

    async def build(
        self, build_input: BuildInput, *, on_event: Callable[[BuildEvent], None] | None = None
    ) -> BuildResult:
        """Build an image from a program; see :meth:`asyncctr.Image.build`."""
        site = self._site
        site.check_open()
        if not isinstance(build_input, NanosBuildInput):
            message = f"the Nanos backend builds from a NanosBuildInput, not from a {type(build_input).__name__}"
            raise BuildNotSupportedError(message, field="build_input", backend=BACKEND, resource=self._name)

        def tell(step: str, message: str) -> None:
            if on_event is not None:
                on_event(BuildEvent(kind="vertex", step=step, message=message))

        tell("manifest", "started")
        disk = await asyncio.to_thread(build_manifest, build_input, site.ops, klib_dir=site.klibs, kernel=site.kernel)
        tell("manifest", "completed")
        tell("disk", "started")
        async with await site.images.create() as new:
            await _write(str(new.path), disk, self._name)
            document = ImageDocument.make(
                disk_digest=await new.digest(),
                disk_size=(await asyncio.to_thread(new.path.stat)).st_size,
                program=disk.root.program,
                kernel=site.version,
            )
            image = await new.commit([self._name], document)
        tell("disk", "completed")
        return BuildResult(digest=image.digest, tags=image.names)

    async def exists(self) -> bool:
        """Whether it is here."""
        self._site.check_open()
        try:
            await self._site.images.get(self._name)
        except ImageNotFoundError:
            return False
        return True

    async def remove(self, *, force: bool = False) -> None:
        """Remove this name and, when it was the last, the image; see :meth:`asyncctr.Image.remove`."""
        self._site.check_open()
        await self._site.images.remove(self._name, force=force)

    async def digest(self) -> str:
        """The digest of what is said of the image, its disk's digest among it."""
        self._site.check_open()
        return (await self._site.images.get(self._name)).digest

    async def tags(self) -> Sequence[str]:
        """All names of the image, sorted."""
        self._site.check_open()
        return tuple(sorted((await self._site.images.get(self._name)).names))

    async def load(self, archive: str | PathLike[str] | AsyncIterable[bytes]) -> None:
        """Load an image from an image layout in a tar, and give it this name."""
        self._site.check_open()
        await artifact.load(self._site.images, self._name, archive)


class _StoppedError(Exception):
    """Nobody waits for the disk any more."""


async def _write(path: str, disk: Disk, name: str) -> None:
    """Write a disk in a thread, which stops soon after this is cancelled and is waited for."""
    stopped = threading.Event()

    def checkpoint() -> None:
        if stopped.is_set():
            raise _StoppedError

    def write() -> None:
        with host_files("the disk of an image", name, backend=BACKEND):
            write_disk(path, disk, checkpoint=checkpoint)

    writing = asyncio.ensure_future(asyncio.to_thread(write))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        stopped.set()
        await Janitor.wait_for(writing)
        if not writing.cancelled():
            # Nobody asks for it any more.
            writing.exception()
        raise
