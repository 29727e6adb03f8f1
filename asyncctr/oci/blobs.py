"""A blob as it comes from a registry: in large chunks, taken up again where the connection was cut, verified at its end."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import TYPE_CHECKING, Self

import attrs

from asyncctr.core.errors import ClosedError, DigestMismatchError, ImagePullError
from asyncctr.oci.reference import parse_digest
from asyncctr.oci.registry_failures import AttemptError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

    import aiohttp

    from asyncctr.oci.manifests import Descriptor
    from asyncctr.oci.registry_failures import Patience
    from asyncctr.oci.registry_http import RegistryHttp

__all__ = ["BlobSource", "BlobStream"]

_CHUNK = 1 << 20
# From the first byte of a chunk on; what has come by then is given out, so that progress is seen on slow lines.
_CHUNK_SECONDS = 0.1
_RANGE = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)")


@attrs.frozen
class BlobSource:
    """Where a blob is to be had.

    Attributes:
        request: makes a request for it with some headers.
        patience: how often to try again.
        give_way: is told why the next source is asked instead.
    """

    request: Callable[[Mapping[str, str]], Awaitable[aiohttp.ClientResponse]]
    patience: Patience
    give_way: Callable[[AttemptError], None]


class BlobStream:
    """A blob's bytes from an offset on, in chunks of about 1 MiB: an async iterator, and a context manager that closes it.

    A connection that is cut is made anew, from where it was cut on. A source that fails gives way to the next. A step that was
    cancelled may be taken again: nothing is lost by it.

    Attributes:
        descriptor: the blob's.
        position: the offset in the blob of what comes next.

    Raises:
        DigestMismatchError: the registry has another size, or, in place of the end, the whole blob another digest. The digest
            of a stream that does not begin at the blob's, or is not to be verified, is not verified here.
        ImagePullError: it cannot be had.
        RegistryAuthError: the registry refused the credentials.
        ClosedError: it was closed, or has failed before.
    """

    def __init__(
        self,
        http: RegistryHttp,
        descriptor: Descriptor,
        sources: Sequence[BlobSource],
        *,
        offset: int,
        resource: str,
        verify: bool = True,
    ) -> None:
        self._response: aiohttp.ClientResponse | None = None
        self._http = http
        self._sources = list(sources)
        self._resource = resource
        self._expected = parse_digest(descriptor.digest)
        self._hash = hashlib.new(self._expected.algorithm) if verify and offset == 0 else None
        self._skip = 0
        self._parts: list[bytes] = []
        self._closed = self._ended = False
        self.descriptor = descriptor
        self.position = offset

    def __repr__(self) -> str:
        return f"<BlobStream {self.descriptor.digest} at {self.position} of {self.descriptor.size}>"

    def __del__(self) -> None:
        # After a loop that was left early. The connection would otherwise be missing from the pool.
        self._drop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise ClosedError(f"the stream of {self.descriptor.digest} is closed", resource=self._resource)
        if self._ended:
            raise StopAsyncIteration
        try:
            return await self._next()
        except (StopAsyncIteration, asyncio.CancelledError):
            raise
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the connection, unless all was read."""
        self._closed = True
        self._drop()
        self._parts.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _drop(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()

    async def _next(self) -> bytes:
        left = self.descriptor.size - self.position
        pending = sum(map(len, self._parts))
        deadline = 0.0
        while left and pending < _CHUNK:
            try:
                part = await self._part()
            except AttemptError as failure:
                self._drop()
                await self._failed(failure)
                continue
            left -= len(part)
            pending += len(part)
            now = asyncio.get_running_loop().time()
            deadline = deadline or now + _CHUNK_SECONDS
            if now >= deadline and pending:
                break
        if not pending:
            self._finish()
            raise StopAsyncIteration
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        return data

    async def _failed(self, failure: AttemptError) -> None:
        """Go on to the next source, or wait for another attempt at the last one."""
        if len(self._sources) > 1:
            self._sources.pop(0).give_way(failure)
        else:
            await self._sources[0].patience.pause(failure)

    async def _part(self) -> bytes:
        """What comes next, of any size; it is hashed and counted as it is kept."""
        response = self._response
        if response is None:
            response = self._response = await self._connect()
        data = await self._http.read(response, resource=self._resource)
        if not data:
            raise self._attempt(
                ImagePullError, f"ended after {self.position} of {self.descriptor.size} bytes", again=True
            )
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            data = data[dropped:]
        if len(data) > self.descriptor.size - self.position:
            raise self._attempt(
                DigestMismatchError, f"has more than the {self.descriptor.size} bytes of its descriptor"
            )
        if data:
            self._sources[0].patience.progress()
        if self._hash is not None:
            self._hash.update(data)
        self.position += len(data)
        self._parts.append(data)
        return data

    async def _connect(self) -> aiohttp.ClientResponse:
        position, size = self.position, self.descriptor.size
        try:
            response = await self._sources[0].request({"Range": f"bytes={position}-"} if position else {})
        except AttemptError as failure:
            if failure.error.status != 416:
                raise
            raise self._attempt(DigestMismatchError, f"has fewer than the {size} bytes of its descriptor") from failure
        self._skip = 0
        length = response.content_length
        if response.status == 206:
            match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not position or match is None or int(match[1]) != position:
                response.close()
                raise self._attempt(ImagePullError, "came with another range than was asked for")
            length = None if match[2] == "*" else int(match[2])
        else:
            # The server knows no ranges, and sends what is here already once more.
            self._skip = position
        if length is not None and length != size:
            response.close()
            raise self._attempt(DigestMismatchError, f"has {length} bytes, not the {size} of its descriptor")
        return response

    def _finish(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            # Back to the pool, when the response ended where it should.
            response.release()
        self._ended = True
        if self._hash is not None and (actual := self._hash.hexdigest()) != self._expected.hex:
            raise self._attempt(DigestMismatchError, f"has another content: its digest is {actual}").error

    def _attempt(self, kind: type[ImagePullError], text: str, *, again: bool = False) -> AttemptError:
        message = f"{self._resource}: the blob {self.descriptor.digest} {text}"
        return AttemptError(kind(message, resource=self._resource), again=again)
