"""Images into a namespace: under a lease that ends, whatever becomes of them."""

from __future__ import annotations

import asyncio
import hashlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from asyncctr.backends.containerd.images import StoredImage
from asyncctr.backends.containerd.ingest import Document, ingest, references
from asyncctr.backends.containerd.leases import sweep_leases
from asyncctr.backends.containerd.proto import (
    content_pb2,
    diff_pb2,
    images_pb2,
    leases_pb2,
    snapshots_pb2,
    types_pb2,
)
from asyncctr.backends.containerd.proto.services import Content, Diff, Images, Leases, Snapshots
from asyncctr.backends.containerd.unpack import Unpacker
from asyncctr.core.errors import DigestMismatchError, ResourceExhaustedError
from asyncctr.oci.image_config import ImageConfig
from asyncctr.oci.manifests import Descriptor, Manifest
from asyncctr.oci.platforms import Platform
from asyncctr.transport.cleanup import Janitor
from asyncctr.transport.ownership import OWNER, Owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncctr.backends.containerd.api import ContainerdApi
    from asyncctr.core.images import Progress

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

LAYERS = [b"one" * 1000, b"two" * 1000, b"one" * 1000]


def described(data: bytes, media_type: str = "application/vnd.oci.image.layer.v1.tar") -> Descriptor:
    return Descriptor(media_type=media_type, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))


CONFIG = (
    b'{"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": ["'
    + b'", "'.join(described(layer).digest.encode() for layer in LAYERS)
    + b'"]}}'
)
MANIFEST_DATA = b"{}"
MANIFEST = Manifest(
    descriptor=described(MANIFEST_DATA), config=described(CONFIG), layers=tuple(described(layer) for layer in LAYERS)
)
IMAGE = StoredImage(
    name="example.org/a:1",
    target=MANIFEST.descriptor,
    platform=Platform("linux", "amd64"),
    manifest=MANIFEST,
    config=ImageConfig.parse(CONFIG),
)
DOCUMENTS = [
    Document(descriptor=MANIFEST.config, data=CONFIG),
    Document(descriptor=MANIFEST.descriptor, data=MANIFEST_DATA, labels=references(MANIFEST.config, MANIFEST.layers)),
]


async def source(layer: Descriptor, offset: int) -> AsyncIterator[bytes]:
    yield next(data for data in LAYERS if described(data).digest == layer.digest)[offset:]


