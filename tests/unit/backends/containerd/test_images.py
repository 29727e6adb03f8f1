"""Images of a namespace by name: read once, and nothing but what fits."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from asyncctr.backends.containerd.image import ContainerdImage
from asyncctr.backends.containerd.images import ImageStore, canonical
from asyncctr.backends.containerd.proto import content_pb2, images_pb2
from asyncctr.backends.containerd.proto.services import Content, Images
from asyncctr.core.errors import ImageNotFoundError, InvalidConfigError
from asyncctr.oci.platforms import Platform

if TYPE_CHECKING:
    from asyncctr.backends.containerd.api import ContainerdApi

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DIFF = f"sha256:{'1' * 64}"


class Store:
    """Blobs by digest, and names."""

    def __init__(self, containerd: Any) -> None:
        self.blobs: dict[str, bytes] = {}
        self.names: dict[str, dict[str, Any]] = {}
        self.reads = 0
        containerd.on(Content.Read, self._read)
        containerd.answer(Images.Get, self._get)

    def put(self, media_type: str, document: object, **more: object) -> dict[str, Any]:
        data = json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def image(self, platform: Platform, **config: object) -> dict[str, Any]:
        document = {
            "os": platform.os,
            "architecture": platform.architecture,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [DIFF]},
        }
        layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIFF, "size": 1}
        manifest = {"schemaVersion": 2, "config": self.put(CONFIG, document), "layers": [layer]}
        return self.put(MANIFEST, manifest, platform={"os": platform.os, "architecture": platform.architecture})

    def name(self, name: str, target: dict[str, Any]) -> None:
        self.names[name] = target

    async def _read(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.reads += 1
        if request.digest not in self.blobs:
            raise GRPCError(Status.NOT_FOUND, f"content {request.digest}: not found")
        await stream.send_message(content_pb2.ReadContentResponse(data=self.blobs[request.digest]))

    def _get(self, request: images_pb2.GetImageRequest) -> images_pb2.GetImageResponse:
        if request.name not in self.names:
            raise GRPCError(Status.NOT_FOUND, f'image "{request.name}": not found')
        target = self.names[request.name]
        answer = images_pb2.GetImageResponse()
        answer.image.name = request.name
        answer.image.target.media_type = target["mediaType"]
        answer.image.target.digest = target["digest"]
        answer.image.target.size = target["size"]
        return answer


@pytest.fixture
def store(containerd: Any) -> Store:
    return Store(containerd)


HERE = Platform.host()
ELSEWHERE = Platform("linux", "s390x")


def test_names_are_written_out() -> None:
    assert canonical("alpine") == "docker.io/library/alpine:latest"
    assert canonical("example.org/a/b:1") == "example.org/a/b:1"
    assert canonical(f"a@{DIFF}") == f"docker.io/library/a@{DIFF}"


async def test_what_a_digest_stands_for_is_read_once(api: ContainerdApi, store: Store) -> None:
    images = ImageStore(api)
    target = store.put(INDEX, {"manifests": [store.image(ELSEWHERE), store.image(HERE, User="app")]})
    store.name("docker.io/library/a:1", target)
    store.name("docker.io/library/b:1", target)
    found = await images.get("a:1")
    assert (found.name, found.config.user, found.target.digest) == ("docker.io/library/a:1", "app", target["digest"])
    assert found.chain_id == DIFF
    reads = store.reads
    again = await images.get("b:1")
    assert again.config is found.config
    assert again.name == "docker.io/library/b:1"
    assert store.reads == reads
    # The name stands for another image now.
    store.name("docker.io/library/a:1", store.image(HERE, User="other"))
    assert (await images.get("a:1")).config.user == "other"


async def test_another_platform_has_to_be_asked_for(api: ContainerdApi, store: Store) -> None:
    images = ImageStore(api)
    offers = [store.image(ELSEWHERE, User="far"), store.image(Platform("linux", "mips64le"))]
    store.name("docker.io/library/a:1", store.put(INDEX, {"manifests": offers}))
    with pytest.raises(ImageNotFoundError, match="s390x"):
        await images.get("a:1")
    assert (await images.get("a:1", "linux/s390x")).config.user == "far"


async def test_what_is_not_here_or_no_image(api: ContainerdApi, store: Store) -> None:
    images = ImageStore(api)
    with pytest.raises(ImageNotFoundError, match="pull or load it"):
        await images.get("nothing")
    holes = store.image(HERE)
    manifest = json.loads(store.blobs[holes["digest"]])
    del store.blobs[manifest["config"]["digest"]]
    store.name("docker.io/library/holes:latest", holes)
    with pytest.raises(ImageNotFoundError, match="not here whole"):
        await images.get("holes")
    for number, document in enumerate(({}, [], {"schemaVersion": 2, "layers": 7}, {"manifests": "none"})):
        store.name(f"docker.io/library/broken:{number}", store.put(MANIFEST, document))
        with pytest.raises((InvalidConfigError, ImageNotFoundError)):
            await images.get(f"broken:{number}")


async def test_names_of_others_are_no_tags(containerd: Any, api: ContainerdApi, store: Store) -> None:
    store.name("docker.io/library/a:1", store.image(HERE))
    names = ["docker.io/library/a:1", f"docker.io/library/a@{DIFF}", "no name", "example.org/b:2", "import-2024"]
    containerd.answer(
        Images.List, lambda _: images_pb2.ListImagesResponse(images=[images_pb2.Image(name=name) for name in names])
    )

    class Site:
        images = ImageStore(api)

    Site.api = api  # type: ignore[attr-defined]
    tags = await ContainerdImage(Site, "a:1").tags()  # type: ignore[arg-type]
    assert set(tags) >= {"docker.io/library/a:1", "example.org/b:2"}
    assert f"docker.io/library/a@{DIFF}" not in tags
    assert "no name" not in tags
