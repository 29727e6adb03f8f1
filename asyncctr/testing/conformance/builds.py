"""Case 10: building from a Dockerfile."""

from __future__ import annotations

import asyncio
import io
import socket
import tarfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from asyncctr.core.backend_config import BackendType
from asyncctr.core.build import DockerfileBuildInput, FirecrackerBuildInput
from asyncctr.core.config import ContainerConfig
from asyncctr.core.errors import AsyncctrError, BuildError, BuildNotSupportedError, InvalidConfigError, UnsupportedError
from asyncctr.testing.conformance.checks import equal, raises, refusal, scratch, supported, unique
from asyncctr.testing.conformance.store import BOUND, NO_NETWORK, OTHER_PLATFORM, StopError, gone_after, printed
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.images import HOST_PLATFORM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path
    from typing import Any

    from asyncctr.core.backend import Image
    from asyncctr.core.build import BuildEvent
    from asyncctr.testing.conformance.suite import Context

__all__: list[str] = []

_DOCKERFILE = """\
# syntax comments are comments to some builders
ARG BASE
FROM $BASE AS first
ARG WHO=nobody
LABEL org.example.stage=first
RUN echo "who=$WHO" > /who && echo building && echo to-stderr >&2
COPY . /context/

FROM first AS second
COPY --from=first /who /copied
ENV STAGE=second
CMD ["cat", "/who", "/copied"]
"""


def _write(directory: Path, files: Mapping[str, str | bytes]) -> None:
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


@asynccontextmanager
async def _building(context: Context, files: Mapping[str, str | bytes]) -> AsyncIterator[tuple[Image, Path]]:
    """An image to build, and a directory with these files; both are gone afterwards."""
    async with scratch() as directory:
        await asyncio.to_thread(_write, directory, files)
        image = context.client.image(f"asyncctr.test/{unique('built')}:1")
        async with gone_after(image):
            yield image, directory


async def _without_build(context: Context) -> bool:
    """Whether the backend cannot build from a Dockerfile; then that it says so."""
    if context.client.capabilities.supports_build and supported(context, "build.context"):
        return False
    with raises(BuildNotSupportedError, "building without supports_build"):
        await context.client.image("asyncctr.test/none:1").build(DockerfileBuildInput(context="/nowhere"))
    return True


def _base(context: Context, **more: str) -> dict[str, str]:
    return {"BASE": context.image, **more}


@case(10, "build and cache")
async def build_and_cache(context: Context) -> None:
    """A Dockerfile becomes an image with its name; built again it comes from the cache; arguments, labels and target count."""
    if await _without_build(context):
        return
    async with (
        _building(context, {"Dockerfile": _DOCKERFILE, "file": "data"}) as (image, directory),
        asyncio.timeout(4 * BOUND),
    ):
        events: list[BuildEvent] = []
        given = DockerfileBuildInput(
            context=directory, build_args=_base(context, WHO="me"), labels={"org.example.mine": "yes"}
        )
        first = await image.build(given, on_event=events.append)
        equal(await image.exists(), wanted=True, what="that it is here")
        equal((first.tags, first.digest.startswith("sha256:")), ((image.name,), True), f"names and digest of {first}")
        equal(first.cached_steps, 0, "the cached steps of a first build")
        kinds = {event.kind for event in events}
        equal({"vertex", "log"} <= kinds, wanted=True, what=f"that there are steps and output among {kinds}")
        text = "".join(event.message for event in events if event.kind == "log")
        equal("building\n" in text and "to-stderr\n" in text, wanted=True, what=f"that {text!r} is the output")
        equal(await printed(context, image.name), "who=me\nwho=me\n", "what the image's command prints")
        async with context.client.container(ContainerConfig(image.name, network=NO_NETWORK)) as container:
            labels = (await container.inspect()).labels
            wanted = {"org.example.mine": "yes", "org.example.stage": "first"}
            equal({key: labels.get(key) for key in wanted}, wanted, "the labels")

        events.clear()
        second = await image.build(given, on_event=events.append)
        equal(second.digest, first.digest, "the digest of the second build")
        equal(second.cached_steps > 2, wanted=True, what=f"that {second.cached_steps} steps come from the cache")
        cached = [event for event in events if event.kind == "vertex" and event.cached]
        equal(len(cached), second.cached_steps, "the events of cached steps")
        fresh = await image.build(attrs.evolve(given, no_cache=True), on_event=events.append)
        equal(fresh.cached_steps, 0, "the cached steps without a cache")

        other = await image.build(attrs.evolve(given, target="first", build_args=_base(context)))
        equal(other.digest == first.digest, wanted=False, what="that another target is the same image")
        equal(await printed(context, image.name, "cat", "/who"), "who=nobody\n", "what the first stage has")
        equal(
            await printed(context, image.name, "sh", "-c", "ls /copied 2>/dev/null; echo $STAGE"),
            "\n",
            "what the second stage added",
        )
        unused = await image.build(attrs.evolve(given, build_args=_base(context, UNUSED="x")))
        equal(
            "UNUSED" in " ".join(unused.warnings),
            wanted=True,
            what=f"that {unused.warnings} tell of an unused argument",
        )