class Fake:
    """What an ingest needs of a containerd; what was made is in its attributes."""

    def __init__(self, containerd: Any) -> None:
        self.containerd = containerd
        self.blobs: dict[str, bytes] = {}
        self.labels: dict[str, dict[str, str]] = {}
        self.snapshots: set[str] = set()
        self.keys: dict[str, str] = {}
        self.leases: dict[str, dict[str, str]] = {}
        self.leased: list[str] = []
        self.ended: list[tuple[str, bool]] = []
        self.images: dict[str, str] = {}
        containerd.on(Content.Write, self.write)
        containerd.answer(Content.Update, self.update)
        containerd.answer(Leases.Create, self.lease)
        containerd.answer(Leases.Delete, self.end_lease)
        containerd.answer(Leases.List, self.list_leases)
        containerd.answer(Snapshots.Stat, self.stat)
        containerd.answer(Snapshots.Prepare, self.prepare)
        containerd.answer(Snapshots.Commit, self.commit)
        containerd.answer(Snapshots.Remove, lambda _: Snapshots.Remove.answer())
        containerd.answer(Diff.Apply, self.apply)
        containerd.answer(Images.Create, self.name)
        containerd.answer(Images.Update, self.rename)

    async def write(self, stream: Any) -> None:
        self.leased.append(stream.metadata["containerd-lease"])
        data = bytearray()
        digest = ""
        while (request := await stream.recv_message()) is not None:
            digest = digest or request.expected
            if digest in self.blobs:
                raise GRPCError(Status.ALREADY_EXISTS, "already exists")
            data += request.data
            if request.action == content_pb2.COMMIT:
                self.blobs[digest] = bytes(data)
                self.labels[digest] = dict(request.labels)
            await stream.send_message(content_pb2.WriteContentResponse(offset=len(data)))

    def update(self, request: content_pb2.UpdateRequest) -> content_pb2.UpdateResponse:
        self.labels[request.info.digest].update(request.info.labels)
        return content_pb2.UpdateResponse()

    def lease(self, request: leases_pb2.CreateRequest) -> leases_pb2.CreateResponse:
        self.leases[request.id] = dict(request.labels)
        return leases_pb2.CreateResponse()

    def end_lease(self, request: leases_pb2.DeleteRequest) -> Any:
        if self.leases.pop(request.id, None) is None:
            raise GRPCError(Status.NOT_FOUND, "no lease")
        self.ended.append((request.id, request.sync))
        return Leases.Delete.answer()

    def list_leases(self, _: leases_pb2.ListRequest) -> leases_pb2.ListResponse:
        found = [leases_pb2.Lease(id=name, labels=labels) for name, labels in self.leases.items()]
        return leases_pb2.ListResponse(leases=found)

    def stat(self, request: snapshots_pb2.StatSnapshotRequest) -> snapshots_pb2.StatSnapshotResponse:
        if request.key not in self.snapshots:
            raise GRPCError(Status.NOT_FOUND, "no snapshot")
        return snapshots_pb2.StatSnapshotResponse()

    def prepare(self, request: snapshots_pb2.PrepareSnapshotRequest) -> snapshots_pb2.PrepareSnapshotResponse:
        assert not request.parent or request.parent in self.snapshots
        return snapshots_pb2.PrepareSnapshotResponse(mounts=[types_pb2.Mount(type="bind", source="/x")])

    def apply(self, request: diff_pb2.ApplyRequest) -> diff_pb2.ApplyResponse:
        # Layers here are not packed: what they unpack to has the same digest.
        assert request.diff.digest in self.blobs
        return diff_pb2.ApplyResponse(applied=types_pb2.Descriptor(digest=request.diff.digest))

    def commit(self, request: snapshots_pb2.CommitSnapshotRequest) -> Any:
        self.snapshots.add(request.name)
        return Snapshots.Commit.answer()

    def name(self, request: images_pb2.CreateImageRequest) -> images_pb2.CreateImageResponse:
        if request.image.name in self.images:
            raise GRPCError(Status.ALREADY_EXISTS, "already exists")
        self.images[request.image.name] = request.image.target.digest
        return images_pb2.CreateImageResponse()

    def rename(self, request: images_pb2.UpdateImageRequest) -> images_pb2.UpdateImageResponse:
        self.images[request.image.name] = request.image.target.digest
        return images_pb2.UpdateImageResponse()


@pytest.fixture
def fake(containerd: Any) -> Fake:
    return Fake(containerd)


@pytest.fixture
def site(api: ContainerdApi) -> Any:
    unpacker = Unpacker(api, "overlayfs")
    return SimpleNamespace(api=api, janitor=Janitor(5), unpacker=unpacker, snapshotter="overlayfs")


