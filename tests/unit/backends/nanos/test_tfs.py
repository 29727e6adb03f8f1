from __future__ import annotations

import errno
import itertools
import os
import struct
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncctr.backends.nanos.tfs.disk import Disk, find_parts, find_root, read_kernel_log, write_disk, write_volume
from asyncctr.backends.nanos.tfs.log import EXTENSION, SECTOR, Identity, read_identity
from asyncctr.backends.nanos.tfs.reader import read_filesystem
from asyncctr.backends.nanos.tfs.sources import Part, RawImage, opened
from asyncctr.backends.nanos.tfs.tail import Tail
from asyncctr.backends.nanos.tfs.tree import Content, Directory, HostFile, Root, Symlink, read_directory
from asyncctr.backends.nanos.tfs.writer import HEADROOM
from asyncctr.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from asyncctr.backends.nanos.tfs.tree import Node

IDENTITY = Identity(uuid=bytes(range(16)), label="data")
ROOT = Root(
    program="/hello",
    arguments=("hello", "a b"),
    environment={"A": "1"},
    cwd="/d",
    mounts={"data": "/vol"},
    settings={"gateway": "10.0.2.2"},
)


def _encodes(name: str) -> bool:
    try:
        return len(name.encode()) <= 255
    except UnicodeEncodeError:
        return False


NAMES = st.text(min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and not set(name) & {"/", "\0"} and _encodes(name)
)
FILES = st.builds(
    Content, st.binary(max_size=3) | st.sampled_from([511, 512, 4096, 4097, 70_000, 2_000_000]).map(bytes)
)
NODES: st.SearchStrategy[Node] = st.recursive(
    FILES | st.builds(Symlink, st.text(min_size=1, max_size=20).filter(_encodes)),
    lambda inner: st.dictionaries(NAMES, inner, max_size=6).map(Directory),
    max_leaves=20,
)


def flat(tree: Directory, path: str = "") -> dict[str, object]:
    """A tree as :func:`contents` tells it."""
    found: dict[str, object] = {path or "/": "directory"}
    for name, node in tree.children.items():
        below = f"{path}/{name}"
        if isinstance(node, Directory):
            found |= flat(node, below)
        elif isinstance(node, Symlink):
            found[below] = ("link", node.target)
        else:
            found[below] = node.data if isinstance(node, Content) else Path(node.path).read_bytes()
    return found


def contents(path: str) -> dict[str, object]:
    """What a volume, or the root filesystem of a disk, has by path."""
    with opened(path) as file:
        filesystem = read_filesystem(find_root(RawImage(file)))
        found: dict[str, object] = {}
        for entry in filesystem.walk():
            assert filesystem.stat(entry.path) == entry
            if entry.kind == "file":
                found[entry.path] = filesystem.read(entry.path)
                assert len(filesystem.read(entry.path, limit=entry.size + 1)) == entry.size
            else:
                found[entry.path] = ("link", entry.target) if entry.kind == "symlink" else entry.kind
        return found


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.dictionaries(NAMES, NODES, max_size=6).map(Directory))
def test_trees_come_back(tmp_path: Path, tree: Directory) -> None:
    path = str(tmp_path / "volume")
    written = write_volume(path, IDENTITY, tree=tree)
    assert contents(path) == flat(tree)
    with opened(path) as file:
        image = RawImage(file)
        filesystem = read_filesystem(image)
        assert filesystem.tail == written.tail
        assert read_identity(image) == filesystem.identity == IDENTITY
        assert image.length == written.length >= written.tail.end.free * SECTOR + HEADROOM
        # No two files, and no file and log, share a page.
        taken = [range(1 + EXTENSION)]
        for entry in filesystem.walk():
            for extent in entry.extents:
                assert extent.start % 8 == extent.allocated % 8 == 0
                taken.append(range(extent.start, extent.start + extent.allocated))
        taken.sort(key=lambda sectors: sectors.start)
        assert all(one.stop <= other.start for one, other in itertools.pairwise(taken))
    Path(path).unlink()


def test_files_of_the_host(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "empty" / "deep").mkdir(parents=True)
    (source / "small").write_bytes(b"small")
    (source / "none").touch()
    (source / "large").write_bytes(os.urandom(40 << 20))
    (source / "link").symlink_to("large")
    tree = read_directory(str(source))
    volume = str(tmp_path / "volume")
    write_volume(volume, IDENTITY, tree=tree, length=200 << 20)
    expected = flat(tree)
    found = contents(volume)
    # The reader stops at 16 MiB unless it is told otherwise.
    large = expected.pop("/large")
    assert isinstance(large, bytes)
    with opened(volume) as file:
        assert b"".join(read_filesystem(RawImage(file)).blocks("/large")) == large
    assert found.pop("/large") == large[: 16 << 20]
    assert found == expected
    status = Path(volume).stat()
    assert (status.st_size, status.st_mode & 0o777) == (200 << 20, 0o600)
    assert status.st_blocks * 512 < 42 << 20


