"""``ContainerdImage``: one image of a namespace, by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.images import canonical
from asyncctr.backends.containerd.proto import images_pb2
from asyncctr.backends.containerd.proto.services import Images
from asyncctr.core.errors import BuildNotSupportedError, ConflictError, ImageNotFoundError
from asyncctr.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Sequence
    from os import PathLike

    from asyncctr.backends.containerd.site import Site
    from asyncctr.core.build import BuildEvent, BuildInput, BuildResult
    from asyncctr.core.images import ProgressCallback, RegistryAuth

__all__ = ["ContainerdImage"]


class ContainerdImage:
    """An image by its name; see :class:`asyncctr.Image`."""

    def __init__(self, site: Site, name: str) -> None:
        self._site = site
        self._api = site.api
        self._name = name
        self._reference = canonical(name)

    def __repr__(self) -> str:
        return f"<ContainerdImage {self._name!r}>"

    @property
    def name(self) -> str:
        """The name as it was given."""
        return self._name

    async def pull(
        self,
        *,
        auth: RegistryAuth | None = None,
        platform: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> None:
        """Fetch it from its registry; see :meth:`asyncctr.Image.pull`."""
        self._site.check_open()
        from asyncctr.backends.containerd.pull import pull  # noqa: PLC0415  # aiohttp, which most runs need not

        await pull(self._site, self._name, auth=auth, platform=platform, on_progress=on_progress)

    async def build(
        self, build_input: BuildInput, *, on_event: Callable[[BuildEvent], None] | None = None
    ) -> BuildResult:
        """Not yet: containerd itself builds nothing."""
        del on_event
        message = f"containerd does not build images itself; {type(build_input).__name__} needs another backend"
        raise BuildNotSupportedError(message, field="build", backend=BACKEND, resource=self._name)

    async def exists(self) -> bool:
        """Whether the namespace has it."""
        try:
            await self._site.images.target(self._name)
        except ImageNotFoundError:
            return False
        return True

    async def remove(self, *, force: bool = False) -> None:
        """Remove this name and, when it was the last, what it alone refers to."""
        target = await self._site.images.target(self._name)
        await self._site.settle()
        if not force:
            users = [
                container.id[:12]
                for container in await self._site.containers()
                if container.image == self._reference and container.id not in self._site.leaving
            ]
            if users and not [tag for tag in await self._names(target.digest) if tag != self._reference]:
                message = f"the image {self._name!r} is in use by container {', '.join(users[:5])}: remove that first, or use force"
                raise ConflictError(message, backend=BACKEND, resource=self._name)
        await self._api.call(
            Images.Delete,
            # Returns when the collector has run.
            images_pb2.DeleteImageRequest(name=self._reference, sync=True),
            resource=self._name,
            kind="image",
        )

    async def digest(self) -> str:
        """The digest of what the name stands for: an index, or a manifest."""
        return (await self._site.images.target(self._name)).digest

    async def tags(self) -> Sequence[str]:
        """All names of the image, sorted."""
        target = await self._site.images.target(self._name)
        return tuple(sorted(await self._names(target.digest)))

    async def _names(self, digest: str) -> list[str]:
        answer = await self._api.call(
            Images.List, images_pb2.ListImagesRequest(filters=[f"target.digest=={digest}"]), resource=self._name
        )
        return [image.name for image in answer.images if _is_tag(image.name)]

    async def load(self, archive: str | PathLike[str] | AsyncIterable[bytes]) -> None:
        """Load an OCI-layout or docker-save tar and give its image this name."""
        self._site.check_open()
        from asyncctr.backends.containerd.load import load  # noqa: PLC0415  # seldom used

        await load(self._site, self._name, archive)


def _is_tag(name: str) -> bool:
    """Whether a name is one of an image: others may keep images under any name, and one by its digest is no tag."""
    try:
        return Reference.parse(name).digest is None
    except ValueError:
        return False
