"""The images of archives as manifest, configuration and layers: of layouts, and of what older engines saved."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncctr.core.errors import InvalidConfigError
from asyncctr.oci.archive import open_archive
from asyncctr.oci.platforms import Platform
from asyncctr.oci.saved import ArchivedImage, archived_images
from asyncctr.testing.images import ImageSpec, build_archive
from asyncctr.testing.programs import require

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

LAYERS = (b"first layer " * 1000, b"second layer " * 1000)


def config(**more: Any) -> bytes:
    diffs = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in LAYERS]
    document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}, "config": {}}
    return json.dumps({**document, **more}).encode()


def manifest(**more: Any) -> list[dict[str, Any]]:
    entry = {"Config": "config.json", "RepoTags": ["a:1", "b:2"], "Layers": ["one/layer.tar", "two/layer.tar"]}
    return [{**entry, **more}]


def files(**more: bytes) -> dict[str, bytes]:
    return {
        "config.json": config(),
        "manifest.json": json.dumps(manifest()).encode(),
        "one/layer.tar": LAYERS[0],
        "two/layer.tar": LAYERS[1],
        **more,
    }


def tar(content: Mapping[str, bytes], links: Mapping[str, tuple[bytes, str]] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, (kind, target) in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return buffer.getvalue()


async def images_of(data: bytes, tmp_path: Path) -> tuple[ArchivedImage, ...]:
    path = tmp_path / "archive.tar"
    path.write_bytes(data)
    async with open_archive(path) as opened:
        found = archived_images(opened.index)
        for image in found:
            for layer in image.manifest.layers:
                content = b"".join(image.blocks(layer))
                assert layer.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
                assert layer.size == len(content)
        return found


async def test_what_older_engines_saved_gets_a_manifest_of_the_same_layers(tmp_path: Path) -> None:
    (image,) = await images_of(tar(files()), tmp_path)
    assert image.names == ("a:1", "b:2")
    assert image.platform == Platform("linux", "amd64")
    assert image.config == config()
    document = json.loads(image.manifest_data)
    assert image.manifest.descriptor.digest == f"sha256:{hashlib.sha256(image.manifest_data).hexdigest()}"
    assert document["config"]["digest"] == f"sha256:{hashlib.sha256(config()).hexdigest()}"
    assert [layer["digest"] for layer in document["layers"]] == [layer.digest for layer in image.manifest.layers]
    assert [layer["size"] for layer in document["layers"]] == [len(layer) for layer in LAYERS]
    assert {layer["mediaType"] for layer in document["layers"]} == {"application/vnd.docker.image.rootfs.diff.tar"}


async def test_packed_layers_are_told_by_their_beginning(tmp_path: Path) -> None:
    packed = files(**{"one/layer.tar": gzip.compress(LAYERS[0]), "two/layer.tar": b"\x28\xb5\x2f\xfdrest"})
    (image,) = await images_of(tar(packed), tmp_path)
    assert [layer.media_type.rpartition(".tar")[2] for layer in image.manifest.layers] == [".gzip", ".zstd"]


async def test_a_shared_layer_may_be_a_link(tmp_path: Path) -> None:
    content = files()
    del content["two/layer.tar"]
    links = {"two/layer.tar": (tarfile.SYMTYPE, "../one/layer.tar")}
    (image,) = await images_of(tar(content, links), tmp_path)
    assert image.manifest.layers[0] == image.manifest.layers[1]


@pytest.mark.parametrize("target", ["../two/layer.tar", "../../../etc/passwd", "/etc/passwd", "nowhere", ".."])
async def test_a_link_leads_nowhere_else(tmp_path: Path, target: str) -> None:
    content = files()
    del content["two/layer.tar"]
    with pytest.raises(InvalidConfigError, match="lacks"):
        await images_of(tar(content, {"two/layer.tar": (tarfile.SYMTYPE, target)}), tmp_path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"manifest.json": b"{"}, "no JSON"),
        ({"manifest.json": b"[" * 100_000}, "no JSON"),
        ({"manifest.json": b"[]"}, "names no image"),
        ({"manifest.json": b"{}"}, "names no image"),
        ({"manifest.json": b"[1]"}, "an image is an object"),
        ({"manifest.json": json.dumps(manifest(Config=None)).encode()}, "needs a Config"),
        ({"manifest.json": json.dumps(manifest(Config="/etc/passwd")).encode()}, "lacks"),
        ({"manifest.json": json.dumps(manifest(Layers={"a": 1})).encode()}, "Layers is a list"),
        ({"manifest.json": json.dumps(manifest(Layers=[1])).encode()}, "needs a Config and Layers"),
        ({"manifest.json": json.dumps(manifest(Layers=["three"])).encode()}, "lacks"),
        ({"config.json": b"no json"}, "no JSON"),
        ({"config.json": b"[]"}, "no JSON"),
    ],
)
async def test_what_is_no_archive_of_images_says_what_it_lacks(
    tmp_path: Path, change: dict[str, bytes], text: str
) -> None:
    with pytest.raises(InvalidConfigError, match=text) as caught:
        await images_of(tar(files(**change)), tmp_path)
    assert caught.value.field == "archive"


async def test_neither_form(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="is neither"):
        await images_of(tar({"readme": b"hello"}), tmp_path)


@pytest.mark.parametrize("value", [None, "", 7, ["amd64"]])
async def test_without_a_proper_platform_it_is_taken_for_this_machines(tmp_path: Path, value: object) -> None:
    (image,) = await images_of(tar(files(**{"config.json": config(architecture=value)})), tmp_path)
    assert image.platform == Platform.host()


async def test_a_layout_keeps_its_own_manifest(tmp_path: Path) -> None:
    require("image")
    built = build_archive(ImageSpec(reference="asyncctr.test/a:1"), tmp_path / "archive.tar")
    (image,) = await images_of((tmp_path / "archive.tar").read_bytes(), tmp_path)
    assert image.manifest.descriptor.digest == built.digest
    assert image.manifest_data == built.blobs[built.digest]
    assert image.config == built.blobs[built.image_id]
    assert tuple(layer.digest for layer in image.manifest.layers) == built.layers


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.sampled_from(["config.json", "one/layer.tar"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Config", "Layers", "RepoTags", "os", "rootfs", "diff_ids"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(manifest=json_values, document=json_values)
async def test_any_documents_are_an_image_or_an_error_of_the_tree(
    tmp_path_factory: pytest.TempPathFactory, manifest: object, document: object
) -> None:
    content = files(**{"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(document).encode()})
    try:
        await images_of(tar(content), tmp_path_factory.mktemp("any"))
    except InvalidConfigError as error:
        assert error.field == "archive"  # either is right
