from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    DigestMismatchError,
    InvalidConfigError,
    NotFoundError,
)
from asyncctr.vm.releases import Release, fetch_release

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from asyncctr.core.images import Progress

pytestmark = pytest.mark.anyio

_FILES = {"release/tool": b"#!tool", "release/lib/one": b"1", "release/README": b"no", "../escape": b"no"}


def make_tar(files: dict[str, bytes], *, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]  # the mode is a parameter
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755 if name.endswith("tool") else 0o644
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Server:
    """A server of releases.

    Attributes:
        files: what it has, by path.
        first: what answers before it looks there.
        seen: the paths that were asked for.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.first: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
        self.seen: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request.path)
        if self.first is not None and (response := await self.first(request)) is not None:
            return response
        data = self.files.get(request.path)
        return web.Response(body=data) if data is not None else web.Response(status=404)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    serving = Server()
    application = web.Application()
    application.router.add_get("/{path:.*}", serving.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    serving.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield serving
    await runner.cleanup()


def _select(name: str) -> str | None:
    return name.removeprefix("release/") if name != "release/README" else None


def _release(server: Server, **fields: Any) -> Release:
    values: dict[str, Any] = {"select": _select, "required": frozenset({"tool"}), **fields}
    return Release(name="Tool 1", url=f"{server.url}/v1/tool.tgz", **values)


def _offer(server: Server, data: bytes) -> str:
    server.files["/v1/tool.tgz"] = data
    return hashlib.sha256(data).hexdigest()


async def _fetch(release: Release, tmp_path: Path, **fields: Any) -> Path:
    return await fetch_release(release, tmp_path / "cache/v1", backend="test", **fields)


def _left(tmp_path: Path) -> list[str]:
    """What there is beside the lock."""
    return sorted(path.name for path in (tmp_path / "cache").iterdir() if path.name != ".v1.lock")


_GOOD = {name: data for name, data in _FILES.items() if not name.startswith("..")}


async def test_a_release_is_fetched_once(server: Server, tmp_path: Path) -> None:
    digest = _offer(server, make_tar(_GOOD))
    told: list[Progress] = []
    release = _release(server, sha256=digest)
    directory = await _fetch(release, tmp_path, on_progress=told.append)
    assert {path.relative_to(directory).as_posix() for path in directory.rglob("*")} == {"tool", "lib", "lib/one"}
    assert (directory / "tool").read_bytes() == b"#!tool"
    assert (directory / "tool").stat().st_mode & 0o777 == 0o755
    assert (directory / "lib/one").stat().st_mode & 0o777 == 0o644
    assert told[-1].action == "Download complete"
    assert told[-1].current == told[-1].total == len(server.files["/v1/tool.tgz"])
    assert await _fetch(release, tmp_path) == directory
    assert server.seen == ["/v1/tool.tgz"]
    assert _left(tmp_path) == ["v1"]


@pytest.mark.parametrize(
    "text",
    [
        "{}\n",
        "{}  tool.tgz\n",
        "0000000000000000000000000000000000000000000000000000000000000000  other\n{} *./tool.tgz\n",
        "SHA256 (tool.tgz) = {}\n",
    ],
)
async def test_the_checksum_may_be_the_servers(server: Server, tmp_path: Path, text: str) -> None:
    digest = _offer(server, make_tar(_GOOD))
    server.files["/v1/tool.tgz.sha256"] = text.format(digest.upper()).encode()
    assert await _fetch(_release(server), tmp_path)
    assert server.seen[0] == "/v1/tool.tgz.sha256"


async def test_another_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    _offer(server, make_tar(_GOOD))
    with pytest.raises(DigestMismatchError, match="nothing of it was unpacked"):
        await _fetch(_release(server, sha256="0" * 64), tmp_path)
    assert _left(tmp_path) == []
    server.files["/v1/tool.tgz.sha256"] = b"nothing"
    with pytest.raises(BackendUnavailableError, match=r"no checksum for tool\.tgz"):
        await _fetch(_release(server), tmp_path)
    assert _left(tmp_path) == []


async def test_a_release_that_is_not_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is there such a version"):
        await _fetch(_release(server, sha256="0" * 64), tmp_path)
    with pytest.raises(NotFoundError, match="give it by configuration"):
        await _fetch(_release(server), tmp_path)
    assert _left(tmp_path) == []


async def _cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000000"})
    await response.prepare(request)
    await response.write(bytes(1000))
    assert request.transport is not None
    request.transport.abort()
    return response


async def _fail(_: web.Request) -> web.StreamResponse:
    return web.Response(status=503)


@pytest.mark.parametrize(("first", "said"), [(_cut, "cut the connection"), (_fail, "503")])
async def test_a_server_that_fails(
    server: Server, tmp_path: Path, first: Callable[[web.Request], Awaitable[web.StreamResponse]], said: str
) -> None:
    server.first = first
    with pytest.raises(BackendUnavailableError, match=said):
        await _fetch(_release(server, sha256="0" * 64), tmp_path)
    assert _left(tmp_path) == []


async def test_no_network(server: Server, tmp_path: Path) -> None:
    release = Release(name="Tool 1", url="http://127.0.0.1:1/x", select=_select, required=frozenset(), sha256="0" * 64)
    with pytest.raises(BackendUnavailableError, match=r"cannot be reached.*unpack it into"):
        await _fetch(release, tmp_path)
    assert _left(tmp_path) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (make_tar(_FILES), "has a member of the name"),
        (make_tar({"release/other": b""}), "lacks tool"),
        (make_tar(_GOOD)[:-20], "no tar that can be read"),
        (b"text", "no tar that can be read"),
    ],
)
async def test_a_tar_that_is_not_what_was_expected(server: Server, tmp_path: Path, data: bytes, said: str) -> None:
    digest = _offer(server, data)
    with pytest.raises(BackendUnavailableError, match=said):
        await _fetch(_release(server, sha256=digest), tmp_path)
    assert _left(tmp_path) == []


async def test_links_and_devices_are_not_unpacked(server: Server, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("release/tool")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    digest = _offer(server, buffer.getvalue())
    with pytest.raises(BackendUnavailableError, match="lacks tool"):
        await _fetch(_release(server, sha256=digest), tmp_path)


async def test_who_waits_has_what_another_downloaded(server: Server, tmp_path: Path) -> None:
    release = _release(server, sha256=_offer(server, make_tar(_GOOD)))
    # What a killed process left.
    (tmp_path / "cache/.v1.partial-dead").mkdir(parents=True)
    directories = await asyncio.gather(*(_fetch(release, tmp_path) for _ in range(5)))
    assert set(directories) == {tmp_path / "cache/v1"}
    assert server.seen == ["/v1/tool.tgz"]
    assert _left(tmp_path) == ["v1"]


async def test_a_cancelled_download_leaves_nothing(server: Server, tmp_path: Path) -> None:
    asked, end = asyncio.Event(), asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        asked.set()
        await end.wait()
        return response

    server.first = hang
    task = asyncio.create_task(_fetch(_release(server, sha256="0" * 64), tmp_path))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    end.set()
    assert _left(tmp_path) == []


@pytest.mark.parametrize("address", ["ftp://x/y", "file:///etc/passwd", "nonsense"])
async def test_an_address_that_is_none(tmp_path: Path, address: str) -> None:
    release = Release(name="Tool 1", url=address, select=_select, required=frozenset(), sha256="0" * 64)
    with pytest.raises(InvalidConfigError, match="address"):
        await _fetch(release, tmp_path)


def test_a_checksum_that_is_none() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Release(name="x", url="http://x", select=_select, required=frozenset(), sha256="abc")
    assert isinstance(caught.value, AsyncctrError)
    assert caught.value.field == "sha256"
