"""What is kept beside the disk of an image: the same as the disk says, or not believed; and gone with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asyncctr.backends.nanos.document import ImageDocument
from asyncctr.backends.nanos.prepared import Prepared
from asyncctr.backends.nanos.rootfacts import SUFFIX, RootFacts
from asyncctr.backends.nanos.store import ImageStore
from asyncctr.backends.nanos.tfs.disk import Disk, write_disk
from asyncctr.backends.nanos.tfs.log import Identity
from asyncctr.backends.nanos.tfs.tree import Content, Directory, Root
from asyncctr.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


def write(path: Path) -> Path:
    tree = Directory(
        {
            "p": Content(b"program"),
            "vol": Directory({"ü\udcff": Directory()}),
            "etc": Directory({"hosts": Content(b"\xff\n")}),
        }
    )
    root = Root(
        program="/p", arguments=("p", "a b"), environment={"A": "\udcff"}, mounts={"data": "/vol:ro"}, cwd="/vol"
    )
    write_disk(str(path), Disk(tree=tree, root=root, identity=Identity(uuid=os.urandom(16)), length=9 << 20))
    return path


def test_the_second_look_is_the_file_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = write(tmp_path / "disk.img")
    first = RootFacts.of(disk)
    assert first == RootFacts.read(disk)
    assert first.directories == {"/", "/etc", "/vol", "/vol/ü\udcff"}
    assert first.length == 9 << 20
    assert first.own_files == {"/etc/hosts": b"\xff\n"}
    assert first.places["/etc/resolv.conf"].names == ("resolv.conf",)
    assert "children" not in first.root
    prepared = Prepared.of(disk)
    assert prepared.config.cmd == ("a b",)
    assert dict(prepared.config.env) == {"A": "\udcff"}
    assert dict(prepared.mounts) == {"data": "/vol:ro"}
    kept = tmp_path / f"disk{SUFFIX}"
    assert kept.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(RootFacts, "read", lambda _: pytest.fail("the disk was read again"))
    assert RootFacts.of(disk) == first


@pytest.mark.parametrize("keep", [0, 1, 64, 65, 70, -1])
def test_what_is_broken_is_written_anew(tmp_path: Path, keep: int) -> None:
    disk = write(tmp_path / "disk.img")
    first = RootFacts.of(disk)
    kept = tmp_path / f"disk{SUFFIX}"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:keep])
    assert RootFacts.of(disk) == first
    assert kept.read_bytes() == whole
    kept.write_bytes(whole[:200] + b"?" + whole[201:])
    assert RootFacts.of(disk) == first
    with pytest.raises(InvalidConfigError):
        RootFacts.from_bytes(whole.replace(b'"version": 1', b'"version": 2'))


async def test_it_goes_with_the_image(tmp_path: Path) -> None:
    store = await ImageStore.open(tmp_path / "images")
    async with await store.create() as new:
        write(new.path)
        document = ImageDocument.make(
            disk_digest=await new.digest(), disk_size=new.path.stat().st_size, program="/p", kernel=""
        )
        image = await new.commit(["test/a:1"], document)
    facts = RootFacts.of(image.disk)
    await store.tag("test/a:1", "test/b:1")
    await store.remove("test/a:1")
    # Both are there while a name is.
    assert sorted(path.suffix for path in image.disk.parent.iterdir()) == [SUFFIX, ".img"]
    assert RootFacts.of(image.disk) == facts
    await store.remove("test/b:1")
    assert list(image.disk.parent.iterdir()) == []
