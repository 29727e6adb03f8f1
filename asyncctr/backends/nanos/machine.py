"""A virtual machine as QEMU's command line: pure functions of a description."""

from __future__ import annotations

import ipaddress
import json
from itertools import islice
from typing import Literal

import attrs

from asyncctr.backends.nanos.forwards import NETWORK, Forward, forward_rule
from asyncctr.backends.nanos.qmp import BACKEND, check_socket_path
from asyncctr.core.errors import UnsupportedError

__all__ = [
    "Drive",
    "MachineType",
    "SharedDirectory",
    "TapNetwork",
    "UserNetwork",
    "VirtualMachine",
    "default_gateway",
    "name_server",
    "qemu_arguments",
]

MachineType = Literal["microvm", "q35"]


@attrs.frozen(kw_only=True)
class Drive:
    """A disk. The first one of a machine has the root file system.

    Attributes:
        path: absolute.
        format: ``"raw"`` or ``"qcow2"``; never guessed from what the guest may have written.
        read_only: refuse writes.
    """

    path: str
    format: Literal["raw", "qcow2"] = "raw"
    read_only: bool = False


@attrs.frozen(kw_only=True)
class SharedDirectory:
    """A directory of the host, over 9P. To the guest, a machine's first is the volume ``virtfs0``, the next ``virtfs1``.

    It is never read-only to QEMU: Nanos opens every file for writing, too, and could then read none. Of one that is mounted for
    reading it is the kernel that refuses writes; a program that opens a file there to empty it stands still, by a fault of it.

    Attributes:
        path: absolute.
    """

    path: str


@attrs.frozen(kw_only=True)
class UserNetwork:
    """QEMU's own network, which needs no rights: the guest reaches what this process could, and is reached by forwarded ports.

    Attributes:
        forwards: ports of this machine, bound at start: one that is taken keeps QEMU from starting.
        guest_address: a static IPv4 address; empty where the guest asks by DHCP.
        prefix: of the network around the address, in bits; from 4 to 30.
        gateway: where QEMU itself is in it; empty for :func:`default_gateway`.
        ipv6: whether there is IPv6, too.
        guest_address6: a static IPv6 address, in a network of 64 bits; empty for those of QEMU's own network.
    """

    forwards: tuple[Forward, ...] = ()
    guest_address: str = ""
    prefix: int = 24
    gateway: str = ""
    ipv6: bool = True
    guest_address6: str = ""


@attrs.frozen(kw_only=True)
class TapNetwork:
    """An interface that exists already.

    Attributes:
        name: of the tap interface, in the network namespace that QEMU is started in.
    """

    name: str


@attrs.frozen(kw_only=True)
class VirtualMachine:
    """What a machine is made of.

    Attributes:
        kernel: the path of the kernel, which is started directly.
        monitor: the path of the QMP socket, for QEMU to make, or the descriptor of one that listens and is inherited
            (:func:`asyncctr.backends.nanos.qmp.listening_socket`).
        console: the path of the file that the serial port is appended to.
        machine: see :data:`MachineType`; ``microvm`` starts faster, ``q35`` has PCI.
        accelerator: ``"tcg"`` or ``"kvm"``.
        memory: bytes, in whole MiB.
        cpus: how many.
        drives: the root first, then volumes, in any order: the guest knows them by label.
        directories: shared with the guest; not on ``microvm``.
        network: ``None`` for no interface.
        mac: the interface's hardware address; empty for QEMU's default, the same for all.
        paused: wait for ``cont`` before the first instruction.
    """

    kernel: str
    monitor: str | int
    console: str
    machine: MachineType = "microvm"
    accelerator: str = "tcg"
    memory: int = 256 << 20
    cpus: int = 1
    drives: tuple[Drive, ...] = ()
    directories: tuple[SharedDirectory, ...] = ()
    network: UserNetwork | TapNetwork | None = None
    mac: str = ""
    paused: bool = False


def qemu_arguments(vm: VirtualMachine) -> tuple[str, ...]:
    """The arguments, without the program's own name.

    Raises:
        InvalidConfigError: the monitor's path has more bytes than a socket's may have.
        UnsupportedError: this type of machine has not what is asked for.
    """
    if vm.directories and vm.machine == "microvm":
        message = "options.machine: a microvm cannot share directories of the host; use 'q35'"
        raise UnsupportedError(message, field="options.machine", backend=BACKEND)
    return (
        *("-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"),
        *_board(vm),
        *("-accel", vm.accelerator, "-cpu", "max", "-smp", str(vm.cpus), "-m", f"{vm.memory >> 20}M"),
        *("-kernel", vm.kernel),
        # Of the guest's exit code; see the exit file.
        *("-device", "isa-debug-exit"),
        *("-chardev", f"socket,id=monitor,{_monitor(vm.monitor)},server=on,wait=off"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"file,id=console,path={_escaped(vm.console)},append=on", "-serial", "chardev:console"),
        *_drives(vm),
        *_directories(vm),
        *_network(vm),
        *(("-S",) if vm.paused else ()),
    )


