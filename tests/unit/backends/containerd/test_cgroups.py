"""Control groups of containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncctr.backends.containerd import cgroups

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_empty_groups_are_removed_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_ROOT", str(tmp_path))
    groups = [tmp_path / name / "asyncctr-a" for name in ("memory", "pids", "cpu")] + [tmp_path / "asyncctr-a"]
    for group in groups:
        group.mkdir(parents=True)
    # As one that is in use cannot be removed.
    (groups[0] / "child").mkdir()
    other = tmp_path / "pids" / "asyncctr-b"
    other.mkdir()
    cgroups.remove_cgroups("a")
    assert [group.exists() for group in groups] == [True, False, False, False]
    assert other.exists()
    cgroups.remove_cgroups("a")
    monkeypatch.setattr(cgroups, "_ROOT", str(tmp_path / "none"))
    cgroups.remove_cgroups("a")
