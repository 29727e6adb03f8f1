"""The registry client against a docker-registry, and against one that does what that one will not."""

# ruff: noqa: ASYNC110, PTH208 - nothing tells when a socket is closed, and names are enough

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import ssl
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from asyncctr.core.errors import (
    AsyncctrError,
    ClosedError,
    DigestMismatchError,
    ImageNotFoundError,
    ImagePullError,
    InvalidConfigError,
    RegistryAuthError,
)
from asyncctr.core.images import RegistryAuth
from asyncctr.oci.distribution import Distribution
from asyncctr.oci.platforms import Platform
from asyncctr.oci.reference import Reference
from asyncctr.testing.certificates import make_authority
from asyncctr.testing.images import HOST_PLATFORM, MANIFEST_TYPE, ImageSpec, build_image, push
from asyncctr.testing.proxy import BlackHole, FaultProxy
from asyncctr.testing.registry import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncctr.testing.images import BuiltImage

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

OTHER = "linux/arm64" if HOST_PLATFORM != "linux/arm64" else "linux/amd64"
CANARY = "canary-7f3d1c"


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)


@pytest.fixture(scope="module")
def built() -> BuiltImage:
    return build_image(ImageSpec(platforms=(OTHER, HOST_PLATFORM), padding=3 << 20, compression="none"))


@pytest.fixture
async def client(fake: Any) -> AsyncIterator[Distribution]:
    async with Distribution(plain_http=[fake.host], timeout=5, attempts=3) as distribution:
        yield distribution


async def whole(distribution: Distribution, reference: Reference, descriptor: Any, **options: Any) -> bytes:
    async with distribution.blob(reference, descriptor, **options) as stream:
        return b"".join([chunk async for chunk in stream])


@pytest.mark.require("registry")
@pytest.mark.parametrize("kind", ["none", "htpasswd", "token"])
async def test_an_image_comes_whole_and_verified(kind: Any, built: BuiltImage) -> None:
    async with Registry(auth=kind) as registry:
        await push(built, registry.host, "some/app", "1", registry.credentials)
        credentials = registry.credentials
        auth = RegistryAuth(username=credentials[0], password=credentials[1]) if credentials else None
        named = Reference.parse(registry.reference("some/app", "1"))
        pinned = Reference.parse(f"{named.name}@{built.digest}")
        async with Distribution(auth=auth, timeout=10) as distribution:
            for reference in (named, pinned):
                descriptor = await distribution.resolve(reference)
                assert (descriptor.digest, descriptor.media_type) == (built.digest, built.media_type)
                assert descriptor.size == len(built.blobs[built.digest])
                image = await distribution.image(reference)
                assert image.descriptor == descriptor
                assert str(image.platform) == HOST_PLATFORM
                assert image.manifest.descriptor.digest == built.manifests[HOST_PLATFORM]
                assert (image.data, image.manifest_data, image.config) == tuple(
                    built.blobs[digest] for digest in (built.digest, built.manifests[HOST_PLATFORM], built.image_id)
                )
            assert tuple(layer.digest for layer in image.manifest.layers) == built.layers
            for layer in image.manifest.layers:
                assert await whole(distribution, named, layer) == built.blobs[layer.digest]
            other = await distribution.image(named, Platform.parse(OTHER))
            assert other.manifest.descriptor.digest == built.manifests[OTHER]
            with pytest.raises(
                ImageNotFoundError, match=f"for linux/s390x; there is: {'.*'.join(sorted(built.manifests))}"
            ):
                await distribution.image(named, Platform.parse("linux/s390x"))
            for missing in ("some/app:none", "some/none:1", f"some/app@sha256:{'0' * 64}"):
                reference = Reference.parse(f"{registry.host}/{missing}")
                with pytest.raises(ImageNotFoundError, match=r"answers 404: (MANIFEST|NAME)_UNKNOWN: ") as caught:
                    await distribution.image(reference)
                assert (caught.value.status, caught.value.resource) == (404, str(reference))
                with pytest.raises(ImageNotFoundError, match="_UNKNOWN"):
                    await distribution.resolve(reference)
        if registry.tokens is not None:
            # One for each repository, and no more than pulling needs.
            assert registry.tokens.issued[-2:] == ["repository:some/app:pull", "repository:some/none:pull"]


