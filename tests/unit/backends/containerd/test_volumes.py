"""Volumes: there whole or not at all, whoever makes and fills them at the same time and is killed meanwhile."""

# ruff: noqa: ASYNC220, ASYNC221, ASYNC240 - nothing else runs on these loops

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncctr.backends.containerd import volumes
from asyncctr.backends.containerd.volumes import VolumeStore
from asyncctr.core.errors import BackendUnavailableError, ConflictError, InvalidConfigError, NotFoundError
from asyncctr.netns.runner import HOST, Finished, Runner

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts, and gives files away")


@pytest.fixture
def store(tmp_path: Path) -> VolumeStore:
    return VolumeStore(tmp_path / "volumes", runner=HOST, backend="containerd")


async def test_a_volume_is_made_found_and_removed(store: VolumeStore) -> None:
    assert store.list({}) == ()
    assert not store.is_settled("data")
    made = store.create("data", {"a": "b"})
    assert store.create("data", {"a": "b"}) == made
    store.create("other", {})
    assert [volume.name for volume in store.list({})] == ["data", "other"]
    assert [volume.name for volume in store.list({"a": "b"})] == ["data"]
    with pytest.raises(ConflictError, match="other labels"):
        store.create("data", {})
    assert not store.is_settled("data")
    await store.settle("data", "/data", ())
    assert store.is_settled("data")
    with pytest.raises(ConflictError, match="in use"):
        await store.remove("data", used=["data"])
    await store.remove("data", used=["other"])
    with pytest.raises(NotFoundError):
        await store.remove("data", used=[])


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", ".hidden", "a\0b"])
async def test_no_name_leads_out(store: VolumeStore, name: str) -> None:
    with pytest.raises(InvalidConfigError):
        store.path(name)
    with pytest.raises(InvalidConfigError):
        await store.settle(name, "/data", ())
    with pytest.raises(InvalidConfigError):
        await store.remove(name, used=[])


