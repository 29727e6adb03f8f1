"""Users of images, looked up in their layers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncctr.backends.containerd.layers import image_layers
from asyncctr.oci.rootfs import read_file
from asyncctr.oci.users import User, resolve_user

if TYPE_CHECKING:
    from asyncctr.backends.containerd.images import StoredImage
    from asyncctr.backends.containerd.site import Site

__all__ = ["Users"]


class Users:
    """Users of images, looked up once for each image: its layers never change."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], User] = {}

    async def of(self, site: Site, image: StoredImage, text: str) -> User:
        """The user that a configuration or an image names.

        Raises:
            InvalidConfigError: the image has no such user or group.
        """
        key = (image.chain_id, text)
        user = self._known.get(key)
        if user is None:
            looking = _files(site, image)
            passwd, group = await site.janitor.unbroken(looking, f"look up users in {image.name}")
            user = self._known[key] = resolve_user(text, passwd, group)
        return user


async def _files(site: Site, image: StoredImage) -> tuple[bytes, bytes]:
    async with image_layers(site, image, field="user") as layers:
        return await asyncio.to_thread(
            lambda: (read_file(layers, "/etc/passwd") or b"", read_file(layers, "/etc/group") or b"")
        )
