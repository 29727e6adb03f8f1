from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncctr.backends.nanos.tfs.disk import Disk, find_parts, find_root, read_kernel_log, write_disk
from asyncctr.backends.nanos.tfs.log import EXTENSION, SECTOR, Identity
from asyncctr.backends.nanos.tfs.overlay import open_overlay, write_machine_disk, write_overlay
from asyncctr.backends.nanos.tfs.reader import read_filesystem
from asyncctr.backends.nanos.tfs.sources import RawImage, opened
from asyncctr.backends.nanos.tfs.tree import Content, Directory, Root, Symlink
from asyncctr.backends.nanos.tfs.writer import HEADROOM
from asyncctr.core.errors import InvalidConfigError
from asyncctr.testing.programs import RuntimeMissing, find, give_up, run

if TYPE_CHECKING:
    from asyncctr.backends.nanos.tfs.values import Value

pytestmark = pytest.mark.anyio

CLUSTER = 65_536
TREE = Directory({"hello": Content(b"\x7fELF"), "vol": Directory(), "PATH": Content(b"a file of that name")})
ROOT = Root(program="/hello", environment={"PATH": "/", "OLD": "1"}, cwd="/vol")


@pytest.fixture
def qemu_img() -> str:
    try:
        return find("qemu-img")
    except RuntimeMissing as error:
        give_up("qemu", error)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 3 * CLUSTER),
    st.lists(st.tuples(st.integers(0, 5 * CLUSTER), st.integers(1, 2 * CLUSTER), st.integers(1, 255)), max_size=4),
)
def test_overlays_are_the_base_with_pieces_over_it(
    tmp_path: Path, size: int, places: list[tuple[int, int, int]]
) -> None:
    base, path = tmp_path / "base", tmp_path / "overlay"
    content = os.urandom(size)
    base.write_bytes(content)
    length = -(-max([size, *(offset + count for offset, count, _ in places)]) // SECTOR) * SECTOR
    expected = bytearray(content.ljust(length, b"\0"))
    pieces = [(offset, bytes([byte]) * count) for offset, count, byte in places]
    for offset, piece in pieces:
        expected[offset : offset + len(piece)] = piece
    with opened(str(base)) as file:
        write_overlay(str(path), base=str(base), image=RawImage(file), pieces=pieces, length=length)
    with open_overlay(str(path), base=str(base)) as overlay:
        assert overlay.length == length
        assert overlay.read(0, length) == expected
        with pytest.raises(InvalidConfigError, match="cut off"):
            overlay.read(length, 1)
    assert base.read_bytes() == content
    path.unlink()


async def test_qemu_reads_them_alike(tmp_path: Path, qemu_img: str) -> None:
    base, path, plain = tmp_path / "base", tmp_path / "over lay", tmp_path / "plain"
    base.write_bytes(os.urandom(5 * CLUSTER + 1000))
    # The third lies behind 512 MiB, which is where the second table begins.
    pieces = [(100, b"x" * 10), (CLUSTER - 5, b"y" * 10), (600 << 20, b"z" * 70_000)]
    with opened(str(base)) as file:
        write_overlay(str(path), base=str(base), image=RawImage(file), pieces=pieces, length=700 << 20)
    await run(qemu_img, "check", str(path))
    assert '"backing-filename-format": "raw"' in (await run(qemu_img, "info", "--output=json", str(path))).text
    await run(qemu_img, "convert", "-O", "raw", str(path), str(plain))
    with open_overlay(str(path), base=str(base)) as overlay, opened(str(plain)) as file:
        image = RawImage(file)
        assert image.length == overlay.length == 700 << 20
        for offset, count in ((0, 7 * CLUSTER), (600 << 20, 2 * CLUSTER), ((700 << 20) - 100, 100)):
            assert image.read(offset, count) == overlay.read(offset, count)


CHANGES: dict[str, Value] = {
    "arguments": ["hello", "x y"],
    "environment": {"PATH": "/bin", "hello": "a symbol of the tree", "NEW": "ü"},
    "mounts": {"data": "/vol"},
    "cwd": None,
}


@pytest.mark.parametrize("size", [10, 2_000_000])
def test_a_machine_has_other_values(tmp_path: Path, size: int) -> None:
    base, path = str(tmp_path / "base"), str(tmp_path / "machine")
    tail = write_disk(base, Disk(tree=TREE, root=ROOT, identity=Identity(uuid=bytes(16)))).tail
    with Path(base).open("r+b") as file:
        # What some earlier machine left.
        os.pwrite(file.fileno(), b"KLOG" + bytes(12), 512)
    before = Path(base).read_bytes()
    changes: dict[str, Value] = {**CHANGES, "large": "x" * size}
    write_machine_disk(path, base=base, tail=tail, changes=changes)
    with open_overlay(path, base=base) as overlay, opened(base) as file:
        image = RawImage(file)
        filesystem, old = read_filesystem(find_root(overlay)), read_filesystem(find_root(image))
        expected = {key: value for key, value in {**old.root, **changes}.items() if value is not None}
        assert filesystem.root == expected
        assert list(filesystem.walk()) == list(old.walk())
        assert filesystem.read("/PATH") == b"a file of that name"
        # A symbol has one place, or the guest would number what it appends otherwise than we do.
        symbols = [value for value in tail.names.split(b"\0") if value]
        assert len(set(symbols)) == len(symbols) == len(tail.numbers)
        parts = find_parts(overlay)
        assert parts is not None
        assert overlay.length >= parts.root + filesystem.tail.end.free * SECTOR + HEADROOM
        extensions = (filesystem.tail.end.free - old.tail.end.free) // EXTENSION
        assert extensions == (0 if size < 400_000 else 3)
        assert read_kernel_log(overlay) is None
        assert read_kernel_log(image) is not None
    assert Path(base).read_bytes() == before
    assert Path(path).stat().st_mode & 0o777 == 0o600


def test_machines_have_room(tmp_path: Path) -> None:
    base, path = str(tmp_path / "base"), str(tmp_path / "machine")
    tail = write_disk(base, Disk(tree=TREE, root=ROOT, identity=Identity(uuid=bytes(16)))).tail
    write_machine_disk(path, base=base, tail=tail, changes=CHANGES, length=20 << 30)
    with open_overlay(path, base=base) as overlay:
        assert find_root(overlay).length == 20 << 30
    assert Path(path).stat().st_blocks * 512 < 400_000


def test_what_is_refused(tmp_path: Path) -> None:
    base, path = tmp_path / "base", tmp_path / "overlay"
    base.write_bytes(bytes(512))
    path.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(200))
    with pytest.raises(InvalidConfigError, match="no overlay"), open_overlay(str(path), base=str(base)):
        pass
    path.unlink()
    with opened(str(base)) as file:
        image = RawImage(file)
        with pytest.raises(InvalidConfigError, match="absolute path"):
            write_overlay(str(path), base="nbd:host", image=image, pieces=[])
        with pytest.raises(InvalidConfigError, match="at most"):
            write_overlay(str(path), base=str(base), image=image, pieces=[], length=1 << 43)
        tail = write_disk(str(tmp_path / "disk"), Disk(tree=TREE, root=ROOT, identity=Identity(uuid=bytes(16)))).tail
        with pytest.raises(InvalidConfigError, match="has no partitions"):
            write_machine_disk(str(path), base=str(base), tail=tail, changes={})
    assert not path.exists()


