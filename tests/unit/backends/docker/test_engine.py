"""The backend on an engine of our own making: what it asks, and what becomes of odd answers and of silence."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import asyncctr
from asyncctr import (
    AsyncctrError,
    BackendUnavailableError,
    Client,
    ClosedError,
    ConflictError,
    ConnectionLostError,
    ContainerConfig,
    DockerConfig,
    ImageNotFoundError,
    InvalidConfigError,
    OperationTimeoutError,
    ResourceLimits,
    UnsupportedError,
)
from asyncctr.transport.ownership import LIFETIME, OWNER, Owner

pytestmark = pytest.mark.anyio

ID = "a" * 64
OTHER = "b" * 64
PODMAN = [{"Name": "Podman Engine"}]


class Engine:
    """Answers with what its dictionary has: a document, or a status and a message."""

    def __init__(self, path: Path) -> None:
        self.config = DockerConfig(host=f"unix://{path}", op_timeout=5, cleanup_timeout=1)
        self.answers: dict[str, Any] = {
            "GET /version": {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10"},
            "GET /info": {"MemoryLimit": True, "SwapLimit": True, "PidsLimit": True},
            "GET /libpod/info": {"host": {"networkBackend": "cni"}},
        }
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/v1.41")
        what = f"{request.method} {path}"
        self.asked.append(what)
        answer = self.answers.get(what, (404, f"nothing here at {what}"))
        if isinstance(answer, tuple):
            return web.json_response({"message": answer[1]}, status=answer[0])
        return web.json_response(answer)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    path = tmp_path / "engine.sock"
    made = Engine(path)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    yield made
    await runner.cleanup()


def container(container_id: str, owner: Owner | None = None) -> dict[str, Any]:
    labels = {OWNER: str(owner), LIFETIME: "owned"} if owner else {}
    return {"Id": container_id, "State": {"Status": "exited"}, "Config": {"Labels": labels}}


async def test_a_list_fails_with_the_error_itself(engine: Engine) -> None:
    engine.answers |= {
        "GET /containers/json": [{"Id": ID}, {"Id": OTHER}],
        f"GET /containers/{ID}/json": container(ID),
        f"GET /containers/{OTHER}/json": (500, "no space left on device"),
    }
    async with asyncctr.connect(engine.config) as client:
        with pytest.raises(asyncctr.ResourceExhaustedError):
            await client.list()
        with pytest.raises(InvalidConfigError):
            await client.list(labels="x")  # type: ignore[arg-type]


async def test_a_reap_removes_what_it_can_and_then_tells_what_it_could_not(engine: Engine) -> None:
    here = Owner.current()
    dead = Owner(here.boot, here.namespace, here.pid, here.start + 1)
    engine.answers |= {
        "GET /containers/json": [{"Id": ID}, {"Id": OTHER}],
        f"GET /containers/{ID}/json": container(ID, dead),
        f"GET /containers/{OTHER}/json": container(OTHER, dead),
        f"DELETE /containers/{ID}": (500, "device or resource busy"),
        f"DELETE /containers/{OTHER}": None,
    }
    async with asyncctr.connect(engine.config) as client:
        with pytest.raises(AsyncctrError, match="busy"):
            await client.reap()
        with pytest.raises(InvalidConfigError):
            await client.reap(older_than="1h")  # type: ignore[arg-type]
    assert f"DELETE /containers/{OTHER}" in engine.asked


USES: dict[str, Callable[[Any], Awaitable[object]]] = {
    "create": lambda backend: backend.create(ContainerConfig("image")),
    "list": lambda backend: backend.list(),
    "wait": lambda backend: backend.wait(ID),
    "logs": lambda backend: backend.logs(ID),
    "health_check": lambda backend: backend.health_check(),
    "volumes": lambda backend: backend.list_volumes(),
    "networks": lambda backend: backend.list_networks(),
    "images": lambda backend: backend.images(),
    "pull": lambda backend: backend.image("image").pull(),
    "push": lambda backend: backend.push("image"),
    "exists": lambda backend: backend.image("image").exists(),
}


@pytest.mark.parametrize("use", USES)
async def test_a_closed_backend_says_so(engine: Engine, use: str) -> None:
    backend = await asyncctr.open_backend(engine.config)
    await backend.aclose()
    with pytest.raises(ClosedError):
        await USES[use](backend)


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [(404, "page not found", "Is the engine running"), (400, "Client sent an HTTP request to an HTTPS server.", "TLS")],
)
async def test_what_is_no_engine(engine: Engine, status: int, message: str, hint: str) -> None:
    engine.answers["GET /version"] = (status, message)
    with pytest.raises(BackendUnavailableError, match="is no Docker engine") as caught:
        await asyncctr.open_backend(engine.config)
    assert hint in str(caught.value)


async def test_a_certificate_that_is_refused_after_the_handshake_is_no_lost_connection(engine: Engine) -> None:
    backend = await asyncctr.open_backend(engine.config)
    async with backend:
        error = ConnectionLostError("the peer closed the connection without an answer")
        error.__cause__ = ssl.SSLError(1, "[SSL: SSLV3_ALERT_BAD_CERTIFICATE] sslv3 alert bad certificate")
        with pytest.raises(BackendUnavailableError, match=r"tls\.cert_file"):
            backend._api._raise(error, "GET /version", "")  # type: ignore[attr-defined]


async def test_a_queue_that_is_full_for_ever_is_waited_for_no_longer_than_op_timeout(tmp_path: Path) -> None:
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        queued = []
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            queued.append(client)
            try:
                client.connect(path)
            except BlockingIOError:
                break
        try:
            async with asyncio.timeout(5):
                with pytest.raises(OperationTimeoutError, match="connecting to"):
                    await asyncctr.open_backend(DockerConfig(host=f"unix://{path}", op_timeout=0.2))
        finally:
            for client in queued:
                client.close()


async def test_what_podman_would_drop_is_refused(engine: Engine) -> None:
    engine.answers["GET /version"]["Components"] = PODMAN
    engine.answers["GET /images/docker.io/library/image:latest/json"] = {"Os": "linux", "Architecture": "amd64"}
    async with await asyncctr.open_backend(engine.config) as backend:
        for config, field in (
            (ContainerConfig("image", runtime="crun"), "runtime"),
            (ContainerConfig("image", seccomp='{"defaultAction": "SCMP_ACT_ALLOW"}'), "seccomp.profile"),
            (
                ContainerConfig("image", resources=ResourceLimits(memory=1 << 30, memory_swap=-1)),
                "resources.memory_swap.unlimited",
            ),
        ):
            with pytest.raises(UnsupportedError) as caught:
                await backend.create(config)
            assert caught.value.field == field
            assert field in backend.capabilities.refused_fields
        with pytest.raises(ImageNotFoundError, match="linux/amd64"):
            await backend.create(ContainerConfig("image", platform="linux/arm64"))
    assert "POST /containers/create" not in engine.asked


async def test_names_of_volumes_networks_and_images_reach_no_other_path(engine: Engine) -> None:
    backend: Any = await asyncctr.open_backend(engine.config)
    async with backend:
        for refused in (
            backend.remove_network(f"../containers/{ID}"),
            backend.create_network("a/b"),
            backend.create_network("a", subnet="10.0.0.1/8"),
            backend.create_network("a", mtu="x"),
            backend.remove_volume("../x"),
            backend.tag("../containers/x", "image:1"),
            anext(backend.save("image")),
            anext(backend.save([])),
        ):
            with pytest.raises(InvalidConfigError):
                await refused
    assert engine.asked == ["GET /version", "GET /info"]


async def test_a_volume_with_other_labels_is_a_conflict(engine: Engine) -> None:
    volume = {"Name": "v", "Labels": {"a": "1"}}
    engine.answers |= {"POST /volumes/create": volume, "GET /volumes/v": volume}
    backend: Any = await asyncctr.open_backend(engine.config)
    async with backend:
        assert (await backend.create_volume("v", labels={"a": "1"})).name == "v"
        assert (await backend.create_volume("v")).name == "v"
        with pytest.raises(ConflictError):
            await backend.create_volume("v", labels={"a": "2"})


async def test_a_run_has_no_use_for_a_terminal_with_input(engine: Engine) -> None:
    async with asyncctr.connect(engine.config) as client:
        for run in (
            client.run(ContainerConfig("image", tty=True), input=b"x"),
            client.run(ContainerConfig("image", tty=True, stdin=True)),
        ):
            with pytest.raises(InvalidConfigError) as caught:
                await run
            assert caught.value.field == "input"


async def test_a_run_of_what_reads_gives_it_an_end(engine: Engine) -> None:
    given: list[bytes | None] = []

    async def launch(config: ContainerConfig, sink: object, *, input: bytes | None = None) -> None:  # noqa: A002
        given.append(input)
        raise AsyncctrError("enough")

    async with asyncctr.connect(engine.config) as client:
        client.backend.launch = launch  # type: ignore[attr-defined]
        for config in (ContainerConfig("image", stdin=True), ContainerConfig("image")):
            with pytest.raises(AsyncctrError, match="enough"):
                await client.run(config)
        assert isinstance(client, Client)
    assert given == [b"", None]
