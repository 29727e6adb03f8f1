"""Disk images as OCI artifacts: pulled from a registry, or loaded from an image layout in a tar.

A manifest of the OCI image specification 1.1 whose ``artifactType`` is :data:`ARTIFACT_TYPE`; its ``config``, of the type
:data:`CONFIG_TYPE`, is the document of :mod:`asyncctr.backends.nanos.document`, and its one layer the disk: plain
(:data:`DISK_TYPE`) or packed (:data:`DISK_TYPE` with ``+gzip``). The manifest's annotations are for people alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import zlib
from functools import partial
from typing import TYPE_CHECKING, Final

from asyncctr.backends.nanos.document import ImageDocument
from asyncctr.backends.nanos.image_index import BACKEND, StoredImage, new_name
from asyncctr.backends.nanos.store import ImageStore, run
from asyncctr.core.errors import DigestMismatchError, ImageNotFoundError, ImagePullError, InvalidConfigError
from asyncctr.core.images import Progress
from asyncctr.core.validation import fail
from asyncctr.oci.archive import open_archive
from asyncctr.oci.distribution import Distribution
from asyncctr.oci.layout import Layout, is_layout
from asyncctr.oci.manifests import MANIFEST_TYPES, Descriptor, DocumentError, Manifest, parse_artifact
from asyncctr.oci.reference import Reference
from asyncctr.transport.progress import ProgressThrottle

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
    from pathlib import Path

    from asyncctr.core.images import ProgressCallback, RegistryAuth

__all__ = ["ARTIFACT_TYPE", "CONFIG_TYPE", "DISK_TYPE", "GZIP_TYPE", "load", "pull"]

ARTIFACT_TYPE: Final = "application/vnd.asyncctr.nanos.image.v1"
"""What an image is, as an artifact."""

CONFIG_TYPE: Final = "application/vnd.asyncctr.nanos.image.config.v1+json"
"""Its configuration: the document."""

DISK_TYPE: Final = "application/vnd.asyncctr.nanos.image.disk.v1"
"""Its layer: the disk as it is."""

GZIP_TYPE: Final = f"{DISK_TYPE}+gzip"
"""Its layer: the disk, packed by gzip."""

_SHORT: Final = 12
_FIELD: Final = "archive"
_ZEROS: Final = bytes(64 << 10)
# Bytes unpacked in one go, between two chances to be cancelled.
_STEP: Final = 4 << 20
_GZIP_WINDOW: Final = 31  # zlib.h: the largest window, with gzip's header and trailer


async def pull(
    store: ImageStore,
    name: str,
    *,
    auth: RegistryAuth | None = None,
    op_timeout: float = 60.0,
    on_progress: ProgressCallback | None = None,
) -> StoredImage:
    """Fetch an image from its registry, unless it is here under the digest that the registry names; it gets the name.

    Args:
        store: where to.
        name: its reference.
        auth: credentials; see :class:`~asyncctr.oci.distribution.Distribution`.
        op_timeout: seconds of silence until the registry is given up.
        on_progress: is told of the disk.

    Raises:
        ImageNotFoundError: the registry has no such image.
        RegistryAuthError: the registry wants credentials, or refused those that there are.
        DigestMismatchError: something has another digest or size than it should.
        ImagePullError: it is no such artifact, or the registry failed.
        ResourceExhaustedError: there is no room.
    """
    reference = Reference.parse(name).with_default_tag()
    throttle = ProgressThrottle(on_progress)
    async with Distribution(auth=auth, timeout=op_timeout) as registry:
        remote = await registry.artifact(reference, ARTIFACT_TYPE)
        try:
            document = ImageDocument.parse(remote.config)
            disk = _layer(remote.manifest, document)
        except InvalidConfigError as error:
            raise ImagePullError(f"{reference}: {error.message}", backend=BACKEND, resource=name) from error
        names = [str(reference)]
        short = disk.digest.rpartition(":")[2][:_SHORT]

        def tell(action: str, current: int | None) -> None:
            total = None if current is None else disk.size
            throttle.feed(Progress(action=action, id=short, current=current, total=total, message=action))

        image = await _known(store, document, names)
        if image is None:
            async with registry.blob(reference, disk) as blob:
                try:
                    image = await _receive(store, names, document, disk, blob, lambda done: tell("Downloading", done))
                except InvalidConfigError as error:
                    raise ImagePullError(f"{reference}: {error.message}", backend=BACKEND, resource=name) from error
            tell("Download complete", None)
        else:
            tell("Already exists", None)
    throttle.finish()
    return image


async def load(store: ImageStore, name: str, archive: str | os.PathLike[str] | AsyncIterable[bytes]) -> StoredImage:
    """Load an image from an image layout in a tar, plain or packed by gzip, and give it a name.

    Args:
        store: where to.
        name: its reference.
        archive: the tar's path, or its bytes as they come. Of several images in it the first is taken.

    Raises:
        InvalidConfigError: it is no such archive, or a broken one; the field is ``"archive"``.
        ResourceExhaustedError: there is no room.
    """
    name = new_name(name)
    async with open_archive(archive) as opened:
        if not is_layout(opened.index):
            raise fail(_FIELD, "is no image layout: it has no oci-layout and index.json")
        layout = await asyncio.to_thread(Layout, opened.index)
        manifest, data = await asyncio.to_thread(_choose, layout)
        document = ImageDocument.parse(data)
        disk = _layer(manifest, document)
        image = await _known(store, document, [name])
        if image is None:
            image = await _receive(store, [name], document, disk, _blocks(layout, disk))
    return image


def _choose(layout: Layout) -> tuple[Manifest, bytes]:
    """The first artifact of the type in a layout, and its configuration."""
    problem = "has no manifest"
    for entry in layout.entries:
        if entry.media_type not in MANIFEST_TYPES:
            continue
        try:
            manifest = parse_artifact(layout.blob(entry), entry, ARTIFACT_TYPE)
        except DocumentError as error:
            problem = str(error)
        else:
            return manifest, layout.blob(manifest.config)
    raise fail(_FIELD, f"is an image layout without a Nanos image in it: {problem}")


async def _blocks(layout: Layout, disk: Descriptor) -> AsyncIterator[bytes]:
    blocks = layout.blocks(disk)
    while (block := await asyncio.to_thread(next, blocks, None)) is not None:
        yield block


def _layer(manifest: Manifest, document: ImageDocument) -> Descriptor:
    """The descriptor of the disk, which must fit to the document."""
    if len(manifest.layers) != 1:
        raise fail("image", f"a Nanos image has one disk, and this one has {len(manifest.layers)} layers")
    disk = manifest.layers[0]
    if disk.media_type not in (DISK_TYPE, GZIP_TYPE):
        raise fail(
            "image", f"the disk is of the type {disk.media_type[:100]!r}; {DISK_TYPE!r} is known, plain or with +gzip"
        )
    plain = (disk.digest, disk.size) == (document.disk_digest, document.disk_size)
    if disk.media_type == DISK_TYPE and not plain:
        raise fail("image", "the disk is another one than its configuration says")
    return disk


async def _known(store: ImageStore, document: ImageDocument, names: Sequence[str]) -> StoredImage | None:
    """The image of a document where it is here; it gets the names."""
    image = None
    try:
        for name in names:
            image = await store.tag(document.digest, name)
    except ImageNotFoundError:
        return None
    return image


async def _receive(
    store: ImageStore,
    names: Sequence[str],
    document: ImageDocument,
    disk: Descriptor,
    source: AsyncIterable[bytes],
    received: Callable[[int], None] = lambda _: None,
) -> StoredImage:
    """Make an image of a disk as it comes. Its digest is verified by whoever gives it, and of what is unpacked here."""
    async with await store.create() as new:
        writer = _Writer(new.path, document.disk_size, packed=disk.media_type == GZIP_TYPE)
        done = 0
        async for data in source:
            await run(partial(writer.feed, data))
            while writer.pending:
                await run(writer.step)
            done += len(data)
            received(done)
        actual = await run(writer.finish)
        if actual != document.disk_digest:
            message = f"the disk has the digest {actual}, not {document.disk_digest} as its configuration says"
            raise DigestMismatchError(message, backend=BACKEND, resource=names[0])
        return await new.commit(names, document)


class _Writer:
    """Writes a disk as it comes, packed or plain: blocks of zeros as holes, and never more than it was said to have."""

    def __init__(self, path: Path, size: int, *, packed: bool) -> None:
        self._path = path
        self._size = size
        self._unpack = zlib.decompressobj(_GZIP_WINDOW) if packed else None
        self._written = 0
        self._digest = hashlib.sha256()
        self.pending = b""

    def feed(self, data: bytes) -> None:
        if self._unpack is None:
            self._write(data)
        else:
            self.pending = data
            self.step()

    def step(self) -> None:
        """Unpack some of what is pending."""
        unpack = self._unpack
        if unpack is None or unpack.eof:
            raise fail("image", "the disk goes on behind the end of its gzip")
        try:
            data = unpack.decompress(self.pending, _STEP)
        except zlib.error as error:
            raise fail("image", f"the disk is broken gzip: {error}") from error
        self.pending = unpack.unconsumed_tail or unpack.unused_data
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self._written + len(data) > self._size:
            raise fail("image", f"the disk has more than the {self._size} bytes that its configuration says")
        self._digest.update(data)
        view = memoryview(data)
        # Opened anew for each megabyte: a descriptor would be one more thing to close when this is cancelled.
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb", buffering=0) as writer:
            for start in range(0, len(view), len(_ZEROS)):
                block = view[start : start + len(_ZEROS)]
                if block != _ZEROS[: len(block)]:
                    writer.seek(self._written + start)
                    writer.write(block)
        self._written += len(data)

    def finish(self) -> str:
        """The digest of all; the file gets its whole length, which may end in a hole."""
        if self._unpack is not None and not self._unpack.eof:
            raise fail("image", "the disk is cut off: its gzip does not end")
        if self._written != self._size:
            raise fail("image", f"the disk has {self._written} bytes, not {self._size} as its configuration says")
        os.truncate(self._path, self._size)
        return f"sha256:{self._digest.hexdigest()}"