def test_files_of_a_machines_own(tmp_path: Path) -> None:
    base, path = str(tmp_path / "base"), str(tmp_path / "overlay")
    etc = Directory({"hosts": Content(b"old" * 9_000), "kept": Content(b"kept"), "link": Symlink("kept")})
    tree = Directory({"hello": Content(b"\x7fELF"), "vol": Directory(), "etc": etc, "file": Content(b"1")})
    disk = Disk(tree=tree, root=ROOT, identity=Identity(uuid=bytes(16)))
    write_disk(base, disk)
    with opened(base) as file:
        image = read_filesystem(find_root(RawImage(file)))
    contents = {
        "/etc/hosts": b"new",
        "/etc/link": b"no link",
        "/vol/empty": b"",
        "/new/below/one": b"1" * 5_000,
        "/new/below/two": b"2",
        "/new/three": b"3",
        # In the place of a file.
        "/file/four": b"4",
    }
    files = [(image.place(name), data) for name, data in contents.items()]
    write_machine_disk(path, base=base, tail=image.tail, changes={"environment": {"NEW": "2"}}, files=files)
    with open_overlay(path, base=base) as overlay:
        filesystem = read_filesystem(find_root(overlay))
        for name, data in (contents | {"/etc/kept": b"kept", "/hello": b"\x7fELF"}).items():
            assert filesystem.read(name) == data
        assert filesystem.root["environment"] == {"NEW": "2"}
        taken = sorted(
            (extent.start, extent.start + extent.allocated) for entry in filesystem.walk() for extent in entry.extents
        )
        assert all(before[1] <= after[0] for before, after in pairwise(taken))
        assert taken[-1][1] <= filesystem.tail.end.free
    with opened(base) as file:
        assert read_filesystem(find_root(RawImage(file))).read("/etc/hosts") == b"old" * 9_000
