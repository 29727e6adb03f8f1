"""Blobs from a registry: chunks, cuts, ranges, redirects, and what is not the blob that was asked for."""

# ruff: noqa: ASYNC110 - nothing tells when the client's last connection is closed

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from aiohttp import web

from asyncctr.core.errors import ClosedError, DigestMismatchError, ImagePullError, RegistryAuthError
from asyncctr.core.images import RegistryAuth
from asyncctr.oci.distribution import Distribution
from asyncctr.oci.reference import Reference
from asyncctr.testing.images import ImageSpec, build_image, push
from asyncctr.testing.proxy import FaultProxy
from asyncctr.testing.registry import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from asyncctr.oci.manifests import Descriptor

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

SIZE = 5_000_000
DATA = os.urandom(SIZE)


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)


@pytest.fixture
async def client(fake: Any) -> AsyncIterator[Distribution]:
    async with Distribution(plain_http=[fake.host], timeout=5, attempts=3) as distribution:
        yield distribution


async def whole(distribution: Distribution, reference: Reference, descriptor: Descriptor, **options: Any) -> bytes:
    async with distribution.blob(reference, descriptor, **options) as stream:
        return b"".join([chunk async for chunk in stream])


def sending(
    data: bytes, *, most: int, status: int = 200, headers: dict[str, str] | None = None
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An answer that is cut after ``most`` bytes of ``data`` from the range's start on."""

    async def answer(request: web.Request) -> web.StreamResponse:
        start = request.http_range.start or 0 if status == 200 and headers is None else 0
        sent: dict[str, str] = {"Content-Length": str(len(data) - start)} if headers is None else headers
        if start:
            sent["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response = web.StreamResponse(status=206 if start else status, headers=sent)
        await response.prepare(request)
        await response.write(data[start : start + most])
        # Written for good, and not lost with the connection.
        while request.transport is not None and request.transport.get_write_buffer_size():  # type: ignore[attr-defined]
            await asyncio.sleep(0.001)
        if request.transport is not None and start + most < len(data):
            request.transport.close()
        return response

    return answer


async def test_few_and_large_chunks(fake: Any, client: Distribution) -> None:
    layer = fake.layer(DATA)
    stream = client.blob(fake.reference(), layer)
    chunks = [chunk async for chunk in stream]
    assert b"".join(chunks) == DATA
    assert all(len(chunk) >= 1 << 20 for chunk in chunks[:-1]) or len(chunks) < 12
    assert stream.position == SIZE
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert await whole(client, fake.reference(), fake.layer(b"")) == b""
    assert await whole(client, fake.reference(), layer, offset=SIZE) == b""
    assert await whole(client, fake.reference(), layer, offset=SIZE - 7) == DATA[-7:]
    assert fake.headers[-1]["Range"] == f"bytes={SIZE - 7}-"
    assert fake.headers[-1]["Accept-Encoding"] == "identity"


async def test_what_has_come_is_given_out_on_a_slow_line(fake: Any, client: Distribution) -> None:
    layer = fake.layer(DATA)
    given = asyncio.Event()

    async def slowly(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(SIZE)})
        await response.prepare(request)
        sent = 0
        while not given.is_set():
            await response.write(DATA[sent : sent + 10])
            sent += 10
            await asyncio.sleep(0.005)
        await response.write(DATA[sent:])
        return response

    fake.first = slowly
    async with client.blob(fake.reference(), layer) as stream:
        async with asyncio.timeout(10):
            first = await anext(stream)
        assert 0 < len(first) < 100_000
        # A step that is given up takes nothing with it.
        position = stream.position
        step = asyncio.ensure_future(anext(stream))
        while stream.position == position:
            await asyncio.sleep(0.001)
        step.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            first += await step
        given.set()
        assert first + b"".join([chunk async for chunk in stream]) == DATA


@pytest.mark.require("registry")
async def test_cut_connections_are_taken_up_again() -> None:
    built = build_image(ImageSpec(padding=6 << 20, compression="none"))
    async with Registry() as registry, FaultProxy(f"tcp://{registry.host}") as proxy:
        await push(built, registry.host, "some/app", "1")
        reference = Reference.parse(f"127.0.0.1:{proxy.port}/some/app:1")
        async with Distribution(timeout=5, attempts=3) as distribution:
            layer = (await distribution.image(reference)).manifest.layers[-1]
            for reset in (False, True):
                opened = proxy.opened
                moved = 0

                def cut(chunk: bytes, reset: bool = reset) -> bytes:
                    nonlocal moved
                    moved += len(chunk)
                    if moved > 1_500_000:
                        moved = 0
                        proxy.cut(reset=reset)
                    return chunk

                proxy.corrupt(cut)
                assert await whole(distribution, reference, layer) == built.blobs[layer.digest]
                assert proxy.opened - opened >= 3
            # And for good.
            proxy.corrupt(None)
            async with distribution.blob(reference, layer) as stream:
                received = len(await anext(stream))
                proxy.refuse()
                proxy.cut()
                with pytest.raises(ImagePullError, match="cannot be reached") as caught:
                    async for chunk in stream:
                        received += len(chunk)
                assert type(caught.value) is ImagePullError
                assert 0 < received < layer.size
                with pytest.raises(ClosedError):
                    await anext(stream)
            await proxy.accept()
            # The rest as someone else may take it up.
            rest = await whole(distribution, reference, layer, offset=received)
            assert rest == built.blobs[layer.digest][received:]


async def test_a_silent_registry_is_given_up(fake: Any) -> None:
    layer = fake.layer(DATA)

    async def fall_silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(SIZE)})
        await response.prepare(request)
        await response.write(DATA[:100_000])
        await asyncio.Event().wait()
        return response

    fake.first = fall_silent
    async with Distribution(plain_http=[fake.host], timeout=0.4) as distribution:
        begun = time.monotonic()
        with pytest.raises(ImagePullError, match=r"was silent for 0\.4 s") as caught:
            await whole(distribution, fake.reference(), layer)
        assert time.monotonic() - begun < 4
        assert type(caught.value) is ImagePullError


