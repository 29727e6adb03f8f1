"""Archives for engines: what is loaded as it is, what a layout gets, and what a refusal says."""

# ruff: noqa: ASYNC110, PTH208 - nothing tells when a file is closed, and names are enough

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncctr.core.errors import InvalidConfigError, ResourceExhaustedError
from asyncctr.oci import archive as archive_module
from asyncctr.oci import layout as layout_module
from asyncctr.oci.archive import open_archive, open_loadable
from asyncctr.oci.layout import Layout, Platform
from asyncctr.oci.tarindex import read_tar_index
from asyncctr.testing.images import HOST_PLATFORM, BuiltImage, ImageSpec, build_archive
from asyncctr.testing.programs import require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

NAME = "asyncctr.test/busybox:latest"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
OTHER = "linux/arm64" if HOST_PLATFORM != "linux/arm64" else "linux/amd64"

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuiltImage, Path]:
    require("image")
    path = tmp_path_factory.mktemp("image") / "busybox.tar"
    return build_archive(ImageSpec(reference=NAME, padding=1_500_000), path), path


def contents(data: bytes) -> Files:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            member.name: file.read()
            for member in archive.getmembers()
            if (file := archive.extractfile(member)) is not None
        }


def tar(files: Mapping[str, bytes] | list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in files.items() if not isinstance(files, list) else files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Maker:
    """A small layout, made blob by blob; its images' layers are no tars, which nobody here looks into."""

    def __init__(self) -> None:
        self.files: Files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        self.top: list[dict[str, Any]] = []

    def blob(self, media_type: str, data: bytes | dict[str, Any], **more: Any) -> dict[str, Any]:
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    def image(self, platform: str, *, told: bool = True, layer: bytes = b"", **more: Any) -> dict[str, Any]:
        names = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        content = self.blob("application/vnd.oci.image.layer.v1.tar", layer or platform.encode())
        config = self.blob(CONFIG, {**names, "rootfs": {"type": "layers", "diff_ids": [content["digest"]]}})
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [content]}
        return self.blob(MANIFEST, manifest, **({"platform": names} if told else {}), **more)

    def index(self, *manifests: dict[str, Any], **more: Any) -> dict[str, Any]:
        return self.blob(INDEX, {"schemaVersion": 2, "manifests": manifests}, **more)

    def add(self, *entries: dict[str, Any]) -> Maker:
        self.top += entries
        self.files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": self.top}).encode()
        return self

    @property
    def tar(self) -> bytes:
        return tar(self.files)

    def config_of(self, descriptor: dict[str, Any]) -> str:
        manifest = json.loads(self.files["blobs/" + descriptor["digest"].replace(":", "/")])
        return "blobs/" + str(manifest["config"]["digest"]).replace(":", "/")


def named(name: str, *, key: str = "io.containerd.image.name") -> dict[str, dict[str, str]]:
    return {"annotations": {key: name}}


