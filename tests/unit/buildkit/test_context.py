"""Which files a daemon gets of a context, in which order, and how an archive becomes one."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.buildkit.contexts import open_context
from asyncctr.buildkit.selecting import Selection, followed
from asyncctr.buildkit.trees import ArchiveTree, DirectoryTree
from asyncctr.core.build import DockerfileBuildInput
from asyncctr.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.anyio


def packed(files: Mapping[str, bytes | str]) -> bytes:
    """A tar of files, and of symbolic links where the content is text."""
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return into.getvalue()


def tree_of(*names: str) -> ArchiveTree:
    return ArchiveTree(io.BytesIO(packed(dict.fromkeys(names, b""))))


def paths(tree: ArchiveTree | DirectoryTree, *excludes: str, includes: list[str] | None = None) -> list[str]:
    return [path for path, _ in Selection(tree, excludes, includes).walk()]


def test_directories_come_before_what_is_in_them_in_byte_order() -> None:
    tree = tree_of("a.txt", "a/b/c", "a0", "é", "Z")
    assert paths(tree) == ["Z", "a", "a/b", "a/b/c", "a.txt", "a0", "é"]


def test_directories_of_exceptions_come_with_them() -> None:
    tree = tree_of("out/deep/kept", "out/deep/dropped", "out/other", "in")
    assert paths(tree, "out", "!out/deep/kept") == ["in", "out", "out/deep", "out/deep/kept"]
    assert paths(tree, "*") == []


def test_only_what_is_asked_for() -> None:
    tree = tree_of("src/a.py", "src/b.txt", "docs/a.py", "top")
    assert paths(tree, includes=["src/*.py"]) == ["src", "src/a.py"]
    assert paths(tree, "**/a.py", includes=["src"]) == ["src", "src/b.txt"]
    assert paths(tree, includes=["none"]) == []


def test_links_are_followed_to_what_they_mean() -> None:
    files = {"link": "real/file", "real/file": b"", "abs": "/real", "up": "../outside", "loop": "loop", "d/x": b""}
    tree = ArchiveTree(io.BytesIO(packed(files)))
    assert followed(tree, ["link"]) == ["link", "real/file"]
    assert followed(tree, ["abs/file"]) == ["abs", "real/file"]
    assert followed(tree, ["up", "loop"]) == ["../outside", "loop", "up"]
    assert followed(tree, ["l*"]) == ["l*", "loop", "real/file"]
    assert followed(tree, ["."]) is None


@given(
    st.dictionaries(
        st.text("ab.", min_size=1, max_size=3).filter(lambda name: name.strip(".")), st.binary(max_size=5), max_size=6
    )
)
def test_an_archive_gives_what_went_in(files: dict[str, bytes]) -> None:
    tree = ArchiveTree(io.BytesIO(packed({f"./sub/{name}": data for name, data in files.items()})))
    assert {
        path: tree.open(path).read() for path, entry in Selection(tree, (), None).walk() if not entry.is_directory
    } == {f"sub/{name}": data for name, data in files.items()}


def test_hard_links_of_an_archive() -> None:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as archive:
        info = tarfile.TarInfo("first")
        info.size, info.mode = 4, 0o4711
        archive.addfile(info, io.BytesIO(b"data"))
        link = tarfile.TarInfo("second")
        link.type, link.linkname = tarfile.LNKTYPE, "first"
        archive.addfile(link)
    tree = ArchiveTree(into)
    into.seek(0)
    tree = ArchiveTree(into)
    first, second = tree.entry("first"), tree.entry("second")
    assert first is not None
    assert second is not None
    assert (first.same, stat.S_IMODE(first.mode)) == (second.same, 0o4711)
    assert first.same is not None
    assert tree.open("second").read() == b"data"


@pytest.mark.parametrize("name", ["../up", "a/../../up"])
def test_an_archive_that_leads_out(name: str) -> None:
    with pytest.raises(InvalidConfigError, match="leads out"):
        tree_of(name)


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff")).touch()
    os.mkfifo(tmp_path / "fifo")
    assert paths(DirectoryTree(str(tmp_path))) == ["fifo", os.fsdecode(b"\xff")]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
async def test_contexts_that_are_archives(pack: type[bytes], tmp_path: Path) -> None:
    data = pack(packed({"Dockerfile": b"FROM scratch", "a": b"1"}))
    file = tmp_path / "context.tar"
    file.write_bytes(data)
    for source in (data, file):
        async with open_context(DockerfileBuildInput(context=source)) as context:
            assert context.dockerfile == "FROM scratch"
            assert context.trees["context"].open("a").read() == b"1"
            assert (context.shared_key, context.attributes) == ("", {"filename": "Dockerfile"})


async def test_a_dockerfile_from_elsewhere_is_not_in_the_context(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    elsewhere = tmp_path / "Elsewhere"
    elsewhere.write_text("FROM scratch")
    async with open_context(DockerfileBuildInput(context=tmp_path / "context", dockerfile=str(elsewhere))) as context:
        assert [entry.name for entry in context.trees["dockerfile"].entries("")] == ["Elsewhere"]
        assert context.trees["context"].entries("") == []
    remote = DockerfileBuildInput(context="https://example.com/x.git", dockerfile=str(elsewhere))
    async with open_context(remote) as context:
        assert context.attributes == {
            "context": "https://example.com/x.git",
            "filename": "Elsewhere",
            "dockerfilekey": "dockerfile",
        }


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"context": b"no tar" * 200}, "context"),
        ({"context": b"\x1f\x8bno gzip"}, "context"),
        ({"context": "/nowhere/at/all"}, "context"),
        ({"context": packed({"a": b""})}, "dockerfile"),
        ({"context": packed({"a": b""}), "dockerfile": "../a"}, "dockerfile"),
        ({"context": packed({"a": b""}), "dockerfile": "/nowhere/at/all"}, "dockerfile"),
    ],
)
async def test_contexts_that_are_none(changes: dict[str, bytes | str], field: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        async with open_context(DockerfileBuildInput(**changes)):  # type: ignore[arg-type]
            pass
    assert caught.value.field == field
