"""Releases of kernels and machine monitors: downloaded, verified before anything of them is unpacked, put into place whole.

A directory of releases is shared by processes: one downloads, the others wait and have it. What a killed one left is removed by
the next one.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import lzma
import os
import re
import secrets
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TypeVar

import attrs

from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    DigestMismatchError,
    InvalidConfigError,
    NotFoundError,
)
from asyncctr.core.images import Progress
from asyncctr.core.validation import fail
from asyncctr.oci.registry_failures import AttemptError
from asyncctr.oci.registry_http import RegistryHttp, parse_address, problem, read_body
from asyncctr.transport.cleanup import Janitor
from asyncctr.transport.filelock import FileLock
from asyncctr.transport.hostfiles import host_files
from asyncctr.transport.progress import ProgressThrottle

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import IO

    import aiohttp
    from yarl import URL

    from asyncctr.core.images import ProgressCallback

__all__ = ["Release", "fetch_release"]

T = TypeVar("T")

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MAX_CHECKSUMS: Final = 64 << 10
_MAX_ARCHIVE: Final = 1 << 30
_MAX_UNPACKED: Final = 4 << 30
_MAX_MEMBERS: Final = 10_000
_READ: Final = 1 << 20
_PROGRAM: Final = 0o100


def _hex(value: str) -> str:
    digits = value.lower().removeprefix("sha256:")
    if digits and not _SHA256.fullmatch(digits):
        raise fail("sha256", f"must be 64 hexadecimal digits, not {value[:80]!r}")
    return digits


@attrs.frozen(kw_only=True)
class Release:
    """A tar of a release, and what is wanted of it.

    Attributes:
        name: for messages, such as ``"Nanos 0.1.54"``.
        url: of the tar, which may be compressed.
        select: says under which path a member is kept, relative to the release's directory; ``None`` for what is not wanted.
        required: the paths that there must be.
        sha256: of the tar; empty for what the server has at ``checksum_url``, which is as trustworthy as that server.
        checksum_url: of a file as sha256sum(1) writes; empty for that beside the tar, ``.sha256`` behind its name.
    """

    name: str
    url: str
    select: Callable[[str], str | None]
    required: frozenset[str]
    sha256: str = attrs.field(default="", converter=_hex)
    checksum_url: str = ""


async def fetch_release(
    release: Release,
    directory: Path,
    *,
    backend: str,
    timeout: float = 60.0,  # noqa: ASYNC109 - of silence, not of the call
    tls: ssl.SSLContext | None = None,
    on_progress: ProgressCallback | None = None,
) -> Path:
    """The directory of a release, which is downloaded where it is not there.

    Args:
        release: which.
        directory: of this release alone; made whole or not at all.
        backend: for errors.
        timeout: seconds of silence until the server is given up.
        tls: what to trust; by default what Python does.
        on_progress: is told of the download.

    Raises:
        NotFoundError: the server has no such release, or no checksum of it.
        DigestMismatchError: what it sent has another checksum.
        BackendUnavailableError: it cannot be reached, or failed, or the tar is broken or not what was expected.
        ResourceExhaustedError: there is no room.
        InvalidConfigError: an address is none.
    """
    if await asyncio.to_thread(directory.is_dir):
        return directory
    with host_files(f"{directory.parent} for {release.name}", release.name, backend=backend):
        await _finish(lambda: _prepare(directory))
        with await FileLock.take(_lock(directory)):
            if not await asyncio.to_thread(directory.is_dir):
                throttle = ProgressThrottle(on_progress)
                await _Fetch(release, directory, backend, throttle).run(
                    RegistryHttp(timeout=timeout, plain_http=(), tls=tls)
                )
                throttle.finish()
    return directory


def _lock(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.lock")


def _prepare(directory: Path) -> None:
    directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _lock(directory).touch(mode=0o600)


class _Fetch:
    def __init__(self, release: Release, directory: Path, backend: str, throttle: ProgressThrottle) -> None:
        self._release = release
        self._directory = directory
        self._backend = backend
        self._throttle = throttle
        self._partial = directory.with_name(f".{directory.name}.partial-{secrets.token_hex(8)}")

    async def run(self, http: RegistryHttp) -> None:
        """Fetch it. Whoever calls holds the lock."""
        await _finish(self._clear)
        try:
            await _finish(self._partial.mkdir)
            try:
                expected = self._release.sha256 or await self._checksum(http)
                await self._download(http, expected)
            finally:
                await http.aclose()
            await _finish(self._unpack)
        except AttemptError as failure:
            raise self._error(failure) from failure.__cause__
        finally:
            await _finish(self._clear)

    def _clear(self) -> None:
        """Remove what was begun, here or by one that was killed."""
        for path in self._directory.parent.glob(f".{self._directory.name}.partial-*"):
            shutil.rmtree(path)

    def _error(self, failure: AttemptError) -> AsyncctrError:
        error = failure.error
        if isinstance(error, NotFoundError):
            return error
        hint = "try again, or download it elsewhere and unpack it" if failure.again else "unpack the release yourself"
        message = f"{error.message}; {hint} into {self._directory}"
        return BackendUnavailableError(message, backend=self._backend, resource=self._release.name, status=error.status)

    def _broken(self, text: str) -> BackendUnavailableError:
        message = f"{self._release.name}: the release at {self._release.url} {text}"
        return BackendUnavailableError(message, backend=self._backend, resource=self._release.name)

    async def _get(self, http: RegistryHttp, url: URL, hint: str) -> aiohttp.ClientResponse:
        name = self._release.name
        response = await http.request("GET", url, resource=name, headers={})
        if response.status == 404:
            response.close()
            message = f"{name}: there is nothing at {url}: {hint}"
            raise AttemptError(NotFoundError(message, backend=self._backend, resource=name, status=404))
        if response.status != 200:
            raise await problem(http, response, resource=name)
        return response

    async def _checksum(self, http: RegistryHttp) -> str:
        """What the server says is the checksum of the tar (sha256sum(1), of GNU or of BSD's kind)."""
        url = _address(self._release.checksum_url or f"{self._release.url}.sha256")
        response = await self._get(http, url, "its checksum is not known, so give it by configuration")
        data = await read_body(http, response, _MAX_CHECKSUMS, resource=self._release.name)
        wanted = PurePosixPath(_address(self._release.url).path).name
        found = {}
        for line in data.decode(errors="replace").splitlines():
            if (match := re.search(r"(?<![0-9A-Za-z])[0-9a-fA-F]{64}(?![0-9A-Za-z])", line)) is not None:
                rest = line.replace(match[0], "").strip(" *")
                found[rest if not rest.startswith("SHA256") else rest.partition("(")[2].partition(")")[0]] = match[
                    0
                ].lower()
        checksum = found.get(wanted) or found.get(f"./{wanted}") or (found.get("") if len(found) == 1 else None)
        if checksum is None:
            raise self._broken(f"has no checksum for {wanted} at {url}")
        return checksum

    async def _download(self, http: RegistryHttp, expected: str) -> None:
        url = _address(self._release.url)
        response = await self._get(http, url, "is there such a version?")
        digest = hashlib.sha256()
        done = 0

        def tell(action: str) -> None:
            total = response.content_length
            self._throttle.feed(
                Progress(action=action, id=self._release.name, current=done, total=total, message=action)
            )

        with self._archive.open("xb", buffering=0) as file:
            async with response:
                while data := await http.read(response, resource=self._release.name):
                    done += len(data)
                    if done > _MAX_ARCHIVE:
                        raise self._broken(f"has more than {_MAX_ARCHIVE} bytes")
                    digest.update(data)
                    # As much as a socket's buffer has.
                    file.write(data)
                    tell("Downloading")
        if (actual := digest.hexdigest()) != expected:
            message = f"{self._release.name}: {url} has the sha256 {actual}, not {expected}; nothing of it was unpacked"
            raise DigestMismatchError(message, backend=self._backend, resource=self._release.name)
        tell("Download complete")

    @property
    def _archive(self) -> Path:
        return self._partial / "archive"

    def _unpack(self) -> None:
        files = self._partial / "files"
        files.mkdir(mode=0o755)
        try:
            with tarfile.open(self._archive) as tar:
                self._extract(tar, files)
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
            raise self._broken(f"is no tar that can be read: {error}") from error
        missing = [path for path in sorted(self._release.required) if not (files / path).is_file()]
        if missing:
            raise self._broken(f"lacks {', '.join(missing)}")
        files.rename(self._directory)

    def _extract(self, tar: tarfile.TarFile, files: Path) -> None:
        left = _MAX_UNPACKED
        for count, member in enumerate(tar):
            # What is skipped has to be unpacked as well.
            left -= member.size
            if count >= _MAX_MEMBERS or left < 0:
                raise self._broken("is too large to be one")
            place = self._release.select(member.name.removeprefix("./"))
            if place is None or not member.isreg():
                continue
            parts = PurePosixPath(place).parts
            if not parts or ".." in parts or place.startswith("/"):
                raise self._broken(f"has a member of the name {member.name[:100]!r}")
            target = files.joinpath(*parts)
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            source = tar.extractfile(member)
            if source is not None:
                _write(source, target, 0o755 if member.mode & _PROGRAM else 0o644)


def _write(source: IO[bytes], target: Path, mode: int) -> None:
    with target.open("xb") as file:
        shutil.copyfileobj(source, file, _READ)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())


def _address(text: str) -> URL:
    url = parse_address(text)
    if url is None:
        raise InvalidConfigError(f"release_url: {text!r} is no http or https address", field="release_url")
    return url


async def _finish(call: Callable[[], T]) -> T:
    """Call something short in a thread, and wait for its end even when cancelled: what it made is there then."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    held = await Janitor.wait_for(task)
    if held is not None:
        if not task.cancelled():
            # Asked for, so that nobody misses it.
            task.exception()
        raise held
    return task.result()