async def pieces(data: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def loadable(source: Any, platform: str | None = None) -> bytes:
    async with open_loadable(source, platform=platform) as blocks:
        return b"".join([block async for block in blocks])


async def manifest(data: bytes, platform: str | None = None) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(contents(await loadable(pieces(data), platform))["manifest.json"])
    return entries


async def refusal(source: Any, platform: str | None = None) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        await loadable(pieces(source) if isinstance(source, bytes) else source, platform)
    assert caught.value.field == "archive"
    return caught.value.message


async def test_what_docker_saved_goes_on_as_it_is(saved: tuple[BuiltImage, Path]) -> None:
    data = saved[1].read_bytes()
    packed = gzip.compress(data, compresslevel=1)
    assert await loadable(saved[1]) == data
    assert await loadable(str(saved[1])) == data
    assert await loadable(pieces(data)) == data
    assert await loadable(pieces(packed)) == packed


async def test_a_layout_gets_the_manifest_of_docker_save(saved: tuple[BuiltImage, Path]) -> None:
    image, path = saved
    files = contents(path.read_bytes())
    before = json.loads(files.pop("manifest.json"))
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        pure = tar(files, form)
        loaded = contents(await loadable(pieces(pure)))
        assert json.loads(loaded.pop("manifest.json")) == before
        assert loaded == files
    assert await manifest(gzip.compress(pure, compresslevel=1)) == before
    assert before[0]["RepoTags"] == [NAME]
    assert before[0]["Config"] == "blobs/" + image.image_id.replace(":", "/")


async def test_members_named_from_the_current_directory() -> None:
    maker = Maker()
    maker.add(maker.image(HOST_PLATFORM))
    data = tar({f"./{name}": content for name, content in maker.files.items()})
    assert len(await manifest(data)) == 1


async def test_the_platform_is_chosen_through_nested_indexes() -> None:
    maker = Maker()
    here, there = maker.image(HOST_PLATFORM), maker.image(OTHER)
    attestation = maker.image("unknown/unknown")
    nested = maker.index(maker.index(there, attestation), maker.index(here))
    maker.add(nested | named("r.io/x:1"))
    (entry,) = await manifest(maker.tar)
    assert entry == {
        "Config": maker.config_of(here),
        "RepoTags": ["r.io/x:1"],
        "Layers": ["blobs/sha256/" + hashlib.sha256(HOST_PLATFORM.encode()).hexdigest()],
    }
    (entry,) = await manifest(maker.tar, OTHER)
    assert entry["Config"] == maker.config_of(there)
    message = await refusal(maker.tar, "linux/s390x")
    assert "'r.io/x:1' for linux/s390x" in message
    assert f"there is: {', '.join(sorted([HOST_PLATFORM, OTHER]))}" in message


async def test_one_image_for_another_platform_is_taken_unless_one_is_named() -> None:
    maker = Maker()
    maker.add(maker.image(OTHER, told=False))
    (entry,) = await manifest(maker.tar)
    assert entry["RepoTags"] is None
    assert await refusal(maker.tar, HOST_PLATFORM) == f"archive: has no image for {HOST_PLATFORM}; there is: {OTHER}"
    with pytest.raises(InvalidConfigError) as caught:
        await loadable(pieces(maker.tar), "amd64")
    assert caught.value.field == "platform"


@pytest.mark.parametrize(
    ("wanted", "offered", "rank"),
    [
        ("linux/arm64", "linux/arm64", 0),
        ("linux/arm64", "linux/arm64/v8", 1),
        ("linux/arm64/v8", "linux/arm64", 1),
        ("linux/arm/v7", "linux/arm/v6", 2),
        ("linux/arm/v6", "linux/arm/v7", None),
        ("linux/arm/v7", "linux/arm/hard", None),
        ("linux/amd64", "windows/amd64", None),
        ("linux/amd64", "linux/386", None),
    ],
)
def test_rank_of_platforms(wanted: str, offered: str, rank: int | None) -> None:
    assert Platform.parse(wanted).rank(Platform.parse(offered)) == rank


async def test_the_best_variant_wins() -> None:
    maker = Maker()
    images = {name: maker.image(name) for name in ("linux/arm/v5", "linux/arm/v7", "linux/arm/v6")}
    maker.add(maker.index(*images.values()))
    for wanted, chosen in (("v7", "v7"), ("v6", "v6"), ("v8", "v7")):
        (entry,) = await manifest(maker.tar, f"linux/arm/{wanted}")
        assert entry["Config"] == maker.config_of(images[f"linux/arm/{chosen}"])


@pytest.mark.parametrize(
    ("annotations", "tags"),
    [
        ({"io.containerd.image.name": "alpine"}, ["docker.io/library/alpine:latest"]),
        ({"org.opencontainers.image.ref.name": "r.io/x:2"}, ["r.io/x:2"]),
        ({"org.opencontainers.image.ref.name": "latest"}, None),
        ({"org.opencontainers.image.ref.name": "a b/c:d"}, None),
        ({"io.containerd.image.name": "UPPER", "org.opencontainers.image.ref.name": "x/y"}, ["docker.io/x/y:latest"]),
        ({"io.containerd.image.name": f"r.io/x@sha256:{'0' * 64}"}, None),
        (None, None),
    ],
)
async def test_names(annotations: dict[str, str] | None, tags: list[str] | None) -> None:
    maker = Maker()
    maker.add(maker.image(HOST_PLATFORM, annotations=annotations))
    (entry,) = await manifest(maker.tar)
    assert entry["RepoTags"] == tags


async def test_several_images_and_an_artifact_beside_them() -> None:
    maker = Maker()
    one, two = maker.image(HOST_PLATFORM), maker.image(HOST_PLATFORM, layer=b"two")
    empty = maker.blob("application/vnd.oci.empty.v1+json", b"{}")
    signature = maker.blob(MANIFEST, {"schemaVersion": 2, "config": empty, "layers": []})
    maker.add(one | named("r.io/one:1"), two | named("r.io/two:1"), one | named("r.io/one:2"), signature)
    entries = await manifest(maker.tar)
    assert [(entry["Config"], entry["RepoTags"]) for entry in entries] == [
        (maker.config_of(one), ["r.io/one:1", "r.io/one:2"]),
        (maker.config_of(two), ["r.io/two:1"]),
    ]
    unnamed = Maker()
    unnamed.add(unnamed.image(HOST_PLATFORM), unnamed.image(HOST_PLATFORM, layer=b"two"))
    assert "more than one image without a name" in await refusal(unnamed.tar)
    nothing = Maker()
    nothing.add(nothing.blob(MANIFEST, {"schemaVersion": 2, "config": nothing.blob("x/y", b"{}"), "layers": []}))
    assert "without an image" in await refusal(nothing.tar)


def _drop(name: str) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        del files[name]

    return change


def _put(name: str, data: bytes) -> Callable[[Files], None]:
    return lambda files: files.__setitem__(name, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("oci-layout"), "is neither"),
        (_drop("index.json"), "is neither"),
        (_put("oci-layout", b'{"imageLayoutVersion":"2.0.0"}'), "version '2.0.0'"),
        (_put("oci-layout", b"[]"), "oci-layout is no JSON object"),
        (_put("index.json", b"\xff"), "index.json is no JSON"),
        (_put("index.json", b"[" * 200_000), "index.json is no JSON"),
        (_put("index.json", b"1" * 5_000), "index.json is no JSON"),
        (_put("index.json", b"{}"), "no list 'manifests'"),
        (_put("index.json", b'{"manifests":[1]}'), "manifests[0] in index.json is no descriptor"),
        (
            _put("index.json", b'{"manifests":[{"mediaType":"a","digest":"sha256:..","size":1}]}'),
            "64 hexadecimal digits",
        ),
        (_put("index.json", b'{"manifests":[{"mediaType":"a","digest":"md5:0","size":true}]}'), "needs a mediaType"),
        (_put("index.json", b" " * (layout_module.MAX_JSON + 1)), "at most 4194304 are read"),
        (_put("index.json", b'{"manifests":[]}'), "without an image"),
    ],
)
async def test_broken_layouts(change: Callable[[Files], None], message: str) -> None:
    maker = Maker()
    maker.add(maker.image(HOST_PLATFORM))
    change(maker.files)
    assert message in await refusal(maker.tar)