async def test_a_slow_reader_is_no_silent_registry(fake: Any) -> None:
    layer = fake.layer(DATA)
    async with (
        Distribution(plain_http=[fake.host], timeout=1, attempts=1) as distribution,
        distribution.blob(fake.reference(), layer) as stream,
    ):
        first = await anext(stream)
        # Longer than silence may last.
        await asyncio.sleep(1.2)
        assert first + b"".join([chunk async for chunk in stream]) == DATA
    assert len(fake.seen) == 1


async def test_no_end_of_cuts_with_and_without_progress(fake: Any, client: Distribution) -> None:
    layer = fake.layer(DATA[:100])
    fake.first = sending(DATA[:100], most=10)
    assert await whole(client, fake.reference(), layer) == DATA[:100]
    assert len(fake.seen) == 10
    fake.seen.clear()
    fake.first = sending(DATA[:100], most=0)
    with pytest.raises(ImagePullError, match="cut the connection"):
        await whole(client, fake.reference(), layer)
    assert len(fake.seen) == 3


async def test_a_server_that_knows_no_ranges(fake: Any, client: Distribution) -> None:
    layer = fake.layer(DATA)
    lengths = iter([1_000_000, 2_000_000, SIZE])

    async def ignorant(request: web.Request) -> web.StreamResponse:
        return await sending(DATA, most=next(lengths), headers={"Content-Length": str(SIZE)})(request)

    fake.first = ignorant
    assert await whole(client, fake.reference(), layer) == DATA
    assert len(fake.seen) == 3


