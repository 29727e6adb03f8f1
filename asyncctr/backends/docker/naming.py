"""Image names as an engine takes them: resolved, given, and with the credentials of their registry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import attrs

from asyncctr.oci.auth import docker_header, find_credentials
from asyncctr.oci.reference import Reference

if TYPE_CHECKING:
    from asyncctr.backends.docker.api import DockerApi
    from asyncctr.core.images import RegistryAuth

__all__ = ["Engine", "image_name", "registry_headers", "tag"]

_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}")


@attrs.frozen(kw_only=True)
class Engine:
    """What was learned of the engine when it was opened.

    Attributes:
        is_podman: whether it is Podman's socket.
        log_driver: of the containers made here.
        has_buildkit: whether images are built by the BuildKit inside it, else by the classic builder.
        speaks_http2: whether that BuildKit is reached by HTTP/2 on the engine's own socket.
    """

    is_podman: bool
    log_driver: str
    has_buildkit: bool = False
    speaks_http2: bool = False


@lru_cache(maxsize=512)
def image_name(name: str, engine: Engine) -> str:
    """The image's name as the engine resolves it. Podman tries further registries for short names, so it gets whole ones."""
    if _ID.fullmatch(name):
        return name
    reference = Reference.parse(name)
    return str(reference.with_default_tag()) if engine.is_podman else name


async def tag(api: DockerApi, source: str, target: Reference) -> None:
    """Give an image a further name."""
    if not _ID.fullmatch(source):
        # Becomes a part of a path.
        Reference.parse(source)
    await api.call(
        "POST",
        f"/images/{source}/tag",
        params={"repo": target.name, "tag": target.tag or "latest"},
        kind="image",
        resource=source,
    )


async def registry_headers(reference: Reference, auth: RegistryAuth | None) -> Mapping[str, str]:
    """The header with the credentials for a reference's registry: those given, else what the Docker configuration has."""
    if auth is None:
        auth = await find_credentials(reference.registry)
    return {} if auth is None else {"X-Registry-Auth": docker_header(auth)}