@pytest.mark.require("registry")
@pytest.mark.parametrize("kind", ["htpasswd", "token"])
async def test_credentials_that_are_wrong_or_missing(kind: Any, built: BuiltImage) -> None:
    async with Registry(auth=kind, users={"me": "right-password"}) as registry:
        await push(built, registry.host, "some/app", "1", registry.credentials)
        reference = Reference.parse(registry.reference("some/app", "1"))
        for auth in (
            RegistryAuth(username="me", password=CANARY),
            RegistryAuth(username="you", password="right-password"),
            RegistryAuth(registry_token=CANARY),
            RegistryAuth(identity_token=CANARY),
            RegistryAuth(username="me", password="right-password", server="elsewhere.example"),
            None,
        ):
            async with Distribution(auth=auth, timeout=10) as distribution:
                for call in (distribution.resolve, distribution.image):
                    with pytest.raises(RegistryAuthError) as caught:
                        await call(reference)
                    shown = f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {vars(caught.value)}"
                    assert CANARY not in shown
                    assert "right-password" not in shown


@pytest.mark.require("registry")
async def test_the_users_configuration_is_asked_once_and_only_when_it_must(
    built: BuiltImage, fake: Any, client: Distribution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def find(registry: str) -> RegistryAuth | None:
        asked.append(registry)
        return RegistryAuth(username="me", password="right-password")

    monkeypatch.setattr("asyncctr.oci.registry_auth.find_credentials", find)
    fake.image(tag="1")
    await client.image(fake.reference())
    assert asked == []
    async with Registry(auth="token", users={"me": "right-password"}) as registry, Distribution() as distribution:
        await push(built, registry.host, "some/app", "1", registry.credentials)
        reference = Reference.parse(registry.reference("some/app", "1"))
        assert registry.tokens is not None
        registry.tokens.issued.clear()
        images = await asyncio.gather(*[distribution.image(reference) for _ in range(8)])
        assert len(set(images)) == 1
        assert asked == [registry.host]
        assert registry.tokens.issued == ["repository:some/app:pull"]


@pytest.mark.require("registry")
async def test_a_corrupted_manifest_or_blob(built: BuiltImage) -> None:
    async with Registry() as registry, Distribution(timeout=10, attempts=2) as distribution:
        await push(built, registry.host, "some/app", "1")
        reference = Reference.parse(registry.reference("some/app", "1"))
        image = await distribution.image(reference)
        layer = image.manifest.layers[-1]
        path = registry.blob_path(layer.digest)
        right = path.read_bytes()
        path.write_bytes(right[:-9] + b"?" + right[-8:])
        received = 0
        with pytest.raises(DigestMismatchError, match=f"{layer.digest} has another content"):
            async for chunk in distribution.blob(reference, layer):
                received += len(chunk)
        assert received == layer.size
        path.write_bytes(right[:-1])
        with pytest.raises(DigestMismatchError, match=f"has {layer.size - 1} bytes, not the {layer.size}"):
            await whole(distribution, reference, layer)
        path.unlink()
        with pytest.raises(ImagePullError, match="BLOB_UNKNOWN") as caught:
            await whole(distribution, reference, layer)
        assert type(caught.value) is ImagePullError
        path = registry.blob_path(image.manifest.config.digest)
        path.write_bytes(path.read_bytes()[:-1] + b" ")
        with pytest.raises(DigestMismatchError):
            await distribution.image(reference)


@pytest.mark.require("registry")
async def test_a_registry_that_cannot_be_reached(built: BuiltImage) -> None:
    async with Registry() as registry:
        await push(built, registry.host, "some/app", "1")
        async with FaultProxy(f"tcp://{registry.host}") as proxy, Distribution(timeout=2, attempts=2) as distribution:
            reference = Reference.parse(f"127.0.0.1:{proxy.port}/some/app:1")
            proxy.refuse()
            with pytest.raises(ImagePullError, match="cannot be reached: ") as caught:
                await distribution.image(reference)
            assert type(caught.value) is ImagePullError
            assert caught.value.__cause__ is not None
            await proxy.accept()
            assert (await distribution.image(reference)).descriptor.digest == built.digest
    async with BlackHole(listen="tcp") as hole, Distribution(timeout=0.3) as distribution:
        begun = time.monotonic()
        with pytest.raises(ImagePullError, match=r"was silent for 0\.3 s"):
            await distribution.resolve(Reference.parse(f"127.0.0.1:{hole.address.rpartition(':')[2]}/app:1"))
        assert time.monotonic() - begun < 5
    async with Distribution(attempts=1) as distribution:
        for host, message in (
            ("registry.invalid", "cannot be reached"),
            ("localhost:99999", "no host that can be asked"),
            (f"{'a' * 80}.example", "there can be no host"),
            ("xn--a.example", "no host that can be asked"),
        ):
            with pytest.raises(ImagePullError, match=message):
                await distribution.resolve(Reference.parse(f"{host}/app:1"))


async def test_cut_answers_are_asked_for_again(fake: Any, client: Distribution) -> None:
    fake.image(tag="1")
    cuts = 0

    async def cut(request: web.Request) -> web.StreamResponse | None:
        nonlocal cuts
        if (cuts := cuts + 1) % 3 == 0:
            return None
        assert request.transport is not None
        if cuts % 3 == 1:
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b"{")
        request.transport.abort()
        return web.Response()

    fake.first = cut
    assert (await client.image(fake.reference())).manifest
    fake.seen.clear()
    fake.first = lambda request: _answer(fake.trouble(503, "UNAVAILABLE", "come\nback"))
    with pytest.raises(ImagePullError, match="answers 503: UNAVAILABLE: come back") as caught:
        await client.image(fake.reference())
    assert len(fake.seen) == 3
    assert caught.value.status == 503


