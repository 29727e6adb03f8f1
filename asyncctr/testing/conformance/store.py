"""What the cases about images share."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asyncctr.core.config import ContainerConfig
from asyncctr.core.errors import ImageNotFoundError, ImagePullError, InvalidConfigError, UnsupportedError
from asyncctr.core.images import PullPolicy
from asyncctr.core.network import NetworkConfig, NetworkMode
from asyncctr.testing.conformance.checks import equal, raises
from asyncctr.testing.images import HOST_PLATFORM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncctr.core.backend import Image
    from asyncctr.testing.conformance.suite import Context

__all__ = ["BOUND", "NO_NETWORK", "OTHER_PLATFORM", "StopError", "gone_after", "printed", "without_oci"]

BOUND = 90.0
"""Seconds that one step of a case may take."""

OTHER_PLATFORM = "linux/arm64" if HOST_PLATFORM != "linux/arm64" else "linux/amd64"
"""A platform that is not this machine's."""

NO_NETWORK = NetworkConfig(mode=NetworkMode.NONE)


class StopError(Exception):
    """What a callback of these cases raises."""


async def without_oci(context: Context) -> bool:
    """Whether the backend has no images of containers; then that it refuses to load one and, not even from where nothing listens, to pull one."""
    if context.client.capabilities.supports_oci:
        return False
    image = context.client.image("127.0.0.1:9/none:1")
    with raises((UnsupportedError, InvalidConfigError), "loading a container's image without supports_oci"):
        await image.load(context.target.archive)
    with raises((UnsupportedError, ImagePullError), "pulling without supports_oci"):
        await image.pull()
    equal(await image.exists(), wanted=False, what="that it is here")
    return True


@asynccontextmanager
async def gone_after(*images: Image) -> AsyncIterator[None]:
    """The images are removed afterwards, those that are there."""
    try:
        yield
    finally:
        for image in images:
            try:
                async with asyncio.timeout(BOUND):
                    await image.remove(force=True)
            except ImageNotFoundError:
                # Not pulled, or removed by the case.
                continue


async def printed(context: Context, image: str, *command: str) -> str:
    """What a command, or the image's own, prints in a container of the image."""
    config = ContainerConfig(image, command=command, network=NO_NETWORK)
    async with asyncio.timeout(BOUND):
        result = await context.client.run(config, pull=PullPolicy.NEVER)
    equal((result.exit_code, result.stderr), (0, b""), f"exit code and stderr of {command}")
    return result.stdout.decode()
