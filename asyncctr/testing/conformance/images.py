"""Cases 8 and 9: pulling, and the image store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncctr.core.backend import SupportsImages
from asyncctr.core.config import ContainerConfig
from asyncctr.core.errors import (
    ConflictError,
    DigestMismatchError,
    ImageNotFoundError,
    ImagePullError,
    InvalidConfigError,
    RegistryAuthError,
)
from asyncctr.core.images import RegistryAuth
from asyncctr.testing.conformance import builds  # noqa: F401  # registers case 10
from asyncctr.testing.conformance.checks import equal, loaded_image, raises, refusal, scratch, supported, unique
from asyncctr.testing.conformance.store import (
    BOUND,
    NO_NETWORK,
    OTHER_PLATFORM,
    StopError,
    gone_after,
    printed,
    without_oci,
)
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.images import HOST_PLATFORM, ImageSpec, build_archive, build_image, push
from asyncctr.testing.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from asyncctr.core.backend import Image
    from asyncctr.core.images import Progress
    from asyncctr.testing.conformance.suite import Context
    from asyncctr.testing.images import BuiltImage

__all__: list[str] = []

_PADDING = 6 << 20


async def _pushed(
    context: Context, kind: str, *, compression: str = "gzip", **fields: object
) -> tuple[BuiltImage, str, str]:
    """A new image in one of the target's registries: what was pushed, its repository there, and its name."""
    registry = context.target.registries[kind]
    repository = f"conformance/{unique('image')}"
    # A file of its own makes layers that no other image has: what is here already is not pulled.
    marker = {"/marker": repository.encode(), "/entry": b"#!/bin/sh\ncat /marker\n"}
    spec = ImageSpec(files=marker, compression=compression, **fields)  # type: ignore[arg-type]
    built = await asyncio.to_thread(build_image, spec)
    await push(built, registry.host, repository, "1", registry.credentials)
    return built, repository, registry.reference(repository, "1")


# -- 8


@case(8, "pull by tag and digest")
async def pull_by_name(context: Context) -> None:
    """An image comes by its tag and by its digest, runs, and has the digest that the registry gave."""
    if await without_oci(context):
        return
    built, repository, name = await _pushed(context, "plain")
    registry = context.target.registries["plain"]
    by_digest = f"{registry.host}/{repository}@{built.digest}"
    image, pinned = context.client.image(name), context.client.image(by_digest)
    async with asyncio.timeout(2 * BOUND), gone_after(image, pinned):
        equal((await image.exists(), await pinned.exists()), (False, False), "whether they are here before")
        await image.pull()
        equal((await image.exists(), await image.digest()), (True, built.digest), "existence and digest")
        equal(await printed(context, name, "cat", "/marker"), repository, "what is in it")
        await image.remove()
        await pinned.pull()
        equal((await pinned.exists(), await pinned.digest()), (True, built.digest), "existence and digest, by digest")
        equal(await printed(context, by_digest, "cat", "/marker"), repository, "what is in it, by digest")
    async with asyncio.timeout(BOUND), gone_after(image):
        # A run pulls what is missing, unless told not to.
        with raises(ImageNotFoundError, "a run of a missing image that may not be pulled"):
            await context.client.run(name, ["true"], pull="never", network=NO_NETWORK)
        result = await context.client.run(name, ["cat", "/marker"], network=NO_NETWORK)
        equal(result.stdout.decode(), repository, "what a run of a missing image prints")


