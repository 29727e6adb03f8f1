"""Loading an image from an archive: an OCI image layout in a tar, or what ``docker save`` writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncctr.backends.containerd.images import StoredImage, canonical
from asyncctr.backends.containerd.ingest import image_documents, ingest
from asyncctr.oci.archive import open_archive
from asyncctr.oci.image_config import ImageConfig
from asyncctr.oci.saved import archived_images

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator
    from os import PathLike

    from asyncctr.backends.containerd.site import Site
    from asyncctr.oci.manifests import Descriptor

__all__ = ["load"]


async def load(site: Site, name: str, archive: str | PathLike[str] | AsyncIterable[bytes]) -> None:
    """Load an archive and give its image a name; see :meth:`asyncctr.Image.load`."""
    async with open_archive(archive) as opened:
        found = await asyncio.to_thread(archived_images, opened.index)
        # Of several the first, as it stands in the archive.
        chosen = found[0]
        manifest = chosen.manifest
        image = StoredImage(
            name=canonical(name),
            target=manifest.descriptor,
            platform=chosen.platform,
            manifest=manifest,
            config=ImageConfig.parse(chosen.config),
        )
        documents = image_documents(manifest, chosen.manifest_data, chosen.config)

        async def content(layer: Descriptor, offset: int) -> AsyncIterator[bytes]:
            blocks = chosen.blocks(layer)
            while (block := await asyncio.to_thread(next, blocks, None)) is not None:
                skipped = min(offset, len(block))
                offset -= skipped
                if block := block[skipped:]:
                    yield block

        await ingest(site, image, documents=documents, source=content)
