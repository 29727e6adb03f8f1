from __future__ import annotations

import json
import os
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from asyncctr.backends.nanos.forwards import Forward
from asyncctr.backends.nanos.machine import (
    Drive,
    SharedDirectory,
    TapNetwork,
    UserNetwork,
    VirtualMachine,
    qemu_arguments,
)
from asyncctr.core.errors import InvalidConfigError, UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio
real = pytest.mark.require("qemu")

SMALLEST = VirtualMachine(kernel="/k, 1", monitor="/m,m", console="/c,c")
COMMON = (
    *("-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"),
    *("-M", "microvm,rtc=on,ioapic2=off", "-global", "virtio-mmio.force-legacy=false"),
    *("-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "256M", "-kernel", "/k, 1", "-device", "isa-debug-exit"),
    *("-chardev", "socket,id=monitor,path=/m,,m,server=on,wait=off", "-mon", "chardev=monitor,mode=control"),
    *("-chardev", "file,id=console,path=/c,,c,append=on", "-serial", "chardev:console"),
)
# mov $'a' + i, %al; mov $0x3f8, %dx; out %al, (%dx), for each; then mov $21, %al; mov $0x501, %dx; out %al, (%dx)
SPEAK = b"".join(b"\xb0%c\x66\xba\xf8\x03\xee" % letter for letter in b"hi\n") + bytes.fromhex(
    "b015 66ba0105 ee fa f4 ebfd"
)


def added(**changes: Any) -> tuple[str, ...]:
    arguments = qemu_arguments(attrs.evolve(SMALLEST, **changes))
    assert arguments[: len(COMMON)] == COMMON
    return arguments[len(COMMON) :]


def test_the_smallest() -> None:
    assert added() == ()


def test_size_and_board() -> None:
    arguments = qemu_arguments(
        attrs.evolve(SMALLEST, machine="q35", accelerator="kvm", cpus=3, memory=96 << 20, paused=True)
    )
    text = " ".join(arguments)
    assert " -M q35 -bios qboot.rom -accel kvm -cpu max -smp 3 -m 96M " in text
    assert arguments[-1] == "-S"


def test_drives() -> None:
    drives = (Drive(path="/a,b:ü c", format="qcow2"), Drive(path="/v", read_only=True))
    option, root, device, first, *volume = added(drives=drives)
    assert (option, device, first) == ("-blockdev", "-device", "virtio-blk-device,drive=hd0")
    file = {"driver": "file", "filename": "/a,b:ü c"}
    assert json.loads(root) == {"driver": "qcow2", "node-name": "hd0", "read-only": False, "file": file}
    file = {"driver": "file", "filename": "/v"}
    assert json.loads(volume[1]) == {"driver": "raw", "node-name": "hd1", "read-only": True, "file": file}
    arguments = qemu_arguments(attrs.evolve(SMALLEST, machine="q35", drives=drives))
    devices = [value for name, value in pairwise(arguments) if name == "-device"]
    assert devices == [
        "isa-debug-exit",
        "virtio-scsi-pci,id=scsi0",
        *(f"scsi-hd,bus=scsi0.0,drive=hd{n}" for n in (0, 1)),
    ]


@pytest.mark.parametrize(
    ("network", "backend"),
    [
        (UserNetwork(), "user,id=n0,ipv4=on,ipv6=on"),
        (
            UserNetwork(ipv6=False, guest_address="10.9.1.7"),
            "user,id=n0,ipv4=on,ipv6=off,net=10.9.1.0/24,host=10.9.1.2,dns=10.9.1.3,dhcpstart=10.9.1.4",
        ),
        (
            UserNetwork(
                guest_address="10.9.1.7",
                prefix=16,
                gateway="10.9.0.1",
                forwards=(Forward("tcp", "127.0.0.1", 80, 8080),),
            ),
            "user,id=n0,ipv4=on,ipv6=on,net=10.9.0.0/16,host=10.9.0.1,dns=10.9.0.2,dhcpstart=10.9.0.3,hostfwd=tcp:127.0.0.1:80-10.9.1.7:8080",
        ),
        (
            UserNetwork(forwards=(Forward("tcp", "127.0.0.1", 80, 8080), Forward("udp", "0.0.0.0", 53, 53))),
            "user,id=n0,ipv4=on,ipv6=on,hostfwd=tcp:127.0.0.1:80-:8080,hostfwd=udp:0.0.0.0:53-:53",
        ),
        (UserNetwork(guest_address6="fd12::7"), "user,id=n0,ipv4=on,ipv6=on,ipv6-net=fd12::7/64"),
        (TapNetwork(name="tap,0"), "tap,id=n0,ifname=tap,,0,script=no,downscript=no"),
    ],
)
def test_networks(network: UserNetwork | TapNetwork, backend: str) -> None:
    assert added(network=network) == ("-netdev", backend, "-device", "virtio-net-device,netdev=n0")
    device = "virtio-net-device,netdev=n0,mac=52:54:00:00:00:01"
    assert added(network=network, mac="52:54:00:00:00:01")[-1] == device
    assert qemu_arguments(attrs.evolve(SMALLEST, machine="q35", network=network))[-1] == "virtio-net-pci,netdev=n0"


def test_directories_take_pci() -> None:
    directories = (SharedDirectory(path="/d,d"),)
    assert qemu_arguments(attrs.evolve(SMALLEST, machine="q35", directories=directories))[-4:] == (
        *("-fsdev", "local,id=fs0,path=/d,,d,security_model=none"),
        *("-device", "virtio-9p-pci,fsdev=fs0,mount_tag=0"),
    )
    with pytest.raises(UnsupportedError, match="q35") as refused:
        added(directories=directories)
    assert refused.value.field == "options.machine"


def test_a_monitor_by_descriptor_or_by_a_path_that_fits() -> None:
    assert "socket,id=monitor,fd=7,server=on,wait=off" in qemu_arguments(attrs.evolve(SMALLEST, monitor=7))
    qemu_arguments(attrs.evolve(SMALLEST, monitor="/" + "x" * 106))
    with pytest.raises(InvalidConfigError, match="108 bytes"):
        qemu_arguments(attrs.evolve(SMALLEST, monitor="/" + "x" * 107))


@real
@pytest.mark.parametrize("machine", ["microvm", "q35"])
async def test_qemu_takes_everything_that_can_be_described(start: Any, directory: Path, machine: str) -> None:
    # On real drives, in a directory whose name has a comma, a space and more than ASCII.
    (directory / "share").mkdir()
    root, volume = directory / "root:1", directory / "volume"
    for path in (root, volume):
        path.write_bytes(b"")
        os.truncate(path, 1 << 20)
    shared = (SharedDirectory(path=str(directory / "share")),) if machine == "q35" else ()
    running = await start(
        machine=machine,
        cpus=2,
        drives=(Drive(path=str(root)), Drive(path=str(volume), read_only=True)),
        directories=shared,
        network=UserNetwork(guest_address="10.7.0.9", gateway="10.7.0.2"),
        mac="52:54:00:12:34:99",
        paused=True,
    )
    async with running.monitor() as monitor:
        assert await monitor.status() == "prelaunch"
        blocks = await monitor.execute("query-named-block-nodes")
        named = {
            block["node-name"]: (block["file"], block["ro"]) for block in blocks if block["node-name"].startswith("hd")
        }
        assert named == {"hd0": (str(root), False), "hd1": (str(volume), True)}
        assert len(await monitor.execute("query-cpus-fast")) == 2
        assert "n0" in await monitor.human("info network")
        assert "52:54:00:12:34:99" in await monitor.human("info network")


@real
@pytest.mark.parametrize("machine", ["microvm", "q35"])
@pytest.mark.parametrize("by_path", [False, True])
async def test_a_guest_speaks_and_exits(start: Any, machine: str, by_path: bool) -> None:
    running = await start(SPEAK, machine=machine, by_path=by_path)
    assert await running.ended() == 2 * 21 + 1
    assert running.console.read_bytes() == b"hi\n"
    assert await running.said() == ""