async def _answer(response: web.StreamResponse) -> web.StreamResponse:
    return response


async def test_a_registry_that_wants_to_be_left_alone(
    fake: Any, client: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.image(tag="1")
    waits = ["0", "4", "Thu, 01 Jan 1970 00:00:00 GMT", "nonsense"]
    waited: list[float] = []

    async def sleep(delay: float) -> None:
        waited.append(delay)

    async def busy(_: web.Request) -> web.StreamResponse | None:
        return fake.trouble(429, "TOOMANYREQUESTS", "slow down", Retry_After=waits.pop(0)) if waits else None

    monkeypatch.setattr("asyncctr.oci.registry_failures.anyio", SimpleNamespace(sleep=sleep))
    fake.first = busy
    async with Distribution(plain_http=[fake.host], timeout=5, attempts=5) as patient:
        await patient.resolve(fake.reference())
    assert waited[:3] == [0, 4, 0]
    assert 0.1 < waited[3] <= 0.8
    # Together no longer than silence may last.
    for waits[:], shown in (["3600"], 3600), (["3", "3"], 3):
        waited.clear()
        with pytest.raises(ImagePullError, match=f"TOOMANYREQUESTS: slow down; it asks to wait {shown} s"):
            await client.image(fake.reference())
        assert sum(waited) <= 5


async def test_a_digest_that_only_the_content_tells(fake: Any, client: Distribution) -> None:
    top = fake.image(tag="1")
    media_type, data = fake.manifests["1"]

    async def plain(request: web.Request) -> web.StreamResponse | None:
        if "/manifests/" not in request.path:
            return None
        # A web server that knows files alone.
        return web.Response(body=data, headers={"Content-Type": "application/json"})

    fake.first = plain
    descriptor = await client.resolve(fake.reference())
    assert (descriptor.digest, descriptor.media_type, descriptor.size) == (top["digest"], media_type, len(data))
    assert [entry.partition(" ")[0] for entry in fake.seen] == ["HEAD", "GET"]
    assert (await client.image(fake.reference())).descriptor == descriptor
    digest = f"sha512:{hashlib.sha512(data).hexdigest()}"
    assert (await client.resolve(fake.reference(f"app@{digest}"))).digest == digest
    with pytest.raises(DigestMismatchError):
        await client.resolve(fake.reference(f"app@sha256:{'0' * 64}"))


@pytest.mark.parametrize("digest", [f"sha256:{'0' * 64}", f"sha512:{'0' * 128}"])
async def test_a_digest_that_is_not_the_contents(fake: Any, client: Distribution, digest: str) -> None:
    fake.image(tag="1")
    media_type, data = fake.manifests["1"]
    fake.first = lambda request: _answer(
        web.Response(body=data, headers={"Content-Type": media_type, "Docker-Content-Digest": digest})
    )
    with pytest.raises(DigestMismatchError, match=f"in place of {digest}"):
        await client.image(fake.reference())
    with pytest.raises(DigestMismatchError):
        await client.resolve(fake.reference(f"app@sha256:{'1' * 64}"))


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"<html>", "text/html", "is no JSON"),
        (b"[]", "", "is no JSON object"),
        (b"{}", "application/json", "is no image but 'None'"),
        (b"[" * 100_000, "", "is no JSON"),
        (b" " * ((4 << 20) + 1), "", "sends more than 4194304 bytes"),
        (b'{"schemaVersion":1}', "application/json", "schema 1, which is no longer read"),
        (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}', "", "has no list 'manifests'"),
        (b'{"schemaVersion":2,"mediaType":"x/y"}', "", "no image but 'x/y'"),
        (b'{"schemaVersion":2,"mediaType":"x/y"}', "application/vnd.oci.image.index.v1+json", "calls itself 'x/y'"),
        (b'{"schemaVersion":2,"mediaType":7,"manifests":1}', "", "is no image but '7'"),
        (b'{"schemaVersion":2,"manifests":[],"layers":[]}', "", "an index and an image at once"),
        (b'{"schemaVersion":2,"manifests":[]}', "", "is no image but another artifact"),
        (b'{"schemaVersion":2,"config":1,"layers":[]}', "", "the config in sha256"),
    ],
)
async def test_documents_that_are_no_images(
    fake: Any, client: Distribution, body: bytes, content_type: str, message: str
) -> None:
    headers = {"Content-Type": content_type or "application/octet-stream"}
    fake.first = lambda request: _answer(web.Response(body=body, headers=headers))
    with pytest.raises(ImagePullError, match=message) as caught:
        await client.image(fake.reference())
    assert type(caught.value) is ImagePullError


