"""The images in an archive as manifest, configuration and layers, whichever form it has.

What ``docker save`` wrote before version 25 has no manifests: they are made here, of the same layers. All of it blocks on the
disk: call it in a thread.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import attrs

from asyncctr.core.validation import fail
from asyncctr.oci.layout import Layout, is_layout, read_json
from asyncctr.oci.manifests import MAX_JSON, Descriptor, DocumentError, Manifest, parse_config
from asyncctr.oci.platforms import Platform
from asyncctr.oci.tarindex import FIELD, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncctr.oci.tarindex import TarIndex, TarMember

__all__ = ["ArchivedImage", "archived_images"]

_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar"
_PACKED = {b"\x1f\x8b": ".gzip", b"\x28\xb5\x2f\xfd": ".zstd"}


@attrs.frozen(kw_only=True)
class ArchivedImage:
    """One image of an archive, for one platform.

    Attributes:
        names: the references that it has in the archive.
        platform: what it runs on.
        manifest: the image's manifest.
        manifest_data: the content of that.
        config: the content of its configuration.
        blocks: gives the content of a layer, in blocks of at most 1 MiB; a wrong digest is an ``InvalidConfigError`` in place of
            the end.
    """

    names: tuple[str, ...]
    platform: Platform
    manifest: Manifest
    manifest_data: bytes = attrs.field(repr=False)
    config: bytes = attrs.field(repr=False)
    blocks: Callable[[Descriptor], Iterator[bytes]]


def archived_images(index: TarIndex, platform: Platform | None = None) -> tuple[ArchivedImage, ...]:
    """The images of an archive, at least one.

    Args:
        index: the archive's.
        platform: which of several to take; ``None`` for this machine's.

    Raises:
        InvalidConfigError: it is no archive of images, or a broken one; the field is ``"archive"``.
    """
    if is_layout(index):
        layout = Layout(index)
        return tuple(
            ArchivedImage(
                names=image.names,
                platform=image.platform,
                manifest=image.manifest,
                manifest_data=layout.blob(image.manifest.descriptor),
                config=layout.blob(image.manifest.config),
                blocks=layout.blocks,
            )
            for image in layout.images(platform)
        )
    if "manifest.json" not in index.members:
        raise fail(
            FIELD,
            "is neither: it has no manifest.json, as 'docker save' writes, and no oci-layout and index.json, as image layouts have",
        )
    try:
        entries = json.loads(read_json(index, "manifest.json"))
    except (ValueError, RecursionError):
        raise fail(FIELD, "manifest.json is no JSON") from None
    if not isinstance(entries, list) or not entries:
        raise fail(FIELD, "manifest.json names no image")
    return tuple(_saved(index, entry) for entry in entries)


def _saved(index: TarIndex, entry: object) -> ArchivedImage:
    if not isinstance(entry, dict):
        raise fail(FIELD, "manifest.json is not what 'docker save' writes: an image is an object")
    config = _file(index, entry.get("Config"))
    if config.size > MAX_JSON:
        raise fail(FIELD, f"the configuration {config.name} has {config.size} bytes; at most {MAX_JSON} are read")
    names = entry.get("Layers") or []
    if not isinstance(names, list):
        raise fail(FIELD, "manifest.json is not what 'docker save' writes: Layers is a list")
    data = index.read(config)
    layers: list[Descriptor] = []
    members: dict[str, TarMember] = {}
    for name in names:
        member = _file(index, name)
        layer = _layer(index, member)
        layers.append(layer)
        members[layer.digest] = member
    config_descriptor = Descriptor(media_type=_CONFIG_TYPE, digest=_digest(data), size=len(data))
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_TYPE,
        "config": _json(config_descriptor),
        "layers": [_json(layer) for layer in layers],
    }
    manifest_data = json.dumps(document, separators=(",", ":")).encode()
    manifest = Manifest(
        descriptor=Descriptor(media_type=_MANIFEST_TYPE, digest=_digest(manifest_data), size=len(manifest_data)),
        config=config_descriptor,
        layers=tuple(layers),
    )
    tags = entry.get("RepoTags") or []
    return ArchivedImage(
        names=tuple(tag for tag in tags if isinstance(tag, str)),
        platform=_platform(data, manifest),
        manifest=manifest,
        manifest_data=manifest_data,
        config=data,
        blocks=lambda layer: index.blocks(members[layer.digest]),
    )


def _file(index: TarIndex, name: object) -> TarMember:
    if not isinstance(name, str):
        raise fail(FIELD, "manifest.json is not what 'docker save' writes: an image needs a Config and Layers")
    member = index.members.get(name.removeprefix("./"))
    for _ in range(8):
        # Older engines save a layer that two images share as a link.
        if member is None or member.kind != "link":
            break
        member = index.members.get(_resolve(member))
    if member is None or member.kind != "file":
        raise fail(FIELD, f"lacks {shown(name)}, which its manifest.json names")
    return member


def _resolve(link: TarMember) -> str:
    parts = link.name.split("/")[:-1]
    for part in link.target.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _layer(index: TarIndex, member: TarMember) -> Descriptor:
    hashed = hashlib.sha256()
    start = b""
    for block in index.blocks(member):
        start = start or block[:4]
        hashed.update(block)
    packed = next((kind for magic, kind in _PACKED.items() if start.startswith(magic)), "")
    return Descriptor(media_type=_LAYER_TYPE + packed, digest=f"sha256:{hashed.hexdigest()}", size=member.size)


def _platform(config: bytes, manifest: Manifest) -> Platform:
    try:
        document = parse_config(config, manifest)
    except DocumentError as error:
        raise fail(FIELD, str(error)) from error
    names = [document.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(name, str) for name in names) or not names[0] or not names[1]:
        return Platform.host()
    return Platform(*names)


def _json(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "size": descriptor.size, "digest": descriptor.digest}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