@case(8, "pull progress")
async def pull_progress(context: Context) -> None:
    """What is counted grows to its total, and an exception of the callback aborts the pull."""
    if await without_oci(context):
        return
    registry = context.target.registries["plain"]
    _, repository, _ = await _pushed(context, "plain", padding=_PADDING)
    seen: dict[tuple[str, str], list[tuple[int, int]]] = {}
    anything: list[Progress] = []

    def note(progress: Progress) -> None:
        anything.append(progress)
        if progress.total is not None and progress.current is not None:
            seen.setdefault((progress.action, progress.id), []).append((progress.current, progress.total))

    def stop(_: Progress) -> None:
        raise StopError

    async with FaultProxy(f"tcp://{registry.host}") as proxy:
        image = context.client.image(f"127.0.0.1:{proxy.port}/{repository}:1")
        async with asyncio.timeout(BOUND), gone_after(image):
            with raises(StopError, "a pull whose callback raises"):
                await image.pull(on_progress=stop)
            # Slow enough that there is something to tell: some runtimes do so once a second.
            proxy.corrupt(_slowly(proxy))
            await image.pull(on_progress=note)
    equal(len(anything) > 2, wanted=True, what=f"that there was progress: {anything}")
    for key, counted in seen.items():
        currents = [current for current, _ in counted]
        equal(currents, sorted(currents), f"the progress of {key} in order")
        equal(len({total for _, total in counted}), 1, f"the number of totals of {key}")
    whole = [key for key, counted in seen.items() if counted[-1][0] == counted[-1][1]]
    equal(len(whole) > 0, wanted=True, what=f"that something grew to its total in {seen}")


def _slowly(proxy: FaultProxy) -> Callable[[bytes], bytes]:
    """A pause of 0.3 s after each MiB."""
    loop = asyncio.get_running_loop()
    moved = 0

    def pause(chunk: bytes) -> bytes:
        nonlocal moved
        moved += len(chunk)
        if moved > 1 << 20:
            moved = 0
            proxy.stall("down")
            loop.call_later(0.3, proxy.resume)
        return chunk

    return pause


@case(8, "pull of one platform")
async def pull_platform(context: Context) -> None:
    """Of an index with several platforms this machine's is taken, or the one asked for."""
    if await without_oci(context):
        return
    built, _, name = await _pushed(context, "plain", platforms=(OTHER_PLATFORM, HOST_PLATFORM))
    image = context.client.image(name)
    async with asyncio.timeout(2 * BOUND), gone_after(image):
        await image.pull()
        equal(
            await image.digest() in (built.digest, built.manifests[HOST_PLATFORM]),
            wanted=True,
            what="that the digest is the index's or the platform's",
        )
        equal((await printed(context, name, "cat", "/etc/image-platform")).strip(), HOST_PLATFORM, "the platform")
        await image.remove()
        await image.pull(platform=OTHER_PLATFORM)
        config = ContainerConfig(
            name, command=["cat", "/etc/image-platform"], platform=OTHER_PLATFORM, network=NO_NETWORK
        )
        if supported(context, "platform"):
            # busybox in the image is this machine's, so it runs.
            result = await context.client.run(config, pull="never")
            equal(result.stdout.decode().strip(), OTHER_PLATFORM, "the platform asked for")
        else:
            await refusal(context, lambda: context.client.run(config, pull="never"), "platform")


@case(8, "pull with credentials")
async def pull_with_credentials(context: Context) -> None:
    """Basic and token authentication; a wrong password and none at all are refused by their own error."""
    if await without_oci(context):
        return
    for kind in ("htpasswd", "token"):
        _, repository, name = await _pushed(context, kind)
        credentials = context.target.registries[kind].credentials
        assert credentials is not None, "the target's registry wants no credentials"  # noqa: S101 - for the type
        user, password = credentials
        image = context.client.image(name)
        async with asyncio.timeout(2 * BOUND), gone_after(image):
            canary = "canary-wrong-password"
            for wrong in (
                RegistryAuth(username=user, password=canary),
                RegistryAuth(username="nobody", password=password),
                None,
            ):
                with raises(RegistryAuthError, f"a pull from the {kind} registry with {wrong}") as caught:
                    await image.pull(auth=wrong)
                for secret in (canary, password):
                    equal(
                        secret in f"{caught.error!r} {caught.error}",
                        wanted=False,
                        what="that the error shows a password",
                    )
                equal(await image.exists(), wanted=False, what="that it is here all the same")
            await image.pull(auth=RegistryAuth(username=user, password=password))
            equal(await printed(context, name, "cat", "/marker"), repository, "what is in it")


