"""Builds by the BuildKit inside a private dockerd: large contexts, caches by content, secrets, cancellation, the end of the daemon."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

import asyncctr
from asyncctr import BuildError, ConnectionLostError, DockerfileBuildInput, UnsupportedError
from asyncctr.testing.daemons import Dockerd, require
from asyncctr.testing.images import ImageSpec, build_archive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asyncctr import BuildEvent

pytestmark = pytest.mark.anyio

IMAGE = "asyncctr.test/busybox:latest"
FILES = 1_000


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    """Its processes are children of this thread; nothing about it belongs to an event loop."""
    for name in ("docker", "image"):
        require(name)
    archive = tmp_path_factory.mktemp("image") / "busybox.tar"
    build_archive(ImageSpec(reference=IMAGE), archive)
    daemon = Dockerd()
    with asyncio.Runner() as runner:
        runner.run(daemon.__aenter__())
        try:
            runner.run(daemon.load(archive))
            yield daemon
        finally:
            runner.run(daemon.__aexit__(None, None, None))


@pytest.fixture
async def client(dockerd: Dockerd) -> AsyncIterator[asyncctr.Client]:
    async with asyncctr.connect(asyncctr.DockerConfig(host=dockerd.host)) as opened:
        yield opened


def dockerfile(directory: Path, *lines: str) -> Path:
    (directory / "Dockerfile").write_text("\n".join((f"FROM {IMAGE}", *lines, "")))
    return directory


def many_files(directory: Path) -> Path:
    for number in range(FILES):
        path = directory / "tree" / f"{number % 10}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * 50)
    (directory / "tree" / "0" / "file-0").chmod(0o4750)
    (directory / "tree" / "soft").symlink_to("0/file-0")
    (directory / "tree" / "dangling").symlink_to("/nowhere")
    (directory / "tree" / "hard").hardlink_to(directory / "tree" / "1" / "file-1")
    (directory / "tree" / "empty").mkdir(mode=0o700)
    return dockerfile(directory, "COPY tree /tree")


async def said(client: asyncctr.Client, image: str, script: str) -> str:
    return (await client.run(asyncctr.ContainerConfig(image, command=["sh", "-c", script]))).stdout.decode()


async def test_a_thousand_files_and_the_cache_by_content(client: asyncctr.Client, tmp_path: Path) -> None:
    given = DockerfileBuildInput(context=many_files(tmp_path))
    image = client.image("asyncctr.test/thousand:1")
    first = await image.build(given)
    script = (
        "cd /tree && find . -name 'file-*' | wc -l && stat -c %a 0/file-0 && readlink soft && readlink dangling && "
        "stat -c %a empty && [ hard -ef 1/file-1 ] && cat */file-999 | wc -l"
    )
    assert (await said(client, image.name, script)).split() == [str(FILES), "4750", "0/file-0", "/nowhere", "700", "50"]

    (tmp_path / "tree" / "5" / "file-5").touch()
    transfers: list[BuildEvent] = []
    again = await image.build(given, on_event=transfers.append)
    assert (again.digest, again.cached_steps) == (first.digest, 1)

    (tmp_path / "tree" / "5" / "file-5").write_text("changed")
    transfers.clear()
    changed = await image.build(given, on_event=transfers.append)
    assert (changed.digest != first.digest, changed.cached_steps) == (True, 0)
    moved = [event.current for event in transfers if event.message.startswith("transferring context")]
    # Of the files' contents that one alone; what there is is told each time.
    assert 0 < max(size or 0 for size in moved) < 200_000


async def test_many_stages_and_the_target(client: asyncctr.Client, tmp_path: Path) -> None:
    lines = (
        f"FROM {IMAGE} AS made",
        "RUN echo made > /made",
        f"FROM {IMAGE} AS other",
        "RUN exit 9",
        f"FROM {IMAGE}",
        "COPY --from=made /made /made",
    )
    image = client.image("asyncctr.test/stages:1")
    # The stage that nothing is taken from is not built.
    await image.build(DockerfileBuildInput(context=dockerfile(tmp_path, *lines)))
    assert await said(client, image.name, "cat /made") == "made\n"
    with pytest.raises(BuildError) as caught:
        await image.build(DockerfileBuildInput(context=tmp_path, target="other"))
    assert (caught.value.step, caught.value.line, caught.value.exit_code) == ("RUN exit 9", 5, 9)


async def test_secrets_are_in_no_layer_and_in_no_history(
    client: asyncctr.Client, dockerd: Dockerd, tmp_path: Path
) -> None:
    canary = b"canary-77ac19"
    (tmp_path / "aside").write_bytes(canary)
    line = "RUN --mount=type=secret,id=one --mount=type=secret,id=two cmp /run/secrets/one /run/secrets/two && wc -c < /run/secrets/one > /size"
    given = DockerfileBuildInput(context=dockerfile(tmp_path, line), secrets={"one": canary, "two": tmp_path / "aside"})
    image = client.image("asyncctr.test/secret:1")
    await image.build(given)
    assert await said(client, image.name, "cat /size") == f"{len(canary)}\n"
    saved = await dockerd.cli("save", image.name)
    assert canary not in saved.stdout
    with tarfile.open(fileobj=io.BytesIO(saved.stdout)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is None or canary not in file.read()
    assert canary.decode() not in json.dumps((await dockerd.cli("history", "--no-trunc", image.name)).text)

    with pytest.raises(BuildError, match="not found"):
        await image.build(
            DockerfileBuildInput(context=dockerfile(tmp_path, "RUN --mount=type=secret,id=none,required true"))
        )


async def test_outputs_are_written_and_others_refused(client: asyncctr.Client, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "a").write_text("content")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY --chmod=640 a /sub/a\n")
    outputs = {"tar": str(tmp_path / "out.tar"), "local": str(tmp_path / "out")}
    image = client.image("asyncctr.test/outputs:1")
    result = await image.build(DockerfileBuildInput(context=context, outputs=outputs, no_cache=True))
    assert (dict(result.outputs), await image.exists()) == (outputs, True)
    with tarfile.open(outputs["tar"]) as archive:
        assert {member.name.rstrip("/") for member in archive} == {"sub", "sub/a"}
    assert ((tmp_path / "out/sub/a").read_text(), (tmp_path / "out/sub/a").stat().st_mode & 0o777) == ("content", 0o640)

    with pytest.raises(UnsupportedError) as caught:
        await image.build(DockerfileBuildInput(context=context, outputs={"oci": str(tmp_path / "oci.tar")}))
    assert caught.value.field == "build.outputs.oci"
    assert not (tmp_path / "oci.tar").exists()


async def test_a_step_that_says_much(client: asyncctr.Client, tmp_path: Path) -> None:
    told = 0

    def count(event: BuildEvent) -> None:
        nonlocal told
        told += len(event.message) if event.kind == "log" else 0

    line = "RUN yes 0123456789012345678901234567890123456789 | head -c 20000000; echo the end >&2; exit 4"
    with pytest.raises(BuildError) as caught:
        await client.image("asyncctr.test/much:1").build(
            DockerfileBuildInput(context=dockerfile(tmp_path, line)), on_event=count
        )
    assert caught.value.exit_code == 4
    assert 0 < len(caught.value.output) <= 50
    # BuildKit itself cuts what a step says.
    assert 100_000 < told < 20_000_000


async def test_the_classic_builder_where_it_is_asked_for(dockerd: Dockerd, tmp_path: Path) -> None:
    config = asyncctr.DockerConfig(host=dockerd.host, builder="classic")
    async with asyncctr.connect(config) as client:
        assert "build.secrets" in client.capabilities.refused_fields
        image = client.image("asyncctr.test/classic:1")
        events: list[BuildEvent] = []
        await image.build(DockerfileBuildInput(context=dockerfile(tmp_path, "RUN true")), on_event=events.append)
        assert any(event.step.startswith("Step 1/") for event in events)
        with pytest.raises(UnsupportedError, match="BuildKit"):
            await image.build(DockerfileBuildInput(context=tmp_path, secrets={"a": b"b"}))


async def begun(client: asyncctr.Client, directory: Path, seconds: str) -> asyncio.Task[asyncctr.BuildResult]:
    """A build that is in the middle of a step."""
    started = asyncio.Event()

    def note(event: BuildEvent) -> None:
        if event.kind == "log" and "in it" in event.message:
            started.set()

    given = DockerfileBuildInput(context=dockerfile(directory, f"RUN echo in it && sleep {seconds}"))
    task = asyncio.create_task(client.image("asyncctr.test/long:1").build(given, on_event=note))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    assert not task.done()
    return task


async def gone(daemon: Dockerd, words: bytes) -> bool:
    """Whether no process on this machine has those words, within some seconds."""
    from pathlib import Path  # noqa: PLC0415

    def there() -> bool:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if words in path.read_bytes():
                    return True
            except OSError:
                continue
        return False

    for _ in range(100):
        if not await asyncio.to_thread(there):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_cancelled_the_step_ends(client: asyncctr.Client, dockerd: Dockerd, tmp_path: Path) -> None:
    task = await begun(client, tmp_path, "86111")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(dockerd, b"sleep\x0086111")
    # The next build is not held up by it.
    await client.image("asyncctr.test/next:1").build(DockerfileBuildInput(context=dockerfile(tmp_path, "RUN true")))


async def test_the_daemon_dies(client: asyncctr.Client, dockerd: Dockerd, tmp_path: Path) -> None:
    task = await begun(client, tmp_path, "86222")
    await dockerd.kill()
    try:
        with pytest.raises(ConnectionLostError):
            await task
    finally:
        await dockerd.start()
