"""Descriptors, manifests, indexes and configurations as documents, and the choice of an image among what indexes offer.

The rules are those of the OCI image specification 1.1: image-index.md, manifest.md, config.md and descriptor.md. Docker's media
types of the same things (manifest list, schema 2) are read as well. Nothing here reads a blob: what needs the content of one is a
generator that yields its descriptor and is sent the bytes, which whoever drives it has checked against digest and size.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import attrs

from asyncctr.core.errors import InvalidConfigError
from asyncctr.core.validation import FrozenMap, texts
from asyncctr.oci.platforms import Platform
from asyncctr.oci.reference import parse_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CONFIG_TYPES",
    "INDEX_TYPES",
    "MANIFEST_TYPES",
    "MAX_JSON",
    "Choice",
    "Descriptor",
    "DocumentError",
    "Manifest",
    "NoPlatformError",
    "Reading",
    "choose_image",
    "parse_artifact",
    "parse_config",
    "parse_descriptors",
    "parse_manifest",
    "parse_object",
]

T = TypeVar("T")

MAX_JSON = 4 << 20
"""Bytes of one index, manifest or configuration: what registries allow a manifest to have."""

INDEX_TYPES = frozenset(
    {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
)
MANIFEST_TYPES = frozenset(
    {"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"}
)
CONFIG_TYPES = frozenset({"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"})

_MAX_MANIFESTS = 1_000
_MAX_DEPTH = 8
_FIELD = "digest"


class DocumentError(ValueError):
    """A document is not what it should be. Whoever knows where it came from makes an error of the tree of it."""


class NoPlatformError(DocumentError):
    """There are images, but none for the platform."""


@attrs.frozen(kw_only=True)
class Descriptor:
    """What a blob is said to be (descriptor.md).

    Attributes:
        media_type: what it holds.
        digest: ``"algorithm:hex"``, by which it is found.
        size: bytes.
        platform: of a manifest in an index; ``None`` where that does not tell.
        annotations: as given.
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=texts)

    @property
    def path(self) -> str:
        """Where a layout keeps the blob."""
        return f"blobs/{self.digest.replace(':', '/')}"


@attrs.frozen(kw_only=True)
class Manifest:
    """One image for one platform (manifest.md): its configuration, and its layers, the lowest first."""

    descriptor: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=texts)


@attrs.frozen
class Choice:
    """An image for a platform. ``manifest`` is ``None`` where it was not read, because it is for another platform."""

    platform: Platform
    descriptor: Descriptor
    manifest: Manifest | None


Reading: TypeAlias = Generator[Descriptor, bytes, T]
"""What reads blobs: it yields descriptors of at most ``MAX_JSON`` bytes, is sent their content, and returns its result."""


def choose_image(
    entries: Sequence[Descriptor], platform: Platform | None, *, label: str = ""
) -> Reading[tuple[Platform, Manifest] | None]:
    """The image below some descriptors that serves a platform best; ``None`` where there is no image at all.

    Without a platform this machine's is taken, and an image that there is for one platform alone is taken whatever that is.
    Of those that are alike in one index the first is taken (image-index.md).

    Args:
        entries: the descriptors of one name. What offers nothing is a signature or another artifact.
        platform: the one wanted.
        label: the name, for messages; with a space in front.

    Raises:
        NoPlatformError: there are images, but none for the platform.
        DocumentError: a document is broken, or two entries have different images for the platform.
    """
    wanted = platform or Platform.host()
    offers: list[list[Choice]] = []
    for entry in entries:
        found = yield from _offers(entry, wanted)
        if found:
            offers.append(found)
    if not offers:
        return None
    best: dict[Platform, tuple[int, Choice]] = {}
    for entry_offers in offers:
        ranked = [
            (rank, place)
            for place, offer in enumerate(entry_offers)
            if (rank := wanted.rank(offer.platform)) is not None
        ]
        if ranked:
            rank, place = min(ranked)
            offer = entry_offers[place]
            first = best.setdefault(offer.platform, (rank, offer))
            if first[1].descriptor.digest != offer.descriptor.digest:
                raise DocumentError(
                    f"has more than one image{label or ' without a name'} for {offer.platform}; which is meant?"
                )
    if best:
        chosen = min(best.values(), key=lambda ranked: ranked[0])[1]
    elif platform is None and len(offers) == len(offers[0]) == 1:
        chosen = offers[0][0]
    else:
        there = ", ".join(sorted({str(offer.platform) for entry_offers in offers for offer in entry_offers}))
        raise NoPlatformError(f"has no image{label} for {wanted}; there is: {there}")
    manifest = chosen.manifest or parse_manifest((yield chosen.descriptor), chosen.descriptor)
    return chosen.platform, manifest


