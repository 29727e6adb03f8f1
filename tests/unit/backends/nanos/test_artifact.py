from __future__ import annotations

import gzip
import hashlib
import os
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncctr.backends.nanos.artifact import DISK_TYPE, GZIP_TYPE, load, pull
from asyncctr.backends.nanos.document import ImageDocument
from asyncctr.backends.nanos.store import ImageStore
from asyncctr.core.errors import (
    AsyncctrError,
    DigestMismatchError,
    ImageNotFoundError,
    ImagePullError,
    InvalidConfigError,
    RegistryAuthError,
)
from asyncctr.core.images import Progress, RegistryAuth
from asyncctr.testing.nanos_images import NanosArtifact
from asyncctr.testing.registry import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

# Holes and data, over several of the writer's blocks.
_DISK = os.urandom(100 << 10) + bytes(3 << 20) + os.urandom(2 << 20) + bytes(1 << 20)


@pytest.fixture
async def store(tmp_path: Path) -> ImageStore:
    return await ImageStore.open(tmp_path / "images")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def registry() -> AsyncIterator[Registry]:
    async with Registry(auth="htpasswd") as started:
        yield started


def _wrong() -> dict[str, NanosArtifact]:
    """Artifacts with something wrong, by what is said of it."""
    right = NanosArtifact.make(_DISK, packed=True)
    other = ImageDocument.make(disk_digest="sha256:" + "0" * 64, disk_size=len(_DISK), program="/hello")
    short = ImageDocument.make(
        disk_digest=f"sha256:{hashlib.sha256(_DISK).hexdigest()}", disk_size=512, program="/hello"
    )
    return {
        "more than the 512 bytes": attrs.evolve(right, config=short.data),
        "not sha256:0000": attrs.evolve(right, config=other.data),
        "cut off": attrs.evolve(right, disk=right.disk[:-1]),
        "behind the end": attrs.evolve(right, disk=right.disk + b"x"),
        "broken gzip": attrs.evolve(right, disk=_DISK),
        "another one": attrs.evolve(right, disk_type=DISK_TYPE),
        "is known": attrs.evolve(right, disk_type="application/zip"),
        "'application/x-other'": attrs.evolve(right, artifact_type="application/x-other"),
        "no JSON": attrs.evolve(right, config=b"no"),
        "for amd64/linux": attrs.evolve(right, config=b'{"os":"linux","architecture":"amd64","disk":{}}'),
        f"bytes, not {len(_DISK)}": attrs.evolve(right, disk=gzip.compress(_DISK[:-512])),
    }


@pytest.mark.parametrize("packed", [False, True])
async def test_an_archive_is_loaded(store: ImageStore, tmp_path: Path, packed: bool) -> None:
    artifact = NanosArtifact.make(_DISK, packed=packed, kernel="0.1.50")
    file = tmp_path / "image.tar"
    file.write_bytes(artifact.archive())
    image = await load(store, "app", file)
    assert (image.digest, image.names) == (artifact.digest, ("docker.io/library/app:latest",))
    assert image.disk.read_bytes() == _DISK
    assert image.disk.stat().st_blocks * 512 < len(_DISK)
    assert (image.document.program, image.document.kernel) == ("/hello", "0.1.50")

    async def chunks() -> AsyncIterator[bytes]:
        yield gzip.compress(file.read_bytes(), 1)

    again = await load(store, "app:2", chunks())
    assert (again.digest, len(again.names)) == (image.digest, 2)


@pytest.mark.parametrize("said", list(_wrong()))
async def test_a_wrong_archive_is_refused_and_leaves_nothing(store: ImageStore, tmp_path: Path, said: str) -> None:
    file = tmp_path / "image.tar"
    file.write_bytes(_wrong()[said].archive())
    with pytest.raises((InvalidConfigError, DigestMismatchError), match=said):
        await load(store, "app", file)
    assert await store.images() == ()
    assert list((tmp_path / "images/disks").iterdir()) == []


async def test_what_is_no_layout_is_refused(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="cannot be opened"):
        await load(store, "app", tmp_path / "missing")
    (tmp_path / "text").write_text("text")
    with pytest.raises(InvalidConfigError, match="no tar"):
        await load(store, "app", tmp_path / "text")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 14), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4))
async def test_a_hostile_archive_is_loaded_or_refused(
    store: ImageStore, tmp_path: Path, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(NanosArtifact.make(bytes(512) + b"data".ljust(512, b"."), packed=True).archive())
    for offset, replacement in changes:
        place = offset % len(data)
        data[place : place + len(replacement)] = replacement
    file = tmp_path / "image.tar"
    file.write_bytes(data)
    try:
        await load(store, "app", file)
    except (InvalidConfigError, DigestMismatchError) as error:
        assert isinstance(error, AsyncctrError)


@pytest.mark.require("registry")
@pytest.mark.parametrize("packed", [False, True])
async def test_an_image_is_pulled(store: ImageStore, registry: Registry, packed: bool) -> None:
    artifact = NanosArtifact.make(_DISK, packed=packed)
    name = f"app{packed:d}"
    await artifact.push(registry.url, name, "1", auth=registry.credentials)
    assert registry.credentials is not None
    auth = RegistryAuth(username=registry.credentials[0], password=registry.credentials[1])
    told: list[Progress] = []
    image = await pull(store, registry.reference(name, "1"), auth=auth, on_progress=told.append)
    assert (image.digest, image.names) == (artifact.digest, (registry.reference(name, "1"),))
    assert image.disk.read_bytes() == _DISK
    counted = [step for step in told if step.action == "Downloading"]
    assert counted[-1].current == counted[-1].total == len(artifact.disk)
    told.clear()
    await pull(store, registry.reference(name, "1"), auth=auth, on_progress=told.append)
    assert [step.action for step in told] == ["Already exists"]
    by_digest = f"{registry.reference(name, '1')}@sha256:{hashlib.sha256(artifact.manifest).hexdigest()}"
    assert (await pull(store, by_digest, auth=auth)).digest == (await store.get(by_digest)).digest == image.digest
    with pytest.raises(ImageNotFoundError):
        await pull(store, registry.reference(name, "2"), auth=auth)
    with pytest.raises(RegistryAuthError):
        await pull(store, registry.reference(name, "1"), auth=RegistryAuth(username="x", password="y"))


@pytest.mark.require("registry")
async def test_a_wrong_image_is_not_pulled(store: ImageStore, registry: Registry, tmp_path: Path) -> None:
    assert registry.credentials is not None
    auth = RegistryAuth(username=registry.credentials[0], password=registry.credentials[1])
    for place, (said, artifact) in enumerate(_wrong().items()):
        await artifact.push(registry.url, f"wrong{place}", "1", auth=registry.credentials)
        with pytest.raises(ImagePullError, match=said):
            await pull(store, registry.reference(f"wrong{place}", "1"), auth=auth)
    right = NanosArtifact.make(_DISK[:512], packed=False)
    await right.push(registry.url, "corrupt", "1", auth=registry.credentials)
    registry.blob_path(f"sha256:{hashlib.sha256(right.disk).hexdigest()}").write_bytes(bytes(512))
    with pytest.raises(DigestMismatchError):
        await pull(store, registry.reference("corrupt", "1"), auth=auth)
    assert await store.images() == ()
    assert list((tmp_path / "images/disks").iterdir()) == []


def test_the_types_are_what_is_published() -> None:
    assert GZIP_TYPE == "application/vnd.asyncctr.nanos.image.disk.v1+gzip"
