from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.backends.nanos.kernels import find_kernel, version_key
from asyncctr.backends.nanos.ops_config import OpsConfig
from asyncctr.core.backend_config import NanosConfig
from asyncctr.core.errors import BackendUnavailableError, InvalidConfigError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


class Machine:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.environ = {"HOME": str(path / "home"), "OPS_HOME": str(path / "ops")}
        self.downloads = path / "downloads"

    def add(self, directory: str, *names: str) -> Path:
        place = self.path / directory
        place.mkdir(parents=True)
        for name in names or ("kernel.img", "boot.img"):
            (place / name).touch()
        return place

    async def find(self, **fields: object) -> str:
        kernel = await find_kernel(NanosConfig(**fields), self.downloads, environ=self.environ)  # type: ignore[arg-type]
        return str(kernel.path.parent.relative_to(self.path))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_versions_are_ordered_by_their_numbers() -> None:
    ordered = ["nightly", "0.1.9", "0.1.10-rc2", "0.1.10-rc10", "0.1.10", "0.1.54", "0.2", "v1.0"]
    assert sorted(set(ordered), key=version_key) == ordered


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_versions_have_an_order(one: str, other: str) -> None:
    assert (version_key(one) < version_key(other)) is not (version_key(other) <= version_key(one))


async def test_the_newest_is_taken_unless_another_is_named(machine: Machine) -> None:
    machine.add("home/.ops/0.1.9")
    machine.add("ops/.ops/0.1.10")
    machine.add("ops/.ops/0.1.11-arm")
    machine.add("ops/.ops/nightly")
    machine.add("ops/.ops/0.1.12", "boot.img")
    machine.add("ops/.ops/images", "kernel.img")
    assert await machine.find() == "ops/.ops/0.1.10"
    assert await machine.find(version="v0.1.9") == "home/.ops/0.1.9"
    assert await machine.find(version="nightly") == "ops/.ops/nightly"
    machine.add("downloads/0.1.11")
    assert await machine.find() == "downloads/0.1.11"


async def test_what_is_beside_a_kernel_is_found(machine: Machine) -> None:
    place = machine.add("home/.ops/0.1.54")
    (place / "klibs").mkdir()
    kernel = await find_kernel(NanosConfig(), machine.downloads, environ=machine.environ)
    assert (kernel.version, kernel.boot, kernel.klib_dir) == ("0.1.54", place / "boot.img", place / "klibs")
    alone = machine.add("alone", "kernel.img")
    kernel = await find_kernel(
        NanosConfig(kernel_path=alone / "kernel.img"), machine.downloads, environ=machine.environ
    )
    assert (kernel.path, kernel.version, kernel.boot, kernel.klib_dir) == (alone / "kernel.img", "", None, None)


async def test_the_configuration_names_the_kernel(machine: Machine) -> None:
    machine.add("project", "my.img", "my-boot.img")
    ops = OpsConfig.parse('{"Kernel": "my.img", "Boot": "my-boot.img"}', directory=str(machine.path / "project"))
    kernel = await find_kernel(NanosConfig(), machine.downloads, ops=ops, environ=machine.environ)
    assert (kernel.path.name, kernel.boot) == ("my.img", machine.path / "project/my-boot.img")
    with pytest.raises(BackendUnavailableError, match="there is no kernel"):
        await machine.find(kernel_path=machine.path / "missing")


async def test_what_is_missing_is_said_with_what_to_do(machine: Machine) -> None:
    with pytest.raises(BackendUnavailableError, match="auto_download=True") as caught:
        await machine.find()
    assert str(machine.path / "ops/.ops") in caught.value.message
    with pytest.raises(BackendUnavailableError, match=r"version 0\.1\.1 "):
        await machine.find(version="0.1.1")
    with pytest.raises(BackendUnavailableError, match="which one to download"):
        await machine.find(auto_download=True)
    for version in ("../x", "a/b", ".", "x" * 65):
        with pytest.raises(InvalidConfigError):
            await machine.find(version=version)


@pytest.fixture
async def releases() -> AsyncIterator[tuple[str, str]]:
    """A server with one release: its address, and the checksum."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in ("kernel.img", "boot.img", "klibs/tls", "mkfs", "klibs/deep/no"):
            tar.addfile(tarfile.TarInfo(name))
    data = buffer.getvalue()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=data)

    application = web.Application()
    application.router.add_get("/r/0.1.54/nanos-release-linux-0.1.54.tar.gz", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/r", hashlib.sha256(data).hexdigest()
    await runner.cleanup()


async def test_a_named_version_is_downloaded(machine: Machine, releases: tuple[str, str]) -> None:
    address, digest = releases
    config = NanosConfig(version="0.1.54", auto_download=True, release_sha256=digest)
    environ = {**machine.environ, "ASYNCCTR_NANOS_RELEASES": address}
    kernel = await find_kernel(config, machine.downloads, environ=environ)
    place = machine.downloads / "0.1.54"
    assert (kernel.path, kernel.boot, kernel.klib_dir) == (place / "kernel.img", place / "boot.img", place / "klibs")
    assert [path.name for path in (place / "klibs").iterdir()] == ["tls"]
    assert not (place / "mkfs").exists()
    assert await machine.find() == "downloads/0.1.54"
    with pytest.raises(NotFoundError):
        await machine.find(version="0.1.55", auto_download=True, release_sha256=digest, release_url=f"{address}/")
