"""A registry in the test's own process, for what a real one will not do on demand."""

from __future__ import annotations

import hashlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from asyncctr.oci.manifests import Descriptor
from asyncctr.oci.reference import Reference
from asyncctr.testing.images import HOST_PLATFORM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class FakeRegistry:
    """It has the repository ``app``. What ``first`` answers goes before; ``None`` from it is no answer.

    Attributes:
        blobs: content by digest.
        manifests: media type and content, by tag and by digest.
        seen: the requests, as method and path.
        headers: theirs.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.first: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.port = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def reference(self, name: str = "app:1") -> Reference:
        return Reference.parse(f"{self.host}/{name}")

    def blob(self, media_type: str, data: bytes | dict[str, Any], **more: Any) -> dict[str, Any]:
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def put(self, media_type: str, document: dict[str, Any] | bytes, *, tag: str = "", **more: Any) -> dict[str, Any]:
        """A manifest or index, by its digest and perhaps a tag."""
        descriptor = self.blob(media_type, document, **more)
        content = (media_type, self.blobs.pop(descriptor["digest"]))
        self.manifests[descriptor["digest"]] = content
        if tag:
            self.manifests[tag] = content
        return descriptor

    def image(
        self, platform: str = HOST_PLATFORM, *, told: bool = True, layer: bytes = b"", tag: str = ""
    ) -> dict[str, Any]:
        names = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        content = self.blob(LAYER, layer or platform.encode())
        config = self.blob(CONFIG, {**names, "rootfs": {"type": "layers", "diff_ids": [content["digest"]]}})
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [content]}
        return self.put(MANIFEST, manifest, tag=tag, **({"platform": names} if told else {}))

    def index(self, *manifests: dict[str, Any], tag: str = "") -> dict[str, Any]:
        return self.put(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, tag=tag)

    def layer(self, data: bytes) -> Descriptor:
        descriptor = self.blob(LAYER, data)
        return Descriptor(media_type=LAYER, digest=descriptor["digest"], size=len(data))

    @staticmethod
    def trouble(status: int, code: str = "", message: str = "", **headers: str) -> web.Response:
        body = {"errors": [{"code": code, "message": message}]}
        return web.json_response(
            body, status=status, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(f"{request.method} {request.path}")
        self.headers.append(dict(request.headers))
        if self.first is not None and (response := await self.first(request)) is not None:
            return response
        kind, _, name = request.path.removeprefix("/v2/app/").partition("/")
        if kind == "manifests" and name in self.manifests:
            media_type, data = self.manifests[name]
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            return web.Response(body=data, headers={"Content-Type": media_type, "Docker-Content-Digest": digest})
        if kind == "blobs" and name in self.blobs:
            data = self.blobs[name]
            span = request.http_range
            if span.start is None:
                return web.Response(body=data)
            content_range = f"bytes {span.start}-{len(data) - 1}/{len(data)}"
            return web.Response(status=206, body=data[span.start :], headers={"Content-Range": content_range})
        return self.trouble(404, "MANIFEST_UNKNOWN" if kind == "manifests" else "BLOB_UNKNOWN", "it is not here")


@asynccontextmanager
async def serving() -> AsyncIterator[FakeRegistry]:
    registry = FakeRegistry()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", registry.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    registry.port = runner.addresses[0][1]
    try:
        yield registry
    finally:
        await runner.cleanup()


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with serving() as registry:
        yield registry


@pytest.fixture
async def other() -> AsyncIterator[FakeRegistry]:
    """A second one: a mirror, a store of blobs, a token service."""
    async with serving() as registry:
        yield registry