@pytest.mark.parametrize("kind", ["manifest", "config"])
async def test_blobs_that_are_not_what_they_should_be(kind: str) -> None:
    maker = Maker()
    descriptor = maker.image(HOST_PLATFORM)
    maker.add(descriptor)
    path = "blobs/" + descriptor["digest"].replace(":", "/") if kind == "manifest" else maker.config_of(descriptor)
    right = maker.files[path]
    maker.files[path] = right[:-1] + b" "
    assert "has another content" in await refusal(maker.tar)
    maker.files[path] = right + b" "
    assert f"has {len(right) + 1} bytes, not {len(right)}" in await refusal(maker.tar)
    maker.files[path] = right
    assert f"the blob sha256:{path[13:]} more than once" in await refusal(tar([*maker.files.items(), (path, right)]))
    del maker.files[path]
    assert f"lacks the blob sha256:{path[13:]}" in await refusal(maker.tar)


async def test_layers_that_lack_or_do_not_match() -> None:
    maker = Maker()
    descriptor = maker.image(HOST_PLATFORM, layer=b"layer")
    maker.add(descriptor)
    layer = "blobs/sha256/" + hashlib.sha256(b"layer").hexdigest()
    del maker.files[layer]
    assert "lacks the blob" in await refusal(maker.tar)
    maker.files[layer] = b"lay"
    assert "has 3 bytes, not 5" in await refusal(maker.tar)

    other = Maker()
    config = other.blob(CONFIG, {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}})
    blob = other.blob("x", b"layer")
    other.add(other.blob(MANIFEST, {"schemaVersion": 2, "config": config, "layers": [blob]}))
    assert "not one diff_id for each of the 1 layers" in await refusal(other.tar)


