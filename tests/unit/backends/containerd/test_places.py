"""Whose the directories of the private containerd are, and that its sockets fit into an address."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from asyncctr.backends.containerd.daemon.places import Places
from asyncctr.core.errors import BackendUnavailableError, InvalidConfigError
from asyncctr.transport import places as module
from asyncctr.transport.places import own_directory

if TYPE_CHECKING:
    from collections.abc import Iterator


def variables(data: str | os.PathLike[str], run: str | os.PathLike[str]) -> dict[str, str]:
    return {"ASYNCCTR_DATA_DIR": os.fspath(data), "ASYNCCTR_RUN_DIR": os.fspath(run)}


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Of a directory; pytest's own is too long for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def test_root_and_users_have_their_own(monkeypatch: pytest.MonkeyPatch, short_path: Path) -> None:
    own = short_path.stat().st_uid or 4_000_001
    os.chown(short_path, own, -1)
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    root = Places.of({"HOME": "/root", "XDG_RUNTIME_DIR": str(short_path), "XDG_DATA_HOME": "/x"})
    assert root.data == "/var/lib/asyncctr/containerd"
    assert root.run.startswith("/run/asyncctr/containerd-")

    monkeypatch.setattr(module.os, "geteuid", lambda: 4_000_000)
    user = Places.of({"HOME": "/home/u", "XDG_RUNTIME_DIR": str(short_path)})
    assert user.data == "/home/u/.local/share/asyncctr/containerd"
    # The directory that the variable names is another user's.
    assert user.run.startswith("/tmp/asyncctr-4000000/containerd-")
    monkeypatch.setattr(module.os, "geteuid", lambda: own)
    assert Places.of({"HOME": "/", "XDG_RUNTIME_DIR": str(short_path)}).run.startswith(
        f"{short_path}/asyncctr/containerd-"
    )


def test_each_data_directory_has_its_own_sockets() -> None:
    one, two = Places.of(variables("/a", "/r")), Places.of(variables("/b", "/r"))
    assert one.run != two.run
    assert one == Places.of(variables("/a/", "/r"))


@pytest.mark.parametrize("length", [20, 61, 62, 63, 200])
def test_sockets_fit_into_an_address(length: int) -> None:
    run = Places.of(variables("/d", "/" + "é" * (length // 2) + "x" * (length % 2))).run
    assert len(os.fsencode(run + "/containerd.sock.ttrpc")) <= 104
    assert run.startswith("/tmp/asyncctr-") == (length > 61)
    assert run == Places.of(variables("/d", "/" + "é" * (length // 2) + "x" * (length % 2))).run


def test_relative_paths_are_refused() -> None:
    with pytest.raises(InvalidConfigError, match="ASYNCCTR_RUN_DIR: must be an absolute path"):
        Places.of(variables("/d", "run"))


def test_makes_private_directories_and_leaves_others_modes_alone(tmp_path: Path) -> None:
    base = tmp_path / "run"
    base.mkdir(mode=0o755)
    places = Places.of(variables(tmp_path / "data", base))
    places = attrs.evolve(places, run=f"{base}/containerd-1")
    places.make()
    Path(places.run).chmod(0o755)
    places.make()
    for path in (places.data, places.private, places.run):
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o700
    assert stat.S_IMODE(base.stat().st_mode) == 0o755


def test_a_file_or_a_link_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(BackendUnavailableError, match="is not a directory of this user"):
            own_directory(str(tmp_path / name), backend="containerd")
    with pytest.raises(BackendUnavailableError, match=r"cannot write to .*: (Not a directory|File exists); make it"):
        own_directory(str(tmp_path / "file/below/that"), backend="containerd")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
@pytest.mark.parametrize("shared", [False, True])
def test_another_users_directory_is_refused(tmp_path: Path, shared: bool) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    with pytest.raises(BackendUnavailableError, match="but of uid 12345: remove it"):
        own_directory(str(theirs), shared=shared, backend="containerd")


def test_a_running_daemon_tells_where_its_sockets_are(tmp_path: Path) -> None:
    places = Places.of(variables(tmp_path / "data", "/r"))
    assert places.running() == places
    places = attrs.evolve(places, run=str(tmp_path / "run/containerd-1"))
    places.make()
    (Path(places.private) / "run").write_text("/elsewhere/containerd-1")
    assert places.running() == attrs.evolve(places, run="/elsewhere/containerd-1")
