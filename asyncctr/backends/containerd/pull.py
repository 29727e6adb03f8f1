"""Pulling an image from its registry."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from asyncctr.backends.containerd.images import StoredImage
from asyncctr.backends.containerd.ingest import Document, image_documents, index_references, ingest
from asyncctr.backends.containerd.leases import lease
from asyncctr.backends.containerd.transfer import TransferFailedError, transfer
from asyncctr.core.errors import InvalidConfigError
from asyncctr.oci.distribution import Distribution
from asyncctr.oci.image_config import ImageConfig
from asyncctr.oci.platforms import Platform
from asyncctr.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncctr.backends.containerd.site import Site
    from asyncctr.core.images import ProgressCallback, RegistryAuth
    from asyncctr.oci.manifests import Descriptor

__all__ = ["pull"]

logger = logging.getLogger(__name__)


def _can_transfer(site: Site, auth: RegistryAuth | None, platform: str | None) -> bool:
    wanted = Platform.parse(platform) if platform else Platform.host()
    # The service takes no bearer token and no mirrors of ours, and unpacks for its own platform alone.
    configured = bool(site.config.registry_mirrors or site.config.insecure_registries)
    return (
        site.transfers
        and not configured
        and not (auth is not None and auth.registry_token)
        and wanted == Platform.host()
    )


async def pull(
    site: Site, name: str, *, auth: RegistryAuth | None, platform: str | None, on_progress: ProgressCallback | None
) -> None:
    """Fetch an image; see :meth:`asyncctr.Image.pull`."""
    reference = Reference.parse(name).with_default_tag()
    if _can_transfer(site, auth, platform):
        try:
            async with lease(site) as api:
                await transfer(api, reference, snapshotter=site.snapshotter, auth=auth, on_progress=on_progress)
        except TransferFailedError as error:
            # Once more by ourselves, which either works or tells what is wrong.
            logger.debug("containerd could not transfer %s: %s", reference, error, extra={"image": name})
        else:
            return
    async with Distribution(
        auth=auth,
        timeout=site.api.op_timeout,
        mirrors=site.config.registry_mirrors,
        plain_http=site.config.insecure_registries,
    ) as registry:
        remote = await registry.image(reference, Platform.parse(platform) if platform else None)
        try:
            config = ImageConfig.parse(remote.config)
        except InvalidConfigError as error:
            message = f"{reference}: {error.message}"
            raise InvalidConfigError(message, field="image", resource=name) from error
        manifest = remote.manifest
        image = StoredImage(
            name=str(reference), target=remote.descriptor, platform=remote.platform, manifest=manifest, config=config
        )
        documents = image_documents(manifest, remote.manifest_data, remote.config)
        if remote.descriptor.digest != manifest.descriptor.digest:
            documents.append(
                Document(descriptor=remote.descriptor, data=remote.data, labels=index_references(manifest.descriptor))
            )

        async def content(layer: Descriptor, offset: int) -> AsyncIterator[bytes]:
            # The content store does it.
            async with registry.blob(reference, layer, offset=offset, verify=False) as blob:
                async for data in blob:
                    yield data

        await ingest(site, image, documents=documents, source=content, on_progress=on_progress)