async def test_indexes_that_multiply_are_read_once_and_not_for_ever() -> None:
    maker = Maker()
    below = maker.index()
    for _ in range(7):
        below = maker.index(*[below] * 1_000)
    maker.add(below)
    assert "without an image" in await refusal(maker.tar)
    maker = Maker()
    below = maker.index()
    for _ in range(20):
        below = maker.index(below)
    maker.add(below)
    assert "nested too deep" in await refusal(maker.tar)
    maker = Maker()
    maker.add(maker.index(*[{**below, "digest": f"sha256:{n:064x}", "mediaType": "x"} for n in range(1_100)]))
    assert "more than 1000 manifests" in await refusal(maker.tar)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (b"{", "is no JSON"),
        (b"[]", "names no image"),
        (b"{}", "names no image"),
        (b'[{"Config":1,"Layers":[]}]', "not what 'docker save' writes"),
        (b'[{"Config":"c","Layers":["l"]}]', "lacks 'l'"),
        (b'[{"Config":"d","Layers":null}]', "lacks 'd'"),
        (b'[{"Config":"' + b"0" * 64 + b'.json","Layers":null}]', "has another content"),
    ],
)
async def test_broken_docker_archives(entries: bytes, message: str) -> None:
    assert message in await refusal(tar({"manifest.json": entries, "c": b"{}", f"{'0' * 64}.json": b"{}"}))