@pytest.mark.parametrize(
    ("status", "headers", "data", "error", "message"),
    [
        (200, {"Content-Length": "90"}, DATA[:90], DigestMismatchError, "has 90 bytes, not the 100"),
        (200, {"Content-Length": "110"}, DATA[:110], DigestMismatchError, "has 110 bytes, not the 100"),
        (200, {"Transfer-Encoding": "chunked"}, DATA[:110], DigestMismatchError, "more than the 100 bytes"),
        (200, {"Content-Length": "100"}, DATA[100:200], DigestMismatchError, "has another content"),
        (206, {"Content-Range": "bytes 0-99/100"}, DATA[:100], ImagePullError, "another range"),
    ],
)
async def test_another_blob_than_was_asked_for(
    fake: Any, client: Distribution, status: int, headers: dict[str, str], data: bytes, error: type, message: str
) -> None:
    layer = fake.layer(DATA[:100])
    fake.first = sending(data, most=len(data), status=status, headers=headers)
    with pytest.raises(error, match=message) as caught:
        await whole(client, fake.reference(), layer)
    assert type(caught.value) is error
    assert len(fake.seen) == 1


@pytest.mark.parametrize(
    ("content_range", "error", "message"),
    [
        ("bytes 49-99/100", ImagePullError, "another range"),
        ("bytes 50-99/101", DigestMismatchError, "has 101 bytes"),
        ("", ImagePullError, "another range"),
        ("bytes 50-99/*", None, ""),
        ("416", DigestMismatchError, "fewer than the 100 bytes"),
    ],
)
async def test_another_range_than_was_asked_for(
    fake: Any, client: Distribution, content_range: str, error: type | None, message: str
) -> None:
    layer = fake.layer(DATA[:100])

    async def answer(_: web.Request) -> web.StreamResponse:
        status = 416 if content_range == "416" else 206
        return web.Response(body=DATA[50:100], status=status, headers={"Content-Range": content_range})

    fake.first = answer
    if error is None:
        assert await whole(client, fake.reference(), layer, offset=50) == DATA[50:100]
        return
    with pytest.raises(error, match=message) as caught:
        await whole(client, fake.reference(), layer, offset=50)
    assert type(caught.value) is error


async def test_a_short_answer_that_seems_whole(fake: Any, client: Distribution) -> None:
    layer = fake.layer(DATA[:100])
    fake.first = sending(DATA[:90], most=90, headers={"Transfer-Encoding": "chunked"})
    with pytest.raises(ImagePullError, match="ended after 90 of 100 bytes"):
        await whole(client, fake.reference(), layer)
    assert [headers.get("Range") for headers in fake.headers] == [None, "bytes=90-", "bytes=90-"]


async def test_other_algorithms(fake: Any, client: Distribution) -> None:
    layer = fake.layer(b"layer")
    sha512 = f"sha512:{hashlib.sha512(b'layer').hexdigest()}"
    fake.blobs[sha512] = b"layer"
    assert await whole(client, fake.reference(), attrs.evolve(layer, digest=sha512)) == b"layer"
    fake.blobs[sha512] = b"LAYER"
    with pytest.raises(DigestMismatchError):
        await whole(client, fake.reference(), attrs.evolve(layer, digest=sha512))


