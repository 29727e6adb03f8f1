"""Image archives as engines load them: ``docker save`` tars as they are, OCI image layouts with the file that engines look for.

Docker before 25 and Podman load what ``docker save`` writes, a tar with a ``manifest.json`` that names an image's files. A layout
together with such a file, which points at the layout's blobs, loads everywhere.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import re
import stat
import tempfile
import threading
import zlib
from collections.abc import AsyncIterable
from contextlib import asynccontextmanager
from typing import IO, TYPE_CHECKING, Any, Self

import anyio.to_thread
import attrs

from asyncctr.core.errors import ResourceExhaustedError
from asyncctr.core.validation import fail
from asyncctr.oci.layout import MAX_JSON, Layout, Platform, is_layout, read_json
from asyncctr.oci.tarindex import BLOCK, FIELD, TarIndex, header, read_tar_index, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = ["open_archive", "open_loadable"]

MAX_SIZE = 1 << 40
"""Bytes of a whole archive, after decompression."""

_READ = 1 << 20
# Bytes decompressed in one go, between two chances to be cancelled.
_STEP = 64 << 20
# A layer of text packs to a twentieth; zeros, which are how a bomb is made, to a thousandth.
_MAX_RATIO = 200
_RATIO_FROM = 1 << 30
_COMPRESSED = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_BY_DIGEST = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
_GZIP = b"\x1f\x8b"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@asynccontextmanager
async def open_loadable(
    archive: str | os.PathLike[str] | AsyncIterable[bytes], *, platform: str | None = None
) -> AsyncIterator[AsyncIterable[bytes]]:
    """The bytes of an archive in a form that every Docker and Podman loads. They can be read once.

    The archive is a ``docker save`` tar or an OCI image layout in a tar, plain or compressed by gzip: a path, or its bytes as they
    come, which are kept in a nameless file in the directory for temporary files. Of a layout with several platforms one
    is taken; a ``docker save`` tar is given on as it is.

    Args:
        archive: the archive.
        platform: ``"os/architecture[/variant]"``; ``None`` for this machine's.

    Raises:
        InvalidConfigError: it is no such archive, or a broken one; the field is ``"archive"``.
        ResourceExhaustedError: there is no room for it among the temporary files.
    """
    wanted = Platform.parse(platform) if platform else None
    async with open_archive(archive) as opened:
        extra = await anyio.to_thread.run_sync(_manifest, opened.index, wanted)
        if extra is None:
            yield _Bytes(opened.original, None, b"")
        else:
            yield _Bytes(opened.index.file, opened.index.end, extra)


@attrs.frozen
class Archive:
    """An open archive: the file as it came, and the index of the plain tar in it."""

    original: int
    index: TarIndex


@asynccontextmanager
async def open_archive(archive: str | os.PathLike[str] | AsyncIterable[bytes]) -> AsyncIterator[Archive]:
    """Open an archive of either kind and read its table of contents; for :class:`asyncctr.oci.layout.Layout`.

    Raises:
        InvalidConfigError: it is no tar; the field is ``"archive"``.
        ResourceExhaustedError: there is no room for it among the temporary files.
    """
    files = _Files()
    try:
        if isinstance(archive, (str, os.PathLike)):
            file = await anyio.to_thread.run_sync(lambda: files.keep(_open(archive)))
        elif isinstance(archive, AsyncIterable):
            file = await anyio.to_thread.run_sync(files.temporary)
            await _spool(archive, file)
        else:
            raise fail(FIELD, f"must be a path or an async iterable of bytes, not {type(archive).__name__}")
        start = await anyio.to_thread.run_sync(os.pread, file.fileno(), 8, 0)
        if start.startswith(_GZIP):
            plain = await anyio.to_thread.run_sync(files.temporary)
            await _decompress(file, plain)
        else:
            plain = file
            for magic, name in _COMPRESSED.items():
                if start.startswith(magic):
                    raise fail(FIELD, f"is compressed by {name}; a plain tar or gzip is wanted")
        index = await anyio.to_thread.run_sync(read_tar_index, plain.fileno())
        yield Archive(file.fileno(), index)
    finally:
        files.close()


class _Files:
    """Open files, closed together; also those that a thread opens when the one who asked has been cancelled meanwhile."""

    def __init__(self) -> None:
        self._files: list[IO[bytes]] = []
        self._closed = False
        self._lock = threading.Lock()

    def keep(self, file: IO[bytes]) -> IO[bytes]:
        with self._lock:
            if self._closed:
                file.close()
            self._files.append(file)
        return file

    def temporary(self) -> IO[bytes]:
        # Nameless from its making on, mode 0600.
        return self.keep(tempfile.TemporaryFile(buffering=0))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for file in self._files:
                file.close()


def _open(path: str | os.PathLike[str]) -> IO[bytes]:
    try:
        # Or a fifo would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise fail(FIELD, f"{shown(os.fspath(path))} cannot be opened: {reason}") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a directory: put its contents into a tar" if stat.S_ISDIR(mode) else "no regular file"
        raise fail(FIELD, f"{shown(os.fspath(path))} is {kind}")
    return os.fdopen(descriptor, "rb", buffering=0)


async def _spool(source: AsyncIterable[bytes], file: IO[bytes]) -> None:
    pending = bytearray()
    size = 0
    async for data in source:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise fail(FIELD, f"must give bytes, not {type(data).__name__}")
        pending += data
        size += len(data)
        if size > MAX_SIZE:
            raise fail(FIELD, f"has more than {MAX_SIZE} bytes")
        if len(pending) >= _READ:
            await anyio.to_thread.run_sync(_write, file, bytes(pending))
            pending.clear()
    await anyio.to_thread.run_sync(_write, file, bytes(pending))


def _write(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        message = (
            f"{FIELD}: no room for it in {tempfile.gettempdir()}: {error.strerror}; TMPDIR names another directory"
        )
        raise ResourceExhaustedError(message, status=error.errno) from error


async def _decompress(source: IO[bytes], file: IO[bytes]) -> None:
    packed = (await anyio.to_thread.run_sync(os.fstat, source.fileno())).st_size
    source.seek(0)
    size = 0
    with gzip.GzipFile(fileobj=source, mode="rb") as unpacked:

        def step() -> int:
            done = 0
            while done < _STEP and (data := unpacked.read(_READ)):
                _write(file, data)
                done += len(data)
            return done

        while True:
            try:
                done = await anyio.to_thread.run_sync(step)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise fail(FIELD, f"is broken gzip: {error}") from error
            size += done
            if size > MAX_SIZE or (size > _RATIO_FROM and size > packed * _MAX_RATIO):
                raise fail(FIELD, f"is {packed} bytes of gzip that unpack to more than {size}: too many to be an image")
            if done < _STEP:
                return


def _manifest(index: TarIndex, platform: Platform | None) -> bytes | None:
    """What to add to the tar in place of its end; ``None`` when it can be loaded as it is."""
    if "manifest.json" in index.members:
        _check_saved(index)
        return None
    if not is_layout(index):
        raise fail(
            FIELD,
            "is neither: it has no manifest.json, as 'docker save' writes, and no oci-layout and index.json, as image layouts have",
        )
    layout = Layout(index)
    entries: list[dict[str, Any]] = []
    for image in layout.images(platform):
        layout.config(image.manifest)
        for layer in image.manifest.layers:
            layout.member(layer)
        entries.append(
            {
                "Config": image.manifest.config.path,
                "RepoTags": list(image.names) or None,
                "Layers": [layer.path for layer in image.manifest.layers],
            }
        )
    data = json.dumps(entries, separators=(",", ":")).encode()
    padding = b"\0" * (-len(data) % BLOCK)
    return header("manifest.json", len(data)) + data + padding + b"\0" * (2 * BLOCK)


def _check_saved(index: TarIndex) -> None:
    """That a ``docker save`` tar has the files it speaks of; their content is the engine's to check."""
    try:
        entries = json.loads(read_json(index, "manifest.json"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise fail(FIELD, "manifest.json is no JSON") from None
    if not isinstance(entries, list) or not entries:
        raise fail(FIELD, "manifest.json names no image")
    for entry in entries:
        files = _files(entry)
        for name in files:
            # Older engines save a layer that two images share as a link.
            member = index.members.get(name.removeprefix("./"))
            if member is None or member.kind == "other":
                raise fail(FIELD, f"lacks {shown(name)}, which its manifest.json names")
        _check_config(index, files[0])


def _check_config(index: TarIndex, name: str) -> None:
    """That a configuration which is named by its digest, as in a layout's ``blobs`` or an older tar, has that digest."""
    match = _BY_DIGEST.fullmatch(name)
    member = index.find(name)
    if match is None or member is None:
        return
    if member.size > MAX_JSON:
        raise fail(FIELD, f"the configuration {name} has {member.size} bytes; at most {MAX_JSON} are read")
    actual = hashlib.sha256(index.read(member)).hexdigest()
    if actual != match[1]:
        raise fail(FIELD, f"the configuration {name} has another content: its digest is {actual}")


def _files(entry: object) -> Sequence[str]:
    if isinstance(entry, dict):
        config, layers = entry.get("Config"), entry.get("Layers")
        # An image without layers is saved with null.
        layers = [] if layers is None else layers
        if isinstance(config, str) and isinstance(layers, list) and all(isinstance(name, str) for name in layers):
            return [config, *layers]
    raise fail(FIELD, "manifest.json is not what 'docker save' writes: an image needs a Config and Layers")


class _Bytes:
    """A file's bytes up to ``end`` and then some more, once. An iterator, not a generator: it holds nothing to be closed."""

    def __init__(self, file: int, end: int | None, extra: bytes) -> None:
        self._file = file
        self._end = end
        self._extra = extra
        self._offset = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        length = _READ if self._end is None else min(_READ, self._end - self._offset)
        data = await anyio.to_thread.run_sync(os.pread, self._file, length, self._offset) if length else b""
        if data:
            self._offset += len(data)
            return data
        extra, self._extra = self._extra, b""
        if not extra:
            raise StopAsyncIteration
        return extra
