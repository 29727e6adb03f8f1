"""Volumes: there whole or not at all, whoever makes them at the same time and is killed meanwhile."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asyncctr.backends.containerd.volumes import VolumeStore
from asyncctr.core.errors import ConflictError, InvalidConfigError, NotFoundError


@pytest.fixture
def store(tmp_path: Path) -> VolumeStore:
    return VolumeStore(tmp_path / "volumes", backend="containerd")


def test_a_volume_is_made_found_and_removed(store: VolumeStore) -> None:
    assert store.list({}) == ()
    assert not store.exists("data")
    made = store.create("data", {"a": "b"})
    assert store.create("data", {"a": "b"}) == made
    assert store.exists("data")
    store.create("other", {})
    assert [volume.name for volume in store.list({})] == ["data", "other"]
    assert [volume.name for volume in store.list({"a": "b"})] == ["data"]
    with pytest.raises(ConflictError, match="other labels"):
        store.create("data", {})
    store.ensure("data")
    with pytest.raises(ConflictError, match="in use"):
        store.remove("data", used=["data"])
    store.remove("data", used=["other"])
    with pytest.raises(NotFoundError):
        store.remove("data", used=[])


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", ".hidden", "a\0b"])
def test_no_name_leads_out(store: VolumeStore, name: str) -> None:
    for call in (store.path, store.ensure, lambda name: store.remove(name, used=[])):
        with pytest.raises(InvalidConfigError):
            call(name)


def test_many_at_once_make_one(store: VolumeStore, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            made = list(pool.map(lambda _: store.create("same", {}), range(8)))  # nothing of the loop is in it
            assert len({volume.name for volume in made}) == 1, number
            store.remove("same", used=[])
    assert not list((tmp_path / "volumes").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="owners are root's to give")
def test_a_new_one_is_like_what_it_is_mounted_over(store: VolumeStore, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    os.chown(model, 1000, 2000)
    model.chmod(0o2775)
    store.ensure("data", like=model.stat())
    found = Path(store.path("data")).stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1000, 2000, 0o2775)
    # One that is there stays as it is.
    store.ensure("data", like=tmp_path.stat())
    assert Path(store.path("data")).stat().st_uid == 1000


def test_what_killed_processes_left_is_swept(store: VolumeStore, tmp_path: Path) -> None:
    store.create("kept", {})
    mine = store._new()
    mine.mkdir()
    script = "from asyncctr.transport.ownership import Owner; print(Owner.current())"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    theirs = tmp_path / "volumes" / f".{done.stdout.strip().replace('/', '_')}.0123456789abcdef"
    theirs.mkdir()
    store.sweep()
    assert mine.exists()
    assert not theirs.exists()
    assert [volume.name for volume in store.list({})] == ["kept"]