async def test_an_artifact_is_of_the_type_that_is_wanted(fake: Any, client: Distribution) -> None:
    config = fake.blob("application/x-config", b"config")
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": []}
    fake.put(MANIFEST_TYPE, {**manifest, "artifactType": "application/x-kind"}, tag="typed")
    fake.put(MANIFEST_TYPE, manifest, tag="by-config")
    fake.index(fake.image(), tag="index")
    found = await client.artifact(fake.reference("app:typed"), "application/x-kind")
    assert (found.config, found.manifest.config.digest) == (b"config", config["digest"])
    assert (await client.artifact(fake.reference("app:by-config"), "application/x-config")).config == b"config"
    for tag, kind, said in (
        ("typed", "application/x-config", "is 'application/x-kind'"),
        ("index", "application/x-kind", "is an index"),
    ):
        with pytest.raises(ImagePullError, match=said):
            await client.artifact(fake.reference(f"app:{tag}"), kind)
    fake.blobs[config["digest"]] = b"another"
    with pytest.raises(DigestMismatchError):
        await client.artifact(fake.reference("app:typed"), "application/x-kind")


async def test_descriptors_that_lie(fake: Any, client: Distribution) -> None:
    here = fake.image()
    for change, error in (
        ({"size": here["size"] + 1}, DigestMismatchError),
        ({"size": 5 << 20}, ImagePullError),
        ({"digest": f"sha256:{'0' * 64}"}, ImagePullError),
    ):
        fake.index({**here, **change}, tag="1")
        with pytest.raises(error) as caught:
            await client.image(fake.reference())
        assert type(caught.value) is error
    fake.index(fake.index(fake.image(OTHER), here), fake.image(told=False, layer=b"second"), tag="1")
    assert (await client.image(fake.reference())).manifest.descriptor.digest == here["digest"]


