"""OCI image layouts in a tar: descriptors, manifests and configurations, each checked against its digest and size.

The rules are those of the OCI image specification 1.1: image-layout.md, image-index.md, manifest.md and descriptor.md. Docker's
media types of the same things (manifest list, schema 2) are read as well. Every refusal is an ``InvalidConfigError`` of the field
``"archive"``. All of it blocks on the disk: call it in a thread.
"""

from __future__ import annotations

import hashlib
import json
import platform as machine
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from asyncctr.core.errors import InvalidConfigError
from asyncctr.core.validation import FrozenMap, fail, texts
from asyncctr.oci.reference import Reference, parse_digest
from asyncctr.oci.tarindex import FIELD, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncctr.oci.tarindex import TarIndex, TarMember

__all__ = ["MAX_JSON", "Descriptor", "Layout", "LayoutImage", "Manifest", "Platform", "is_layout", "read_json"]

MAX_JSON = 4 << 20
"""Bytes of one index, manifest or configuration: what registries allow a manifest to have."""

_MAX_MANIFESTS = 1_000
_MAX_DEPTH = 8

_INDEXES = frozenset(
    {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
)
_MANIFESTS = frozenset(
    {"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"}
)
_CONFIGS = frozenset({"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"})
# annotations.md; the second is containerd's, and always a whole reference.
_REF_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"

_VERSION = re.compile(r"v[0-9]{1,3}")
_ARCHITECTURES = {
    "x86_64": "amd64",
    "AMD64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i386": "386",
    "i686": "386",
}


@attrs.frozen
class Platform:
    """What an image runs on, by Go's names (image-index.md, "platform"). ``str()`` joins them with ``/``."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """A platform from ``"os/architecture[/variant]"``.

        Raises:
            InvalidConfigError: it is none; the field is ``"platform"``.
        """
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise fail("platform", f"must be 'os/architecture' or 'os/architecture/variant', not {text!r}")
        return cls(*parts)

    @classmethod
    def host(cls) -> Platform:
        """Linux on this machine's architecture: what runs on it, in a virtual machine where it is no Linux itself."""
        name = machine.machine()
        return cls.parse(f"linux/{_ARCHITECTURES.get(name, name)}")

    def rank(self, offered: Platform) -> int | None:
        """How well an image for ``offered`` serves who wants this one: 0 best; ``None`` when it does not run."""
        if (self.os, self.architecture) != (offered.os, offered.architecture):
            return None
        if self.variant == offered.variant:
            return 0
        if not self.variant or not offered.variant:
            # arm64 is arm64/v8; and whoever names no variant takes any.
            return 1
        if _VERSION.fullmatch(self.variant) and _VERSION.fullmatch(offered.variant):
            # arm/v7 runs what was made for arm/v6, and amd64/v3 what was made for amd64/v2.
            newer = int(self.variant[1:]) - int(offered.variant[1:])
            return 1 + newer if newer > 0 else None
        return None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


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


@attrs.frozen(kw_only=True)
class LayoutImage:
    """An image that was chosen from a layout, its platform, and the references it has there."""

    names: tuple[str, ...]
    platform: Platform
    manifest: Manifest


def is_layout(index: TarIndex) -> bool:
    """Whether a tar has the two files that make an image layout."""
    return "index.json" in index.members and "oci-layout" in index.members


Offer = tuple[Platform, Manifest]


class Layout:
    """The image layout in a tar.

    Attributes:
        entries: the descriptors in its ``index.json``.

    Raises:
        InvalidConfigError: it is no layout of version 1; the field is ``"archive"``.
    """

    def __init__(self, index: TarIndex) -> None:
        self._index = index
        version = _object(self._file("oci-layout"), "oci-layout").get("imageLayoutVersion")
        if not isinstance(version, str) or version.partition(".")[0] != "1":
            raise fail(FIELD, f"is an image layout of version {version!r}; '1.0.0' is known")
        self.entries = _descriptors(_object(self._file("index.json"), "index.json"), "manifests", "index.json")

    def images(self, platform: Platform | None = None) -> tuple[LayoutImage, ...]:
        """The layout's images for a platform: one for each name it has, and one for what has no name.

        Without a platform this machine's is taken, and an image that there is for one platform alone is taken whatever that is.

        Raises:
            InvalidConfigError: there is none for the platform, or something in the layout is wrong.
        """
        groups: dict[str, list[Descriptor]] = {}
        for entry in self.entries:
            groups.setdefault(_name(entry), []).append(entry)
        found: dict[str, LayoutImage] = {}
        for name, entries in groups.items():
            # What offers nothing is a signature or another artifact, which may lie beside images.
            offers = [offered for entry in entries if (offered := self._offers(entry))]
            if not offers:
                continue
            image = _choose(name, offers, platform)
            digest = image.manifest.descriptor.digest
            if digest in found:
                image = attrs.evolve(image, names=(*found[digest].names, *image.names))
            found[digest] = image
        if not found:
            raise fail(FIELD, "is an image layout without an image in it")
        return tuple(found.values())

    def _offers(self, top: Descriptor) -> list[Offer]:
        """The images below a descriptor, through indexes in indexes; artifacts are left out."""
        offers: list[Offer] = []
        seen: set[str] = set()
        pending = [(top, 0)]
        while pending:
            entry, depth = pending.pop()
            if entry.digest in seen:
                continue
            seen.add(entry.digest)
            if len(seen) > _MAX_MANIFESTS or depth > _MAX_DEPTH:
                raise fail(FIELD, f"has more than {_MAX_MANIFESTS} manifests, or indexes nested too deep")
            if entry.media_type in _INDEXES:
                nested = _descriptors(_object(self.blob(entry), entry.digest), "manifests", entry.digest)
                pending += [(below, depth + 1) for below in reversed(nested)]
            elif entry.media_type in _MANIFESTS:
                if entry.platform is not None and entry.platform.os == "unknown":
                    # Attestations of a build, as BuildKit files them.
                    continue
                manifest = self.manifest(entry)
                if manifest.config.media_type in _CONFIGS:
                    offers.append((entry.platform or self._platform(manifest), manifest))
        return offers

    def manifest(self, descriptor: Descriptor) -> Manifest:
        """The manifest that a descriptor names."""
        where = descriptor.digest
        document = _object(self.blob(descriptor), where)
        if document.get("schemaVersion") != 2:
            raise fail(FIELD, f"the manifest {where} has the schema {document.get('schemaVersion')!r}; 2 is known")
        return Manifest(
            descriptor=descriptor,
            config=_descriptor(document.get("config"), f"the config in {where}"),
            layers=_descriptors(document, "layers", where),
            annotations=_annotations(document.get("annotations"), where),
        )

    def config(self, manifest: Manifest) -> dict[str, Any]:
        """The image's configuration (config.md), whose ``rootfs.diff_ids`` are as many as the manifest's layers."""
        document = _object(self.blob(manifest.config), manifest.config.digest)
        rootfs = document.get("rootfs")
        identifiers = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if not isinstance(identifiers, list) or len(identifiers) != len(manifest.layers):
            raise fail(
                FIELD,
                f"the configuration {manifest.config.digest} is not of its manifest: "
                f"it has not one diff_id for each of the {len(manifest.layers)} layers",
            )
        return document

    def _platform(self, manifest: Manifest) -> Platform:
        document = self.config(manifest)
        names = [document.get(key) or "" for key in ("os", "architecture", "variant")]
        if not all(isinstance(name, str) for name in names) or not names[0] or not names[1]:
            raise fail(FIELD, f"the configuration {manifest.config.digest} does not tell its platform")
        return Platform(*names)

    def member(self, descriptor: Descriptor) -> TarMember:
        """Where the tar has a blob; its size is right, its content not looked at."""
        member = self._index.find(descriptor.path)
        if member is None:
            raise fail(FIELD, f"lacks the blob {descriptor.digest}, which it refers to")
        if descriptor.path in self._index.repeated:
            raise fail(FIELD, f"has the blob {descriptor.digest} more than once")
        if member.size != descriptor.size:
            raise fail(
                FIELD,
                f"the blob {descriptor.digest} has {member.size} bytes, not {descriptor.size} as its descriptor says",
            )
        return member

    def blocks(self, descriptor: Descriptor) -> Iterator[bytes]:
        """A blob's content in blocks of at most 1 MiB; that it has its digest is known only after the last one.

        Raises:
            InvalidConfigError: there is no such blob, or, in place of the end, it does not have its digest.
        """
        expected = parse_digest(descriptor.digest, field=FIELD)
        actual = hashlib.new(expected.algorithm)
        for block in self._index.blocks(self.member(descriptor)):
            actual.update(block)
            yield block
        if actual.hexdigest() != expected.hex:
            raise fail(FIELD, f"the blob {descriptor.digest} has another content: its digest is {actual.hexdigest()}")

    def blob(self, descriptor: Descriptor) -> bytes:
        """A small blob whole: an index, a manifest or a configuration, of at most ``MAX_JSON`` bytes."""
        if descriptor.size > MAX_JSON:
            raise fail(
                FIELD, f"the JSON blob {descriptor.digest} has {descriptor.size} bytes; at most {MAX_JSON} are read"
            )
        return b"".join(self.blocks(descriptor))

    def _file(self, name: str) -> bytes:
        return read_json(self._index, name)


def read_json(index: TarIndex, name: str) -> bytes:
    """A JSON file of a tar, of at most ``MAX_JSON`` bytes."""
    member = index.find(name)
    if member is None:
        raise fail(FIELD, f"has no file {name}")
    if name in index.repeated:
        raise fail(FIELD, f"has {name} more than once")
    if member.size > MAX_JSON:
        raise fail(FIELD, f"{name} has {member.size} bytes; at most {MAX_JSON} are read")
    return index.read(member)


def _choose(name: str, offers: Sequence[Sequence[Offer]], platform: Platform | None) -> LayoutImage:
    """The best of what the entries of one name offer; of those that are alike in one index the first (image-index.md)."""
    wanted = platform or Platform.host()
    label = f" {shown(name)}" if name else ""
    best: dict[Platform, tuple[int, Manifest]] = {}
    for entry in offers:
        ranked = [
            (rank, place) for place, (offered, _) in enumerate(entry) if (rank := wanted.rank(offered)) is not None
        ]
        if ranked:
            rank, place = min(ranked)
            offered, manifest = entry[place]
            first = best.setdefault(offered, (rank, manifest))
            if first[1].descriptor.digest != manifest.descriptor.digest:
                raise fail(FIELD, f"has more than one image{label or ' without a name'} for {offered}; which is meant?")
    if best:
        chosen = min(best, key=lambda offered: best[offered][0])
        manifest = best[chosen][1]
    elif platform is None and len(offers) == len(offers[0]) == 1:
        chosen, manifest = offers[0][0]
    else:
        there = ", ".join(sorted({str(offered) for entry in offers for offered, _ in entry}))
        raise fail(FIELD, f"has no image{label} for {wanted}; there is: {there}")
    return LayoutImage(names=(name,) if name else (), platform=chosen, manifest=manifest)


def _name(entry: Descriptor) -> str:
    """The reference that a descriptor's annotations give; empty when none is a whole one."""
    for key in (_CONTAINERD_NAME, _REF_NAME):
        text = entry.annotations.get(key, "")
        # The specification's name may be a tag alone, and "latest" would be read as a repository.
        if key == _REF_NAME and not ("/" in text or ":" in text):
            continue
        try:
            reference = Reference.parse(text)
        except InvalidConfigError:
            continue
        if reference.digest is None:
            return str(reference.with_default_tag())
    return ""


def _object(data: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise fail(FIELD, f"{where} is no JSON") from None
    if not isinstance(document, dict):
        raise fail(FIELD, f"{where} is no JSON object")
    return document


def _descriptors(document: dict[str, Any], key: str, where: str) -> tuple[Descriptor, ...]:
    entries = document.get(key)
    if not isinstance(entries, list):
        raise fail(FIELD, f"{where} has no list {key!r}")
    return tuple(_descriptor(entry, f"{key}[{place}] in {where}") for place, entry in enumerate(entries))


def _descriptor(document: object, where: str) -> Descriptor:
    if not isinstance(document, dict):
        raise fail(FIELD, f"{where} is no descriptor")
    media_type, digest, size = (document.get(key) for key in ("mediaType", "digest", "size"))
    if not isinstance(media_type, str) or not isinstance(digest, str) or type(size) is not int or size < 0:
        raise fail(FIELD, f"{where} is no descriptor: it needs a mediaType, a digest and a size")
    try:
        parse_digest(digest, field=FIELD)
    except InvalidConfigError as error:
        raise fail(FIELD, f"{where} is no descriptor: {error.message.removeprefix(f'{FIELD}: ')}") from None
    platform = None
    if isinstance(told := document.get("platform"), dict):
        names = [told.get(key) or "" for key in ("os", "architecture", "variant")]
        if not all(isinstance(name, str) for name in names):
            raise fail(FIELD, f"{where} has a platform that is none")
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
        raise fail(FIELD, f"{where} has annotations that are no text")
    return value
