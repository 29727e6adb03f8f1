"""``DockerImage``: one image of an engine, by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncctr.backends.docker.errors import BACKEND, raise_for_pull
from asyncctr.backends.docker.jsonstream import ProgressMeter, documents, error_of
from asyncctr.backends.docker.naming import image_name, registry_headers, tag
from asyncctr.core.errors import (
    AsyncctrError,
    ImageNotFoundError,
    InvalidConfigError,
)
from asyncctr.oci.archive import open_loadable
from asyncctr.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Sequence
    from os import PathLike

    from asyncctr.backends.docker.api import DockerApi
    from asyncctr.backends.docker.naming import Engine
    from asyncctr.core.build import BuildEvent, BuildInput, BuildResult
    from asyncctr.core.images import ProgressCallback, RegistryAuth

__all__ = ["DockerImage"]

_LOADED = ("Loaded image ID: ", "Loaded image: ", "Loaded image(s): ")


class DockerImage:
    """An image by its name; see :class:`asyncctr.Image`."""

    def __init__(self, api: DockerApi, engine: Engine, name: str) -> None:
        self._api = api
        self._engine = engine
        self._name = name
        self._wire = image_name(name, engine)

    def __repr__(self) -> str:
        return f"<DockerImage {self._name!r}>"

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
        reference = Reference.parse(self._name).with_default_tag()
        params = {"fromImage": reference.name, "tag": str(reference.digest or reference.tag)}
        if platform:
            params["platform"] = platform
        meter = ProgressMeter(on_progress)
        headers = await registry_headers(reference, auth)
        try:
            async with documents(
                self._api, "POST", "/images/create", params=params, headers=headers, resource=self._name
            ) as answer:
                async for document in answer:
                    if message := error_of(document):
                        raise_for_pull(message, name=self._name)
                    meter.feed(document)
        except AsyncctrError as error:
            if not isinstance(error.status, int):
                raise
            raise_for_pull(error.message, name=self._name, status=error.status)
        meter.finish()

    async def build(
        self, build_input: BuildInput, *, on_event: Callable[[BuildEvent], None] | None = None
    ) -> BuildResult:
        """Build it by the engine's BuildKit, or by its classic builder; see :meth:`asyncctr.Image.build`."""
        if self._engine.has_buildkit:
            from asyncctr.backends.docker.buildkit import build_by_buildkit  # noqa: PLC0415  # most programs never build

            return await build_by_buildkit(self._api, self._engine, self._name, build_input, on_event)
        from asyncctr.backends.docker.build import build  # noqa: PLC0415  # likewise

        return await build(self._api, self._engine, self._name, build_input, on_event)

    async def describe(self) -> dict[str, Any]:
        """The engine's inspect document of it."""
        document: dict[str, Any] = await self._api.call(
            "GET", f"/images/{self._wire}/json", kind="image", resource=self._name
        )
        return document

    async def exists(self) -> bool:
        """Whether the engine has it."""
        try:
            await self.describe()
        except ImageNotFoundError:
            return False
        return True

    async def remove(self, *, force: bool = False) -> None:
        """Remove this name and, when it was the last, the image."""
        await self._api.call(
            "DELETE", f"/images/{self._wire}", params={"force": force}, kind="image", resource=self._name
        )

    async def digest(self) -> str:
        """The digest it was pulled or pushed by; for one that never met a registry, its id."""
        document = await self.describe()
        digests = [str(entry) for entry in document.get("RepoDigests") or ()]
        repository = "" if self._wire.startswith("sha256:") or _is_id(self._wire) else Reference.parse(self._name).name
        for entry in digests:
            name, _, digest = entry.partition("@")
            if repository and digest and Reference.parse(name).name == repository:
                return digest
        if digests and not repository:
            return digests[0].partition("@")[2]
        identifier = str(document["Id"])
        return identifier if ":" in identifier else f"sha256:{identifier}"

    async def tags(self) -> Sequence[str]:
        """All names of the image, sorted."""
        document = await self.describe()
        return tuple(sorted(str(tag) for tag in document.get("RepoTags") or () if tag != "<none>:<none>"))

    async def load(self, archive: str | PathLike[str] | AsyncIterable[bytes]) -> None:
        """Load an OCI-layout or docker-save tar and give its image this name."""
        reference = Reference.parse(self._name).with_default_tag()
        loaded: list[str] = []
        try:
            async with (
                open_loadable(archive) as body,
                documents(
                    self._api, "POST", "/images/load", params={"quiet": True}, body=body, resource=self._name
                ) as answer,
            ):
                async for document in answer:
                    if message := error_of(document):
                        raise _unloadable(message, self._name)
                    loaded += _names(str(document.get("stream") or ""))
        except AsyncctrError as error:
            # Podman tells with a status of 500 what Docker tells in the stream.
            if type(error) is not AsyncctrError or not isinstance(error.status, int):
                raise
            raise _unloadable(error.message, self._name, error.status) from error
        if not loaded:
            message = "archive: the engine found no image in it"
            raise InvalidConfigError(message, field="archive", backend=BACKEND, resource=self._name)
        await tag(self._api, loaded[0], reference)


def _unloadable(message: str, name: str, status: int | None = None) -> InvalidConfigError:
    return InvalidConfigError(
        f"archive: {message.strip()}", field="archive", backend=BACKEND, resource=name, status=status
    )


def _is_id(name: str) -> bool:
    return len(name) in (12, 64) and not set(name) - set("0123456789abcdef")


def _names(text: str) -> list[str]:
    for prefix in _LOADED:
        if text.startswith(prefix):
            return [part.strip() for part in text.removeprefix(prefix).replace(",", "\n").splitlines() if part.strip()]
    return []