@case(8, "pull failures")
async def pull_failures(context: Context) -> None:
    """An unknown tag, a corrupted blob and a registry that goes away are each an error of their own."""
    if await without_oci(context):
        return
    registry = context.target.registries["plain"]
    _, repository, _ = await _pushed(context, "plain")
    async with asyncio.timeout(BOUND):
        for missing in (registry.reference(repository, "none"), registry.reference("conformance/none", "1")):
            with raises(ImageNotFoundError, f"a pull of {missing}"):
                await context.client.image(missing).pull()

    # Uncompressed, so that the spoilt layer still unpacks, and only its digest tells.
    built, _, name = await _pushed(context, "plain", compression="none", padding=1 << 20)
    blob = registry.blob_path(built.layers[-1])
    data = bytearray(blob.read_bytes())
    data[-(1 << 19)] ^= 0xFF
    blob.write_bytes(data)
    image = context.client.image(name)
    async with asyncio.timeout(BOUND), gone_after(image):
        with raises(DigestMismatchError, "a pull of a corrupted blob"):
            await image.pull()
        equal(await image.exists(), wanted=False, what="that a corrupted image is here")

    built, repository, _ = await _pushed(context, "plain", padding=_PADDING)
    async with FaultProxy(f"tcp://{registry.host}") as proxy:
        image = context.client.image(f"127.0.0.1:{proxy.port}/{repository}:1")
        moved = 0

        def cut(chunk: bytes) -> bytes:
            nonlocal moved
            moved += len(chunk)
            if moved > _PADDING // 2:
                # Refused as well, for runtimes that try again.
                proxy.refuse()
                proxy.cut()
            return chunk

        proxy.corrupt(cut)
        async with asyncio.timeout(BOUND), gone_after(image):
            with raises(ImagePullError, "a pull from a registry that goes away") as caught:
                await image.pull()
            equal(type(caught.error), ImagePullError, f"the type of {caught.error}")
            equal(await image.exists(), wanted=False, what="that half an image is here")
            # And when it is back, the same pull works.
            proxy.corrupt(None)
            await proxy.accept()
            await image.pull()
            equal(await image.digest(), built.digest, "the digest")
            # Not even the image's name is asked for when nothing listens.
            proxy.refuse()
            proxy.cut()
            with raises(ImagePullError, "a pull from where nothing listens"):
                await image.pull()


@case(8, "second pull moves nothing")
async def second_pull(context: Context) -> None:
    """What is here already is not fetched again."""
    if await without_oci(context):
        return
    registry = context.target.registries["plain"]
    _, repository, _ = await _pushed(context, "plain", padding=_PADDING)
    async with FaultProxy(f"tcp://{registry.host}") as proxy:
        image = context.client.image(f"127.0.0.1:{proxy.port}/{repository}:1")
        async with asyncio.timeout(BOUND), gone_after(image):
            await image.pull()
            first = proxy.passed["down"]
            equal(
                first > _PADDING, wanted=True, what=f"that the first pull's {first} bytes hold the padding's {_PADDING}"
            )
            await image.pull()
            again = proxy.passed["down"] - first
            # Manifests and headers alone; the smallest layer with content is of some hundred KiB.
            equal(again < 65_536, wanted=True, what=f"that the second pull's {again} bytes are few")


# -- 9


async def _agree(context: Context, image: Image) -> tuple[str, tuple[str, ...]] | None:
    """What the backend and the runtime's own tools both say of an image: digest and names; ``None`` when it is not here."""
    facts = await context.target.image_facts(image.name)
    equal(await image.exists(), facts is not None, f"whether {image.name} is here")
    if facts is None:
        with raises(ImageNotFoundError, "the digest of a missing image"):
            await image.digest()
        with raises(ImageNotFoundError, "the names of a missing image"):
            await image.tags()
        return None
    equal((await image.digest(), tuple(await image.tags())), facts, "digest and names")
    return facts


