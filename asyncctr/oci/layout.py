"""OCI image layouts in a tar: their images, each blob checked against its digest and size.

The rules are those of the OCI image specification 1.1, image-layout.md; documents are read by :mod:`asyncctr.oci.manifests`.
Every refusal is an ``InvalidConfigError`` of the field ``"archive"``. All of it blocks on the disk: call it in a thread.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from asyncctr.core.errors import InvalidConfigError
from asyncctr.core.validation import fail
from asyncctr.oci.manifests import (
    MAX_JSON,
    Descriptor,
    DocumentError,
    Manifest,
    Reading,
    choose_image,
    parse_config,
    parse_descriptors,
    parse_object,
)
from asyncctr.oci.platforms import Platform
from asyncctr.oci.reference import Reference, parse_digest
from asyncctr.oci.tarindex import FIELD, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncctr.oci.tarindex import TarIndex, TarMember

__all__ = ["MAX_JSON", "Layout", "LayoutImage", "Platform", "is_layout", "read_json"]

T = TypeVar("T")

# annotations.md; the second is containerd's, and always a whole reference.
_REF_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"


@attrs.frozen(kw_only=True)
class LayoutImage:
    """An image that was chosen from a layout, its platform, and the references it has there."""

    names: tuple[str, ...]
    platform: Platform
    manifest: Manifest


def is_layout(index: TarIndex) -> bool:
    """Whether a tar has the two files that make an image layout."""
    return "index.json" in index.members and "oci-layout" in index.members


class Layout:
    """The image layout in a tar.

    Attributes:
        entries: the descriptors in its ``index.json``.

    Raises:
        InvalidConfigError: it is no layout of version 1; the field is ``"archive"``.
    """

    def __init__(self, index: TarIndex) -> None:
        self._index = index
        with _refusing():
            version = parse_object(self._file("oci-layout"), "oci-layout").get("imageLayoutVersion")
            if not isinstance(version, str) or version.partition(".")[0] != "1":
                raise fail(FIELD, f"is an image layout of version {version!r}; '1.0.0' is known")
            document = parse_object(self._file("index.json"), "index.json")
            self.entries = parse_descriptors(document, "manifests", "index.json")

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
            choice = self._read(choose_image(entries, platform, label=f" {shown(name)}" if name else ""))
            if choice is None:
                # A signature or another artifact, which may lie beside images.
                continue
            image = LayoutImage(names=(name,) if name else (), platform=choice[0], manifest=choice[1])
            digest = image.manifest.descriptor.digest
            if digest in found:
                image = attrs.evolve(image, names=(*found[digest].names, *image.names))
            found[digest] = image
        if not found:
            raise fail(FIELD, "is an image layout without an image in it")
        return tuple(found.values())

    def _read(self, reading: Reading[T]) -> T:
        """What comes of a reading, whose blobs are the layout's."""
        with _refusing():
            try:
                wanted = next(reading)
                while True:
                    wanted = reading.send(self.blob(wanted))
            except StopIteration as end:
                result: T = end.value
                return result

    def config(self, manifest: Manifest) -> dict[str, Any]:
        """The image's configuration (config.md), whose ``rootfs.diff_ids`` are as many as the manifest's layers."""
        with _refusing():
            return parse_config(self.blob(manifest.config), manifest)

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


@contextmanager
def _refusing() -> Iterator[None]:
    """A broken document is a broken archive."""
    try:
        yield
    except DocumentError as error:
        raise fail(FIELD, str(error)) from None
