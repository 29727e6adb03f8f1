"""The classic build without an engine: the tar that is sent, the progress that is read, the lines that are named."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from asyncctr.backends.docker.build import _BuildProgress, _cache_image
from asyncctr.backends.docker.build_context import Context, open_context
from asyncctr.core.build import BuildEvent, DockerfileBuildInput
from asyncctr.core.errors import BuildError, InvalidConfigError, ResourceExhaustedError, UnsupportedError
from asyncctr.oci.dockerfile import line_of
from asyncctr.oci.remote_context import without_credentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@attrs.frozen
class Member:
    info: tarfile.TarInfo
    content: bytes


async def sent(context: Context) -> dict[str, Member]:
    assert context.body is not None
    data = b"".join([block async for block in context.body])
    assert len(data) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {}
        for info in archive:
            file = archive.extractfile(info) if info.isreg() else None
            found[info.name] = Member(info, file.read() if file else b"")
        return found


async def test_directory(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x")
    (tmp_path / "sub").mkdir(mode=0o750)
    (tmp_path / "sub" / "data").write_bytes(b"x" * 700_001)
    (tmp_path / "sub" / "data").chmod(0o4755)
    (tmp_path / "sub" / "hard").hardlink_to(tmp_path / "sub" / "data")
    (tmp_path / "soft").symlink_to("../outside")
    (tmp_path / ("n" * 200)).write_text("long")
    (tmp_path / "é🎉").write_text("unicode")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "sock"))
        found = await sent(await open_context(DockerfileBuildInput(context=tmp_path)))
    assert sorted(found) == sorted(["Dockerfile", "sub", "sub/data", "sub/hard", "soft", "n" * 200, "é🎉", "fifo"])
    assert found["sub/data"].content == b"x" * 700_001
    assert {(member.info.uid, member.info.gid, member.info.uname) for member in found.values()} == {(0, 0, "")}
    assert (found["sub"].info.mode, found["sub/data"].info.mode) == (0o750, 0o4755)
    assert (found["sub/hard"].info.islnk(), found["sub/hard"].info.linkname) == (True, "sub/data")
    assert (found["soft"].info.issym(), found["soft"].info.linkname) == (True, "../outside")
    assert found["fifo"].info.isfifo()


async def test_undecodable_names(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x")
    (tmp_path / os.fsdecode(b"\xff")).touch()
    assert os.fsdecode(b"\xff") in await sent(await open_context(DockerfileBuildInput(context=tmp_path)))


async def test_ignored(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x")
    (tmp_path / ".dockerignore").write_text("*\n!kept/deep/file\n")
    (tmp_path / "kept" / "deep").mkdir(parents=True)
    for name in ("dropped", "kept/dropped", "kept/deep/file", "kept/deep/dropped"):
        (tmp_path / name).write_text(name)
    found = await sent(await open_context(DockerfileBuildInput(context=tmp_path)))
    # Both are always sent, and directories for the sake of what is kept in them.
    assert list(found) == [".dockerignore", "Dockerfile", "kept", "kept/deep", "kept/deep/file"]


async def test_dockerfile_in_an_ignored_directory(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "File").write_text("FROM x")
    (tmp_path / "docker" / "other").write_text("")
    (tmp_path / ".dockerignore").write_text("docker\n")
    for name in ("docker/File", str(tmp_path / "docker" / "File"), "./docker/../docker/File"):
        context = await open_context(DockerfileBuildInput(context=tmp_path, dockerfile=name))
        assert context.params == {"dockerfile": "docker/File"}
        assert list(await sent(context)) == [".dockerignore", "docker", "docker/File"]


@pytest.mark.parametrize("ignore", [None, "*.tmp"])
async def test_dockerfile_outside(tmp_path: Path, ignore: str | None) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "file").write_text("")
    (tmp_path / "Elsewhere").write_text("FROM x")
    if ignore is not None:
        (tmp_path / "context" / ".dockerignore").write_text(ignore)
    context = await open_context(
        DockerfileBuildInput(context=tmp_path / "context", dockerfile=str(tmp_path / "Elsewhere"))
    )
    found = await sent(context)
    name = context.params["dockerfile"]
    assert sorted(found) == sorted([name, ".dockerignore", "file"])
    assert found[name].content == b"FROM x"
    assert found[".dockerignore"].content.decode().splitlines() == [ignore or ".dockerignore", name]


def packed(mode: Any, **files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("dockerignore", "./.dockerignore"))
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
async def test_dockerfile_outside_of_a_tar(tmp_path: Path, mode: str) -> None:
    (tmp_path / "Elsewhere").write_text("FROM x")
    data = packed(mode, dockerignore="*.tmp\n", file="data")

    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    for source in (data, stream()):
        context = await open_context(DockerfileBuildInput(context=source, dockerfile=str(tmp_path / "Elsewhere")))
        found = await sent(context)
        name = context.params["dockerfile"]
        assert sorted(found) == sorted(["file", name, ".dockerignore"])
        assert found[".dockerignore"].content.decode().split() == ["*.tmp", name]
        assert found["file"].content == b"data"


async def test_tar_goes_as_it_is(tmp_path: Path) -> None:
    data = packed("w:gz", Dockerfile="FROM x")
    (tmp_path / "context.tar.gz").write_bytes(data)
    for source in (data, tmp_path / "context.tar.gz"):
        context = await open_context(DockerfileBuildInput(context=source))
        assert context.body is not None
        assert b"".join([block async for block in context.body]) == data


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"context": "/no/such/place"}, "context"),
        ({"dockerfile": "none"}, "dockerfile"),
        ({"dockerfile": "../none"}, "dockerfile"),
        ({"dockerfile": "/no/such/file"}, "dockerfile"),
    ],
)
async def test_missing(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        await open_context(DockerfileBuildInput(**{"context": tmp_path, **changes}))
    assert caught.value.field == field


async def test_shrinking_file(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x")
    (tmp_path / "big").write_bytes(b"x" * 2_000_000)
    context = await open_context(DockerfileBuildInput(context=tmp_path))
    assert context.body is not None
    await anext(context.body)
    os.truncate(tmp_path / "big", 10)
    with pytest.raises(InvalidConfigError, match="became shorter"):
        await anext(context.body)
    assert isinstance(context.failure, InvalidConfigError)


@pytest.mark.parametrize(
    "url", ["https://example.com/a.git#main:dir", "git://example.com/a", "git@example.com:a.git", "github.com/a/b"]
)
async def test_remote(url: str) -> None:
    context = await open_context(DockerfileBuildInput(context=url, dockerfile="d/File"))
    assert (context.body, context.params) == (None, {"remote": url, "dockerfile": "d/File"})
    with pytest.raises(UnsupportedError) as caught:
        await open_context(DockerfileBuildInput(context=url, dockerfile="/tmp/File"))
    assert caught.value.field == "build.dockerfile"


def test_credentials_of_a_url_are_not_shown() -> None:
    url = "https://user:canary@example.com/a.git"
    for text in (f"cannot fetch {url}", "fatal: https://user:canary@example.com/ is gone"):
        assert "canary" not in without_credentials(text, url)
    assert without_credentials("a@b", "/a@b") == "a@b"


DOCKERFILE = (
    "# escape=\\\nARG A\nFROM x\n# comment\nRUN one && \\\n# inside\n\n  two\nRUN same\n\nRUN same\nrun  last   one"
)


@pytest.mark.parametrize(
    ("step", "number", "line"),
    [
        ("ARG A", 1, 2),
        ("RUN one &&   two", 3, 5),
        ("RUN same", 4, 9),
        ("RUN same", 5, 11),
        ("RUN same", 1, None),
        ("run last one", 99, 12),
        ("RUN other", 3, None),
    ],
)
def test_line_of_a_step(step: str, number: int, line: int | None) -> None:
    assert line_of(DOCKERFILE, step, number) == line


def test_cache_images() -> None:
    assert _cache_image("a/b:1") == "a/b:1"
    assert _cache_image("type=registry,ref=a/b:1,mode=max") == "a/b:1"
    with pytest.raises(UnsupportedError):
        _cache_image("type=local,src=/cache")


async def test_progress_of_docker() -> None:
    events: list[BuildEvent] = []
    progress = _BuildProgress(events.append, Context({}, None, "FROM x\nRUN a\nRUN b\n"))
    for text in (
        "Step 1/3 : FROM x",
        "\n",
        " ---> 0123456789ab\n",
        "Step 2/3 : RUN a",
        "\n",
        " ---> Using cache\n",
        " ---> 0123456789ab\n",
        "[Warning] something\n",
        "Step 3/3 : RUN b",
        "\n",
        " ---> Running in 0123456789ab\n",
        "\x1b[91mred\n\x1b[0m",
        "[Warning] of the step\n",
        " ---> Using cache of its own\n",
        "par",
        "tial",
    ):
        progress.feed({"stream": text})
    progress.feed({"aux": {"ID": "sha256:1"}})
    assert (progress.cached_steps, progress.warnings, progress.digest) == (1, ["something"], "sha256:1")
    logs = "".join(event.message for event in events if event.kind == "log")
    assert logs.startswith("red\n[Warning] of the step\n")
    assert logs.endswith("partial")
    error = progress.error("The command 'b' returned a non-zero code: 9", "name", {"code": 9})
    assert isinstance(error, BuildError)
    assert (error.step, error.line, error.exit_code, error.output[0], error.output[-1]) == (
        "RUN b",
        3,
        9,
        "red",
        "partial",
    )
    ended = [
        (event.step, event.message, event.cached)
        for event in events
        if event.kind == "vertex" and event.message != "started"
    ]
    assert ended == [
        ("Step 1/3 : FROM x", "completed", False),
        ("Step 2/3 : RUN a", "completed", True),
        ("Step 3/3 : RUN b", "failed", False),
    ]


async def test_progress_of_podman() -> None:
    progress = _BuildProgress(None, Context({}, None, "FROM x\nRUN a\nRUN b\n"))
    for text in (
        'time="2026-11-23T15:33:05Z" level=warning msg="missing build argument"\n',
        "[1/2] STEP 1/2: FROM x AS first\n",
        "[1/2] STEP 2/2: RUN a\n",
        f"--> Using cache {'0' * 64}\n",
        "--> 0123456789a\n",
        "[2/2] STEP 2/3: RUN b\n",
        "out\n",
    ):
        progress.feed({"stream": text})
    error = progress.error('building at STEP "RUN b": while running runtime: exit status 4\n', "name", {"message": ""})
    assert isinstance(error, BuildError)
    assert (error.step, error.line, error.exit_code, error.output) == ("RUN b", 3, 4, ("out",))
    assert (progress.cached_steps, progress.warnings) == (1, ["missing build argument"])


def test_full_disk() -> None:
    progress = _BuildProgress(None, Context({}, None))
    assert isinstance(progress.error("write /x: no space left on device", "name", None), ResourceExhaustedError)