_CONTEXT: dict[str, str | bytes] = {
    "Dockerfile": "ARG BASE\nFROM $BASE\nCOPY . /context/\n",
    ".dockerignore": "# left out\n*.tmp\n/build\n**/cache\ndocs/*\n!docs/keep.md\nDockerfile\n.dockerignore\nwild[0-9]?\n",
    "plain": "1",
    "a.tmp": "x",
    "sub/a.tmp": "kept: the pattern is of the top",
    "sub/deep/cache/x": "x",
    "build/out": "x",
    "docs/drop.md": "x",
    "docs/keep.md": "kept",
    "wild7x": "x",
    "wildx": "kept",
    "with space é": "kept",
    "empty": "",
    "big": b"0123456789" * 100_000,
}
_KEPT = ["big", "docs/keep.md", "empty", "plain", "sub/a.tmp", "wildx", "with space é"]
_FIND = ("sh", "-c", "cd /context && find . ! -type d | sed 's|^./||' | sort")


@case(10, "build context")
async def build_context(context: Context) -> None:
    """What ``.dockerignore`` names is not in the image; a context is a directory, a tar file, bytes or a stream."""
    if await _without_build(context):
        return
    async with _building(context, _CONTEXT) as (image, directory), asyncio.timeout(4 * BOUND), scratch() as aside:
        (directory / "link").symlink_to("plain")
        (directory / "program").write_bytes(b"#!/bin/sh\necho ran\n")
        (directory / "program").chmod(0o750)
        given = DockerfileBuildInput(context=str(directory), build_args=_base(context))
        await image.build(given)
        kept = sorted([*_KEPT, "link", "program"])
        equal((await printed(context, image.name, *_FIND)).splitlines(), kept, "the files in the image")
        modes = "cd /context && stat -c %a:%u program && readlink link && ./program && cat wildx && wc -c < big"
        equal(
            await printed(context, image.name, "sh", "-c", modes),
            "750:0\nplain\nran\nkept1000000\n",
            "modes and contents",
        )

        # A Dockerfile from elsewhere, which is not itself in the context.
        elsewhere = aside / "Elsewhere"
        elsewhere.write_text("ARG BASE\nFROM $BASE\nCOPY . /context/\nRUN echo other > /other\n")
        await image.build(attrs.evolve(given, dockerfile=str(elsewhere)))
        equal(
            (await printed(context, image.name, *_FIND)).splitlines(),
            kept,
            "the files, with a Dockerfile from elsewhere",
        )
        equal(await printed(context, image.name, "cat", "/other"), "other\n", "what that Dockerfile made")

        packed = aside / "context.tar.gz"
        await asyncio.to_thread(
            _pack, packed, {"sub/Mine": _CONTEXT["Dockerfile"], "inside": b"tarred", "Dockerfile": b"FROM none"}
        )
        data = packed.read_bytes()

        async def stream() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 50):
                yield data[start : start + 50]

        for source in (packed, data, stream()):
            await image.build(attrs.evolve(given, context=source, dockerfile="sub/Mine", no_cache=True))
            equal(
                await printed(context, image.name, "cat", "/context/inside"),
                "tarred",
                f"what is in it, by {type(source)}",
            )
        await image.build(attrs.evolve(given, context=packed, dockerfile=str(elsewhere), no_cache=True))
        equal(
            (await printed(context, image.name, *_FIND)).splitlines(),
            ["Dockerfile", "inside", "sub/Mine"],
            "the files of the tar",
        )

        for wrong in ({"context": directory / "none"}, {"dockerfile": "none"}, {"dockerfile": "../Elsewhere"}):
            with raises(InvalidConfigError, f"a build with {wrong}") as caught:
                await image.build(attrs.evolve(given, **wrong))
            equal(caught.error.field, next(iter(wrong)), "the error's field")

        async def failing() -> AsyncIterator[bytes]:
            yield data[:60]
            raise StopError

        with raises(StopError, "a build whose context raises"):
            await image.build(attrs.evolve(given, context=failing()))


