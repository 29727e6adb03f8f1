"""The choice of an image: what is read for it, and that no document does more than be refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncctr.oci.manifests import (
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    DocumentError,
    Manifest,
    NoPlatformError,
    choose_image,
    parse_config,
)
from asyncctr.oci.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
AMD64 = Platform("linux", "amd64")


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def descriptor(number: int, media_type: str = MANIFEST, platform: str = "") -> dict[str, Any]:
    names = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
    entry: dict[str, Any] = {"mediaType": media_type, "digest": digest(number), "size": 1}
    return entry | {"platform": names} if platform else entry


def manifest(config: int, config_type: str = CONFIG) -> dict[str, Any]:
    return {"schemaVersion": 2, "config": descriptor(config, config_type), "layers": [descriptor(99, "layer")]}


def choose(
    documents: Mapping[int, Any], platform: Platform | None = AMD64, media_type: str = INDEX
) -> tuple[str, list[int]]:
    """The digest of what is chosen, and the numbers of the documents that were read."""
    read: list[int] = []
    reading = choose_image([Descriptor(media_type=media_type, digest=digest(0), size=1)], platform)
    try:
        wanted = next(reading)
        while True:
            number = int(wanted.digest.partition(":")[2], 16)
            read.append(number)
            wanted = reading.send(json.dumps(documents.get(number, {})).encode())
    except StopIteration as end:
        return end.value and end.value[1].descriptor.digest, read


def test_manifests_for_other_platforms_are_not_read() -> None:
    platforms = ["linux/arm64", "linux/amd64", "windows/amd64", "unknown/unknown"]
    index = {"manifests": [descriptor(number, platform=platforms[number - 1]) for number in (1, 2, 3, 4)]}
    assert choose({0: index, 2: manifest(20)}) == (digest(2), [0, 2])
    with pytest.raises(
        NoPlatformError, match="no image for linux/riscv64; there is: linux/amd64, linux/arm64, windows"
    ):
        choose({0: index}, Platform("linux", "riscv64"))


def test_an_artifact_in_the_best_place_gives_way() -> None:
    index = {"manifests": [descriptor(1, platform="linux/amd64"), descriptor(2, platform="linux/amd64")]}
    assert choose({0: index, 1: manifest(10, "application/vnd.cosign"), 2: manifest(20)}) == (digest(2), [0, 1, 2])
    assert choose({0: index, 1: manifest(10, "a"), 2: manifest(20, "b")}) == (None, [0, 1, 2])


def test_one_image_for_another_platform_is_taken_unless_one_is_named() -> None:
    index = {"manifests": [descriptor(1, platform="plan9/mips")]}
    assert choose({0: index, 1: manifest(10)}, None) == (digest(1), [0, 1])
    with pytest.raises(NoPlatformError):
        choose({0: index, 1: manifest(10)})


def test_a_configuration_belongs_to_its_manifest() -> None:
    layer = Descriptor(media_type="layer", digest=digest(1), size=1)
    owner = Manifest(descriptor=layer, config=layer, layers=(layer,))
    assert parse_config(b'{"rootfs":{"diff_ids":["x"]}}', owner) == {"rootfs": {"diff_ids": ["x"]}}
    for data in (b"{}", b'{"rootfs":[]}', b'{"rootfs":{"diff_ids":[]}}', b"[]", b""):
        with pytest.raises(DocumentError):
            parse_config(data, owner)


_scalars = st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["", "linux", "amd64", "unknown", "v1"])
_entries = st.fixed_dictionaries(
    {
        "mediaType": st.sampled_from([*sorted(INDEX_TYPES | MANIFEST_TYPES | CONFIG_TYPES), "other"]) | _scalars,
        "digest": st.integers(0, 6).map(digest) | _scalars,
        "size": st.integers(-1, 10) | _scalars,
    },
    optional={
        "platform": st.dictionaries(st.sampled_from(["os", "architecture", "variant"]), _scalars) | _scalars,
        "annotations": st.dictionaries(st.just("a"), _scalars) | _scalars,
    },
)
_documents = (
    st.fixed_dictionaries(
        {"schemaVersion": st.just(2) | _scalars},
        optional={
            "manifests": st.lists(_entries | _scalars, max_size=4) | _scalars,
            "config": _entries | _scalars,
            "layers": st.lists(_entries, max_size=2) | _scalars,
            "os": _scalars,
            "architecture": _scalars,
            "rootfs": st.fixed_dictionaries({"diff_ids": st.lists(_scalars, max_size=2)}) | _scalars,
        },
    )
    | _scalars
)


@given(
    documents=st.dictionaries(st.integers(0, 6), _documents, min_size=1),
    platform=st.sampled_from([None, AMD64]),
    media_type=st.sampled_from(sorted(INDEX_TYPES | MANIFEST_TYPES)),
)
@settings(max_examples=120, deadline=None)
def test_any_documents_are_read_or_refused(
    documents: dict[int, Any], platform: Platform | None, media_type: str
) -> None:
    try:
        choose(documents, platform, media_type)
    except DocumentError as error:
        assert str(error)
