"""What a containerd without root is refused for, and the advice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncctr.backends.containerd.daemon import launching, prerequisites, programs
from asyncctr.backends.containerd.daemon.launching import check_rootless_mode, fuse_overlayfs, plan_launch
from asyncctr.backends.containerd.daemon.places import Places
from asyncctr.backends.containerd.daemon.prerequisites import Finding, rootless_findings
from asyncctr.core.backend_config import ContainerdConfig, RootlessMode
from asyncctr.core.errors import BackendUnavailableError, InvalidConfigError, UnsupportedError


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of our own, with every program."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in programs.PACKAGES:
        path = directory / name
        path.write_text("#!/bin/sh\n")
        path.chmod(0o4755 if name.startswith("new") else 0o755)
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setattr(programs, "SEARCH_PATH", str(directory))
    return directory


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)


def by_name(config: ContainerdConfig | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in rootless_findings(config or ContainerdConfig())}


def test_missing_programs_name_their_packages(bin_dir: Path) -> None:
    for name in ("rootlesskit", "newuidmap", "fuse-overlayfs"):
        (bin_dir / name).unlink()
    (bin_dir / "newgidmap").chmod(0o755)
    found = by_name()
    assert found["containerd"] == Finding(name="containerd", ok=True, detail=str(bin_dir / "containerd"))
    assert found["rootlesskit"].advice == "apt-get install rootlesskit"
    assert found["newuidmap"].advice == "apt-get install uidmap"
    assert found["newgidmap"].advice == f"chmod u+s {bin_dir}/newgidmap"
    # Only old kernels need it.
    assert not found["fuse-overlayfs"].ok
    assert not found["fuse-overlayfs"].needed


def test_programs_that_are_named_are_looked_for_there(bin_dir: Path) -> None:
    other = bin_dir.parent / "other"
    other.mkdir()
    for name in ("containerd", "containerd-shim-runc-v2"):
        (bin_dir / name).rename(other / name)
    found = by_name(ContainerdConfig(containerd_path=other / "containerd", rootlesskit_path="/nowhere/rootlesskit"))
    assert found["containerd"].ok
    assert found["containerd-shim-runc-v2"].detail == str(other / "containerd-shim-runc-v2")
    assert found["rootlesskit"] == Finding(
        name="rootlesskit", ok=False, detail="there is no program '/nowhere/rootlesskit'", advice="correct its path"
    )


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("", False),
        ("other:100000:65536\n", False),
        ("me:100000:65535\n", False),
        ("me:100000:65536\n", True),
        ("me:100000:1000\nme:200000:64536", True),
        ("4000000:100000:65536\n", True),
        ("me:100000:many\nme\n::\n", False),
    ],
)
def test_subordinate_ids(tmp_path: Path, as_user: None, text: str, ok: bool) -> None:
    path = tmp_path / "subuid"
    path.write_text(text)
    finding = prerequisites._subordinate(str(path), "me", "uids")
    assert finding.ok == ok
    assert ("usermod --add-subuids" in finding.advice) == (not ok)


def test_a_device_that_is_missing(tmp_path: Path) -> None:
    assert prerequisites._device(str(tmp_path / "tun"), "networking").advice == "as root: modprobe tun"
    assert prerequisites._device("/dev/null", "networking").ok


def test_a_start_lists_all_that_is_missing(bin_dir: Path, as_user: None, tmp_path: Path) -> None:
    for name in ("rootlesskit", "slirp4netns"):
        (bin_dir / name).unlink()
    with pytest.raises(BackendUnavailableError) as caught:
        plan_launch(ContainerdConfig(), Places(data=str(tmp_path), run="/r"), {})
    assert "  - rootlesskit: not installed. apt-get install rootlesskit\n" in str(caught.value)
    assert "  - /etc/subuid: has no uids for 4000000; 65536 are needed. as root: usermod" in str(caught.value)


def test_rootless_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    auto, enabled, disabled = (ContainerdConfig(rootless_mode=mode) for mode in RootlessMode)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert (check_rootless_mode(auto), check_rootless_mode(disabled)) == (False, False)
    with pytest.raises(InvalidConfigError, match="ENABLED is refused as root"):
        check_rootless_mode(enabled)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert [check_rootless_mode(mode) for mode in (auto, enabled, disabled)] == [True, True, False]
    with pytest.raises(UnsupportedError, match="only with RootlessMode"):
        plan_launch(disabled, Places(data="/d", run="/r"), {})


def test_the_daemon_gets_no_more_of_our_environment_than_it_needs(
    bin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    environ = {"HOME": "/root", "SECRET": "x", "HTTPS_PROXY": "http://proxy", "PATH": str(bin_dir)}
    launch = plan_launch(ContainerdConfig(), Places(data="/d", run="/r"), environ)
    assert set(launch.environment) == {"HOME", "HTTPS_PROXY", "NOTIFY_SOCKET", "PATH"}
    assert launch.environment["PATH"].startswith(f"{bin_dir}:")
    assert launch.command[0] == launch.containerd == str(bin_dir / "containerd")
    with pytest.raises(InvalidConfigError, match="must not have any of"):
        plan_launch(ContainerdConfig(), Places(data="/d,e", run="/r"), environ)


def test_without_overlayfs_another_is_needed(bin_dir: Path, tmp_path: Path) -> None:
    places = Places(data=str(tmp_path), run="/r")
    Path(places.private).mkdir()
    assert fuse_overlayfs(ContainerdConfig(), places) == ""
    probed = Path(f"{places.private}/overlay.found")
    probed.write_text(f"none {launching.platform.release()}\n")
    assert fuse_overlayfs(ContainerdConfig(), places) == str(bin_dir / "fuse-overlayfs")
    (bin_dir / "fuse-overlayfs").unlink()
    with pytest.raises(BackendUnavailableError, match="apt-get install fuse-overlayfs fuse3"):
        fuse_overlayfs(ContainerdConfig(), places)
    # Another kernel may have it.
    probed.write_text("none 1.2.3\n")
    assert fuse_overlayfs(ContainerdConfig(), places) == ""