def _pack(path: Path, files: Mapping[str, str | bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            content = data if isinstance(data, bytes) else data.encode()
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@case(10, "build failures")
async def build_failures(context: Context) -> None:
    """A failing step raises with its instruction, its place, its output and its code; so does what cannot begin."""
    if await _without_build(context):
        return
    dockerfile = "ARG BASE\nFROM $BASE\n# a comment\nRUN seq 1 100 && \\\n    printf no-newline && exit 7\n"
    async with _building(context, {"Dockerfile": dockerfile}) as (image, directory), asyncio.timeout(2 * BOUND):
        given = DockerfileBuildInput(context=directory, build_args=_base(context))
        with raises(BuildError, "a failing step") as caught:
            await image.build(given)
        error = caught.error
        equal(error.step.startswith("RUN seq 1 100"), wanted=True, what=f"that {error.step!r} is the step")
        equal((error.line, error.exit_code), (4, 7), f"line and code of {error}")
        equal(error.output, (*(str(number) for number in range(52, 101)), "no-newline"), "the output's end")
        equal(await image.exists(), wanted=False, what="that it is here all the same")

        (directory / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nRUN echo to-stderr >&2; exit 1\n")
        with raises(BuildError, "a step that fails with its reason on stderr") as caught:
            await image.build(given)
        equal((caught.error.output, caught.error.exit_code), (("to-stderr",), 1), "output and code")

        for text, line in (
            ("ARG BASE\nFROM $BASE\nNONSENSE here\n", 3),
            ("", None),
            ("ARG BASE\nFROM $BASE\nCOPY none /none\n", 3),
        ):
            (directory / "Dockerfile").write_text(text)
            with raises(BuildError, f"a build of {text!r}") as caught:
                await image.build(given)
            equal(
                caught.error.line in (line, None),
                wanted=True,
                what=f"that line {caught.error.line} is {line} in {caught.error}",
            )
        with raises(BuildError, "a build to a target that is not there"):
            await image.build(attrs.evolve(given, target="none"))

        seconds = 300 if context.target.ends_builds else 2
        (directory / "Dockerfile").write_text(f"ARG BASE\nFROM $BASE\nRUN echo begun && sleep {seconds}\nRUN true\n")
        begun = asyncio.Event()

        def note(event: BuildEvent) -> None:
            if "begun" in event.message and event.kind == "log":
                begun.set()

        task = asyncio.create_task(image.build(given, on_event=note))
        try:
            await begun.wait()
        finally:
            task.cancel()
            await asyncio.wait({task})
        equal(task.cancelled(), wanted=True, what="that a cancelled build ends with its cancellation")

        def stop(event: BuildEvent) -> None:
            if event.kind == "vertex":
                raise StopError

        with raises(StopError, "a build whose callback raises"):
            await image.build(given, on_event=stop)
        if not context.target.ends_builds:
            await asyncio.sleep(seconds + 1)
        equal(await image.exists(), wanted=False, what="that a cancelled build went on to its end")


@case(10, "build secrets and other fields")
async def build_fields(context: Context) -> None:
    """Each further field is honoured or refused by name; a secret is not in the image."""
    if await _without_build(context):
        return
    dockerfile = "ARG BASE\nFROM $BASE\nRUN {}\n"
    async with (
        _building(context, {"Dockerfile": dockerfile.format("true")}) as (image, directory),
        asyncio.timeout(4 * BOUND),
    ):
        given = DockerfileBuildInput(context=directory, build_args=_base(context), no_cache=True)

        async def built(script: str, *fields: str, **changes: Any) -> bool:
            """Whether the fields are honoured, and then the image is built with them; else that they are refused."""
            (directory / "Dockerfile").write_text(dockerfile.format(script))
            changed: DockerfileBuildInput = attrs.evolve(given, **changes)
            if supported(context, *fields):
                await image.build(changed)
                return True
            await refusal(context, lambda: image.build(changed), *fields)
            return False

        canary = b"canary-1b0c"
        script = "--mount=type=secret,id=token grep canary /run/secrets/token && echo seen > /seen"
        if await built(script, "build.secrets", secrets={"token": canary}):
            equal(await printed(context, image.name, "cat", "/seen"), "seen\n", "what the step saw")
            equal(
                await printed(context, image.name, "sh", "-c", "grep -rs canary /run /seen /tmp /root; true"),
                "",
                "the secret in the image",
            )
        agent = directory / "agent"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(agent))
            listener.listen()
            await built('--mount=type=ssh test -S "$SSH_AUTH_SOCK"', "build.ssh", ssh=[f"default={agent}"])
        await built("true", "build.cache_to", cache_to=["type=inline"])
        await built("true", "build.outputs", outputs={"tar": str(directory / "out.tar")})
        await built("true", "build.cache_from", cache_from=[context.image])
        if await built("cat /proc/net/dev > /interfaces", "build.network_mode", network_mode="none"):
            equal(
                "eth0" in await printed(context, image.name, "cat", "/interfaces"),
                wanted=False,
                what="that a step without a network had one",
            )
        if await built(
            "cat /etc/hosts > /hosts", "build.extra_hosts", extra_hosts={"conformance.example": "192.0.2.7"}
        ):
            hosts = (await printed(context, image.name, "cat", "/hosts")).split()
            equal({"192.0.2.7", "conformance.example"} <= set(hosts), wanted=True, what=f"that the host is in {hosts}")
        # Nothing listens there; that the engine tries is enough.
        nowhere = "http://user:canary-5f3a@127.0.0.1:9/repository.git#main"
        if supported(context, "build.context.remote"):
            with raises(BuildError, "a build from where nothing listens") as failed:
                await image.build(attrs.evolve(given, context=nowhere))
            equal("canary" in f"{failed.error!r}", wanted=False, what=f"that {failed.error!r} shows a password")
        else:
            await refusal(context, lambda: image.build(attrs.evolve(given, context=nowhere)), "build.context.remote")
        further = context.client.image(f"asyncctr.test/{unique('further')}:2")
        async with gone_after(further):
            if await built("true", "build.tags", tags=[further.name]):
                equal(await further.digest(), await image.digest(), "the digest by the further name")
        if await built("true", "build.platform", platform=HOST_PLATFORM):
            equal(await image.exists(), wanted=True, what="that an image for this platform is here")
        # There is no base image for the other one here, and no registry that would have one.
        with raises(AsyncctrError, "a build for a platform that the base image is not for") as caught:
            await built("true", platform=OTHER_PLATFORM)
        equal(
            isinstance(caught.error, (BuildError, UnsupportedError)),
            wanted=True,
            what=f"that {caught.error!r} is its error",
        )
        if context.client.backend.backend_type != BackendType.FIRECRACKER:
            with raises(BuildNotSupportedError, "a build from another backend's input"):
                await image.build(FirecrackerBuildInput(kernel="/none", rootfs="/none"))
