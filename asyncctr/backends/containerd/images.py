"""The images of one containerd namespace as the backend needs them to make containers, each read once."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import attrs

from asyncctr.backends.containerd.content import read_blob
from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.proto import images_pb2
from asyncctr.backends.containerd.proto.services import Images
from asyncctr.core.errors import ImageNotFoundError, InvalidConfigError, NotFoundError
from asyncctr.oci.image_config import ImageConfig
from asyncctr.oci.manifests import MAX_JSON, Descriptor, DocumentError, Manifest, NoPlatformError, choose_image
from asyncctr.oci.platforms import Platform
from asyncctr.oci.reference import Reference

if TYPE_CHECKING:
    from asyncctr.backends.containerd.api import ContainerdApi

__all__ = ["ImageStore", "StoredImage", "canonical"]

_KEPT = 256
"""Images whose configuration is remembered."""


@attrs.frozen(kw_only=True)
class StoredImage:
    """An image that is here, for one platform.

    Attributes:
        name: the canonical reference that it was found by.
        target: what the name stands for: an index, or a manifest.
        platform: what it runs on.
        manifest: for that platform.
        config: its configuration.
    """

    name: str
    target: Descriptor
    platform: Platform
    manifest: Manifest
    config: ImageConfig

    @property
    def chain_id(self) -> str:
        """The snapshot of its layers; empty for an image without any."""
        chain = self.config.chain_ids
        return chain[-1] if chain else ""


@functools.lru_cache(maxsize=256)
def canonical(name: str) -> str:
    """The name under which containerd keeps an image: written out in full, with its tag or digest."""
    return str(Reference.parse(name).with_default_tag())


class ImageStore:
    """Images by name. What a digest stands for never changes, so it is asked once."""

    def __init__(self, api: ContainerdApi) -> None:
        self._api = api
        self._known: dict[tuple[str, str], tuple[Platform, Manifest, ImageConfig]] = {}

    async def target(self, name: str) -> Descriptor:
        """What a name stands for now.

        Raises:
            ImageNotFoundError: there is no such image.
        """
        reference = canonical(name)
        try:
            answer = await self._api.call(
                Images.Get, images_pb2.GetImageRequest(name=reference), resource=name, kind="image"
            )
        except ImageNotFoundError as error:
            message = (
                f"there is no image {reference!r} in the containerd namespace {self._api.namespace!r}: pull or load it"
            )
            raise ImageNotFoundError(message, backend=BACKEND, resource=name, status=error.status) from error
        target = answer.image.target
        return Descriptor(media_type=target.media_type, digest=target.digest, size=target.size)

    async def get(self, name: str, platform: str = "") -> StoredImage:
        """An image for a platform, this machine's by default.

        Raises:
            ImageNotFoundError: it is not here, or not for that platform.
            InvalidConfigError: what is here is no image.
        """
        target = await self.target(name)
        key = (target.digest, platform)
        known = self._known.get(key)
        if known is None:
            known = await self._read(name, target, platform)
            while len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[key] = known
        found, manifest, config = known
        return StoredImage(name=canonical(name), target=target, platform=found, manifest=manifest, config=config)

    async def _read(self, name: str, target: Descriptor, platform: str) -> tuple[Platform, Manifest, ImageConfig]:
        wanted = Platform.parse(platform) if platform else None
        try:
            reading = choose_image([target], wanted)
            try:
                descriptor = next(reading)
                while True:
                    descriptor = reading.send(await read_blob(self._api, descriptor.digest, limit=MAX_JSON))
            except StopIteration as end:
                chosen: tuple[Platform, Manifest] | None = end.value
            if chosen is None:
                message = f"image: {name} is no image but another artifact"
                raise InvalidConfigError(message, field="image", backend=BACKEND, resource=name)
            found, manifest = chosen
            config = ImageConfig.parse(await read_blob(self._api, manifest.config.digest, limit=MAX_JSON))
        except NoPlatformError as error:
            raise ImageNotFoundError(f"{name} {error}", backend=BACKEND, resource=name) from error
        except DocumentError as error:
            raise InvalidConfigError(f"image: {name} {error}", field="image", backend=BACKEND, resource=name) from error
        except NotFoundError as error:
            message = f"the image {name!r} is not here whole for {platform or Platform.host()}: pull it"
            raise ImageNotFoundError(message, backend=BACKEND, resource=name, status=error.status) from error
        return found, manifest, config
