"""Blobs in containerd's content store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

from grpclib.const import Cardinality

from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.proto import content_pb2
from asyncctr.backends.containerd.proto.services import Content
from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    ConflictError,
    DigestMismatchError,
    InvalidStateError,
)
from asyncctr.transport.cleanup import Janitor

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Mapping
    from types import TracebackType

    from asyncctr.backends.containerd.api import ContainerdApi
    from asyncctr.oci.manifests import Descriptor
    from asyncctr.transport.duplex import Duplex

    Writing = Duplex[content_pb2.WriteContentRequest, content_pb2.WriteContentResponse]

__all__ = ["label_blob", "read_blob", "write_blob"]

_WINDOW: Final = 4
"""Chunks on their way without an answer."""
_CHUNK: Final = 1 << 20
# Seconds between looks at a blob that somebody else is writing: no event tells when that is done.
_LOCKED_PAUSE: Final = 0.1
_LOCKED: Final = "locked"
# What the store says of a commit (content/local/writer.go): "unexpected commit digest", "unexpected commit size".
_OTHER: Final = "unexpected commit"


async def read_blob(api: ContainerdApi, digest: str, *, limit: int) -> bytes:
    """A small blob whole: an index, a manifest or a configuration. The store checked its digest when it came.

    Raises:
        NotFoundError: the store does not have it.
        AsyncctrError: it has more than ``limit`` bytes.
    """
    parts: list[bytes] = []
    size = 0
    async with (
        api.deadline(Content.Read, api.op_timeout, resource=digest),
        api.stream(Content.Read, Cardinality.UNARY_STREAM, resource=digest) as stream,
    ):
        await stream.send_message(content_pb2.ReadContentRequest(digest=digest), end=True)
        async for answer in stream:
            parts.append(answer.data)
            size += len(answer.data)
            if size > limit:
                message = f"the blob {digest} has more than {limit} bytes, too many for what it is said to be"
                raise AsyncctrError(message, backend=BACKEND, resource=digest)
    return b"".join(parts)


async def label_blob(api: ContainerdApi, digest: str, labels: Mapping[str, str]) -> None:
    """Add labels to a blob."""
    request = content_pb2.UpdateRequest(info=content_pb2.Info(digest=digest, labels=labels))
    request.update_mask.paths.extend(f"labels.{key}" for key in labels)
    await api.call(Content.Update, request, resource=digest)


async def write_blob(
    api: ContainerdApi,
    descriptor: Descriptor,
    source: Callable[[int], AsyncIterable[bytes]],
    *,
    labels: Mapping[str, str],
    resource: str,
    wrote: Callable[[int], None] = lambda _: None,
) -> bool:
    """Put a blob into the store, unless it is there; a write that was broken off goes on where it was.

    One that is there belongs to the lease from then on as well.

    Args:
        api: the containerd, with a lease that keeps the blob until something refers to it.
        descriptor: what it is.
        source: gives its content from an offset on.
        labels: that it is to have.
        resource: the image, for errors.
        wrote: is told how many bytes there are.

    Returns:
        Whether it had to be written.

    Raises:
        DigestMismatchError: the content has another digest or size.
    """
    while True:
        try:
            await _write(api, descriptor, source, labels=labels, resource=resource, wrote=wrote)
        except ConflictError:
            # It is there already; somebody else may have been faster.
            if labels:
                await label_blob(api, descriptor.digest, labels)
            return False
        except (BackendUnavailableError, InvalidStateError) as error:
            if _OTHER in error.message:
                message = f"{resource}: the blob {descriptor.digest} has another content: {error.message}"
                raise DigestMismatchError(message, backend=BACKEND, resource=resource, status=error.status) from error
            if _LOCKED not in error.message:
                raise
            await asyncio.sleep(_LOCKED_PAUSE)
            continue
        wrote(descriptor.size)
        return True


async def _write(
    api: ContainerdApi,
    descriptor: Descriptor,
    source: Callable[[int], AsyncIterable[bytes]],
    *,
    labels: Mapping[str, str],
    resource: str,
    wrote: Callable[[int], None],
) -> None:
    request = content_pb2.WriteContentRequest(
        action=content_pb2.STAT, ref=f"asyncctr-{descriptor.digest}", total=descriptor.size, expected=descriptor.digest
    )
    async with api.duplex(Content.Write, resource=resource, kind="content") as stream:
        await stream.send(request)
        offset = (await _answer(api, stream)).offset
        open_ = 0
        if offset < descriptor.size:
            async with _Ahead(source(offset)) as chunks:
                while data := await chunks.next():
                    for start in range(0, len(data), _CHUNK):
                        piece = data[start : start + _CHUNK]
                        async with api.deadline(Content.Write, api.op_timeout):
                            await stream.send(
                                content_pb2.WriteContentRequest(action=content_pb2.WRITE, offset=offset, data=piece)
                            )
                        offset += len(piece)
                        open_ += 1
                        if open_ >= _WINDOW:
                            wrote((await _answer(api, stream)).offset)
                            open_ -= 1
        while open_:
            wrote((await _answer(api, stream)).offset)
            open_ -= 1
        if offset != descriptor.size:
            message = f"{resource}: the blob {descriptor.digest} has {offset} bytes, not {descriptor.size}"
            raise DigestMismatchError(message, backend=BACKEND, resource=resource)
        commit = content_pb2.WriteContentRequest(
            action=content_pb2.COMMIT,
            offset=offset,
            total=descriptor.size,
            expected=descriptor.digest,
            labels=labels,
        )
        await stream.send(commit, end=True)
        await _answer(api, stream)


class _Ahead:
    """The chunks of a source, each read while the one before it is written."""

    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._chunks = aiter(source)
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> bytes:
        return await anext(self._chunks, b"")

    async def next(self) -> bytes:
        """The next one; nothing at the end."""
        data = await self._reading
        if data:
            self._reading = asyncio.create_task(self._read())
        return data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reading.cancel()
        # Only then is the source nobody's.
        held = await Janitor.wait_for(self._reading)
        if not self._reading.cancelled():
            self._reading.exception()
        if held is not None:
            raise held


async def _answer(api: ContainerdApi, stream: Writing) -> content_pb2.WriteContentResponse:
    async with api.deadline(Content.Write, api.op_timeout):
        answer = await stream.receive()
    if answer is None:
        message = "containerd ended a write of a blob"
        raise AsyncctrError(message, backend=BACKEND)
    return answer