async def test_all_of_an_image_comes_and_is_kept_by_its_name(fake: Fake, site: Any) -> None:
    seen: list[Progress] = []
    await ingest(site, IMAGE, documents=DOCUMENTS, source=source, on_progress=seen.append)
    assert set(fake.blobs.values()) == {*LAYERS, CONFIG, MANIFEST_DATA}
    assert fake.snapshots == set(IMAGE.config.chain_ids)
    assert fake.labels[MANIFEST.config.digest] == {"containerd.io/gc.ref.snapshot.overlayfs": IMAGE.chain_id}
    assert fake.labels[MANIFEST.descriptor.digest]["containerd.io/gc.ref.content.l.1"] == MANIFEST.layers[1].digest
    assert fake.images == {"example.org/a:1": MANIFEST.descriptor.digest}
    # A layer that is in it twice is fetched once.
    assert fake.containerd.calls.count("Content/Write") == 4
    assert {progress.action for progress in seen} == {"Downloading", "Download complete"}
    ((name, sync),) = fake.ended
    assert set(fake.leased) == {name}
    assert not sync
    # Once more: nothing is fetched, and the name stands for it again.
    fake.images["example.org/a:1"] = "sha256:other"
    seen.clear()
    await ingest(site, IMAGE, documents=DOCUMENTS, source=source, on_progress=seen.append)
    assert fake.images == {"example.org/a:1": MANIFEST.descriptor.digest}
    assert {progress.action for progress in seen} == {"Already exists"}
    assert not fake.leases


async def test_a_failure_gives_no_name_and_ends_the_lease(fake: Fake, site: Any) -> None:
    async def broken(layer: Descriptor, offset: int) -> AsyncIterator[bytes]:
        yield (await anext(source(layer, offset)))[:-1]

    with pytest.raises(DigestMismatchError):
        await ingest(site, IMAGE, documents=DOCUMENTS, source=broken)

    def full(_: object) -> object:
        raise GRPCError(Status.UNKNOWN, "write: no space left on device: unknown")

    fake.containerd.answer(Diff.Apply, full)
    with pytest.raises(ResourceExhaustedError):
        await ingest(site, IMAGE, documents=DOCUMENTS, source=source)
    fake.containerd.answer(
        Diff.Apply, lambda _: diff_pb2.ApplyResponse(applied=types_pb2.Descriptor(digest="sha256:wrong"))
    )
    with pytest.raises(DigestMismatchError, match="unpacks to sha256:wrong"):
        await ingest(site, IMAGE, documents=DOCUMENTS, source=source)
    assert not fake.images
    assert not fake.leases
    # At once, and what it had with it.
    assert [sync for _, sync in fake.ended] == [True] * 3


async def test_a_cancellation_ends_the_lease_first(fake: Fake, site: Any) -> None:
    waiting = asyncio.Event()

    async def slow(layer: Descriptor, offset: int) -> AsyncIterator[bytes]:
        waiting.set()
        await asyncio.Event().wait()
        yield await anext(source(layer, offset))

    task = asyncio.create_task(ingest(site, IMAGE, documents=DOCUMENTS, source=slow))
    await waiting.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not fake.leases
    assert not fake.images
    assert fake.ended[0][1]


@pytest.mark.parametrize("where", ["Snapshots.Prepare", "Snapshots.Commit"])
async def test_a_layer_that_others_unpack_meanwhile_is_taken(fake: Fake, site: Any, where: str) -> None:
    def taken(request: Any) -> object:
        # containerd 2 tells at Prepare, 1.6 at Commit.
        chain = request.key.partition(" ")[2]
        fake.snapshots.add(chain)
        raise GRPCError(Status.ALREADY_EXISTS, f'target snapshot "{chain}": already exists')

    fake.containerd.answer(Snapshots.Prepare if where == "Snapshots.Prepare" else Snapshots.Commit, taken)
    await ingest(site, IMAGE, documents=DOCUMENTS, source=source)
    assert fake.snapshots == set(IMAGE.config.chain_ids)
    assert fake.images


async def test_leases_of_dead_processes_are_ended_and_no_others(fake: Fake, site: Any) -> None:
    here = Owner.current()
    fake.leases = {
        "mine": {OWNER: str(here)},
        "theirs": {},
        "garbage": {OWNER: "?"},
        "dead": {OWNER: str(Owner(here.boot, here.namespace, 2**22 + 1, 1))},
        "elsewhere": {OWNER: str(Owner(here.boot, "another", 1, 1))},
    }
    await sweep_leases(site)
    assert set(fake.leases) == {"mine", "theirs", "garbage", "elsewhere"}
