"""Whether a daemon gets what is mounted here: in the same mount namespace, in a slave of it, and in one of its own."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncctr.backends.containerd.reaching import sees_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has mount namespaces of its own")


@contextmanager
def beside(*words: str) -> Iterator[int]:
    """A process that those words start."""
    with subprocess.Popen([*words, "sh", "-c", "echo ready; exec sleep 600"], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "a space"
    (directory / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", directory], check=True)
    try:
        subprocess.run(["mount", "--make-shared", directory], check=True)
        (directory / "below").mkdir()
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def test_in_the_same_namespace(tmp_path: Path) -> None:
    with beside() as pid:
        assert sees_mounts(pid, tmp_path)


@pytest.mark.parametrize(("propagation", "sees"), [("slave", True), ("shared", True), ("private", False)])
def test_in_another_namespace(shared: Path, propagation: str, sees: bool) -> None:
    with beside("unshare", "--mount", "--propagation", propagation) as pid:
        for place in (shared, shared / "below", shared / "below/none"):
            assert sees_mounts(pid, place) is sees
        # That is so.
        mounted = shared / "below"
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mounted], check=True)
        try:
            assert (str(mounted).replace(" ", "\\040") in Path(f"/proc/{pid}/mountinfo").read_text()) is sees
        finally:
            subprocess.run(["umount", mounted], check=True)


def test_what_was_mounted_after_the_namespace_was_made(tmp_path: Path) -> None:
    with beside("unshare", "--mount", "--propagation", "slave") as pid:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
        try:
            subprocess.run(["mount", "--make-shared", tmp_path], check=True)
            assert not sees_mounts(pid, tmp_path)
        finally:
            subprocess.run(["umount", tmp_path], check=True)


def test_of_a_process_that_has_ended(tmp_path: Path) -> None:
    with beside() as pid:
        pass
    with pytest.raises(FileNotFoundError):
        sees_mounts(pid, tmp_path)
