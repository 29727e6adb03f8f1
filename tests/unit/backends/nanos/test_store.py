from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.backends.nanos.document import ImageDocument
from asyncctr.backends.nanos.image_index import new_name
from asyncctr.backends.nanos.store import ImageStore, StoredImage
from asyncctr.core.errors import (
    ConflictError,
    ImageNotFoundError,
    InvalidConfigError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

_DISK = b"a disk of one sector".ljust(512, b"\0")


@pytest.fixture
async def store(tmp_path: Path) -> ImageStore:
    return await ImageStore.open(tmp_path / "images")


def _document(digest: str, size: int = 512, kernel: str = "0.1.50") -> ImageDocument:
    return ImageDocument.make(disk_digest=digest, disk_size=size, program="/hello", kernel=kernel)


async def _add(store: ImageStore, *names: str, data: bytes = _DISK, kernel: str = "0.1.50") -> StoredImage:
    async with await store.create() as disk:
        disk.path.write_bytes(data)
        return await disk.commit(names, _document(await disk.digest(), len(data), kernel))


def _files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "images/disks").iterdir())


async def test_an_image_is_found_by_its_names_and_its_digest(store: ImageStore, tmp_path: Path) -> None:
    image = await _add(store, "hello", "registry.test/x/hello:2")
    assert image.names == ("docker.io/library/hello:latest", "registry.test/x/hello:2")
    assert image.disk.read_bytes() == _DISK
    assert image.document.program == "/hello"
    assert image.document.disk_digest == f"sha256:{hashlib.sha256(_DISK).hexdigest()}"
    for name in ("hello:latest", "docker.io/library/hello", image.digest, f"registry.test/other@{image.digest}"):
        assert await store.get(name) == image
    assert await (await ImageStore.open(tmp_path / "images")).images() == (image,)
    assert (tmp_path / "images").stat().st_mode & 0o777 == 0o700
    assert image.disk.stat().st_mode & 0o777 == 0o400
    with pytest.raises(ImageNotFoundError, match="build, pull or load"):
        await store.get("other")


async def test_the_same_bytes_are_kept_once(store: ImageStore, tmp_path: Path) -> None:
    first = await _add(store, "one")
    again = await _add(store, "two")
    other = await _add(store, "three", kernel="0.1.51")
    assert (again.digest, again.names) == (
        first.digest,
        ("docker.io/library/one:latest", "docker.io/library/two:latest"),
    )
    assert other.digest != first.digest
    assert other.disk == first.disk
    assert len(_files(tmp_path)) == 1
    await store.remove(first.digest)
    assert other.disk.exists()
    await store.remove("three")
    assert _files(tmp_path) == []


async def test_a_name_moves_and_an_image_without_names_goes(store: ImageStore, tmp_path: Path) -> None:
    await _add(store, "app", data=_DISK)
    new = await _add(store, "app", data=_DISK * 2)
    assert await store.images() == (new,)
    assert len(_files(tmp_path)) == 1
    pulled = f"app@sha256:{'0' * 64}"
    for name in ("app:2", pulled):
        await store.tag("app", name)
    assert await store.get(pulled) == await store.get("app")
    for name in ("app", pulled):
        await store.remove(name)
    assert (await store.get("app:2")).digest == new.digest
    with pytest.raises(ImageNotFoundError):
        await store.get("app")
    with pytest.raises(ImageNotFoundError):
        await store.tag("app", "app:3")


async def test_an_image_in_use_stays(store: ImageStore, tmp_path: Path) -> None:
    vm = tmp_path / "vm1"
    vm.mkdir()
    await _add(store, "app", "app:2")
    image = await store.hold("app", vm)
    await store.remove("app:2")
    with pytest.raises(ConflictError, match="vm1"):
        await store.remove("app")
    await store.remove("app", force=True)
    assert image.disk.exists()
    assert [entry.names for entry in await store.images()] == [()]
    await store.release(image.digest, vm)
    await store.release(image.digest, vm)
    assert await store.images() == ()
    assert _files(tmp_path) == []