async def test_headers_without_end(fake: Any, client: Distribution) -> None:
    fake.first = lambda request: _answer(web.Response(headers={"X-Long": "x" * 100_000}))
    with pytest.raises(ImagePullError, match="no HTTP") as caught:
        await client.image(fake.reference())
    assert "x" * 1_000 not in f"{caught.value} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"errors":[{"code":"DENIED","message":"no"}]}', "DENIED: no"),
        (b'{"errors":[{"code":"' + b"X" * 3_000 + b'"}]}', "X" * 500),
        (b'{"errors":[7]}', "Forbidden"),
        (b'{"errors":[],"message":"hello"}', "hello"),
        (b"<html>Authorization: Basic canary</html>", "Forbidden"),
        (b"[" * 70_000, "Forbidden"),
        (b"", "Forbidden"),
    ],
)
async def test_what_a_refusal_says(fake: Any, client: Distribution, body: bytes, shown: str) -> None:
    fake.first = lambda request: _answer(web.Response(status=403, body=body))
    with pytest.raises(RegistryAuthError) as caught:
        await client.image(fake.reference())
    assert caught.value.message.startswith(f"{fake.reference()}: 127.0.0.1 answers 403: {shown}; without credentials: ")


async def test_mirrors_go_first_and_give_way(fake: Any, other: Any) -> None:
    top = fake.image(tag="1")
    layer = fake.layer(b"layer")
    reference = fake.reference()
    mirrors = {fake.host: ["http://127.0.0.1:9", other.url + "/proxied/"]}
    auth = RegistryAuth(username="me", password=CANARY)
    async with Distribution(auth=auth, mirrors=mirrors, plain_http=[fake.host], timeout=5) as distribution:
        # The second has nothing yet.
        assert (await distribution.resolve(reference)).digest == top["digest"]
        assert await whole(distribution, reference, layer) == b"layer"
        assert other.seen[0] == "HEAD /proxied/v2/app/manifests/1"
        assert any(entry.startswith("GET /proxied/v2/app/blobs/") for entry in other.seen)

        async def under(request: web.Request) -> web.StreamResponse | None:
            path = request.path.removeprefix("/proxied")
            return await other.answer(request.clone(rel_url=path)) if path != request.path else None

        other.first, other.manifests, other.blobs = under, fake.manifests, fake.blobs
        fake.seen.clear()
        assert (await distribution.image(reference)).descriptor.digest == top["digest"]
        assert await whole(distribution, reference, layer) == b"layer"
        assert fake.seen == []
        # A mirror is not shown the registry's credentials.
        other.first = lambda request: _answer(web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
        assert await whole(distribution, reference, layer) == b"layer"
        assert all("Authorization" not in headers for headers in other.headers)
    for wrong in ("mirror.example", "ftp://mirror.example", "https://user:secret@mirror.example", "https://x/?y=z", ""):
        with pytest.raises(InvalidConfigError) as caught:
            Distribution(mirrors={"docker.io": [wrong]})
        assert "secret" not in str(caught.value)


async def test_docker_hub_by_a_mirror(fake: Any) -> None:
    reference = Reference.parse("alpine")
    assert (reference.registry, reference.repository) == ("docker.io", "library/alpine")
    async with Distribution(mirrors={"docker.io": [fake.url]}, timeout=5) as distribution:
        top = fake.image(tag="latest")

        async def renamed(request: web.Request) -> web.StreamResponse | None:
            path = request.path.replace("/library/alpine/", "/app/")
            return await fake.answer(request.clone(rel_url=path)) if path != request.path else None

        fake.first = renamed
        assert (await distribution.image(reference)).descriptor.digest == top["digest"]


async def test_loopback_speaks_tls_where_it_can(fake: Any, tmp_path: Path) -> None:
    files = await make_authority(tmp_path / "tls")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(files.server_cert, files.server_key)
    top = fake.image(tag="1")
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server).start()
        reference = Reference.parse(f"localhost:{runner.addresses[0][1]}/app:1")
        async with Distribution(tls=ssl.create_default_context(cafile=str(files.ca))) as distribution:
            assert (await distribution.image(reference)).descriptor.digest == top["digest"]

            async def downgrade(request: web.Request) -> web.StreamResponse | None:
                return (
                    web.Response(status=307, headers={"Location": f"{fake.url}{request.path}"})
                    if request.secure
                    else None
                )

            fake.first = downgrade
            with pytest.raises(ImagePullError, match="from https to plain http"):
                await distribution.image(reference)
        async with Distribution() as distribution:
            with pytest.raises(ImagePullError, match=r"certificate of localhost is not trusted: .*SSL_CERT_FILE"):
                await distribution.image(reference)
    finally:
        await runner.cleanup()