def test_memory_does_not_grow_with_files(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.truncate(300 << 20)
    tracemalloc.start()
    try:
        write_volume(str(tmp_path / "volume"), IDENTITY, tree=Directory({"large": HostFile(str(tmp_path / "large"))}))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_log_of_several_extensions(tmp_path: Path) -> None:
    tree = Directory({f"directory {number}": Directory({f"file {number}": Content(b"x")}) for number in range(11_000)})
    path = str(tmp_path / "volume")
    written = write_volume(path, IDENTITY, tree=tree)
    assert written.tail.end.offset > (1 + EXTENSION) * SECTOR
    assert contents(path) == flat(tree)


def test_disks(tmp_path: Path) -> None:
    kernel, boot = tmp_path / "kernel.img", tmp_path / "boot.img"
    kernel.write_bytes(os.urandom(100_000))
    record = bytearray(512)
    struct.pack_into("<QQI", record, 426, 0x7C00, 48_128, 12)
    record[510:] = b"\x55\xaa"
    boot.write_bytes(bytes(record) + os.urandom(48_128))
    tree = Directory({"hello": Content(b"\x7fELF")})
    direct, booting = str(tmp_path / "direct"), str(tmp_path / "booting")
    write_disk(direct, Disk(tree=tree, root=ROOT, identity=IDENTITY))
    write_disk(
        booting,
        Disk(
            tree=tree,
            root=ROOT,
            identity=IDENTITY,
            boot_image=str(boot),
            kernel=str(kernel),
            klibs={"tls": str(kernel)},
            length=30 << 20,
        ),
    )
    for path, klog, klibs in ((direct, 512, False), (booting, 48_640, True)):
        with opened(path) as file:
            image = RawImage(file)
            parts = find_parts(image)
            assert parts is not None
            assert (parts.klog, parts.boot, parts.root) == (klog, klog + 4096, klog + 4096 + (12 << 20))
            assert read_kernel_log(image) is None
            root = read_filesystem(find_root(image))
            expected = {**ROOT.values(), **({"klibs": "bootfs"} if klibs else {})}
            assert {key: value for key, value in root.root.items() if key != "children"} == {
                key: list(value) if isinstance(value, tuple) else value for key, value in expected.items()
            }
            booted = read_filesystem(Part(source=image, offset=parts.boot, length=parts.root - parts.boot))
            assert [entry.path for entry in booted.walk()] == (
                ["/", "/kernel", "/klib", "/klib/tls"] if klibs else ["/"]
            )
    with opened(booting) as file:
        front = os.pread(file, 48_640, 0)
        assert (front[:446], front[512:]) == (bytes(record[:446]), boot.read_bytes()[512:])
        assert os.fstat(file).st_size == 48_640 + 4096 + (12 << 20) + (30 << 20)


def test_kernel_logs(tmp_path: Path) -> None:
    path = str(tmp_path / "disk")
    write_disk(path, Disk(tree=Directory(), root=ROOT, identity=IDENTITY))
    with Path(path).open("r+b") as file:
        os.pwrite(file.fileno(), b"KLOG" + struct.pack("<Qi", 7, -2) + b"end\n\0stale", 512)
        log = read_kernel_log(RawImage(file.fileno()))
    assert log is not None
    assert (log.boot_id, log.exit_code, log.text) == (7, -2, "end\n")


def test_nothing_is_left_of_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop() -> None:
        raise StopError

    path = tmp_path / "disk"
    with pytest.raises(StopError):
        write_disk(str(path), Disk(tree=Directory(), root=ROOT, identity=IDENTITY), checkpoint=stop)
    with pytest.raises(FileNotFoundError):
        write_volume(str(path), IDENTITY, tree=Directory({"a": HostFile(str(tmp_path / "missing"))}))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidConfigError, match="no regular file"):
        write_volume(str(path), IDENTITY, tree=Directory({"a": HostFile(str(tmp_path / "fifo"))}))
    with pytest.raises(InvalidConfigError, match="no file, directory or link"):
        read_directory(str(tmp_path))
    (tmp_path / "boot").write_bytes(bytes(1024))
    with pytest.raises(InvalidConfigError, match="no boot image"):
        write_disk(
            str(path),
            Disk(tree=Directory(), root=ROOT, identity=IDENTITY, kernel="/k", boot_image=str(tmp_path / "boot")),
        )
    assert not path.exists()
    path.touch()
    with pytest.raises(FileExistsError):
        write_volume(str(path), IDENTITY)
    assert path.exists()


