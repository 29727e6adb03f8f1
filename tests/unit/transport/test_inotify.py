"""The shared inotify descriptor of a loop."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from asyncctr.core.errors import UnsupportedError
from asyncctr.testing.conformance.measuring import open_descriptors
from asyncctr.transport import inotify
from asyncctr.transport.inotify import Inotify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's"),
]


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


class Told:
    def __init__(self) -> None:
        self.watches: list[int] = []
        self._event = asyncio.Event()

    def __call__(self, watch: int) -> None:
        self.watches.append(watch)
        self._event.set()

    async def wait(self) -> None:
        async with asyncio.timeout(5):
            await self._event.wait()
        self._event.clear()


async def test_each_watch_tells_once(descriptor: int) -> None:
    notifier, told = Inotify.of_running_loop(), Told()
    assert Inotify.of_running_loop() is notifier
    watch = notifier.arm(descriptor, told)
    os.write(descriptor, b"x")
    os.write(descriptor, b"x")
    await told.wait()
    again = notifier.arm(descriptor, told)
    os.write(descriptor, b"x")
    await told.wait()
    assert told.watches == [watch, again]
    assert not notifier._wakes


async def test_all_who_watch_one_file_are_told(descriptor: int, tmp_path: Path) -> None:
    notifier, told = Inotify.of_running_loop(), [Told() for _ in range(3)]
    watches = {notifier.arm(descriptor, each) for each in told}
    notifier.disarm(watches.pop(), told[0])
    (tmp_path / "file").unlink()
    for each in told[1:]:
        await each.wait()
    assert not told[0].watches


async def test_taking_a_watch_back_may_come_too_late(descriptor: int) -> None:
    notifier, told = Inotify.of_running_loop(), Told()
    watch = notifier.arm(descriptor, told)
    os.write(descriptor, b"x")
    notifier.disarm(watch, told)
    notifier.disarm(watch, told)
    later = Told()
    notifier.arm(descriptor, later)
    os.write(descriptor, b"x")
    await later.wait()
    assert not told.watches


async def test_lost_events_wake_everyone(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    notifier, told = Inotify.of_running_loop(), Told()
    watch = notifier.arm(descriptor, told)
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", lambda *_: struct.pack("iIII", -1, 0x4000, 0, 0))
        notifier._read()
    assert told.watches == [watch]


async def test_a_limit_is_named(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    notifier = Inotify.of_running_loop()
    monkeypatch.setattr(notifier._libc, "inotify_add_watch", lambda *_: (ctypes.set_errno(28), -1)[1])
    with pytest.raises(OSError, match="max_user_watches"):
        notifier.arm(descriptor, Told())


async def test_a_system_without_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(UnsupportedError, match="Linux"):
        Inotify(asyncio.get_running_loop())


def test_the_descriptor_goes_with_its_loop(anyio_backend: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    factory = None
    if anyio_backend[1]["use_uvloop"]:
        factory = pytest.importorskip("uvloop").new_event_loop

    async def use() -> None:
        told = Told()
        descriptor = os.open(tmp_path / "one", os.O_CREAT | os.O_WRONLY)
        Inotify.of_running_loop().arm(descriptor, told)
        os.write(descriptor, b"x")
        os.close(descriptor)
        await told.wait()

    gc.collect()
    before = open_descriptors()
    for _ in range(5):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(use())
        # One more at most: that of a loop that is closed, but not collected yet.
        assert len([loop for loop in inotify._OURS if loop.is_closed()]) <= 1
    gc.collect()
    assert open_descriptors() == before


def test_importing_the_package_needs_no_linux() -> None:
    code = "import sys; sys.modules['fcntl'] = None; import asyncctr; assert 'asyncctr.transport.inotify' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
