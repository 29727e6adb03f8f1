"""A containerd in a mount namespace of its own, which sees nothing of what is mounted here: networks and volumes work all the same."""

# ruff: noqa: ASYNC240 - nothing else runs on these loops

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import asyncctr
from asyncctr import ContainerConfig, ContainerdConfig, NetworkConfig, PortMapping, VolumeMount
from asyncctr.testing.containerd import Containerd
from asyncctr.testing.images import ImageSpec, build_archive

pytestmark = [pytest.mark.anyio, pytest.mark.require("containerd"), pytest.mark.require("cni")]

if TYPE_CHECKING:
    from typing import Literal

IMAGE = "asyncctr.test/busybox:latest"


@pytest.mark.parametrize("runtime", [pytest.param("crun", marks=pytest.mark.require("crun")), "runc"])
async def test_networks_and_volumes(
    runtime: Literal["crun", "runc"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_archive(ImageSpec(reference=IMAGE), tmp_path / "image.tar")
    async with Containerd(runtime=runtime, hide_unified=True) as daemon:
        data = daemon.dir / "sdk"
        monkeypatch.setenv("ASYNCCTR_DATA_DIR", str(data))
        await daemon.load(tmp_path / "image.tar", namespace="asyncctr")
        async with asyncctr.connect(ContainerdConfig(socket_path=str(daemon.socket))) as client:
            config = ContainerConfig(
                IMAGE,
                command=["sh", "-c", "ls /home; exec nc -ll -p 80 -e echo hi"],
                network=NetworkConfig(port_mappings=[PortMapping(container_port=80)]),
                volumes=[VolumeMount(source="homes", destination="/home", is_volume_name=True)],
            )
            async with client.container(config) as container:
                await container.start()
                async for line in container.logs().lines():
                    assert line.text == "app"
                    break
                port = (await container.inspect()).ports[0].host_port
                said = b""
                async with asyncio.timeout(20):
                    while not said:
                        try:
                            reader, writer = await asyncio.open_connection("127.0.0.1", port)
                            try:
                                said = await reader.read()
                            finally:
                                writer.close()
                                await writer.wait_closed()
                        except ConnectionError:
                            # Nobody listens yet.
                            await asyncio.sleep(0.02)
                assert said == b"hi\n"
            await client.backend.remove_network("bridge")  # type: ignore[attr-defined]
        mounts = Path(f"/proc/{daemon.pid}/mountinfo").read_text()
        assert str(data) not in mounts
        assert str(data) not in Path("/proc/self/mountinfo").read_text()
        assert not await daemon.leftovers()
