"""The pages' Python runs, prints what they say, and leaves nothing behind."""

# ruff: noqa: ASYNC110 - nothing tells when a container of another client is gone

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

import asyncctr
from asyncctr.testing.daemons import Leftovers

if TYPE_CHECKING:
    from conftest import World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


async def test_index(world: World) -> None:
    assert await world.run("index.md") == 2
    assert await world.docker.leftovers() == Leftovers()


async def test_tutorial(world: World) -> None:
    assert await world.run("tutorial.md", REGISTRY=world.registry.host, PODMAN=world.docker.host) > 30
    assert await world.docker.leftovers() == Leftovers()


async def check_server(server: dict[str, Any]) -> None:
    """What the guide says of its server."""
    runner = web.AppRunner(server["make_app"](), handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        async with asyncctr.connect() as client, aiohttp.ClientSession(f"http://{host}:{port}") as session:
            await _check_requests(session, client, server)
    finally:
        await runner.cleanup()


async def _check_requests(session: aiohttp.ClientSession, client: asyncctr.Client, server: dict[str, Any]) -> None:
    async def run(code: str) -> str:
        async with session.post("/run", data=code) as response:
            assert response.status == 200
            return await response.text()

    assert await run("echo hello; id -u; exit 3") == "hello\n65534\n\n[exit code 3]\n"
    assert "[exit code 0]" not in await run("echo x > /etc/passwd")
    assert (await run("yes $(head -c 2000 /dev/zero | tr '\\0' x)")).endswith("\n[too much output]\n")
    server["MAX_SECONDS"] = 1
    assert await run("echo begun; sleep 60") == "begun\n\n[ran too long]\n"
    server["MAX_SECONDS"] = 60

    # Streamed: the first line is there long before the last.
    async with session.post("/run", data="echo first; sleep 60") as response:
        assert await asyncio.wait_for(response.content.readline(), 20) == b"first\n"

    # The caller above went away; so does its container, and its slot is free again.
    async with asyncio.timeout(20):
        while await client.list():
            await asyncio.sleep(0.05)

    # At most four at once, the rest wait.
    began = time.monotonic()
    most = 0
    requests = [asyncio.create_task(run("sleep 2")) for _ in range(6)]
    while not all(request.done() for request in requests):
        most = max(most, len([info for info in await client.list() if info.status == "running"]))
        await asyncio.sleep(0.1)
    assert all(request.result() == "\n[exit code 0]\n" for request in requests)
    assert most == server["MAX_RUNNING"]
    assert time.monotonic() - began > 4

    # One more than may run and wait is refused.
    server["MAX_WAITING"] = 0
    async with session.post("/run", data="true") as response:
        assert response.status == 503


async def test_embedding(world: World) -> None:
    await world.run("guides/embedding.md", check_server=check_server)
    assert await world.docker.leftovers() == Leftovers()
