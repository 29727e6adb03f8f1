"""The context of a build and its Dockerfile, as trees that a daemon is served, or a place that it fetches them from."""
# ruff: noqa: PTH112, PTH113, PTH117, PTH119, PTH123 - paths here need not be valid Unicode

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import posixpath
import tempfile
from contextlib import asynccontextmanager
from typing import IO, TYPE_CHECKING, Any

import anyio.to_thread
import attrs

from asyncctr.buildkit.trees import ArchiveTree, DirectoryTree, MemoryTree
from asyncctr.core.validation import fail
from asyncctr.oci.dockerfile import TEXT_LIMIT, read_text_file
from asyncctr.oci.dockerignore import IGNORE_FILE
from asyncctr.oci.remote_context import is_remote

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping

    from asyncctr.buildkit.trees import Tree
    from asyncctr.core.build import DockerfileBuildInput

__all__ = ["BuildContext", "open_context"]

_BLOCK = 1 << 20
_COMPRESSIONS: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)


@attrs.frozen(kw_only=True)
class BuildContext:
    """What a build is from.

    Attributes:
        trees: by the names that the Dockerfile's frontend has for them.
        attributes: for the frontend: ``filename``, and ``context`` where the daemon fetches that itself.
        dockerfile: the Dockerfile's text where it is known on this side, else empty.
        shared_key: the same for the same directory, so that only what has changed is sent again; empty for what is none.
    """

    trees: Mapping[str, Tree]
    attributes: Mapping[str, str]
    dockerfile: str = ""
    shared_key: str = ""


@asynccontextmanager
async def open_context(build_input: DockerfileBuildInput) -> AsyncIterator[BuildContext]:
    """The context of a build, for as long as the build takes.

    Raises:
        InvalidConfigError: it is not there, or is no archive, or has not the Dockerfile.
    """
    source = build_input.context
    outside = await anyio.to_thread.run_sync(_outside, build_input.dockerfile) if _is_outside(build_input) else None
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if await anyio.to_thread.run_sync(is_remote, path):
            yield _remote(path, build_input.dockerfile, outside)
            return
        if await anyio.to_thread.run_sync(os.path.isdir, path):
            yield await anyio.to_thread.run_sync(_context, DirectoryTree(path), build_input.dockerfile, outside, path)
            return
        if not await anyio.to_thread.run_sync(os.path.isfile, path):
            raise fail("context", f"{path!r} is neither a directory nor a tar file")
        tree = await anyio.to_thread.run_sync(_archive_at, path)
    elif isinstance(source, bytes):
        tree = await anyio.to_thread.run_sync(_archive_of, source)
    else:
        tree = await _archive_from(source)
    try:
        yield await anyio.to_thread.run_sync(_context, tree, build_input.dockerfile, outside, "")
    finally:
        tree.close()


def _is_outside(build_input: DockerfileBuildInput) -> bool:
    """Whether the Dockerfile is given by a path of this machine's that is not in the context."""
    dockerfile, source = build_input.dockerfile, build_input.context
    if not os.path.isabs(dockerfile):
        return False
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
        return os.path.relpath(dockerfile, os.fspath(source)).startswith("..")
    return True


def _outside(path: str) -> tuple[str, dict[str, bytes]]:
    """The name of a Dockerfile from outside of the context, and that file with the ``.dockerignore`` that it may have."""
    name = os.path.basename(path)
    files = {name: read_text_file(path, "dockerfile")}
    own_ignore = f"{path}{IGNORE_FILE}"
    if os.path.isfile(own_ignore):
        files[f"{name}{IGNORE_FILE}"] = read_text_file(own_ignore, "dockerfile")
    return name, files


def _remote(url: str, dockerfile: str, outside: tuple[str, dict[str, bytes]] | None) -> BuildContext:
    if outside is None:
        return BuildContext(trees={}, attributes={"context": url, "filename": dockerfile})
    name, files = outside
    # The key says that the Dockerfile is not in the context that the daemon fetches.
    attributes = {"context": url, "filename": name, "dockerfilekey": "dockerfile"}
    return BuildContext(
        trees={"dockerfile": MemoryTree(files)}, attributes=attributes, dockerfile=files[name].decode(errors="replace")
    )


def _context(tree: Tree, dockerfile: str, outside: tuple[str, dict[str, bytes]] | None, root: str) -> BuildContext:
    key = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest() if root else ""
    if outside is not None:
        name, files = outside
        return BuildContext(
            trees={"context": tree, "dockerfile": MemoryTree(files)},
            attributes={"filename": name},
            dockerfile=files[name].decode(errors="replace"),
            shared_key=key,
        )
    relative = os.path.relpath(dockerfile, root) if os.path.isabs(dockerfile) else posixpath.normpath(dockerfile)
    if relative == ".." or relative.startswith("../"):
        raise fail("dockerfile", f"{dockerfile!r} leads out of the context; give the absolute path of one outside")
    if tree.entry(relative) is None:
        raise fail("dockerfile", f"there is no {dockerfile!r} in the context")
    try:
        with tree.open(relative) as file:
            text = file.read(TEXT_LIMIT).decode(errors="replace")
    except FileNotFoundError:
        # A link of an archive's; the daemon follows it.
        text = ""
    return BuildContext(
        trees={"context": tree, "dockerfile": tree}, attributes={"filename": relative}, dockerfile=text, shared_key=key
    )


# -- archives: files that are read here and there, and so not compressed


def _archive_at(path: str) -> ArchiveTree:
    try:
        file = open(path, "rb")  # noqa: SIM115  # the tree's
    except OSError as error:
        raise fail("context", f"{path!r} cannot be read: {error.strerror}") from error
    return _tree(file)


def _archive_of(data: bytes) -> ArchiveTree:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the tree's
    file.write(data)
    return _tree(file)


async def _archive_from(blocks: AsyncIterable[bytes]) -> ArchiveTree:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the tree's
    try:
        async for block in blocks:
            await anyio.to_thread.run_sync(file.write, block)
    except BaseException:  # a cancellation, too
        file.close()
        raise
    return await anyio.to_thread.run_sync(_tree, file)


def _tree(file: IO[bytes]) -> ArchiveTree:
    """The tree of an archive, whose file it has from then on."""
    try:
        return ArchiveTree(_plain(file))
    except BaseException:
        file.close()
        raise


def _plain(file: IO[bytes]) -> IO[bytes]:
    """The file itself, or what it is compressed from."""
    file.seek(0)
    start = file.read(8)
    file.seek(0)
    for magic, reader in _COMPRESSIONS:
        if start.startswith(magic):
            plain: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # the tree's
            try:
                with file, reader(file) as packed:
                    while data := packed.read(_BLOCK):
                        plain.write(data)
            except (OSError, EOFError, lzma.LZMAError) as error:
                plain.close()
                raise fail("context", f"does not unpack: {error}") from error
            plain.seek(0)
            return plain
    return file
