"""Which containerd is found, and what is said where none is."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncctr.backends.containerd import finding
from asyncctr.backends.containerd.daemon import programs
from asyncctr.backends.containerd.finding import acquire, find
from asyncctr.core.backend_config import ContainerdConfig, RootlessMode
from asyncctr.core.errors import BackendUnavailableError, InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

SETTINGS = bytes([0, 0, 6, 4, 0, 0, 0, 0, 0]) + bytes([0, 5, 0, 0, 0x40, 0])


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "xdg"),
        "ASYNCCTR_DATA_DIR": str(tmp_path / "data"),
        "ASYNCCTR_RUN_DIR": str(tmp_path / "run"),
        "PATH": os.environ["PATH"],
    }


@asynccontextmanager
async def server(path: Path, answer: bytes | None) -> AsyncIterator[None]:
    """Answers the preface with ``answer``, byte by byte, or never with ``None``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readexactly(24)).startswith(b"PRI * HTTP/2.0")
        for byte in answer or b"":
            writer.write(bytes([byte]))
            await writer.drain()
        await reader.read() if answer is None else await reader.readexactly(9)
        writer.close()

    path.parent.mkdir(parents=True, exist_ok=True)
    listening = await asyncio.start_unix_server(serve, path)
    async with listening:
        yield


async def test_the_socket_that_is_named(tmp_path: Path, environ: dict[str, str]) -> None:
    path = tmp_path / "c.sock"
    async with server(path, SETTINGS):
        endpoint = await find(ContainerdConfig(socket_path=path), environ)
        lease = await acquire(ContainerdConfig(socket_path=path, auto_start=True), environ)
    assert (endpoint.socket, endpoint.private, endpoint.rootless) == (str(path), False, None)
    assert Path(endpoint.state_dir).stat().st_mode & 0o777 == 0o700  # noqa: ASYNC240 - nothing else runs on this loop
    assert lease.endpoint == endpoint
    await lease.aclose()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "something else than containerd listens there"),
        (None, "accepts connections, but did not answer within 0.1 s"),
    ],
)
async def test_something_else_listens(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, answer: bytes | None, reason: str
) -> None:
    monkeypatch.setattr(finding, "PROBE_TIMEOUT", 0.1)
    path = tmp_path / "c.sock"
    async with server(path, answer):
        with pytest.raises(BackendUnavailableError, match=reason):
            await find(ContainerdConfig(socket_path=path), environ)


async def test_nothing_listens(tmp_path: Path, environ: dict[str, str]) -> None:
    path = tmp_path / "c.sock"
    # auto_start starts nothing in the place of one that is named.
    config = ContainerdConfig(socket_path=path, auto_start=True)
    with pytest.raises(BackendUnavailableError, match=r"c\.sock \(socket_path\): No such file or directory"):
        await acquire(config, environ)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(BackendUnavailableError, match="Connection refused: nobody listens, the socket is left over"):
        await acquire(config, environ)


async def test_a_users_own_is_found(tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "check_rootless_mode", lambda config: True)
    monkeypatch.setattr(finding, "runtime_directory", lambda environ: environ["XDG_RUNTIME_DIR"])
    paths = [tmp_path / "xdg/containerd/containerd.sock", tmp_path / ".local/share/containerd/containerd.sock"]
    for path in paths:
        async with server(path, SETTINGS):
            assert (await find(ContainerdConfig(), environ)).socket == str(path)
        path.unlink()
    (tmp_path / "xdg/containerd-rootless").mkdir()
    (tmp_path / "xdg/containerd-rootless/child_pid").write_text("4194305\n")
    with pytest.raises(BackendUnavailableError) as caught:
        await find(ContainerdConfig(), environ)
    for path in (*paths, "/proc/4194305/root/run/containerd/containerd.sock"):
        assert f"  - {path} (" in str(caught.value)


async def test_without_any_the_packages_are_named(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "SYSTEM_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setattr(programs, "SEARCH_PATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    config = ContainerdConfig(rootless_mode=RootlessMode.DISABLED)
    with pytest.raises(BackendUnavailableError, match=r"(?s)none\.sock.*apt-get install containerd runc, and"):
        await acquire(config, environ)
    monkeypatch.setattr(finding, "check_rootless_mode", lambda config: True)
    packages = "containerd fuse-overlayfs rootlesskit runc slirp4netns uidmap"
    with pytest.raises(BackendUnavailableError, match=f"apt-get install {packages}, and"):
        await acquire(ContainerdConfig(), environ)


async def test_the_private_one_though_another_runs(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.sock"
    asked: list[ContainerdConfig] = []

    async def ensure(config: ContainerdConfig, environ: object) -> str:
        asked.append(config)
        return "the private one"

    monkeypatch.setattr(finding, "SYSTEM_SOCKET", str(path))
    monkeypatch.setattr(finding, "check_rootless_mode", lambda config: False)
    monkeypatch.setattr(finding, "ensure_private", ensure)
    config = ContainerdConfig(private=True, auto_start=True)
    async with server(path, SETTINGS):
        found = await acquire(ContainerdConfig(auto_start=True), environ)
        assert found.endpoint.socket == str(path)
        assert await acquire(config, environ) == "the private one"
        assert asked == [config]
        with pytest.raises(BackendUnavailableError, match="no private containerd runs, and auto_start is not set"):
            await acquire(ContainerdConfig(private=True), environ)
    with pytest.raises(InvalidConfigError, match="not both") as caught:
        ContainerdConfig(private=True, socket_path=path)
    assert caught.value.field == "private"
