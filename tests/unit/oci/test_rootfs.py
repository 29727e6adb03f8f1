from __future__ import annotations

import ctypes
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asyncctr.core.errors import InvalidConfigError
from asyncctr.oci.rootfs import mount_layers, read_file
from asyncctr.testing.programs import CommandError, require, run

if TYPE_CHECKING:
    from collections.abc import Iterator


def layer(root: Path, entries: dict[str, str | bytes | None]) -> str:
    """A directory with files (bytes), links (text) and directories (``None``)."""
    root.mkdir()
    for name, content in entries.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.symlink_to(content)
    return str(root)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("/usr/passwd", b"usr"),
        ("../usr/passwd", b"usr"),
        ("../../../../usr/passwd", b"usr"),
        ("../link/passwd", b"usr"),
        ("../link/../passwd", b"top"),
        ("././/../usr/./passwd", b"usr"),
        ("/outside", None),
        ("../usr/passwd/", None),
        ("../usr/passwd/..", None),
    ],
)
def test_links_stay_inside(tmp_path: Path, link: str, expected: bytes | None) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    root = layer(
        tmp_path / "root",
        {"etc/passwd": link, "usr/passwd": b"usr", "passwd": b"top", "link": "/usr", "abs": str(tmp_path / "outside")},
    )
    assert read_file([root], "/etc/passwd") == expected
    assert read_file([root], "/abs") is None


def test_what_cannot_be_read(tmp_path: Path) -> None:
    root = layer(tmp_path / "root", {"loop": "loop", "big": b"x" * 11, "directory": None, "long": "a" * 300})
    os.mkfifo(tmp_path / "root/fifo")
    assert read_file([root], "/nothing") is None
    assert read_file([root], "/nothing/below") is None
    assert read_file([root], "/long") is None
    assert read_file([root], "/big", limit=11) == b"x" * 11
    assert read_file([root], "/x" * 100) is None
    for path in ("/loop", "/directory", "/fifo", "/"):
        with pytest.raises(InvalidConfigError) as caught:
            read_file([root], path)
        assert caught.value.field == "image"
    with pytest.raises(InvalidConfigError, match="more than 10 bytes"):
        read_file([root], "/big", limit=10)
    with pytest.raises(FileNotFoundError):
        read_file([str(tmp_path / "no-layer")], "/etc/passwd")


def test_layers_lie_over_each_other(tmp_path: Path) -> None:
    top = layer(
        tmp_path / "top",
        {"etc/group": b"top", "etc/.wh.gone": b"", "new/x": b"top", "new/.wh..wh..opq": b"", "was": b"file"},
    )
    low = layer(
        tmp_path / "low",
        {
            "etc/passwd": b"low",
            "etc/group": b"low",
            "etc/gone": b"low",
            "new/y": b"low",
            "was/directory": b"low",
            "now": "etc",
        },
    )
    layers = [top, low]
    assert read_file(layers, "/etc/passwd") == b"low"
    assert read_file(layers, "/etc/group") == b"top"
    assert read_file(layers, "/now/group") == b"top"
    assert read_file(layers, "/etc/gone") is None
    assert read_file(layers, "/new/x") == b"top"
    assert read_file(layers, "/new/y") is None
    assert read_file(layers, "/was/directory") is None
    assert read_file([], "/etc/passwd") is None
    (tmp_path / "alias").symlink_to(low)
    assert read_file([top, str(tmp_path / "alias")], "/etc/passwd") == b"low"


def test_descriptors_are_closed(tmp_path: Path) -> None:
    top = layer(tmp_path / "top", {"a/b/c": b"x", "link": "a/b/../b/c", "loop": "loop"})
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("/a/b/c", "/link", "/a/b", "/nothing", "/a/b/c/d", "/loop"):
        try:
            read_file([top, top], path)
        except InvalidConfigError:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_mounts_as_snapshotters_tell_them() -> None:
    options = ["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/2:/1"]
    assert mount_layers("overlay", "overlay", options) == ("/u", "/2", "/1")
    assert mount_layers("overlay", "overlay", ["lowerdir=/2:/1"]) == ("/2", "/1")
    assert mount_layers("bind", "/s", ["rbind", "ro"]) == ("/s",)
    assert mount_layers("erofs", "/s", []) == ()


