"""The public API as a type checker sees it; this file is checked, never run."""

from __future__ import annotations

from typing import assert_type

import asyncctr
from asyncctr import (
    Backend,
    Client,
    Container,
    ContainerConfig,
    ContainerId,
    ContainerInfo,
    DockerConfig,
    ExitStatus,
    LogEntry,
    LogLine,
    LogStream,
    Output,
    ResourceLimits,
    RunResult,
    SupportsLaunch,
)


async def client_layer() -> None:
    async with asyncctr.connect(DockerConfig(host="unix:///run/docker.sock")) as client:
        assert_type(client, Client)
        await client.image("alpine:3.20").pull(on_progress=print)
        assert_type(await client.run("alpine:3.20", ["echo", "hello"], timeout=30), RunResult)
        config = ContainerConfig(
            image="alpine:3.20",
            command=["sh", "-c", "make test"],
            env={"CI": "1"},
            resources=ResourceLimits(memory=256 << 20, pids=128),
        )
        assert_type(await client.run(config, check=True, input=b"x"), RunResult)
        async with client.container(config, stop_grace=5.0) as container:
            assert_type(container, Container)
            await container.start()
            async for entry in container.logs():
                assert_type(entry, LogEntry)
            async for line in container.logs(tail=10).lines():
                assert_type(line, LogLine)
            assert_type(await container.logs().read(), Output)
            assert_type(await container.logs(), LogStream)
            assert_type(await container.wait(), ExitStatus)
            assert_type(await container.inspect(), ContainerInfo)
    opened = await asyncctr.connect()
    assert_type(opened, Client)


async def backend_layer() -> None:
    backend = await asyncctr.open_backend(DockerConfig())
    assert_type(backend, Backend)
    container_id = await backend.create(ContainerConfig("alpine", env=["A=1"], tmpfs=["/tmp"]))
    assert_type(container_id, ContainerId)
    async for entry in await backend.logs(container_id):
        assert_type(entry, LogEntry)
    if isinstance(backend, SupportsLaunch):
        launched = await backend.launch(ContainerConfig("alpine"), lambda _stream, _data: None)
        assert_type(await launched.wait(), ExitStatus)
    await backend.remove(container_id, force=True)
