"""Images into a namespace, from wherever their blobs come: under a lease, in parallel, unpacked as they arrive."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.backends.containerd.content import write_blob
from asyncctr.backends.containerd.leases import lease
from asyncctr.backends.containerd.proto import images_pb2, types_pb2
from asyncctr.backends.containerd.proto.services import Images
from asyncctr.backends.containerd.unpack import keep_snapshots
from asyncctr.core.errors import ConflictError
from asyncctr.core.images import Progress
from asyncctr.transport.progress import ProgressThrottle
from asyncctr.transport.tasks import all_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence

    from asyncctr.backends.containerd.api import ContainerdApi
    from asyncctr.backends.containerd.images import StoredImage
    from asyncctr.backends.containerd.site import Site
    from asyncctr.core.images import ProgressCallback
    from asyncctr.oci.manifests import Descriptor, Manifest

__all__ = ["Document", "image_documents", "index_references", "ingest", "references"]

_AT_ONCE: Final = 4
"""Layers that are fetched side by side, as Docker and containerd do."""
# What a blob refers to, for the collector (garbage-collection.md): a name behind the prefix is free.
_CONTENT_LABEL: Final = "containerd.io/gc.ref.content"
_SHORT: Final = 12


@attrs.frozen(kw_only=True)
class Document:
    """A small blob whose content is here, and the labels it is to have."""

    descriptor: Descriptor
    data: bytes = attrs.field(repr=False)
    labels: Mapping[str, str] = attrs.field(factory=dict)


async def ingest(
    site: Site,
    image: StoredImage,
    *,
    documents: Sequence[Document],
    source: Callable[[Descriptor, int], AsyncIterable[bytes]],
    on_progress: ProgressCallback | None = None,
) -> None:
    """Put an image into the namespace and give it its name. Cancelled or failed, it leaves nothing.

    Args:
        site: where.
        image: the image; its ``target`` is what its name will stand for.
        documents: its configuration, its manifest and what is above that, in this order.
        source: gives a layer's content from an offset on.
        on_progress: is told of the layers.
    """
    throttle = ProgressThrottle(on_progress)
    async with lease(site) as api:
        await _Ingest(site, api, image, source, throttle).run(documents)
    throttle.finish()


class _Ingest:
    def __init__(
        self,
        site: Site,
        api: ContainerdApi,
        image: StoredImage,
        source: Callable[[Descriptor, int], AsyncIterable[bytes]],
        throttle: ProgressThrottle,
    ) -> None:
        self._site = site
        self._api = api
        self._image = image
        self._source = source
        self._throttle = throttle
        self._limit = asyncio.Semaphore(_AT_ONCE)

    async def run(self, documents: Sequence[Document]) -> None:
        image = self._image
        # By digest: a layer may be in an image twice.
        layers = {layer.digest: layer for layer in image.manifest.layers}
        fetched = {digest: asyncio.Event() for digest in layers}

        async def fetch(layer: Descriptor) -> None:
            await self._layer(layer)
            fetched[layer.digest].set()

        async def write() -> None:
            for document in documents:
                await self._document(document)

        unpacking = self._site.unpacker.unpack(image, api=self._api, ready=lambda layer: fetched[layer.digest].wait())
        await all_of([write(), unpacking, *map(fetch, layers.values())])
        await keep_snapshots(self._api, image, self._site.snapshotter)
        await self._name()

    async def _layer(self, layer: Descriptor) -> None:
        short = layer.digest.partition(":")[2][:_SHORT]

        def tell(action: str, current: int | None) -> None:
            total = None if current is None else layer.size
            self._throttle.feed(Progress(action=action, id=short, current=current, total=total, message=action))

        async with self._limit:
            written = await write_blob(
                self._api,
                layer,
                lambda offset: self._source(layer, offset),
                labels={},
                resource=self._image.name,
                wrote=lambda size: tell("Downloading", size),
            )
            tell("Download complete" if written else "Already exists", None)

    async def _document(self, document: Document) -> None:
        async def whole(offset: int) -> AsyncIterator[bytes]:
            yield document.data[offset:]

        await write_blob(self._api, document.descriptor, whole, labels=document.labels, resource=self._image.name)

    async def _name(self) -> None:
        target = self._image.target
        record = images_pb2.Image(
            name=self._image.name,
            target=types_pb2.Descriptor(media_type=target.media_type, digest=target.digest, size=target.size),
        )
        try:
            await self._api.call(Images.Create, images_pb2.CreateImageRequest(image=record), resource=record.name)
        except ConflictError:
            # The name stood for another image, or for this one.
            await self._api.call(Images.Update, images_pb2.UpdateImageRequest(image=record), resource=record.name)


def image_documents(manifest: Manifest, manifest_data: bytes, config: bytes) -> list[Document]:
    """The documents of an image for one platform, in the order in which they refer to each other."""
    return [
        Document(descriptor=manifest.config, data=config),
        Document(
            descriptor=manifest.descriptor, data=manifest_data, labels=references(manifest.config, manifest.layers)
        ),
    ]


def references(config: Descriptor, layers: Sequence[Descriptor]) -> dict[str, str]:
    """The labels of a manifest: what it refers to."""
    labels = {f"{_CONTENT_LABEL}.config": config.digest}
    labels.update((f"{_CONTENT_LABEL}.l.{place}", layer.digest) for place, layer in enumerate(layers))
    return labels


def index_references(manifest: Descriptor) -> dict[str, str]:
    """The labels of an index of which one manifest is here."""
    # By the manifest, so that those for several platforms do not overwrite each other.
    return {f"{_CONTENT_LABEL}.m.{manifest.digest.partition(':')[2][:_SHORT]}": manifest.digest}
