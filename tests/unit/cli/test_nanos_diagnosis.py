"""What the doctor says of Nanos on machines that lack one thing or another."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asyncctr.backends.nanos import accel
from asyncctr.cli import nanos_diagnosis
from asyncctr.cli.nanos_diagnosis import examine_nanos
from asyncctr.core.backend_config import NanosConfig
from asyncctr.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

# Answers as QEMU does to `-M help` and `-L help`.
_QEMU = """#!/bin/sh
case $1 in
-M) echo 'Supported machines are:'; echo '{machine}              {machine} (i386)';;
-L) echo '{firmware}';;
esac
"""


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither QEMU, a kernel nor KVM."""
    (tmp_path / "bin").mkdir()
    for name, place in (("PATH", "bin"), ("HOME", "home"), ("OPS_HOME", "ops"), ("ASYNCCTR_DATA_DIR", "data")):
        monkeypatch.setenv(name, str(tmp_path / place))
    monkeypatch.setattr(nanos_diagnosis, "_KVM", str(tmp_path / "kvm"))


def install(tmp_path: Path, *, machine: str = "microvm", firmware: bool = True) -> None:
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.write_text(_QEMU.format(machine=machine, firmware=tmp_path))
    program.chmod(0o755)
    if firmware:
        (tmp_path / "qboot.rom").touch()


def add_kernel(tmp_path: Path) -> Path:
    directory = tmp_path / "ops" / ".ops" / "0.1.54"
    (directory / "klibs").mkdir(parents=True)
    (directory / "klibs" / "tls").touch()
    (directory / "kernel.img").touch()
    return directory


async def test_all_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    found = await examine_nanos(NanosConfig())
    qemu, kernel = found.missing
    assert qemu == "qemu-system-x86_64 is not installed"
    assert kernel.startswith("there is no Nanos kernel here: looked for <version>/kernel.img in ")
    assert str(tmp_path / "ops" / ".ops") in kernel
    assert found.advice[0].endswith("apt-get install qemu-system-x86")
    assert "--kernel" in found.advice[1]
    # To look is to make nothing.
    assert not (tmp_path / "data").exists()


async def test_what_there_is(tmp_path: Path) -> None:
    install(tmp_path)
    directory = add_kernel(tmp_path)
    found = await examine_nanos(NanosConfig(auto_download=True))
    assert (found.missing, found.warnings, found.advice) == ([], [], [])
    assert found.details == {
        "qemu": f"{tmp_path}/bin/qemu-system-x86_64",
        "machines": "microvm, q35",
        "kernel": f"{directory}/kernel.img",
        "version": "0.1.54",
        "klibs": f"1 in {directory}/klibs",
        "kvm": f"no: there is no {tmp_path}/kvm: this CPU or this virtual machine offers none",
        "data": f"{tmp_path}/data/nanos",
    }


async def test_a_qemu_without_its_machines(tmp_path: Path) -> None:
    add_kernel(tmp_path)
    install(tmp_path, firmware=False)
    found = await examine_nanos(NanosConfig())
    assert (found.details["machines"], found.missing) == ("microvm", [])
    assert "qboot.rom" in found.warnings[0]
    install(tmp_path, machine="pc")
    assert (await examine_nanos(NanosConfig())).missing == [
        f"{tmp_path}/bin/qemu-system-x86_64 has no microvm machines"
    ]


async def test_what_the_configuration_names(tmp_path: Path) -> None:
    install(tmp_path)
    found = await examine_nanos(NanosConfig(qemu_path="/no/such/qemu", kernel_path="/no/such/kernel"))
    assert found.missing[0] == "there is no program '/no/such/qemu'"
    assert "/no/such/kernel" in found.missing[1]
    with pytest.raises(InvalidConfigError, match="No such file"):
        await examine_nanos(NanosConfig(config_path="/no/such.json"))


@pytest.mark.parametrize(
    ("works", "told"), [(True, "yes: a machine was run with it"), (False, "a machine does not run with it")]
)
async def test_kvm_is_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool, told: str) -> None:
    asked: list[tuple[str, str]] = []

    async def runs_on(accelerator: str, qemu: str) -> bool:
        asked.append((accelerator, qemu))
        return works

    monkeypatch.setattr(accel, "runs_on", runs_on)
    install(tmp_path)
    add_kernel(tmp_path)
    (tmp_path / "kvm").touch()
    found = await examine_nanos(NanosConfig())
    assert found.details["kvm"].endswith(told)
    assert asked == [("kvm", f"{tmp_path}/bin/qemu-system-x86_64")]
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK)
    monkeypatch.setattr(nanos_diagnosis, "_which", lambda name: f"{tmp_path}/bin/{name}")
    found = await examine_nanos(NanosConfig())
    assert found.details["kvm"] == f"no: this user may not open {tmp_path}/kvm"
    assert "usermod" in found.advice[0]
