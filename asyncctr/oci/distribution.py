"""The client of image registries: the pull half of the OCI distribution specification 1.1."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import attrs

from asyncctr.core.errors import (
    DigestMismatchError,
    ImageNotFoundError,
    ImagePullError,
    InvalidConfigError,
    RegistryAuthError,
)
from asyncctr.core.validation import fail
from asyncctr.oci.blobs import BlobSource, BlobStream
from asyncctr.oci.manifests import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_JSON,
    Descriptor,
    DocumentError,
    Manifest,
    NoPlatformError,
    choose_image,
    parse_artifact,
    parse_config,
    parse_object,
)
from asyncctr.oci.platforms import Platform
from asyncctr.oci.reference import Digest, Reference, parse_digest
from asyncctr.oci.registry_endpoints import Endpoint, Endpoints
from asyncctr.oci.registry_failures import AttemptError
from asyncctr.oci.registry_http import RegistryHttp, read_body

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection, Sequence
    from types import TracebackType

    import aiohttp

    from asyncctr.core.images import RegistryAuth

__all__ = ["Distribution", "RemoteArtifact", "RemoteImage"]

_TOP_TYPES = INDEX_TYPES | MANIFEST_TYPES
# Indexes first, for registries that answer with the first that they have.
_ACCEPT = ", ".join(sorted(_TOP_TYPES, key=lambda name: (name in MANIFEST_TYPES, "docker" in name)))
_SCHEMA_1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
_MAX_DOCUMENTS = 64 << 20


@attrs.frozen(kw_only=True)
class RemoteImage:
    """An image in a registry, for one platform. All of it has the digest and size that it was said to have.

    Attributes:
        descriptor: what the reference names, an index or the manifest itself.
        data: the content of that.
        platform: what the image is for.
        manifest: the image's; its ``descriptor`` is the index's, or the same as ``descriptor``.
        manifest_data: the content of that.
        config: the content of the configuration.
    """

    descriptor: Descriptor
    data: bytes = attrs.field(repr=False)
    platform: Platform
    manifest: Manifest
    manifest_data: bytes = attrs.field(repr=False)
    config: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class RemoteArtifact:
    """An artifact in a registry. All of it has the digest and size that it was said to have.

    Attributes:
        manifest: its manifest.
        data: the content of that.
        config: the content of its configuration.
    """

    manifest: Manifest
    data: bytes = attrs.field(repr=False)
    config: bytes = attrs.field(repr=False)


class Distribution:
    """A client of image registries; it only pulls. An async context manager, and ``aclose`` does as well.

    Connections are kept for the next request, and so are tokens. Any number of calls and streams may run at once.

    Args:
        auth: credentials for the registry of the references, or for ``auth.server`` alone; ``None`` to look into the user's
            configuration (:func:`asyncctr.oci.auth.find_credentials`) once a registry asks for some.
        timeout: seconds of silence, while connecting, waiting for an answer or between two reads, until a registry is given
            up. There is no limit on a whole call.
        mirrors: by registry, the addresses to try first, such as ``{"docker.io": ["http://127.0.0.1:5000"]}``. Whatever a
            mirror fails with, the next one and at last the registry itself is asked. Credentials are looked for under its host.
        plain_http: registries that are spoken to without TLS. One on this machine's loopback is asked by TLS first, and
            without it where it does not know that.
        attempts: how often something that may pass (a cut connection, statuses 429 and 5xx) is tried before it is an error;
            of a blob, without any progress in between.
        tls: what to trust in place of what Python trusts by default.

    Raises:
        InvalidConfigError: an argument is wrong.
    """

    def __init__(
        self,
        *,
        auth: RegistryAuth | None = None,
        timeout: float = 60.0,
        mirrors: Mapping[str, Sequence[str]] | None = None,
        plain_http: Collection[str] = (),
        attempts: int = 5,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if timeout <= 0:
            raise fail("timeout", f"must be more than 0 s, not {timeout:g}")
        if attempts < 1:
            raise fail("attempts", f"must be at least 1, not {attempts}")
        if isinstance(plain_http, str):
            raise fail("plain_http", "must be a collection of registries, not a str")
        self._http = RegistryHttp(timeout=timeout, plain_http=plain_http, tls=tls)
        self._endpoints = Endpoints(self._http, auth=auth, mirrors=mirrors or {}, attempts=attempts)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. Streams that are still read end with ``ClosedError``."""
        await self._http.aclose()

    async def resolve(self, reference: Reference) -> Descriptor:
        """What a reference names now, without its content: an index or a manifest.

        Raises:
            ImageNotFoundError: the registry has no such repository or tag.
            RegistryAuthError: the registry wants credentials, or refused those that there are.
            DigestMismatchError: the registry has something else under the digest.
            ImagePullError: the registry cannot be reached, or reported something else.
        """
        reference = reference.with_default_tag()

        async def ask(endpoint: Endpoint) -> Descriptor:
            return await self._head(endpoint, reference) or (await self._get(endpoint, reference))[0]

        return await self._endpoints.first(reference, ask)

    async def image(self, reference: Reference, platform: Platform | None = None) -> RemoteImage:
        """The manifest and configuration of the image that a reference names, for a platform.

        Args:
            reference: a digest wins over a tag; without both the tag is ``latest``.
            platform: ``None`` for this machine's, and for whatever an image that is for one platform alone is for.

        Raises:
            ImageNotFoundError: the registry has no such repository or tag, or nothing for the platform.
            RegistryAuthError: the registry wants credentials, or refused those that there are.
            DigestMismatchError: something has another digest or size than it should.
            ImagePullError: the registry cannot be reached, or reported something else, or sent something broken.
        """
        reference = reference.with_default_tag()
        top, data = await self._endpoints.first(reference, lambda endpoint: self._get(endpoint, reference))
        contents = {top.digest: data}

        async def content(wanted: Descriptor) -> bytes:
            if wanted.digest not in contents:
                contents[wanted.digest] = await self._document(reference, wanted)
                if sum(map(len, contents.values())) > _MAX_DOCUMENTS:
                    raise _broken(reference, f"is described by more than {_MAX_DOCUMENTS} bytes of JSON")
            return contents[wanted.digest]

        reading = choose_image([top], platform)
        try:
            try:
                wanted = next(reading)
                while True:
                    wanted = reading.send(await content(wanted))
            except StopIteration as end:
                choice: tuple[Platform, Manifest] | None = end.value
            if choice is None:
                raise _broken(reference, f"{top.digest} is no image but another artifact")
            chosen, manifest = choice
            config = await content(manifest.config)
            parse_config(config, manifest)
        except NoPlatformError as error:
            raise ImageNotFoundError(f"{reference}: {error}", resource=str(reference)) from error
        except DocumentError as error:
            raise _broken(reference, str(error)) from error
        return RemoteImage(
            descriptor=top,
            data=data,
            platform=chosen,
            manifest=manifest,
            manifest_data=contents[manifest.descriptor.digest],
            config=config,
        )

    async def artifact(self, reference: Reference, artifact_type: str) -> RemoteArtifact:
        """The manifest and configuration of what is no container image but an artifact of a type (manifest.md, "Guidelines").

        Args:
            reference: a digest wins over a tag; without both the tag is ``latest``.
            artifact_type: what it must be.

        Raises:
            ImageNotFoundError: the registry has no such repository or tag.
            RegistryAuthError: the registry wants credentials, or refused those that there are.
            DigestMismatchError: something has another digest or size than it should.
            ImagePullError: it is something else; or the registry cannot be reached, reported something else, or sent something
                broken.
        """
        reference = reference.with_default_tag()
        top, data = await self._endpoints.first(reference, lambda endpoint: self._get(endpoint, reference))
        if top.media_type not in MANIFEST_TYPES:
            raise _broken(
                reference, f"{top.digest} is an index, not the artifact {artifact_type!r}; name its manifest's digest"
            )
        try:
            manifest = parse_artifact(data, top, artifact_type)
        except DocumentError as error:
            raise _broken(reference, str(error)) from error
        config = await self._document(reference, manifest.config)
        return RemoteArtifact(manifest=manifest, data=data, config=config)

    def blob(self, reference: Reference, descriptor: Descriptor, *, offset: int = 0, verify: bool = True) -> BlobStream:
        """A blob's content, from an offset on. Nothing is asked before the first chunk is.

        Whoever has it verified elsewhere, such as by what keeps it, sets ``verify`` to ``False``.

        Raises:
            InvalidConfigError: the offset is not within the blob, or the descriptor's digest is none.
        """
        if not 0 <= offset <= descriptor.size:
            raise fail("offset", f"must be between 0 and the blob's size {descriptor.size}, not {offset}")

        def source(endpoint: Endpoint) -> BlobSource:
            async def request(headers: Mapping[str, str]) -> aiohttp.ClientResponse:
                return await self._endpoints.request("GET", endpoint, reference, f"blobs/{descriptor.digest}", headers)

            return BlobSource(
                request, self._endpoints.patience(endpoint), lambda failure: self._endpoints.give_way(endpoint, failure)
            )

        sources = [source(endpoint) for endpoint in self._endpoints.of(reference)]
        return BlobStream(self._http, descriptor, sources, offset=offset, resource=str(reference), verify=verify)

    async def _head(self, endpoint: Endpoint, reference: Reference) -> Descriptor | None:
        """What the headers tell of a reference; ``None`` where they do not tell enough, or tell of an error without its words."""
        try:
            response = await self._endpoints.request(
                "HEAD", endpoint, reference, _manifest_path(reference), {"Accept": _ACCEPT}
            )
        except AttemptError as failure:
            if failure.again or failure.error.status is None or isinstance(failure.error, RegistryAuthError):
                raise
            return None
        response.close()
        digest = _told_digest(response)
        size = response.content_length
        if digest is None or size is None or response.content_type not in _TOP_TYPES:
            return None
        if reference.digest is not None and str(digest) != reference.digest:
            raise _mismatch(reference, reference.digest, str(digest))
        return Descriptor(media_type=response.content_type, digest=str(digest), size=size)

    async def _get(self, endpoint: Endpoint, reference: Reference) -> tuple[Descriptor, bytes]:
        """What a reference names, and its content."""
        response = await self._endpoints.request(
            "GET",
            endpoint,
            reference,
            _manifest_path(reference),
            {"Accept": _ACCEPT},
            missing=ImageNotFoundError,
        )
        data = await read_body(self._http, response, MAX_JSON, resource=str(reference))
        told = _told_digest(response)
        for expected in (reference.digest, told):
            if expected is not None and (actual := _digest(data, str(expected))) != str(expected):
                raise _mismatch(reference, str(expected), actual)
        try:
            media_type = _media_type(data, response.content_type)
        except DocumentError as error:
            raise AttemptError(_broken(reference, str(error))) from error
        digest = reference.digest or str(told or _digest(data, "sha256"))
        return Descriptor(media_type=media_type, digest=digest, size=len(data)), data

    async def _document(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """A small blob, manifest or index, as its descriptor says it is."""
        if descriptor.size > MAX_JSON:
            raise _broken(
                reference, f"the JSON blob {descriptor.digest} has {descriptor.size} bytes; at most {MAX_JSON} are read"
            )
        kind = "manifests" if descriptor.media_type in _TOP_TYPES else "blobs"
        headers = {"Accept": descriptor.media_type} if kind == "manifests" else {}

        async def ask(endpoint: Endpoint) -> bytes:
            response = await self._endpoints.request("GET", endpoint, reference, f"{kind}/{descriptor.digest}", headers)
            data = await read_body(self._http, response, MAX_JSON, resource=str(reference))
            if (actual := _digest(data, descriptor.digest)) != descriptor.digest or len(data) != descriptor.size:
                raise _mismatch(
                    reference, f"{descriptor.digest} and {descriptor.size} bytes", f"{actual} and {len(data)}"
                )
            return data

        return await self._endpoints.first(reference, ask)


def _manifest_path(reference: Reference) -> str:
    return f"manifests/{reference.digest or reference.tag}"


def _digest(data: bytes, like: str) -> str:
    """The digest of some bytes by the algorithm of another digest."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def _told_digest(response: aiohttp.ClientResponse) -> Digest | None:
    try:
        return parse_digest(response.headers.get("Docker-Content-Digest", ""))
    except InvalidConfigError:
        # By an algorithm of its own, or nonsense: what matters is computed from the content.
        return None


def _media_type(data: bytes, content_type: str) -> str:
    """What a document at the top is, by its own word and the header's, which must not contradict each other (manifest.md)."""
    document: dict[str, Any] = parse_object(data, "the manifest")
    if content_type in _SCHEMA_1 or document.get("schemaVersion") == 1:
        raise DocumentError("the manifest is of Docker's schema 1, which is no longer read; push the image again")
    told = document.get("mediaType")
    if content_type not in _TOP_TYPES:
        # A plain web server knows the type of no manifest.
        content_type = ""
    if isinstance(told, str) and told and content_type and told != content_type:
        raise DocumentError(f"the manifest calls itself {told[:100]!r}, and the registry calls it {content_type!r}")
    if "manifests" in document and ("layers" in document or "config" in document):
        raise DocumentError("the manifest is an index and an image at once")
    media_type = content_type or told
    if not media_type and document.get("schemaVersion") == 2:
        media_type = f"application/vnd.oci.image.{'index' if 'manifests' in document else 'manifest'}.v1+json"
    if media_type not in _TOP_TYPES:
        raise DocumentError(f"the manifest is no image but {str(media_type)[:100]!r}")
    return str(media_type)


def _broken(reference: Reference, text: str) -> ImagePullError:
    return ImagePullError(f"{reference}: {text}", resource=str(reference))


def _mismatch(reference: Reference, expected: str, actual: str) -> AttemptError:
    message = f"{reference}: the registry sent {actual} in place of {expected}"
    return AttemptError(DigestMismatchError(message, resource=str(reference)))
