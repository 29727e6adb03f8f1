"""Blobs into and out of containerd's store: in a window, from where it was, beside others, and in time."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from asyncctr.backends.containerd import content as content_module
from asyncctr.backends.containerd.content import read_blob, write_blob
from asyncctr.backends.containerd.proto import content_pb2
from asyncctr.backends.containerd.proto.services import Content
from asyncctr.core.errors import AsyncctrError, DigestMismatchError, OperationTimeoutError, ResourceExhaustedError
from asyncctr.oci.manifests import Descriptor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asyncctr.backends.containerd.api import ContainerdApi

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

DATA = bytes(range(256)) * 20_000


def descriptor(data: bytes = DATA, size: int | None = None) -> Descriptor:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Descriptor(media_type="application/octet-stream", digest=digest, size=len(data) if size is None else size)


def source(data: bytes = DATA, piece: int = 3_000_000) -> Callable[[int], AsyncIterator[bytes]]:
    async def give(offset: int) -> AsyncIterator[bytes]:
        for start in range(offset, len(data), piece):
            yield data[start : start + piece]

    return give


class Store:
    """A content store with one blob in it, or on its way."""

    def __init__(self, *, have: bytes = b"", refusals: int = 0, refusal: GRPCError | None = None) -> None:
        self.data = bytearray(have)
        self.commits: list[content_pb2.WriteContentRequest] = []
        self.labelled: dict[str, str] = {}
        self.refusals = refusals
        self.refusal = refusal

    async def write(self, stream: Any) -> None:
        if self.refusals:
            self.refusals -= 1
            assert self.refusal is not None
            raise self.refusal
        while (request := await stream.recv_message()) is not None:
            if request.action == content_pb2.WRITE:
                assert request.offset == len(self.data)
                assert len(request.data) <= 1 << 20
                self.data += request.data
            elif request.action == content_pb2.COMMIT:
                self.commits.append(request)
            await stream.send_message(content_pb2.WriteContentResponse(offset=len(self.data)))

    def update(self, request: content_pb2.UpdateRequest) -> content_pb2.UpdateResponse:
        self.labelled = {path: request.info.labels[path.removeprefix("labels.")] for path in request.update_mask.paths}
        return content_pb2.UpdateResponse()


@pytest.fixture
def store(containerd: Any) -> Store:
    made = Store()
    containerd.on(Content.Write, made.write)
    containerd.answer(Content.Update, made.update)
    return made


async def test_a_blob_is_written_in_pieces_and_committed(api: ContainerdApi, store: Store) -> None:
    seen: list[int] = []
    assert await write_blob(api, descriptor(), source(), labels={"a": "b"}, resource="image", wrote=seen.append)
    assert bytes(store.data) == DATA
    (commit,) = store.commits
    assert (commit.expected, commit.total, dict(commit.labels)) == (descriptor().digest, len(DATA), {"a": "b"})
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)


@pytest.mark.parametrize("have", [1, 1 << 20, len(DATA)])
async def test_what_was_broken_off_goes_on_where_it_was(api: ContainerdApi, store: Store, have: int) -> None:
    store.data += DATA[:have]
    assert await write_blob(api, descriptor(), source(), labels={}, resource="image")
    assert bytes(store.data) == DATA


async def test_what_is_there_is_labelled_and_not_written(api: ContainerdApi, store: Store) -> None:
    store.refusals, store.refusal = 1, GRPCError(Status.ALREADY_EXISTS, "already exists")
    assert not await write_blob(api, descriptor(), source(), labels={"a/b": "c"}, resource="image")
    assert store.labelled == {"labels.a/b": "c"}
    assert not store.data


async def test_what_somebody_else_writes_is_waited_for(
    api: ContainerdApi, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_module, "_LOCKED_PAUSE", 0.01)
    store.refusals, store.refusal = 3, GRPCError(Status.UNAVAILABLE, "ref asyncctr-sha256:… locked for 1s: unavailable")
    assert await write_blob(api, descriptor(), source(), labels={}, resource="image")
    assert store.refusals == 0


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
async def test_another_size_is_not_committed(api: ContainerdApi, store: Store, size: int) -> None:
    with pytest.raises(DigestMismatchError, match=f"{len(DATA)} bytes, not {size}"):
        await write_blob(api, descriptor(size=size), source(), labels={}, resource="image")
    assert not store.commits


async def test_another_content_is_what_the_store_says_it_is(api: ContainerdApi, store: Store) -> None:
    store.refusals = 1
    store.refusal = GRPCError(
        Status.FAILED_PRECONDITION, "unexpected commit digest sha256:ab, expected sha256:cd: failed precondition"
    )
    with pytest.raises(DigestMismatchError, match=r"image: the blob sha256:.* has another content: .*sha256:ab"):
        await write_blob(api, descriptor(), source(), labels={}, resource="image")


async def test_a_full_disk_and_a_source_that_fails(api: ContainerdApi, store: Store) -> None:
    store.refusals = 1
    store.refusal = GRPCError(Status.UNKNOWN, "write /x: no space left on device: unknown")
    with pytest.raises(ResourceExhaustedError):
        await write_blob(api, descriptor(), source(), labels={}, resource="image")

    async def broken(_: int) -> AsyncIterator[bytes]:
        yield DATA[:10]
        raise DigestMismatchError("it was changed")

    with pytest.raises(DigestMismatchError, match="changed"):
        await write_blob(api, descriptor(), broken, labels={}, resource="image")
    assert not store.commits


async def test_silence_is_an_error_of_the_tree(containerd: Any, api: ContainerdApi) -> None:
    async def silent(stream: Any) -> None:
        await stream.recv_message()
        await asyncio.Event().wait()

    containerd.on(Content.Write, silent)
    containerd.on(Content.Read, silent)
    api.op_timeout = 0.1
    with pytest.raises(OperationTimeoutError, match=r"Content\.Write"):
        await write_blob(api, descriptor(), source(), labels={}, resource="image")
    with pytest.raises(OperationTimeoutError, match=r"Content\.Read"):
        await read_blob(api, descriptor().digest, limit=10)
    api.close()


async def test_a_small_blob_is_read_whole_and_a_large_one_not(containerd: Any, api: ContainerdApi) -> None:
    async def give(stream: Any) -> None:
        await stream.recv_message()
        for start in range(0, 100, 30):
            await stream.send_message(content_pb2.ReadContentResponse(offset=start, data=DATA[start:100][:30]))

    containerd.on(Content.Read, give)
    assert await read_blob(api, "sha256:x", limit=100) == DATA[:100]
    with pytest.raises(AsyncctrError, match="more than 99 bytes"):
        await read_blob(api, "sha256:x", limit=99)