@pytest.mark.anyio
async def test_layers_are_read_as_the_kernel_reads_them(tmp_path: Path) -> None:
    require("runc")
    low = layer(
        tmp_path / "low", {"a/x": b"1", "a/y": b"1", "b/x": b"1", "c/x": b"1", "d": b"1", "e": "a", "f/g/h": b"1"}
    )
    upper = layer(tmp_path / "upper", {})
    for name in ("work", "merged"):
        (tmp_path / name).mkdir()
    merged = tmp_path / "merged"
    options = f"lowerdir={low},upperdir={upper},workdir={tmp_path / 'work'}"
    try:
        await run("mount", "-t", "overlay", "overlay", "-o", options, str(merged))
    except CommandError as error:
        pytest.skip(f"no overlay on this filesystem: {error}")
    try:
        (merged / "a/x").write_bytes(b"2")
        (merged / "a/y").unlink()
        shutil.rmtree(merged / "b")
        (merged / "b").mkdir()
        (merged / "b/new").write_bytes(b"2")
        shutil.rmtree(merged / "c")
        (merged / "c").symlink_to("f/g")
        (merged / "d").unlink()
        (merged / "d").mkdir()
        (merged / "d/x").write_bytes(b"2")
        shutil.rmtree(merged / "f/g")
        paths = ["a/x", "a/y", "b/x", "b/new", "c/x", "c/h", "d/x", "e/x", "e/y", "f/g/h", "f/g"]
        expected = {path: (merged / path).read_bytes() if (merged / path).exists() else None for path in paths}
    finally:
        await run("umount", str(merged))
    assert expected["a/x"] == b"2"
    assert {path: read_file([upper, low], f"/{path}") for path in paths} == expected


# The kernel's own resolution inside a root: openat2(2) with RESOLVE_IN_ROOT, number 437 on every architecture.

_OPENAT2 = 437
_IN_ROOT = 0x10


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def kernel_read(root: str, path: str) -> bytes | OSError | None:
    libc = ctypes.CDLL(None, use_errno=True)
    how = _How(flags=os.O_RDONLY | os.O_CLOEXEC, mode=0, resolve=_IN_ROOT)
    directory = os.open(root, os.O_PATH)
    try:
        fd = libc.syscall(_OPENAT2, directory, path.encode(), ctypes.byref(how), ctypes.sizeof(how))
        if fd < 0:
            number = ctypes.get_errno()
            return None if number in (2, 20) else OSError(number, os.strerror(number))
    finally:
        os.close(directory)
    try:
        return OSError(21, "a directory") if stat.S_ISDIR(os.fstat(fd).st_mode) else os.read(fd, 100)
    finally:
        os.close(fd)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return tmp_path_factory.mktemp("trees")


WORDS = st.lists(st.sampled_from(["a", "b", "c", "..", ".", ""]), min_size=1, max_size=4).map("/".join)
TREES = st.dictionaries(
    st.sampled_from(["a", "b", "c", "a/a", "a/b", "b/a", "b/c", "a/a/b"]),
    st.none() | st.just(b"content") | WORDS.filter(bool),
)


@settings(max_examples=200, deadline=None)
@given(tree=TREES, path=WORDS)
def test_links_resolve_as_in_the_kernel(trees: Path, tree: dict[str, str | bytes | None], path: str) -> None:
    root = trees / "root"
    shutil.rmtree(root, ignore_errors=True)
    # Parents first, and only below directories.
    made: dict[str, str | bytes | None] = {}
    for name in sorted(tree):
        parent = name.rpartition("/")[0]
        if not parent or made.get(parent, b"") is None:
            made[name] = tree[name]
    layer(root, made)
    expected = kernel_read(str(root), f"/{path}")
    if isinstance(expected, OSError):
        assume(expected.errno not in (1, 38))
        with pytest.raises(InvalidConfigError):
            read_file([str(root)], f"/{path}")
        return
    try:
        found = read_file([str(root)], f"/{path}")
    except InvalidConfigError as error:
        # The kernel counts links, we count all steps.
        assume("steps away" not in str(error))
        raise
    assert found == expected
