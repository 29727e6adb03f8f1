"""Answers that are a stream of JSON documents: pull, push, load and build. An error inside one is an error."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import attrs
from yarl import URL

from asyncctr.backends.docker.api import message_of
from asyncctr.backends.docker.errors import BACKEND, translate
from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    ConnectionLostError,
    OperationTimeoutError,
)
from asyncctr.core.images import Progress
from asyncctr.transport.progress import ProgressThrottle

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Mapping

    from asyncctr.backends.docker.api import DockerApi, Params
    from asyncctr.core.images import ProgressCallback

__all__ = ["ProgressMeter", "documents", "error_of"]

# A transfer may be silent for this many op_timeouts, while the engine extracts a large layer.
_SILENCE = 5
_LINE_LIMIT = 8 << 20
_DOWNLOADED = "Download complete"


@asynccontextmanager
async def documents(
    api: DockerApi,
    method: str,
    path: str,
    *,
    params: Params | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | AsyncIterable[bytes] | None = None,
    kind: str = "image",
    resource: str = "",
    silent: bool = False,
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The documents of one call's answer. Leaving the block early closes the connection, which makes the engine stop.

    ``silent`` allows an answer that has begun to be silent for ever, as a step of a build may be.

    Raises:
        ConnectionLostError: the engine went away before the end.
        AsyncctrError: as an answer of 400 or above means.
    """
    api.check_open()
    seconds = api.op_timeout * _SILENCE
    translated = _Translated(api, f"{method} {path}", resource, seconds)
    with translated:
        response = await _begin(api, method, path, params, headers, body, seconds, silent=silent)
    async with response:
        if response.status >= 300:
            with translated:
                text = await response.read()
            raise translate(response.status, message_of(text), resource=resource, kind=kind)
        yield _split(response, translated)


async def _begin(
    api: DockerApi,
    method: str,
    path: str,
    params: Params | None,
    headers: Mapping[str, str] | None,
    body: bytes | AsyncIterable[bytes] | None,
    seconds: float,
    *,
    silent: bool,
) -> aiohttp.ClientResponse:
    """Send the request; the answer when its head has come, which may take ``seconds`` from the last of the body that moved."""
    loop = asyncio.get_running_loop()
    answered = False
    async with asyncio.timeout(seconds) as limit:

        def moved() -> None:
            # An engine may answer before it has all.
            if not answered and not limit.expired():
                limit.reschedule(loop.time() + seconds)

        async def moving(blocks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
            async for block in blocks:
                moved()
                yield block
            moved()

        response = await api.session.request(
            method,
            URL(f"http://docker{api.target(path, params)}", encoded=True),
            data=body if body is None or isinstance(body, bytes) else moving(body),
            headers={
                "Content-Type": "application/x-tar" if body is not None else "application/json",
                **(headers or {}),
            },
            timeout=aiohttp.ClientTimeout(sock_read=None if silent else seconds),
            read_bufsize=1 << 18,
        )
        answered = True
    return response


class _Translated:
    """What the HTTP client raises, in this package's terms; what callers raise is left alone."""

    def __init__(self, api: DockerApi, what: str, resource: str, seconds: float) -> None:
        self._api = api
        self._what = what
        self._resource = resource
        self._seconds = seconds

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        resource = self._resource
        if isinstance(error, TimeoutError) and not isinstance(error, AsyncctrError):
            message = f"the engine was silent for {self._seconds:g} s during {self._what}"
            raise OperationTimeoutError(message, backend=BACKEND, resource=resource) from error
        if isinstance(error, aiohttp.ClientConnectorError):
            endpoint = self._api.endpoint
            cause = error.os_error.strerror or error
            message = f"cannot connect to {endpoint}: {cause}. {endpoint.advice}"
            raise BackendUnavailableError(message, backend=BACKEND, resource=resource) from error
        if isinstance(error, (aiohttp.ClientError, ConnectionError)):
            message = f"the engine went away during {self._what}: {error!r}"
            raise ConnectionLostError(message, backend=BACKEND, resource=resource) from error


async def _split(response: aiohttp.ClientResponse, translated: _Translated) -> AsyncIterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    pending = ""
    rest = b""
    while True:
        with translated:
            chunk = await response.content.readany()
        if not chunk:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_LIMIT:
            msg = "the engine sent a JSON document without an end"
            raise ConnectionLostError(msg, backend=BACKEND)
        for line in lines:
            pending = line.decode(errors="replace").strip()
            # Some engines put documents behind one another on a line.
            while pending:
                document, end = _decode(decoder, pending)
                pending = pending[end:].lstrip()
                yield document
    pending = rest.decode(errors="replace").strip()
    while pending:
        document, end = _decode(decoder, pending)
        pending = pending[end:].lstrip()
        yield document


def _decode(decoder: json.JSONDecoder, text: str) -> tuple[dict[str, Any], int]:
    try:
        document, end = decoder.raw_decode(text)
    except ValueError as error:
        message = f"the engine sent something that is not JSON: {text[:200]!r}"
        raise ConnectionLostError(message, backend=BACKEND) from error
    if not isinstance(document, dict):
        message = f"the engine sent something unexpected: {text[:200]!r}"
        raise AsyncctrError(message, backend=BACKEND)
    return document, end


def error_of(document: dict[str, Any]) -> str:
    """The error a document carries, in whichever of its two places; empty for none."""
    detail = document.get("errorDetail")
    if isinstance(detail, dict) and detail.get("message"):
        return str(detail["message"])
    return str(document.get("error") or "")


class ProgressMeter:
    """Hands on the progress in an engine's answer."""

    def __init__(self, callback: ProgressCallback | None) -> None:
        self._wanted = callback is not None
        self._throttle = ProgressThrottle(callback)
        self._counted: dict[str, Progress] = {}

    def feed(self, document: dict[str, Any]) -> None:
        """One document of the engine's answer; what the callback raises goes to the caller."""
        if not self._wanted or not document.get("status"):
            return
        detail = document.get("progressDetail") or {}
        current, total = detail.get("current"), detail.get("total")
        progress = Progress(
            action=str(document["status"]),
            id=str(document.get("id") or ""),
            current=current if isinstance(current, int) else None,
            total=total if isinstance(total, int) and total > 0 else None,
            message=str(document["status"]),
        )
        if progress.total is not None:
            self._counted[progress.id] = progress
        if progress.action == _DOWNLOADED:
            last = self._counted.pop(progress.id, None)
            if last is not None and last.current != last.total:
                # Podman counts once a second, and not the end.
                self._throttle.feed(attrs.evolve(last, current=last.total))
        self._throttle.feed(progress)

    def finish(self) -> None:
        """Hand on what was held back."""
        self._throttle.finish()