def _monitor(monitor: str | int) -> str:
    if isinstance(monitor, int):
        return f"fd={monitor}"
    check_socket_path(monitor)
    return f"path={_escaped(monitor)}"


def _board(vm: VirtualMachine) -> tuple[str, ...]:
    if vm.machine == "microvm":
        return "-M", "microvm,rtc=on,ioapic2=off", "-global", "virtio-mmio.force-legacy=false"
    # SeaBIOS, the default, cannot start a kernel by PVH here.
    return "-M", "q35", "-bios", "qboot.rom"


def _drives(vm: VirtualMachine) -> tuple[str, ...]:
    arguments: list[str] = []
    if vm.drives and vm.machine == "q35":
        arguments += ["-device", "virtio-scsi-pci,id=scsi0"]
    for number, drive in enumerate(vm.drives):
        node = f"hd{number}"
        # As JSON, because QEMU would take a path with a colon for a protocol, and a comma for the next option.
        backend = {
            "driver": drive.format,
            "node-name": node,
            "read-only": drive.read_only,
            "file": {"driver": "file", "filename": drive.path},
        }
        device = "virtio-blk-device" if vm.machine == "microvm" else "scsi-hd,bus=scsi0.0"
        arguments += ["-blockdev", json.dumps(backend), "-device", f"{device},drive={node}"]
    return tuple(arguments)


def _directories(vm: VirtualMachine) -> tuple[str, ...]:
    arguments: list[str] = []
    for number, directory in enumerate(vm.directories):
        arguments += [
            *("-fsdev", f"local,id=fs{number},path={_escaped(directory.path)},security_model=none"),
            *("-device", f"virtio-9p-pci,fsdev=fs{number},mount_tag={number}"),
        ]
    return tuple(arguments)


def _network(vm: VirtualMachine) -> tuple[str, ...]:
    if vm.network is None:
        return ()
    device = f"virtio-net-{'device' if vm.machine == 'microvm' else 'pci'},netdev={NETWORK}"
    if vm.mac:
        device += f",mac={vm.mac}"
    backend = _tap(vm.network) if isinstance(vm.network, TapNetwork) else _user(vm.network)
    return "-netdev", backend, "-device", device


def _tap(network: TapNetwork) -> str:
    return f"tap,id={NETWORK},ifname={_escaped(network.name)},script=no,downscript=no"


def _user(network: UserNetwork) -> str:
    # ipv6=on alone would turn IPv4 off.
    options = ["user", f"id={NETWORK}", "ipv4=on", f"ipv6={'on' if network.ipv6 else 'off'}"]
    if network.guest_address6:
        # Nanos has no length of a prefix for it, and takes 64 bits, as everyone does.
        options.append(f"ipv6-net={network.guest_address6}/64")
    if network.guest_address:
        around = ipaddress.IPv4Interface(f"{network.guest_address}/{network.prefix}")
        gateway = ipaddress.IPv4Address(network.gateway) if network.gateway else default_gateway(around)
        server, lease = _spare(around, gateway)[:2]
        options += [f"net={around.network}", f"host={gateway}", f"dns={server}", f"dhcpstart={lease}"]
    options += [f"hostfwd={forward_rule(forward, network.guest_address)}" for forward in network.forwards]
    return ",".join(options)


def default_gateway(around: ipaddress.IPv4Interface) -> ipaddress.IPv4Address:
    """Where QEMU is in a network unless told: at its second address, or the next one where that is the guest's."""
    return _spare(around)[0]


def name_server(around: ipaddress.IPv4Interface, gateway: ipaddress.IPv4Address) -> ipaddress.IPv4Address:
    """Where QEMU's name server is, which asks those of this machine."""
    return _spare(around, gateway)[0]


def _spare(around: ipaddress.IPv4Interface, *taken: ipaddress.IPv4Address) -> list[ipaddress.IPv4Address]:
    """Addresses of the network that nobody has. Its ends, which nobody can have, are the last; QEMU takes them, too."""
    network = around.network
    first, *others = islice(network.hosts(), 5)
    found = (*others, first, network.broadcast_address, network.network_address)
    return [address for address in found if address != around.ip and address not in taken]


def _escaped(text: str) -> str:
    """A value within an option: QEMU reads a doubled comma as one."""
    return text.replace(",", ",,")
