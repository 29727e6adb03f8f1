"""The build context as the classic builder takes it: one tar, or a place that the engine fetches it from."""
# ruff: noqa: PTH113, PTH115, PTH117, PTH118, PTH123 - paths here are joined by the ten thousand, and need not be valid Unicode

from __future__ import annotations

import io
import os
import secrets
import stat
import tarfile
import tempfile
from typing import IO, TYPE_CHECKING

import anyio.to_thread

from asyncctr.backends.docker.errors import BACKEND
from asyncctr.core.errors import UnsupportedError
from asyncctr.core.validation import fail
from asyncctr.oci.dockerfile import TEXT_LIMIT, read_text_file
from asyncctr.oci.dockerignore import IGNORE_FILE, IgnoreRules
from asyncctr.oci.remote_context import is_remote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncctr.core.build import DockerfileBuildInput

__all__ = ["Context", "open_context"]

_BLOCK = 1 << 18
# Two blocks of zeros end an archive, and tools fill up to this size (POSIX, pax).
_END = bytes(tarfile.RECORDSIZE)


class Context:
    """What goes to the engine.

    Attributes:
        params: for the request's query: ``dockerfile``, and ``remote`` where the engine fetches the context itself.
        body: the tar; ``None`` with ``remote``. Can be read once.
        dockerfile: the Dockerfile's text where it is known on this side, else empty.
        failure: what went wrong while ``body`` was read; the HTTP client hides it.
    """

    def __init__(self, params: dict[str, str], body: AsyncIterator[bytes] | None, dockerfile: str = "") -> None:
        self.params = params
        self.body = None if body is None else self._watched(body)
        self.dockerfile = dockerfile
        self.failure: Exception | None = None

    async def _watched(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for block in body:
                if block:
                    yield block
        except Exception as error:
            self.failure = error
            raise


async def open_context(build_input: DockerfileBuildInput) -> Context:
    """The context of a build.

    Raises:
        InvalidConfigError: it is not there, or its Dockerfile is not, or its ``.dockerignore`` is malformed.
        UnsupportedError: a Dockerfile outside of a context that the engine fetches.
    """
    source, dockerfile = build_input.context, build_input.dockerfile
    outside = os.path.isabs(dockerfile)
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if await anyio.to_thread.run_sync(is_remote, path):
            if outside:
                message = "build.dockerfile: the engine fetches this context itself, so its Dockerfile must be in it"
                raise UnsupportedError(message, field="build.dockerfile", backend=BACKEND)
            return Context({"remote": path, "dockerfile": dockerfile}, None)
        if await anyio.to_thread.run_sync(os.path.isdir, path):
            return await anyio.to_thread.run_sync(_directory, path, dockerfile)
        if not await anyio.to_thread.run_sync(os.path.isfile, path):
            raise fail("context", f"{path!r} is neither a directory nor a tar file")
        body = _threaded(_file_blocks(path))
    elif isinstance(source, bytes):
        body = _threaded(source[start : start + _BLOCK] for start in range(0, len(source), _BLOCK))
    else:
        body = aiter(source)
    if not outside:
        return Context({"dockerfile": dockerfile}, body)
    text = await anyio.to_thread.run_sync(_read_text, dockerfile, "dockerfile")
    name = _hidden_name()
    return Context({"dockerfile": name}, _with_dockerfile(body, name, text.encode()), text)


async def _threaded(blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The blocks, each made in a thread: reading files blocks. Dropping the iterator closes what it has open."""
    while block := await anyio.to_thread.run_sync(next, blocks, b""):
        yield block


def _file_blocks(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _read_text(path: str, field: str) -> str:
    return read_text_file(path, field).decode(errors="surrogateescape")


def _hidden_name() -> str:
    """A name in the context for a Dockerfile from outside of it, that nothing there has."""
    return f".dockerfile.{secrets.token_hex(10)}"


# -- a directory


def _directory(root: str, dockerfile: str) -> Context:
    ignore_path = os.path.join(root, IGNORE_FILE)
    ignore = _read_text(ignore_path, "context") if os.path.isfile(ignore_path) else None
    rules = IgnoreRules(ignore or "")
    relative = os.path.relpath(dockerfile, root) if os.path.isabs(dockerfile) else os.path.normpath(dockerfile)
    if relative == ".." or relative.startswith("../"):
        if not os.path.isabs(dockerfile):
            raise fail("dockerfile", f"{dockerfile!r} leads out of the context; give the absolute path of one outside")
        text = _read_text(dockerfile, "dockerfile")
        name = _hidden_name()
        added = {name: text.encode(errors="surrogateescape"), IGNORE_FILE: _hiding(ignore, name)}
        return Context({"dockerfile": name}, _threaded(_directory_blocks(root, rules, frozenset(), added)), text)
    text = _read_text(os.path.join(root, relative), "dockerfile")
    # The engine reads both, and leaves them out itself where the rules say so.
    always = frozenset({relative, IGNORE_FILE})
    return Context({"dockerfile": relative}, _threaded(_directory_blocks(root, rules, always, {})), text)


def _hiding(ignore: str | None, name: str) -> bytes:
    """A ``.dockerignore`` that has the engine leave out the added Dockerfile, and itself where there was none."""
    return f"{IGNORE_FILE if ignore is None else ignore}\n{name}\n".encode(errors="surrogateescape")


def _walk(root: str, rules: IgnoreRules, always: frozenset[str]) -> Iterator[str]:
    """The paths in the context, relative and with ``/``, in byte order; directories before what they hold."""
    pending: list[tuple[str, bool]] = [("", True)]
    # Directories that are left out but hold something that is not: they are sent for their modes.
    shown: set[str] = {""}
    while pending:
        directory, _ = pending.pop()
        try:
            entries = sorted(os.scandir(os.path.join(root, directory)), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            raise fail("context", f"the directory {directory or '.'!r} cannot be read: {error.strerror}") from error
        below: list[tuple[str, bool]] = []
        for entry in entries:
            path = f"{directory}/{entry.name}" if directory else entry.name
            excluded = rules.excludes(path) and path not in always
            is_directory = entry.is_dir(follow_symlinks=False)
            if not excluded:
                missing: list[str] = []
                parent = directory
                while parent not in shown:
                    missing.append(parent)
                    shown.add(parent)
                    parent = parent.rpartition("/")[0]
                yield from reversed(missing)
                yield path
                if is_directory:
                    shown.add(path)
            holds_always = any(name.startswith(f"{path}/") for name in always)
            if is_directory and (not excluded or rules.may_hold(path) or holds_always):
                below.append((path, excluded))
        pending += reversed(below)


def _directory_blocks(
    root: str, rules: IgnoreRules, always: frozenset[str], added: dict[str, bytes]
) -> Iterator[bytes]:
    links: dict[tuple[int, int], str] = {}

    def parts() -> Iterator[bytes]:
        for name, data in added.items():
            yield from _member(_info(name, stat.S_IFREG | 0o600, size=len(data)), io.BytesIO(data))
        for path in _walk(root, rules, always):
            if path in added:
                continue
            full = os.path.join(root, path)
            try:
                yield from _entry(full, path, links)
            except FileNotFoundError:
                # Gone since it was listed, as temporary files go.
                continue
            except OSError as error:
                raise fail("context", f"{path!r} cannot be read: {error.strerror}") from error
        yield _END

    return _joined(parts())


def _entry(full: str, path: str, links: dict[tuple[int, int], str]) -> Iterator[bytes]:
    found = os.lstat(full)
    info = _info(path, found.st_mode, mtime=int(found.st_mtime))
    if stat.S_ISREG(found.st_mode):
        first = links.setdefault((found.st_dev, found.st_ino), path) if found.st_nlink > 1 else path
        if first != path:
            info.type, info.linkname = tarfile.LNKTYPE, first
            yield from _member(info)
            return
        with open(full, "rb") as file:
            info.size = os.fstat(file.fileno()).st_size
            yield from _member(info, file)
        return
    if stat.S_ISLNK(found.st_mode):
        info.linkname = os.readlink(full)
    elif not (stat.S_ISDIR(found.st_mode) or stat.S_ISFIFO(found.st_mode)):
        # Sockets cannot be archived, and an engine should not make devices of what somebody has lying about.
        return
    yield from _member(info)


_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def _info(path: str, mode: int, *, size: int = 0, mtime: int = 0) -> tarfile.TarInfo:
    # Root's, whoever's they are here, as Docker's own client sends them.
    info = tarfile.TarInfo(path)
    info.type = _TYPES.get(stat.S_IFMT(mode), tarfile.REGTYPE)
    info.mode, info.size, info.mtime = stat.S_IMODE(mode), size, mtime
    return info


def _member(info: tarfile.TarInfo, content: IO[bytes] | None = None) -> Iterator[bytes]:
    """A header and the content, filled up to whole blocks."""
    yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    left = info.size if content is not None else 0
    while content is not None and left:
        data = content.read(min(left, _BLOCK))
        if not data:
            raise fail("context", f"{info.name!r} became shorter while it was read")
        left -= len(data)
        yield data
    if content is not None and info.size % tarfile.BLOCKSIZE:
        yield bytes(tarfile.BLOCKSIZE - info.size % tarfile.BLOCKSIZE)


def _joined(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in larger blocks: each costs a change of threads."""
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= _BLOCK:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    if waiting:
        yield b"".join(waiting)


# -- a tar


async def _with_dockerfile(body: AsyncIterator[bytes], name: str, dockerfile: bytes) -> AsyncIterator[bytes]:
    """A tar, compressed or not, with a Dockerfile added."""
    with tempfile.TemporaryFile() as file:
        async for block in body:
            await anyio.to_thread.run_sync(file.write, block)
        file.seek(0)
        async for block in _threaded(_joined(_rewritten(file, name, dockerfile))):
            yield block


def _rewritten(file: IO[bytes], name: str, dockerfile: bytes) -> Iterator[bytes]:
    ignore: str | None = None
    try:
        with tarfile.open(fileobj=file, mode="r:*") as archive:
            for info in archive:
                content = archive.extractfile(info) if info.isreg() else None
                if content is not None and os.path.normpath(info.name) == IGNORE_FILE:
                    ignore = content.read(TEXT_LIMIT).decode(errors="surrogateescape")
                    continue
                if info.issparse():
                    info.type = tarfile.REGTYPE
                    info.pax_headers = {
                        key: value for key, value in info.pax_headers.items() if not key.startswith("GNU.sparse.")
                    }
                yield from _member(info, content)
    except tarfile.TarError as error:
        raise fail("context", f"is no tar archive: {error}") from error
    for path, data in ((name, dockerfile), (IGNORE_FILE, _hiding(ignore, name))):
        yield from _member(_info(path, stat.S_IFREG | 0o600, size=len(data)), io.BytesIO(data))
    yield _END