async def test_docker_archives_whose_layers_are_links() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entries = b'[{"Config":"c","RepoTags":null,"Layers":["a/layer.tar"]}]'
        for name, data in (("manifest.json", entries), ("c", b"{}")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("a/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../b/layer.tar"
        archive.addfile(link)
    assert await loadable(pieces(buffer.getvalue())) == buffer.getvalue()


async def test_what_is_no_archive(tmp_path: Path) -> None:
    assert await refusal(b"") == "archive: is no tar"
    assert await refusal(b"hello") == "archive: is no tar"
    assert await refusal(bytes(10_240)) == "archive: is no tar"
    assert await refusal(os.urandom(5_000)) == "archive: is no tar"
    assert "is neither" in await refusal(tar({"x": b"y"}))
    assert "compressed by xz" in await refusal(lzma.compress(tar({"x": b"y"})))
    assert "compressed by zstd" in await refusal(b"\x28\xb5\x2f\xfd1234")
    assert "is broken gzip" in await refusal(gzip.compress(tar({"x": b"y"}))[:-20])
    assert "No such file" in await refusal(tmp_path / "none")
    assert "is a directory" in await refusal(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    assert "no regular file" in await refusal(tmp_path / "fifo")
    assert "cannot be opened" in await refusal("a\0b")
    assert "must be a path or an async iterable" in await refusal(7)

    async def words() -> AsyncIterator[Any]:
        yield "text"

    assert "must give bytes, not str" in await refusal(words())


async def test_cut_off_anywhere(saved: tuple[BuiltImage, Path]) -> None:
    maker = Maker()
    maker.add(maker.image(HOST_PLATFORM))
    whole = maker.tar
    end = len(whole.rstrip(b"\0"))
    for length in range(1, end, 97):
        assert await refusal(whole[:length])


async def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"f{n}": b"" for n in range(40)}
    monkeypatch.setattr("asyncctr.oci.tarindex.MAX_ENTRIES", 30)
    with open_memory(tar(files)) as file, pytest.raises(InvalidConfigError, match="more than 30 entries"):
        read_tar_index(file.fileno(), max_entries=30)
    huge = tarfile.TarInfo("x" * 3_000_000)
    assert "extended header of" in await refusal(huge.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    sparse = tarfile.TarInfo("x")
    sparse.pax_headers = {"GNU.sparse.major": "1"}
    assert "sparse" in await refusal(sparse.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    monkeypatch.setattr(archive_module, "_RATIO_FROM", 1 << 20)
    monkeypatch.setattr(archive_module, "_STEP", 1 << 20)
    assert "too many to be an image" in await refusal(gzip.compress(bytes(50 << 20)))
    monkeypatch.setattr(archive_module, "MAX_SIZE", 1 << 20)
    assert "has more than 1048576 bytes" in await refusal(bytes(2 << 20))


async def test_no_room_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> io.FileIO:
        return open("/dev/full", "wb", buffering=0)  # noqa: PTH123 - the code under test closes it

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full())
    with pytest.raises(ResourceExhaustedError, match="TMPDIR"):
        await loadable(pieces(tar({"x": b"y"})))


async def test_nothing_is_left_open_whatever_happens(saved: tuple[BuiltImage, Path]) -> None:
    data = saved[1].read_bytes()
    # The worker thread and what it imports come first.
    await loadable(pieces(data))
    before = len(os.listdir("/proc/self/fd"))

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield data
            await asyncio.sleep(0)

    for source in (endless(), pieces(data), pieces(b"x")):
        task = asyncio.create_task(loadable(source))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with open_loadable(saved[1]) as blocks:
        async for _ in blocks:
            break
    async with asyncio.timeout(5):
        while len(os.listdir("/proc/self/fd")) != before:
            await asyncio.sleep(0.01)


async def test_blobs_are_verified_while_they_are_read(saved: tuple[BuiltImage, Path]) -> None:
    image, path = saved
    async with open_archive(path) as opened:
        layout = Layout(opened.index)
        (chosen,) = layout.images()
        assert chosen.names == (NAME,)
        assert str(chosen.platform) == HOST_PLATFORM
        assert chosen.manifest.descriptor.digest == image.digest
        assert tuple(layer.digest for layer in chosen.manifest.layers) == image.layers
        assert layout.config(chosen.manifest)["architecture"] == HOST_PLATFORM.split("/")[1]
        last = chosen.manifest.layers[-1]
        assert b"".join(layout.blocks(last)) == image.blobs[last.digest]
    data = path.read_bytes()
    place = data.index(image.blobs[last.digest])
    async with open_archive(pieces(data[: place + 9] + b"?" + data[place + 10 :])) as opened:
        with pytest.raises(InvalidConfigError, match="has another content"):
            list(Layout(opened.index).blocks(last))


def open_memory(data: bytes) -> io.FileIO:
    file = os.memfd_create("tar")
    os.write(file, data)
    return io.FileIO(file, "rb")


_names = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=150).filter(
    lambda name: name not in (".", "..")
)


@given(
    names=st.lists(st.lists(_names, min_size=1, max_size=3), max_size=8, unique_by=tuple),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
@settings(max_examples=60, deadline=None)
def test_the_index_agrees_with_the_standard_library(names: list[list[str]], form: int) -> None:
    files = {"/".join(parts): os.urandom(len(parts) * 300) for parts in names} or {"x": b""}
    data = tar(files, form)
    with open_memory(data) as file:
        index = read_tar_index(file.fileno())
        found = {name: index.read(member) for name, member in index.members.items()}
    assert found == files
    assert data[index.end :].strip(b"\0") == b""


@given(place=st.integers(min_value=0), byte=st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_any_broken_byte_is_read_or_refused(place: int, byte: int) -> None:
    maker = Maker()
    maker.add(maker.image(HOST_PLATFORM) | named("r.io/" + "x" * 120))
    data = bytearray(maker.tar.rstrip(b"\0") + bytes(1024))
    data[place % len(data)] = byte
    with open_memory(bytes(data)) as file:
        try:
            Layout(read_tar_index(file.fileno())).images()
        except InvalidConfigError as error:
            assert error.field == "archive"
