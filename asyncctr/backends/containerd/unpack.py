"""Images as snapshots: each layer applied on those below it, once."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from asyncctr.backends.containerd.content import label_blob
from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.proto import diff_pb2, snapshots_pb2, types_pb2
from asyncctr.backends.containerd.proto.services import Diff, Snapshots
from asyncctr.core.errors import ConflictError, DigestMismatchError, ImageNotFoundError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asyncctr.backends.containerd.api import ContainerdApi
    from asyncctr.backends.containerd.images import StoredImage
    from asyncctr.oci.manifests import Descriptor

__all__ = ["Unpacker", "keep_snapshots", "mountable"]

# Of a configuration: the snapshot that the collector keeps for it (garbage-collection.md).
_SNAPSHOT_LABEL = "containerd.io/gc.ref.snapshot"
_OVERLAY_OPTIONS = ("lowerdir=", "upperdir=", "workdir=")
_LAYER_NAME = "containerd.io/snapshot.ref"


class Unpacker:
    """Makes the snapshots of images for one snapshotter.

    Args:
        api: the containerd.
        snapshotter: its name.
        mount_with: the program that mounts in the kernel's place; empty for the kernel.
    """

    def __init__(self, api: ContainerdApi, snapshotter: str, mount_with: str = "") -> None:
        self._api = api
        self.snapshotter = snapshotter
        self._mount_with = mount_with

    async def has(self, chain_id: str) -> bool:
        """Whether the snapshot of some layers is there."""
        try:
            await self._api.call(
                Snapshots.Stat,
                snapshots_pb2.StatSnapshotRequest(snapshotter=self.snapshotter, key=chain_id),
                resource=chain_id,
                kind="snapshot",
            )
        except NotFoundError:
            return False
        return True

    async def unpack(
        self,
        image: StoredImage,
        *,
        api: ContainerdApi,
        ready: Callable[[Descriptor], Awaitable[object]] | None = None,
    ) -> None:
        """Make an image's snapshots, from the highest one that is there already.

        Args:
            image: whose layers the content store has.
            api: with a lease: what is made is not collected before the image refers to it, and is where this fails or is cancelled.
            ready: waits until the content store has a layer; ``None`` when it has them all.

        Raises:
            DigestMismatchError: a layer unpacks to something else than the image says.
            ImageNotFoundError: the content store lacks a layer.
        """
        chain = image.config.chain_ids
        begin = len(chain)
        while begin and not await self.has(chain[begin - 1]):
            begin -= 1
        for place in range(begin, len(chain)):
            if ready is not None:
                await ready(image.manifest.layers[place])
            await self._apply(
                api,
                image.manifest.layers[place],
                diff_id=image.config.diff_ids[place],
                chain_id=chain[place],
                parent=chain[place - 1] if place else "",
                name=image.name,
            )

    async def _apply(
        self, api: ContainerdApi, layer: Descriptor, *, diff_id: str, chain_id: str, parent: str, name: str
    ) -> None:
        key = f"extract-{secrets.token_hex(8)} {chain_id}"
        request = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=self.snapshotter, key=key, parent=parent, labels={_LAYER_NAME: chain_id}
        )
        try:
            prepared = await api.call(Snapshots.Prepare, request, resource=name, kind="snapshot")
        except ConflictError:
            # containerd 2 tells so early that the layer is there; somebody else unpacked it just now.
            return
        try:
            applied = await api.call(
                Diff.Apply,
                diff_pb2.ApplyRequest(
                    diff=types_pb2.Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size),
                    mounts=mountable(prepared.mounts, self._mount_with),
                ),
                resource=name,
                # A large layer takes as long as the disk does.
                timeout=None,
            )
            _check(applied.applied.digest, diff_id, layer=layer, name=name)
            await api.call(
                Snapshots.Commit,
                snapshots_pb2.CommitSnapshotRequest(snapshotter=self.snapshotter, name=chain_id, key=key),
                resource=name,
            )
        except ConflictError:
            # Somebody else unpacked the same layer meanwhile.
            await self._discard(api, key)
        except NotFoundError as error:
            message = f"the image {name!r} is not here whole, but lacks the layer {layer.digest}: pull or load it"
            raise ImageNotFoundError(message, backend=BACKEND, resource=name, status=error.status) from error

    async def _discard(self, api: ContainerdApi, key: str) -> None:
        try:
            await api.call(Snapshots.Remove, snapshots_pb2.RemoveSnapshotRequest(snapshotter=self.snapshotter, key=key))
        except NotFoundError:
            # It was never made.
            pass


def mountable(mounts: Sequence[types_pb2.Mount], program: str) -> list[types_pb2.Mount]:
    """Mounts as a snapshotter gave them, with those of overlayfs for a program such as fuse-overlayfs where one is named."""
    found = list(mounts)
    if program:
        for place, mount in enumerate(found):
            if mount.type == "overlay":
                # What else there is speaks to the kernel: index=off, userxattr.
                options = [option for option in mount.options if option.startswith(_OVERLAY_OPTIONS)]
                found[place] = types_pb2.Mount(type=f"fuse3.{program}", source=mount.source, options=options)
    return found


def _check(found: str, diff_id: str, *, layer: Descriptor, name: str) -> None:
    if found != diff_id:
        message = f"{name}: the layer {layer.digest} unpacks to {found}, not to {diff_id}"
        raise DigestMismatchError(message, backend=BACKEND, resource=name)


async def keep_snapshots(api: ContainerdApi, image: StoredImage, snapshotter: str) -> None:
    """Keep an image's snapshots for as long as its configuration is kept."""
    if image.chain_id:
        label = f"{_SNAPSHOT_LABEL}.{snapshotter}"
        await label_blob(api, image.manifest.config.digest, {label: image.chain_id})