def test_short_writes_and_what_cannot_be_copied_in_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: whole(file, data[: max(1, len(data) // 2)], offset))

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "no")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    (tmp_path / "large").write_bytes(os.urandom(3_000_000))
    tree = Directory(
        {"large": HostFile(str(tmp_path / "large")), "memory": Content(os.urandom(200_000)), "small": Content(b"x")}
    )
    path = str(tmp_path / "disk")
    write_disk(path, Disk(tree=tree, root=ROOT, identity=IDENTITY))
    assert contents(path) == flat(tree)


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path, size: int, change: int) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(bytes(100_000))
    second.write_bytes(bytes(size))

    def alter() -> None:
        second.write_bytes(bytes(size + change))

    tree = Directory({"first": HostFile(str(first)), "second": HostFile(str(second))})
    with pytest.raises(InvalidConfigError, match="changed while it was read"):
        write_volume(str(tmp_path / "volume"), IDENTITY, tree=tree, checkpoint=alter)


def test_what_is_no_filesystem(tmp_path: Path) -> None:
    path = tmp_path / "image"
    for content, reason in ((b"", "cut off"), (bytes(4096), "no TFS"), (b"NVMTFS\x04\x01" + bytes(4096), "version 4")):
        path.write_bytes(content)
        with opened(str(path)) as file, pytest.raises(InvalidConfigError, match=reason):
            read_filesystem(RawImage(file))
    with pytest.raises(InvalidConfigError, match="at most 31 bytes"):
        Identity(uuid=bytes(16), label="x" * 32)
    with pytest.raises(InvalidConfigError, match="16"):
        Identity(uuid=b"")
    for name in ("", ".", "..", "a/b", "a\0", "x" * 256):
        with pytest.raises(InvalidConfigError, match="a file of the name"):
            Directory({name: Content(b"")})
    with pytest.raises(InvalidConfigError, match="kernel"):
        Disk(tree=Directory(), root=ROOT, identity=IDENTITY, klibs={"tls": "/x"})


TREE = Directory({"d": Directory({"f": Content(b"content"), "l": Symlink("f")}), "e": Content(b"")})


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=4))
def test_broken_filesystems_are_read_or_refused(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    path = tmp_path / "broken"
    if not path.exists():
        write_volume(str(path), IDENTITY, tree=TREE)
    with Path(path).open("r+b") as file:
        # Sector 0 and the log's beginning.
        good = os.pread(file.fileno(), 1024, 0)
        try:
            for position, byte in changes:
                os.pwrite(file.fileno(), bytes([byte]), position)
            image = RawImage(file.fileno())
            filesystem = read_filesystem(image)
            for entry in filesystem.walk():
                if entry.kind == "file":
                    filesystem.read(entry.path, limit=1000)
        except InvalidConfigError as error:
            assert error.field in ("image", "label")
        finally:
            os.pwrite(file.fileno(), good, 0)


def test_a_directory_in_itself_and_logs_without_end(tmp_path: Path) -> None:
    path = tmp_path / "image"
    header = b"NVMTFS\x05\x01" + bytes(16) + b"\0"
    for log, reason in (
        # root.children is the root.
        (b"\x02\x0d\x0d\x91\x88\x08children\x10\x01", "two places"),
        (b"\x02\x12\x12\x91\x88\x08children\x91\x81a\x91\x02\x10\x03", "two places"),
        (b"\x02\x01\x01\x90", "no directory"),
        # The extension links itself.
        (b"\x05\x01\x88\x00", "larger than 64 MiB"),
        (b"\x05\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x88\x00", "cut off"),
        (b"\x05\x01\x00", "broken"),
        (b"\x02\x01\x02\x90\x90", "2 bytes of a record where 1"),
        (b"\x03\x01\x90", "end of none"),
        (b"\x02\x02\x01\x90\x01", "1 bytes before its last record"),
        (b"\x09", "unknown in it, 9"),
    ):
        content = bytearray(SECTOR * (1 + EXTENSION))
        content[: len(header)] = header
        content[len(header) : len(header) + 4] = bytes([5, 1, 0x88, 0x00])
        extension = b"NVMTFS\x05\x88\x00" + log + b"\x01"
        content[SECTOR : SECTOR + len(extension)] = extension
        path.write_bytes(content)
        with opened(str(path)) as file, pytest.raises(InvalidConfigError, match=reason):
            read_filesystem(RawImage(file))


def test_tails(tmp_path: Path) -> None:
    tree = Directory({str(number): Content(b"") for number in range(300)} | {"name": Content(b""), "nam": Content(b"")})
    tail = write_volume(str(tmp_path / "volume"), IDENTITY, tree=tree).tail
    again = Tail.from_bytes(tail.to_bytes())
    assert again == tail
    with opened(str(tmp_path / "volume")) as file:
        assert read_filesystem(RawImage(file)).tail == tail
    numbers = {name: again.number(name) for name in (*tree.children, "children")}
    assert len(set(numbers.values()) - {None}) == len(numbers)
    assert again.number("ame") is again.number("na") is again.number("301") is None
    data = tail.to_bytes()
    for broken in (b"", b"{}", data[:-1], data[:-4], data.replace(b'"free"', b'"fred"'), b"[]" + data[2:]):
        with pytest.raises(InvalidConfigError, match="tail"):
            Tail.from_bytes(broken)