async def test_a_machine_that_is_gone_holds_nothing(store: ImageStore, tmp_path: Path) -> None:
    vm = tmp_path / "vm1"
    vm.mkdir()
    await _add(store, "app")
    await store.hold("app", vm)
    vm.rmdir()
    await store.remove("app")
    assert _files(tmp_path) == []
    assert list((tmp_path / "images/uses").iterdir()) == []


async def test_what_is_not_committed_is_removed(store: ImageStore, tmp_path: Path) -> None:
    async with await store.create() as disk:
        disk.path.write_bytes(b"x")
        # Somebody else may open the store meanwhile.
        await ImageStore.open(tmp_path / "images")
        assert disk.path.exists()
        document = _document(await disk.digest())
        for names, said in (
            (["app"], "has 1 bytes"),
            ([], "at least one name"),
            (["a b"], "white space"),
        ):
            with pytest.raises(InvalidConfigError, match=said):
                await disk.commit(names, document)
    assert _files(tmp_path) == []
    with pytest.raises(asyncio.CancelledError):
        async with await store.create() as disk:
            raise asyncio.CancelledError
    assert _files(tmp_path) == []


_WRITER = """
import asyncio, sys
from asyncctr.backends.nanos.image_index import new_name
from asyncctr.backends.nanos.store import ImageStore

async def main():
    store = await ImageStore.open(sys.argv[1])
    disk = await store.create()
    disk.path.write_bytes(b"half")
    print(flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_what_a_killed_writer_left_is_swept(store: ImageStore, tmp_path: Path) -> None:
    image = await _add(store, "app")
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITER, str(tmp_path / "images"), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    await writer.stdout.readline()
    await ImageStore.open(tmp_path / "images")
    assert len(_files(tmp_path)) == 2
    writer.kill()
    await writer.wait()
    (tmp_path / "images/.index.json").write_text("{")
    await ImageStore.open(tmp_path / "images")
    assert _files(tmp_path) == [image.disk.name]
    assert not (tmp_path / "images/.index.json").exists()


TAG_MANY = """
import asyncio, sys
from asyncctr.backends.nanos.document import ImageDocument
from asyncctr.backends.nanos.store import ImageStore

async def main(directory, worker):
    store = await ImageStore.open(directory)
    for number in range(10):
        data = bytes([worker, number]) * 256
        async with await store.create() as new:
            new.path.write_bytes(data)
            document = ImageDocument.make(disk_digest=await new.digest(), disk_size=len(data), program="/app")
            await new.commit([f"app{worker}:{number}"], document)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_processes_do_not_lose_each_others_images(store: ImageStore, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", TAG_MANY, str(tmp_path / "images"), str(worker), env=environment
        )
        for worker in range(2)
    ]
    assert [await worker.wait() for worker in workers] == [0, 0]
    assert len(await store.images()) == 20
    assert len(_files(tmp_path)) == 20


async def test_what_is_no_store_is_refused(store: ImageStore, tmp_path: Path) -> None:
    index = tmp_path / "images/index.json"
    for text in ("", "[]", '{"version": 1}', '{"version": 2, "images": []}', '{"version": 1, "images": [1]}'):
        index.write_text(text)
        with pytest.raises(InvalidConfigError, match="move it away"):
            await store.get("app")
    with pytest.raises(UnsupportedError, match="work_dir"):
        await ImageStore.open(index)


def test_a_name_is_given_without_a_digest() -> None:
    assert new_name("app") == "docker.io/library/app:latest"
    with pytest.raises(InvalidConfigError, match="give it a tag"):
        new_name("app@sha256:" + "0" * 64)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["digest", "size", "x"]), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["architecture", "os", "disk", "kernel", "program"]), _JSON), st.booleans())
def test_any_document_is_read_or_refused(document: dict[str, object], whole: bool) -> None:
    if whole:
        document = {
            "architecture": "amd64",
            "os": "nanos",
            "disk": {"digest": "sha256:" + "0" * 64, "size": 512},
            **document,
        }
    try:
        parsed = ImageDocument.parse(json.dumps(document).encode())
    except InvalidConfigError as error:
        assert error.field == "image"
    else:
        assert parsed.disk_size > 0