def _offers(top: Descriptor, wanted: Platform) -> Reading[list[Choice]]:
    """The images below a descriptor, through indexes in indexes; artifacts are left out."""
    offers: list[Choice] = []
    seen: set[str] = set()
    pending = [(top, 0)]
    while pending:
        entry, depth = pending.pop()
        if entry.digest in seen:
            continue
        seen.add(entry.digest)
        if len(seen) > _MAX_MANIFESTS or depth > _MAX_DEPTH:
            raise DocumentError(f"has more than {_MAX_MANIFESTS} manifests, or indexes nested too deep")
        if entry.media_type in INDEX_TYPES:
            nested = parse_descriptors(parse_object((yield entry), entry.digest), "manifests", entry.digest)
            pending += [(below, depth + 1) for below in reversed(nested)]
        elif entry.media_type in MANIFEST_TYPES:
            offer = yield from _offer(entry, wanted)
            if offer is not None:
                offers.append(offer)
    return offers


def _offer(entry: Descriptor, wanted: Platform) -> Reading[Choice | None]:
    told = entry.platform
    if told is not None and told.os == "unknown":
        # Attestations of a build, as BuildKit files them.
        return None
    if told is not None and wanted.rank(told) is None:
        return Choice(told, entry, None)
    manifest = parse_manifest((yield entry), entry)
    if manifest.config.media_type not in CONFIG_TYPES:
        return None
    return Choice(told or _platform((yield manifest.config), manifest), entry, manifest)


def parse_manifest(data: bytes, descriptor: Descriptor) -> Manifest:
    """The manifest that a descriptor names.

    Raises:
        DocumentError: it is none of schema 2.
    """
    where = descriptor.digest
    document = parse_object(data, where)
    if document.get("schemaVersion") != 2:
        raise DocumentError(f"the manifest {where} has the schema {document.get('schemaVersion')!r}; 2 is known")
    return Manifest(
        descriptor=descriptor,
        config=_descriptor(document.get("config"), f"the config in {where}"),
        layers=parse_descriptors(document, "layers", where),
        annotations=_annotations(document.get("annotations"), where),
    )


def parse_artifact(data: bytes, descriptor: Descriptor, artifact_type: str) -> Manifest:
    """The manifest of an artifact that a descriptor names; its type may be that of its configuration (manifest.md).

    Raises:
        DocumentError: it is none of schema 2, or of another type.
    """
    manifest = parse_manifest(data, descriptor)
    told = parse_object(data, descriptor.digest).get("artifactType") or manifest.config.media_type
    if told != artifact_type:
        raise DocumentError(f"{descriptor.digest} is {str(told)[:100]!r}, not {artifact_type!r}")
    return manifest


def parse_config(data: bytes, manifest: Manifest) -> dict[str, Any]:
    """The image's configuration (config.md), whose ``rootfs.diff_ids`` are as many as the manifest's layers.

    Raises:
        DocumentError: it is none, or not this manifest's.
    """
    document = parse_object(data, manifest.config.digest)
    rootfs = document.get("rootfs")
    identifiers = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(identifiers, list) or len(identifiers) != len(manifest.layers):
        raise DocumentError(
            f"the configuration {manifest.config.digest} is not of its manifest: "
            f"it has not one diff_id for each of the {len(manifest.layers)} layers",
        )
    return document


def _platform(config: bytes, manifest: Manifest) -> Platform:
    names = _platform_names(parse_config(config, manifest))
    if names is None or not names[0] or not names[1]:
        raise DocumentError(f"the configuration {manifest.config.digest} does not tell its platform")
    return Platform(*names)


def _platform_names(document: Mapping[str, Any]) -> list[str] | None:
    names = [document.get(key) or "" for key in ("os", "architecture", "variant")]
    return names if all(isinstance(name, str) for name in names) else None


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DocumentError: it is none.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise DocumentError(f"{where} is no JSON") from None
    if not isinstance(document, dict):
        raise DocumentError(f"{where} is no JSON object")
    return document


def parse_descriptors(document: Mapping[str, Any], key: str, where: str) -> tuple[Descriptor, ...]:
    """The list of descriptors that a document has under a key.

    Raises:
        DocumentError: it is none.
    """
    entries = document.get(key)
    if not isinstance(entries, list):
        raise DocumentError(f"{where} has no list {key!r}")
    return tuple(_descriptor(entry, f"{key}[{place}] in {where}") for place, entry in enumerate(entries))


def _descriptor(document: object, where: str) -> Descriptor:
    if not isinstance(document, dict):
        raise DocumentError(f"{where} is no descriptor")
    media_type, digest, size = (document.get(key) for key in ("mediaType", "digest", "size"))
    if not isinstance(media_type, str) or not isinstance(digest, str) or type(size) is not int or size < 0:
        raise DocumentError(f"{where} is no descriptor: it needs a mediaType, a digest and a size")
    try:
        parse_digest(digest, field=_FIELD)
    except InvalidConfigError as error:
        raise DocumentError(f"{where} is no descriptor: {error.message.removeprefix(f'{_FIELD}: ')}") from None
    platform = None
    if isinstance(told := document.get("platform"), dict):
        names = _platform_names(told)
        if names is None:
            raise DocumentError(f"{where} has a platform that is none")
        platform = Platform(*names)
    return Descriptor(
        media_type=media_type,
        digest=digest,
        size=size,
        platform=platform,
        annotations=_annotations(document.get("annotations"), where),
    )


def _annotations(value: object, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise DocumentError(f"{where} has annotations that are no text")
    return value