@case(9, "load and remove")
async def load_and_remove(context: Context) -> None:
    """An archive's image gets the name that was asked for, by path and as a stream; what tells of it agrees with the runtime."""
    if await without_oci(context):
        return
    async with scratch() as directory, asyncio.timeout(3 * BOUND):
        spec = ImageSpec(reference=f"asyncctr.test/{unique('archived')}:1", files={"/marker": b"loaded"})
        archive = directory / "image.tar"
        await asyncio.to_thread(build_archive, spec, archive)

        async def blocks() -> AsyncIterator[bytes]:
            data = await asyncio.to_thread(archive.read_bytes)
            for start in range(0, len(data), 100_000):
                yield data[start : start + 100_000]

        images = [context.client.image(f"asyncctr.test/{unique('loaded')}:{tag}") for tag in ("path", "stream")]
        async with gone_after(*images, context.client.image(spec.reference)):
            sources: tuple[Path | AsyncIterator[bytes], ...] = (archive, blocks())
            for image, source in zip(images, sources, strict=True):
                equal(await _agree(context, image), None, "what is known before")
                await image.load(source)
                facts = await _agree(context, image)
                equal(
                    facts is not None and image.name in facts[1],
                    wanted=True,
                    what=f"that {image.name} is among {facts}",
                )
                equal(await printed(context, image.name, "cat", "/marker"), "loaded", "what is in it")
            # Both names are one image's; taking one away leaves the other.
            await images[0].remove()
            equal(await _agree(context, images[0]), None, "what is known of a removed name")
            equal(await printed(context, images[1].name, "cat", "/marker"), "loaded", "what is in the other")
            with raises(ImageNotFoundError, "removing a removed image"):
                await images[0].remove()
        broken = context.client.image("asyncctr.test/broken:1")
        (directory / "broken.tar").write_bytes(b"no archive at all" * 1000)
        with raises(InvalidConfigError, "loading what is no archive"):
            await broken.load(directory / "broken.tar")
        equal(await broken.exists(), wanted=False, what="that an image came of it")


@case(9, "names and use")
async def names_and_use(context: Context) -> None:
    """An image in use is not removed without force; a further name is the same image."""
    if await without_oci(context):
        return
    async with loaded_image(context, files={"/marker": b"used"}) as built, asyncio.timeout(2 * BOUND):
        image = context.client.image(built.reference)
        backend = context.client.backend
        if isinstance(backend, SupportsImages):
            further = context.client.image(f"asyncctr.test/{unique('further')}:2")
            async with gone_after(further):
                await backend.tag(image.name, further.name)
                facts = await _agree(context, further)
                equal(
                    facts is not None and {image.name, further.name} <= set(facts[1]),
                    wanted=True,
                    what=f"that both names are in {facts}",
                )
                (summary,) = [entry for entry in await backend.images() if further.name in entry.tags]
                equal(image.name in summary.tags, wanted=True, what=f"that both names are in {summary}")
                with raises(ImageNotFoundError, "naming a missing image"):
                    await backend.tag("asyncctr.test/none:1", "asyncctr.test/more:1")
        config = ContainerConfig(image.name, command=["sleep", "300"], network=NO_NETWORK)
        async with context.client.container(config) as container:
            await container.start()
            with raises(ConflictError, "removing an image that a running container uses"):
                await image.remove()
            equal(await image.exists(), wanted=True, what="that it is still here")
        await image.remove()
        equal(await _agree(context, image), None, "what is known of it afterwards")
        with raises(ImageNotFoundError, "creating from a removed image"):
            await context.client.create(config, pull="never")
