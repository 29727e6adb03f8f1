from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from asyncctr.backends.nanos import accel
from asyncctr.backends.nanos.accel import choose_accelerator, runs_on
from asyncctr.netns.files import write_atomic
from asyncctr.testing.programs import find

pytestmark = pytest.mark.anyio


def program(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\necho run >>'{path}.runs'\n{body}\n", encoding="ascii")
    path.chmod(0o700)
    return str(path)


def runs(directory: Path) -> int:
    file = directory / "qemu.runs"
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "kvm"
    path.touch()
    monkeypatch.setattr(accel, "_KVM", str(path))
    return path


@pytest.mark.require("qemu")
async def test_the_guest_computes_the_expected_code() -> None:
    value = 0
    for _ in range(100_000):
        value = (value * 6364136223846793005 + 1) % (1 << 64)
    assert ((value >> 56) * 2 + 1) & 0xFF == accel._EXPECTED
    assert await runs_on("tcg", find("qemu-system-x86_64"), deadline=30)
    assert not await runs_on("none-such", find("qemu-system-x86_64"))


@pytest.mark.require("qemu")
async def test_what_is_chosen_works(tmp_path: Path) -> None:
    qemu = find("qemu-system-x86_64")
    assert await runs_on(await choose_accelerator(qemu, tmp_path), qemu, deadline=30)


async def test_a_result_is_kept_for_this_qemu(tmp_path: Path, device: Path) -> None:
    qemu = program(tmp_path / "qemu", "exit 143")
    assert [await choose_accelerator(qemu, tmp_path) for _ in range(3)] == ["kvm"] * 3
    assert runs(tmp_path) == 1
    program(tmp_path / "qemu", "exit 134")
    os.utime(qemu, (1, 1))
    assert [await choose_accelerator(qemu, tmp_path) for _ in range(3)] == ["tcg"] * 3
    assert runs(tmp_path) == 2


@pytest.mark.parametrize("kept", [b"", b"[]", b"{}", b'{"of": 1, "kvm": true}', b"\xff"])
async def test_what_was_not_kept_by_us_is_found_out_anew(tmp_path: Path, device: Path, kept: bytes) -> None:
    write_atomic(tmp_path / "accelerator.json", kept)
    assert await choose_accelerator(program(tmp_path / "qemu", "exit 134"), tmp_path) == "tcg"
    assert runs(tmp_path) == 1


async def test_without_the_device_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "_KVM", str(tmp_path / "nothing"))
    assert await choose_accelerator(program(tmp_path / "qemu", "exit 143"), tmp_path) == "tcg"
    assert runs(tmp_path) == 0


async def test_a_guest_that_hangs_is_given_up_and_killed(tmp_path: Path) -> None:
    qemu = program(tmp_path / "qemu", f"echo $$ >'{tmp_path}/pid'\nexec sleep 60")
    started = time.monotonic()
    assert not await runs_on("kvm", qemu, deadline=2)
    assert time.monotonic() - started < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_a_cancelled_probe_leaves_nothing(tmp_path: Path) -> None:
    before = descriptors()
    os.mkfifo(tmp_path / "pid")
    qemu = program(tmp_path / "qemu", f"echo $$ >'{tmp_path}/pid'\nexec sleep 60")
    probing = asyncio.create_task(runs_on("kvm", qemu))
    pid = int(await asyncio.to_thread((tmp_path / "pid").read_text))
    probing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probing
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert descriptors() == before


async def test_a_program_that_is_missing_is_no_result(tmp_path: Path, device: Path) -> None:
    assert await choose_accelerator(str(tmp_path / "qemu"), tmp_path) == "tcg"
    assert await choose_accelerator(program(tmp_path / "qemu", "exit 143"), tmp_path) == "kvm"
