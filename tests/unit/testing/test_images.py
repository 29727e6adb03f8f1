"""The test image: its bytes, its archive's two formats, and its push."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import aiohttp.web
import attrs
import pytest

from asyncctr.testing import images
from asyncctr.testing.distribution import PushError
from asyncctr.testing.images import HOST_PLATFORM, BuiltImage, ImageSpec, build_archive, build_image, push, read_archive
from asyncctr.testing.programs import require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(60)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def busybox() -> None:
    require("image")


def config_of(image: BuiltImage) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(image.blobs[image.image_id])
    return config


def rootfs(image: BuiltImage) -> dict[str, tarfile.TarInfo]:
    found: dict[str, tarfile.TarInfo] = {}
    for digest in image.layers:
        data = image.blobs[digest]
        raw = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        with tarfile.open(fileobj=io.BytesIO(raw)) as layer:
            found |= {member.name: member for member in layer.getmembers()}
    return found


def test_the_same_specification_gives_the_same_bytes(tmp_path: Path) -> None:
    spec = ImageSpec(env={"A": "1"}, padding=10_000, platforms=("linux/amd64", "linux/arm64/v8"))
    one, two = build_archive(spec, tmp_path / "one"), build_archive(spec, tmp_path / "two")
    assert one == two
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert build_image(attrs.evolve(spec, padding=10_001)).digest != one.digest


def test_every_blob_has_its_digest_and_the_manifest_its_sizes() -> None:
    image = build_image(ImageSpec(files={"/a": b"b"}, padding=100))
    for digest, data in image.blobs.items():
        assert digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    manifest = json.loads(image.blobs[image.digest])
    for entry in (manifest["config"], *manifest["layers"]):
        assert entry["size"] == len(image.blobs[entry["digest"]])
    assert [entry["digest"] for entry in manifest["layers"]] == list(image.layers)
    assert len(image.layers) == 4
    diff_ids = [f"sha256:{hashlib.sha256(gzip.decompress(image.blobs[digest])).hexdigest()}" for digest in image.layers]
    assert config_of(image)["rootfs"]["diff_ids"] == diff_ids


def test_root_file_system() -> None:
    image = build_image(ImageSpec(workdir="/srv/deep", files={"/opt/run": b"#!/bin/sh\n", "/opt/data": b"x"}))
    files = rootfs(image)
    assert files["tmp"].mode == 0o1777
    assert files["bin/busybox"].isreg()
    assert files["bin/busybox"].mode == 0o755
    assert files["bin/sh"].linkname == "/bin/busybox"
    assert len([name for name, member in files.items() if member.issym()]) > 200
    assert (files["home/app"].uid, files["home/app"].gid) == (1000, 1000)
    assert files["srv/deep"].isdir()
    assert (files["opt/run"].mode, files["opt/data"].mode) == (0o755, 0o644)
    assert len({member.mtime for member in files.values()}) == 1


def test_configuration() -> None:
    image = build_image(
        ImageSpec(
            env={"A": "1", "B": "x=y"},
            cmd=("a", "b"),
            entrypoint=("/bin/e",),
            workdir="/w",
            user="app",
            labels={"k": "v"},
            stop_signal="SIGUSR1",
            volumes=("/data",),
            exposed_ports=("80/tcp",),
        )
    )
    config = config_of(image)
    assert config["config"] == {
        "Env": ["A=1", "B=x=y"],
        "Cmd": ["a", "b"],
        "Entrypoint": ["/bin/e"],
        "WorkingDir": "/w",
        "User": "app",
        "Labels": {"k": "v"},
        "StopSignal": "SIGUSR1",
        "Volumes": {"/data": {}},
        "ExposedPorts": {"80/tcp": {}},
    }
    assert f"{config['os']}/{config['architecture']}" == HOST_PLATFORM
    assert "Entrypoint" not in config_of(build_image(ImageSpec()))["config"]


def test_archive_is_an_oci_layout_and_a_docker_save(tmp_path: Path) -> None:
    image = build_archive(ImageSpec(reference="example.test/a/b:tag"), tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        contents = {m.name: archive.extractfile(m).read() for m in archive.getmembers() if m.isfile()}  # type: ignore[union-attr]
    assert json.loads(contents["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (top,) = json.loads(contents["index.json"])["manifests"]
    assert top["digest"] == image.digest
    assert top["annotations"]["io.containerd.image.name"] == "example.test/a/b:tag"
    (save,) = json.loads(contents["manifest.json"])
    assert save["RepoTags"] == ["example.test/a/b:tag"]
    for path in (save["Config"], *save["Layers"]):
        assert f"sha256:{hashlib.sha256(contents[path]).hexdigest()}" == path.removeprefix("blobs/").replace("/", ":")


@pytest.mark.parametrize("platforms", [(HOST_PLATFORM,), ("linux/amd64", "linux/arm64/v8")])
def test_archive_reads_back(tmp_path: Path, platforms: tuple[str, ...]) -> None:
    image = build_archive(ImageSpec(platforms=platforms), tmp_path / "a.tar")
    again = read_archive(tmp_path / "a.tar")
    assert again.blobs == image.blobs
    assert (again.digest, again.media_type, again.image_id, again.layers) == (
        image.digest,
        image.media_type,
        image.image_id,
        image.layers,
    )
    assert again.manifests == image.manifests


def test_other_archives_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("nothing"))
    with pytest.raises(ValueError, match="no archive"):
        read_archive(tmp_path / "x.tar")


def test_multi_platform_index() -> None:
    image = build_image(ImageSpec(platforms=("linux/amd64", "linux/arm64/v8")))
    assert image.media_type == images.INDEX_TYPE
    entries = json.loads(image.blobs[image.digest])["manifests"]
    assert [entry["platform"] for entry in entries] == [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64", "variant": "v8"},
    ]
    assert len({entry["digest"] for entry in entries}) == 2


def test_uncompressed_layers() -> None:
    image = build_image(ImageSpec(compression="none"))
    assert config_of(image)["rootfs"]["diff_ids"] == list(image.layers)


class FakeRegistry:
    """The two upload requests and the manifest's, kept to the letter."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.uploads = 0

    def application(self) -> aiohttp.web.Application:
        application = aiohttp.web.Application(client_max_size=64 << 20)
        application.router.add_route("HEAD", "/v2/{name:.+}/blobs/{digest}", self.head)
        application.router.add_post("/v2/{name:.+}/blobs/uploads/", self.post)
        application.router.add_put("/upload", self.put)
        application.router.add_put("/v2/{name:.+}/manifests/{tag}", self.manifest)
        return application

    async def head(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(status=200 if request.match_info["digest"] in self.blobs else 404)

    async def post(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        if request.match_info["name"] == "forbidden":
            return aiohttp.web.Response(status=403, text="no")
        return aiohttp.web.Response(status=202, headers={"Location": "/upload?state=a%2Bb"})

    async def put(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        assert request.query["state"] == "a+b"
        self.blobs[request.query["digest"]] = await request.read()
        self.uploads += 1
        return aiohttp.web.Response(status=201)

    async def manifest(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        self.manifests[request.match_info["tag"]] = (request.content_type, await request.read())
        return aiohttp.web.Response(status=201)


@pytest.fixture
async def registry() -> AsyncIterator[tuple[FakeRegistry, str]]:
    fake = FakeRegistry()
    runner = aiohttp.web.AppRunner(fake.application())
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    yield fake, f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.anyio
async def test_push_sends_all_once(registry: tuple[FakeRegistry, str], tmp_path: Path) -> None:
    fake, host = registry
    spec = ImageSpec(platforms=("linux/amd64", "linux/arm64"))
    image = await push(spec, host, "team/box", "v1")
    assert fake.manifests["v1"] == (images.INDEX_TYPE, image.blobs[image.digest])
    assert set(fake.manifests) == {"v1", image.digest, *image.manifests.values()}
    everything = fake.blobs | {digest: data for digest, (_, data) in fake.manifests.items() if digest != "v1"}
    assert everything == image.blobs
    sent = fake.uploads
    build_archive(spec, tmp_path / "a.tar")
    assert (await push(tmp_path / "a.tar", host, "team/box", "v2")).digest == image.digest
    assert fake.uploads == sent


@pytest.mark.anyio
async def test_push_tells_what_was_refused(registry: tuple[FakeRegistry, str]) -> None:
    with pytest.raises(PushError, match="no") as caught:
        await push(ImageSpec(), registry[1], "forbidden", "v1")
    assert caught.value.status == 403