async def test_redirects_to_another_host_take_no_credentials_with_them(fake: Any, other: Any) -> None:
    layer = fake.layer(DATA)
    signed = "/store/a%2Fb?sig=%2B%3d&x=a+b"
    raw: list[str] = []

    async def redirect(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") is None:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        if request.path.startswith("/v2/"):
            return web.Response(status=307, headers={"Location": "/moved" + request.path})
        return web.Response(status=307, headers={"Location": other.url + signed})

    async def store(request: web.Request) -> web.StreamResponse:
        raw.append(request.raw_path)
        assert "Authorization" not in request.headers
        return await sending(DATA, most=3_000_000)(request)

    fake.first, other.first = redirect, store
    auth = RegistryAuth(username="me", password="password")
    async with Distribution(auth=auth, plain_http=[fake.host], timeout=5) as distribution:
        assert await whole(distribution, fake.reference(), layer) == DATA
        # Each attempt begins at the registry: an address that was signed is good for a while only.
        assert raw == [signed, signed]
        assert sum(entry.startswith("GET /v2/") for entry in fake.seen) == 3
        other.first = None
        for status in (401, 403, 404):

            async def refuse(_: web.Request, status: int = status) -> web.StreamResponse:
                return web.Response(status=status, headers={"WWW-Authenticate": 'Basic realm="x"'})

            other.first = refuse
            seen = len(other.seen)
            with pytest.raises(ImagePullError, match=f"answers {status}") as caught:
                await whole(distribution, fake.reference(), layer)
            assert type(caught.value) is ImagePullError
            assert len(other.seen) == seen + 1


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "to what is no address"),
        ("file:///etc/passwd", "to what is no address"),
        ("http://user:secret@127.0.0.1:9/", "to what is no address"),
        ("http://[::1/", "to what is no address"),
        ("http://x:99999999/", "to what is no address"),
        ("http://xn--a.example/", "to what is no address"),
        ("/a HTTP/1.1 b", "to what is no address"),
        (f"http://{'a' * 80}.example/", "there can be no host"),
        ("/v2/app/blobs/again", "redirects more than 10 times"),
    ],
)
async def test_redirects_to_nowhere(fake: Any, client: Distribution, location: str, message: str) -> None:
    layer = fake.layer(b"layer")

    async def redirect(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": location})

    fake.first = redirect
    with pytest.raises(ImagePullError, match=message) as caught:
        await whole(client, fake.reference(), layer)
    assert "secret" not in str(caught.value)
    assert len(fake.seen) <= 10


async def test_a_mirror_that_fails_in_the_middle_gives_way(fake: Any, other: Any) -> None:
    layer = fake.layer(DATA)
    other.first = sending(DATA, most=2_000_000)
    mirrors = {fake.host: [other.url]}
    async with Distribution(mirrors=mirrors, plain_http=[fake.host], timeout=5) as distribution:
        assert await whole(distribution, fake.reference(), layer) == DATA
    assert len(other.seen) == len(fake.seen) == 1
    assert int(fake.headers[0]["Range"].removeprefix("bytes=").removesuffix("-")) <= 2_000_000


async def test_a_token_that_expires_between_two_attempts(fake: Any, client: Distribution) -> None:
    layer = fake.layer(DATA)
    served = 0

    async def guarded(request: web.Request) -> web.StreamResponse | None:
        nonlocal served
        if request.path == "/token":
            return web.json_response({"token": f"t{served}", "expires_in": 300})
        if request.headers.get("Authorization") != f"Bearer t{served}":
            challenge = f'Bearer realm="{fake.url}/token",service="s",error="invalid_token"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        served += 1
        return await sending(DATA, most=2_000_000)(request)

    fake.first = guarded
    assert await whole(client, fake.reference(), layer) == DATA
    assert served == 3

    async def never(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/token":
            return web.json_response({"token": "new"})
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{fake.url}/token"'})

    fake.first = never
    fake.seen.clear()
    with pytest.raises(RegistryAuthError):
        await whole(client, fake.reference(), layer)
    assert len(fake.seen) == 3


async def test_closing_in_the_middle_frees_the_connection(fake: Any) -> None:
    layer = fake.layer(os.urandom(4_000_000))
    async with Distribution(plain_http=[fake.host], timeout=20) as distribution:
        # More than a pool has connections.
        for _ in range(120):
            async for _ in distribution.blob(fake.reference(), layer):
                break
        stream = distribution.blob(fake.reference(), layer)
        await anext(stream)
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(ClosedError):
            await anext(stream)
        left = distribution.blob(fake.reference(), layer)
        await anext(left)
    with pytest.raises(ClosedError):
        async for _ in left:
            pass


@pytest.mark.parametrize("began", [False, True])
async def test_closing_the_client_ends_a_step_that_waits(fake: Any, client: Distribution, *, began: bool) -> None:
    layer = fake.layer(DATA)
    waiting = asyncio.Event()

    async def stall(request: web.Request) -> web.StreamResponse:
        if began:
            response = web.StreamResponse(headers={"Content-Length": str(SIZE)})
            await response.prepare(request)
        waiting.set()
        await asyncio.Event().wait()
        raise AssertionError

    fake.first = stall
    step = asyncio.ensure_future(anext(client.blob(fake.reference(), layer)))
    await waiting.wait()
    while began and not client._http._responses:
        await asyncio.sleep(0.001)
    begun = time.monotonic()
    await client.aclose()
    with pytest.raises(ClosedError):
        await step
    assert time.monotonic() - begun < 2