async def test_the_environments_proxy(fake: Any, other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    top = fake.image(tag="1")
    for name in ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", fake.host)
    reference = Reference.parse("registry.invalid/app:1")
    async with Distribution(plain_http=["registry.invalid", other.host], attempts=1) as distribution:
        assert (await distribution.resolve(reference)).digest == top["digest"]
        assert fake.headers[-1]["Host"] == "registry.invalid"
        # What is on this machine is not asked for by way of another.
        with pytest.raises(ImageNotFoundError):
            await distribution.resolve(other.reference())
        monkeypatch.setenv("no_proxy", "registry.invalid")
        with pytest.raises(ImagePullError, match="cannot be reached"):
            await distribution.resolve(reference)
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
        with pytest.raises(ImagePullError, match="no http or https address"):
            await distribution.resolve(reference)


async def test_arguments_that_are_wrong_and_use_after_close(fake: Any) -> None:
    for wrong in ({"timeout": 0}, {"attempts": 0}, {"plain_http": "registry.example"}):
        with pytest.raises(InvalidConfigError) as caught:
            Distribution(**wrong)  # type: ignore[arg-type]
        assert caught.value.field == next(iter(wrong))
    descriptor = fake.layer(b"layer")
    distribution = Distribution(plain_http=[fake.host])
    for offset in (-1, 6):
        with pytest.raises(InvalidConfigError, match="offset"):
            distribution.blob(fake.reference(), descriptor, offset=offset)
    stream = distribution.blob(fake.reference(), descriptor)
    await distribution.aclose()
    await distribution.aclose()
    with pytest.raises(ClosedError):
        await distribution.resolve(fake.reference())
    with pytest.raises(ClosedError):
        await anext(stream)


async def test_nothing_is_left_whatever_happens(fake: Any) -> None:
    fake.image(tag="1")
    layer = fake.layer(os.urandom(8 << 20))
    held = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse | None:
        if request.path.endswith("/hang"):
            held.set()
            await asyncio.Event().wait()
        return None

    fake.first = hang

    async def everything() -> None:
        async with Distribution(timeout=30) as distribution:
            await distribution.image(fake.reference())
            await whole(distribution, fake.reference(), layer)
            with pytest.raises(ImageNotFoundError):
                await distribution.image(fake.reference("app:none"))
            async for _ in distribution.blob(fake.reference(), layer):
                break
            async with distribution.blob(fake.reference(), layer) as stream:
                await anext(stream)
            await distribution.image(fake.reference("app:hang"))

    async def cancelled() -> None:
        held.clear()
        task = asyncio.create_task(everything())
        await held.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    tasks, descriptors = asyncio.all_tasks(), len(os.listdir("/proc/self/fd"))
    await cancelled()
    async with asyncio.timeout(5):
        while asyncio.all_tasks() != tasks or len(os.listdir("/proc/self/fd")) != descriptors:
            await asyncio.sleep(0.01)


async def test_errors_are_of_the_tree_whatever_is_answered(fake: Any) -> None:
    fake.image(tag="1")
    media_type, data = fake.manifests["1"]
    async with Distribution(plain_http=[fake.host], timeout=2, attempts=1) as distribution:
        for seed in range(60):
            noise = hashlib.shake_128(seed.to_bytes()).digest(64)
            broken = bytearray(data)
            broken[noise[0] * len(data) // 256] = noise[1]
            fake.first = lambda request, broken=bytes(broken), noise=noise: _answer(
                web.Response(
                    body=broken,
                    status=(200, 206, 302, 401, 404, 500)[noise[2] % 6],
                    headers={
                        "Content-Type": media_type,
                        "Location": noise.hex(),
                        "WWW-Authenticate": json.dumps(noise.decode("latin-1")),
                    },
                )
            )
            for call in (distribution.image, distribution.resolve):
                try:
                    await call(fake.reference())
                except AsyncctrError as error:
                    assert str(fake.reference()) in error.message
