"""What the doctor says of a containerd that is not there, on machines that lack one thing or another."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asyncctr.backends.containerd import finding
from asyncctr.backends.containerd.daemon import launching, prerequisites, programs
from asyncctr.cli.containerd_diagnosis import examine_containerd
from asyncctr.core.backend_config import ContainerdConfig
from asyncctr.netns import cni

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a daemon nor a program, but those that a test adds to ``bin``."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("ASYNCCTR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ASYNCCTR_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("ASYNCCTR_AUTO_START", raising=False)
    monkeypatch.setattr(programs, "SEARCH_PATH", "/nowhere")
    monkeypatch.setattr(finding, "SYSTEM_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setattr(launching, "check_rootless_mode", lambda config: False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def add(tmp_path: Path, *names: str) -> None:
    for name in names:
        (tmp_path / "bin" / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "bin" / name).chmod(0o755)


async def test_packages_are_named(tmp_path: Path) -> None:
    found = await examine_containerd(ContainerdConfig())
    assert found is not None
    assert (found.address, found.startable) == ("", False)
    assert found.auto_start == "impossible: containerd and runc not installed"
    assert list(found.advice) == ["on Debian and Ubuntu: apt-get install containerd runc"]
    add(tmp_path, "containerd", "runc")
    found = await examine_containerd(ContainerdConfig())
    assert found is not None
    assert (found.startable, found.auto_start) == (True, f"possible, with {tmp_path}/bin/containerd")
    # To look is to make nothing.
    assert not (tmp_path / "data" / "containerd" / "private").exists()
    assert not (tmp_path / "run").exists()


async def test_it_may_be_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, "containerd", "runc")
    monkeypatch.setenv("ASYNCCTR_AUTO_START", "0")
    found = await examine_containerd(ContainerdConfig())
    assert found is not None
    assert (found.startable, found.auto_start) == (False, "impossible: ASYNCCTR_AUTO_START=0 forbids it")
    assert list(found.advice) == ["unset ASYNCCTR_AUTO_START"]


async def test_a_wrong_path_is_told(tmp_path: Path) -> None:
    add(tmp_path, "containerd", "runc")
    found = await examine_containerd(ContainerdConfig(containerd_path="/no/such/containerd"))
    assert found is not None
    assert not found.startable
    assert "containerd_path: there is no program '/no/such/containerd'" in found.auto_start


async def test_what_a_user_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "check_rootless_mode", lambda config: True)
    monkeypatch.setattr(prerequisites, "_user", lambda: "somebody-without-ids")
    monkeypatch.setattr(os, "geteuid", lambda: 987_654)
    found = await examine_containerd(ContainerdConfig())
    assert found is not None
    assert found.auto_start.startswith("impossible: without root it lacks containerd, ")
    advice = "\n".join(found.advice)
    assert "rootlesskit: not installed; apt-get install rootlesskit" in advice
    assert (
        "/etc/subuid: has no uids for somebody-without-ids; 65536 are needed; as root: usermod --add-subuids" in advice
    )
    # Not needed.
    assert "fuse-overlayfs" not in advice
    assert found.networking == ()


async def test_what_networks_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cni, "DIRECTORIES", ("/nowhere",))
    found = await examine_containerd(ContainerdConfig())
    assert found is not None
    assert any("containernetworking-plugins" in sentence for sentence in found.networking)
