"""The layers of an image as directories on the host, for a look into them."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.leases import lease
from asyncctr.backends.containerd.proto import snapshots_pb2
from asyncctr.backends.containerd.proto.services import Snapshots
from asyncctr.backends.containerd.unpack import keep_snapshots
from asyncctr.core.errors import NotFoundError, UnsupportedError
from asyncctr.oci.rootfs import mount_layers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncctr.backends.containerd.api import ContainerdApi
    from asyncctr.backends.containerd.images import StoredImage
    from asyncctr.backends.containerd.proto import types_pb2
    from asyncctr.backends.containerd.site import Site

__all__ = ["image_layers", "image_mount", "remove_snapshot", "unpack_late"]


@asynccontextmanager
async def image_layers(site: Site, image: StoredImage, *, field: str) -> AsyncIterator[tuple[str, ...]]:
    """The directories, the top one first; none for an image without layers. They stay for as long as this lasts.

    Raises:
        UnsupportedError: the snapshotter keeps them in another form; ``field`` is what they are needed for.
    """
    async with image_mount(site, image, field=field) as mount:
        layers = () if mount is None else mount_layers(mount.type, mount.source, mount.options)
        if mount is not None and not layers:
            raise _closed(site, image, field)
        yield layers


@asynccontextmanager
async def image_mount(site: Site, image: StoredImage, *, field: str) -> AsyncIterator[types_pb2.Mount | None]:
    """How the root filesystem is mounted to look into it; ``None`` for an image without layers. It can be for as long as this lasts.

    Raises:
        UnsupportedError: it takes more than one mount; ``field`` is what it is needed for.
    """
    if not image.chain_id:
        yield None
        return
    # Nothing else refers to the view.
    async with lease(site) as api:
        key = f"asyncctr-look-{secrets.token_hex(8)}"
        try:
            mounts = await site.janitor.unbroken(_view(site, api, image, key), f"look into {image.name}")
            if len(mounts) != 1:
                raise _closed(site, image, field)
            yield mounts[0]
        finally:
            await remove_snapshot(api, site.snapshotter, key)


async def _view(site: Site, api: ContainerdApi, image: StoredImage, key: str) -> Sequence[types_pb2.Mount]:
    request = snapshots_pb2.ViewSnapshotRequest(snapshotter=site.snapshotter, key=key, parent=image.chain_id)
    try:
        view = await api.call(Snapshots.View, request, resource=image.name, kind="snapshot")
    except NotFoundError:
        await unpack_late(site, image)
        view = await api.call(Snapshots.View, request, resource=image.name, kind="snapshot")
    return view.mounts


def _closed(site: Site, image: StoredImage, field: str) -> UnsupportedError:
    message = f"{field}: the snapshotter {site.snapshotter!r} keeps images in a form that they cannot be looked into"
    return UnsupportedError(message, field=field, backend=BACKEND, resource=image.name)


async def unpack_late(site: Site, image: StoredImage) -> None:
    """Make the snapshots of an image that somebody else put here without them."""
    async with lease(site) as api:
        await site.unpacker.unpack(image, api=api)
        await keep_snapshots(api, image, site.snapshotter)


async def remove_snapshot(api: ContainerdApi, snapshotter: str, key: str) -> None:
    """Remove a snapshot, if it is there."""
    request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
    try:
        await api.call(Snapshots.Remove, request, resource=key, kind="snapshot")
    except NotFoundError:
        # Collected, or never made.
        pass