async def test_many_at_once_make_one(store: VolumeStore, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            made = list(pool.map(lambda _: store.create("same", {}), range(8)))  # nothing of the loop is in it
            assert len({volume.name for volume in made}) == 1, number
            await store.remove("same", used=[])
    assert not list((tmp_path / "volumes").iterdir())


@pytest.fixture
def image(tmp_path: Path) -> Iterator[list[str]]:
    """Two layers, of which the upper one has a whiteout, and a link into the lower one."""
    low, high = tmp_path / "low", tmp_path / "high"
    (low / "srv/data/deep").mkdir(parents=True)
    (low / "srv/data/text").write_text("low")
    (low / "srv/data/gone").write_text("low")
    (high / "srv/data").mkdir(parents=True)
    (high / "link").symlink_to("/srv/../srv")
    (high / "outside").symlink_to(f"../../../../../../{tmp_path}/secret")
    (high / "file").write_text("no directory")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("secret")
    os.mknod(high / "srv/data/gone", stat.S_IFCHR, 0)
    return ["overlay", "overlay", "ro", f"lowerdir={high}:{low}"]


def copying(place: Path) -> bool:
    """Whether a first file has been copied into what will be a volume's data."""
    try:
        return any(place.glob(".*/_data/*"))
    except FileNotFoundError:
        # That was the volume itself, which has just got its name.
        return False


def data(store: VolumeStore, name: str = "data") -> Path:
    return Path(store.path(name))


@root
async def test_a_new_one_is_like_what_it_is_mounted_over(store: VolumeStore, image: list[str], tmp_path: Path) -> None:
    model = tmp_path / "high/srv/data"
    os.mkfifo(model / "fifo", 0o620)
    os.mknod(model / "device", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    (model / "absolute").symlink_to("/etc/shadow")
    (model / "first").write_text("same")
    os.link(model / "first", model / "second")
    with (model / "sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"middle")
    (model / "setuid").write_bytes(os.urandom(3 << 20))
    for path, uid, mode in ((model / "setuid", 1000, 0o6755), (model, 1000, 0o2775), (model / "first", 7, 0o400)):
        os.chown(path, uid, 2000)
        path.chmod(mode)
    os.chown(model / "absolute", 12, 13, follow_symlinks=False)
    os.setxattr(model / "setuid", "user.told", b"\0\xff")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(model / "setuid", "security.capability", capability)
    for path in (model / "setuid", model / "absolute", model):
        os.utime(path, ns=(10**18, 10**18 + 5), follow_symlinks=False)

    await store.settle("data", "/link/data", image)
    found = data(store)
    names = ["absolute", "deep", "device", "fifo", "first", "second", "setuid", "sparse", "text"]
    assert sorted(path.name for path in found.iterdir()) == names
    for name in (".", *names):
        of = tmp_path / ("low" if name in ("text", "deep") else "high") / "srv/data" / name
        expected, status = of.lstat(), (found / name).lstat()
        for field in ("st_mode", "st_uid", "st_gid", "st_rdev", "st_mtime_ns"):
            assert getattr(status, field) == getattr(expected, field), (name, field)
        if stat.S_ISREG(expected.st_mode) and name != "sparse":
            assert (found / name).read_bytes() == of.read_bytes()
    assert (found / "absolute").readlink() == Path("/etc/shadow")
    assert (found / "first").samefile(found / "second")
    sparse = found / "sparse"
    assert (sparse.stat().st_size, sparse.stat().st_blocks < 1000) == (1 << 30, True)
    with sparse.open("rb") as file:
        file.seek((1 << 29) - 1)
        assert file.read(8) == b"\0middle\0"
    assert os.getxattr(found / "setuid", "user.told") == b"\0\xff"
    assert os.getxattr(found / "setuid", "security.capability") == capability
    # Once.
    (found / "text").write_text("mine")
    await store.settle("data", "/link/data", image)
    assert (found / "text").read_text() == "mine"
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == ["data"]
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@root
@pytest.mark.parametrize("path", ["/none", "/file", "/outside", "/link/none", "/file/below", "/" + "x" * 300])
async def test_where_the_image_has_nothing(store: VolumeStore, image: list[str], path: str) -> None:
    await store.settle("data", path, image)
    assert store.is_settled("data")
    assert not list(data(store).iterdir())


@root
async def test_one_layer_and_very_many(store: VolumeStore, tmp_path: Path) -> None:
    for number in range(120):
        layer = tmp_path / f"layers-with-a-long-name/{number}/fs/data"
        layer.mkdir(parents=True)
        (layer / str(number)).touch()
    layers = [str(tmp_path / f"layers-with-a-long-name/{number}/fs") for number in range(120)]
    await store.settle("one", "/data/../data", ["bind", layers[7], "rbind", "ro"])
    assert [path.name for path in data(store, "one").iterdir()] == ["7"]
    await store.settle("many", "/data", ["overlay", "overlay", f"lowerdir={':'.join(layers)}"])
    assert len(list(data(store, "many").iterdir())) == 120


@root
async def test_deep_and_many(store: VolumeStore, image: list[str], tmp_path: Path) -> None:
    deep = str(tmp_path / "high/srv/data")
    for _ in range(1100):
        deep += "/d"
        os.mkdir(deep)  # noqa: PTH102  # pathlib's paths get slow
    Path(deep, "bottom").write_text("x")
    for number in range(300):
        (tmp_path / f"high/srv/{number}").touch()
    await store.settle("data", "/srv", image)
    assert (data(store) / "data" / "/".join("d" * 1100) / "bottom").read_text() == "x"
    assert len(list(data(store).iterdir())) == 301
    await store.remove("data", used=[])
    assert not list((tmp_path / "volumes").iterdir())
    # Too deep for pytest.
    await HOST.check("rm", "-rf", str(tmp_path / "high"))


@root
async def test_of_many_at_once_one_fills_it(store: VolumeStore, image: list[str], tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"high/srv/data/{number}").write_text("x")
    expected = 202

    async def settle() -> int:
        own = VolumeStore(tmp_path / "volumes", runner=HOST, backend="containerd")
        await own.settle("data", "/srv/data", image)
        return len(list(data(own).iterdir()))

    assert await asyncio.gather(*(settle() for _ in range(6))) == [expected] * 6
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == ["data"]


SETTLE = """
import asyncio, sys
from pathlib import Path
from asyncctr.backends.containerd.volumes import VolumeStore
from asyncctr.netns.runner import HOST

store = VolumeStore(Path(sys.argv[1]), runner=HOST, backend="containerd")
asyncio.run(store.settle("data", "/srv/data", sys.argv[2:]))
"""


@root
async def test_a_killed_copy_is_made_again(store: VolumeStore, image: list[str], tmp_path: Path) -> None:
    """Killed at the moment at which the first of many files is there."""
    model = tmp_path / "high/srv/data"
    for number in range(300):
        (model / str(number)).write_bytes(b"x" * 1000)
    place = tmp_path / "volumes"
    path = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-c", SETTLE, str(place), *image], env={**os.environ, "PYTHONPATH": path}
    )
    while not copying(place):
        assert process.poll() is None
    process.kill()
    process.wait()
    assert not store.is_settled("data")
    assert not list(data(store).iterdir())
    await store.settle("data", "/srv/data", image)
    assert len(list(data(store).iterdir())) == 302
    await store.sweep()
    assert [path.name for path in place.iterdir()] == ["data"]


@root
async def test_a_cancelled_copy_leaves_nothing(store: VolumeStore, image: list[str], tmp_path: Path) -> None:
    model = tmp_path / "high/srv/data"
    # So many that it is not done before it is seen to have begun.
    for number in range(3000):
        (model / str(number)).touch()
    settling = asyncio.create_task(store.settle("data", "/srv/data", image))
    while not copying(tmp_path / "volumes"):
        assert not settling.done()
        await asyncio.sleep(0)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == ["data"]
    assert not store.is_settled("data")
    await store.settle("data", "/srv/data", image)
    assert len(list(data(store).iterdir())) == 3002


@root
async def test_what_fails_is_told_and_leaves_nothing(store: VolumeStore, image: list[str], tmp_path: Path) -> None:
    wrong = ["overlay", "overlay", f"lowerdir={tmp_path}/nowhere"]
    with pytest.raises(BackendUnavailableError, match="the volume 'data' cannot be used: mount"):
        await store.settle("data", "/srv", wrong)
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == ["data"]
    await store.settle("data", "/srv", image)
    assert (data(store) / "data/text").read_text() == "low"


@root
async def test_one_that_is_removed_meanwhile_is_made_anew(store: VolumeStore, image: list[str], tmp_path: Path) -> None:
    class Removing(Runner):
        async def run(self, *argv: str, **kept: object) -> Finished:  # type: ignore[override]
            done = await HOST.run(*argv, **kept)  # type: ignore[arg-type]
            if argv[0] != "rm" and not removed:
                removed.append(True)
                await store.remove("data", used=[])
            return done

    removed: list[bool] = []
    await VolumeStore(tmp_path / "volumes", runner=Removing(), backend="containerd").settle("data", "/srv/data", image)
    assert removed
    assert store.is_settled("data")
    assert (data(store) / "text").read_text() == "low"


async def test_what_killed_processes_left_is_swept(store: VolumeStore, tmp_path: Path) -> None:
    store.create("kept", {})
    mine = store._new()
    mine.mkdir()
    script = "from asyncctr.transport.ownership import Owner; print(Owner.current())"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    theirs = tmp_path / "volumes" / f".{done.stdout.strip().replace('/', '_')}.0123456789abcdef"
    theirs.mkdir()
    await store.sweep()
    assert mine.exists()
    assert not theirs.exists()
    assert [volume.name for volume in store.list({})] == ["kept"]


def test_the_program_needs_nothing_but_python() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", volumes._FILLING, "/none", "/none", "/x", "bind", "/none/at/all"],
        check=False,
        capture_output=True,
    )
    assert (done.returncode, done.stderr.split()[:2]) == (1, [b"2", b"No"])
