"""Who owns a container, and whether that owner still lives."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from asyncctr import ContainerConfig, ContainerId, ContainerInfo, Lifetime, Ownership
from asyncctr.client.reaping import reapable
from asyncctr.transport import ownership
from asyncctr.transport.ownership import LIFETIME, MANAGED, OWNER, TOKEN, Owner, ownership_labels


def info(owner: Owner | str, lifetime: str = "owned", age: float = 0) -> ContainerInfo:
    return ContainerInfo(
        id=ContainerId("a" * 64),
        labels={OWNER: str(owner), LIFETIME: lifetime},
        created_at=datetime.now(UTC) - timedelta(seconds=age),
    )


def dead() -> Owner:
    code = "from asyncctr.transport.ownership import Owner; print(Owner.current())"
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    owner = Owner.parse(text)
    assert owner is not None
    return owner


def test_this_process_lives() -> None:
    owner = Owner.current()
    assert owner.pid == os.getpid()
    assert Owner.parse(str(owner)) == owner
    assert owner.is_local
    assert not owner.is_gone


def test_an_ended_process_is_gone_and_a_reused_pid_is_not_it() -> None:
    owner = dead()
    assert owner.is_local
    assert owner.is_gone
    here = Owner.current()
    assert Owner(here.boot, here.namespace, here.pid, here.start + 1).is_gone


def test_a_process_that_cannot_be_looked_at_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc hides other users' processes, or this process has no descriptor left: reaping would take what lives."""
    here = Owner.current()
    parent = Owner(here.boot, here.namespace, os.getppid(), 1)
    for error in (FileNotFoundError(), OSError(errno.EMFILE, "Too many open files")):

        def unreadable(pid: int, error: OSError = error) -> int:
            raise error

        monkeypatch.setattr(ownership, "start_time", unreadable)
        assert not parent.is_gone
    monkeypatch.undo()
    assert parent.is_gone


def test_labels() -> None:
    first, second = (ownership_labels(ContainerConfig("i")) for _ in range(2))
    assert first[MANAGED] == "1"
    assert first[TOKEN] != second[TOKEN]
    assert first[LIFETIME] == "owned"
    kept = ContainerConfig("i", ownership=Ownership(token="t", lifetime=Lifetime.DETACHED))
    assert (ownership_labels(kept)[TOKEN], ownership_labels(kept)[LIFETIME]) == ("t", "detached")


@pytest.mark.parametrize("text", ["", "a/b/c", "a/b/x/1", "a/b/1/-1", "a/b/1/2/3"])
def test_garbage_is_no_owner(text: str) -> None:
    assert Owner.parse(text) is None
    assert not reapable(info(text), older_than=None, foreign=True)


def test_only_what_a_dead_local_owner_left_is_reaped() -> None:
    gone = dead()
    assert reapable(info(gone), older_than=None, foreign=False)
    assert not reapable(info(Owner.current()), older_than=None, foreign=True)
    assert not reapable(info(gone, "detached"), older_than=None, foreign=True)
    elsewhere = Owner("another-boot", gone.namespace, gone.pid, gone.start)
    assert not reapable(info(elsewhere), older_than=None, foreign=False)
    assert reapable(info(elsewhere), older_than=None, foreign=True)
    assert not reapable(info(gone, age=10), older_than=60, foreign=False)
    assert reapable(info(gone, age=100), older_than=60, foreign=False)
