"""A disk that Nanos boots from: a boot record, the kernel's log, the boot filesystem, the root filesystem.

With ``boot.img`` in front a firmware boots it, and the boot filesystem has the kernel; without, QEMU is given the kernel, and a
record of partitions alone is in front. The kernel's log is the 4096 bytes in front of the first partition: a guest that ends with
another code than 0 writes it there.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import attrs

from asyncctr.backends.nanos.tfs.log import SECTOR, Identity
from asyncctr.backends.nanos.tfs.sources import Part, created, write_at
from asyncctr.backends.nanos.tfs.tree import Directory, HostFile, Node, Root
from asyncctr.backends.nanos.tfs.values import FIELD
from asyncctr.backends.nanos.tfs.writer import Written, write_filesystem
from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncctr.backends.nanos.tfs.sources import Source

__all__ = [
    "KLOG_LENGTH",
    "Disk",
    "KernelLog",
    "Parts",
    "find_parts",
    "find_root",
    "read_kernel_log",
    "write_disk",
    "write_volume",
]

KLOG_LENGTH = 4096

_BOOT_LENGTH = 12 << 20
_ENTRIES = 446
_SIGNATURE = b"\x55\xaa"
_ENTRY = struct.Struct("<B3sB3sII")
# Cylinders, heads and sectors are nobody's any more.
_BEYOND = b"\xfe\xff\xff"
_REGION = struct.Struct("<QQI")
_REGION_FILESYSTEM = 12
_KLOG = struct.Struct("<4sQi")
_KLOG_MAGIC = b"KLOG"
_MAX_BOOT_IMAGE = 16 << 20


@attrs.frozen(kw_only=True)
class Disk:
    """What a disk is to have.

    Attributes:
        tree: the files of the root filesystem.
        root: what its root tuple tells.
        identity: of the root filesystem.
        klibs: kernel modules, by name: host files.
        kernel: the kernel on the host, for a disk with a boot image or with modules: a kernel that QEMU loaded finds its
            symbols in the disk's, and stands still without them.
        boot_image: Nanos' ``boot.img`` on the host; empty for a disk of a machine that is given its kernel.
        length: bytes of the root filesystem at least.
    """

    tree: Directory
    root: Root
    identity: Identity
    klibs: Mapping[str, str] = attrs.field(factory=dict)
    kernel: str = ""
    boot_image: str = ""
    length: int = 0

    def __attrs_post_init__(self) -> None:
        if not self.kernel and (self.boot_image or self.klibs):
            raise fail("kernel", "must be given for a disk with a boot image or with klibs")


@attrs.frozen(kw_only=True)
class Parts:
    """Where the parts of a disk are, in bytes.

    Attributes:
        klog: the offset of the kernel's log.
        boot: the offset of the boot filesystem.
        root: the offset of the root filesystem, which goes on to the disk's end.
    """

    klog: int
    boot: int
    root: int


@attrs.frozen(kw_only=True)
class KernelLog:
    """What a guest left when it ended with another code than 0.

    Attributes:
        boot_id: of the boot that it was.
        exit_code: as the guest had it.
        text: the end of its console.
    """

    boot_id: int
    exit_code: int
    text: str = attrs.field(repr=False)


def write_disk(path: str, disk: Disk, *, checkpoint: Callable[[], object] = lambda: None) -> Written:
    """Write a disk image, a sparse file, which must not exist yet. Blocks the thread.

    Args:
        path: of the image, 0600.
        disk: what it has.
        checkpoint: called every few megabytes; what it raises ends the writing and takes the image away.

    Returns:
        The root filesystem.

    Raises:
        InvalidConfigError: a file is none, or changed meanwhile, or the boot image is none.
        FileExistsError: there is something at the path.
        OSError: something cannot be read or written.
    """
    with created(path) as file:
        front, klog = _front(disk.boot_image)
        boot = klog + KLOG_LENGTH
        children: dict[str, Node] = {"kernel": HostFile(disk.kernel)} if disk.kernel else {}
        values = disk.root.values()
        if disk.klibs:
            children["klib"] = Directory({name: HostFile(host) for name, host in disk.klibs.items()})
            values["klibs"] = "bootfs"
        identity = Identity(uuid=os.urandom(16))
        tree = Directory(children)
        booted = write_filesystem(
            file, tree, root={}, identity=identity, offset=boot, length=_BOOT_LENGTH, headroom=0, checkpoint=checkpoint
        )
        root = boot + booted.length
        written = write_filesystem(
            file,
            disk.tree,
            root=values,
            identity=disk.identity,
            offset=root,
            length=disk.length,
            checkpoint=checkpoint,
        )
        entries = [(boot, booted.length), (root, written.length)]
        struct.pack_into("64s", front, _ENTRIES, b"".join(_entry(*entry) for entry in entries))
        write_at(file, memoryview(front), 0)
        return written


def write_volume(
    path: str,
    identity: Identity,
    *,
    tree: Directory | None = None,
    length: int = 0,
    checkpoint: Callable[[], object] = lambda: None,
) -> Written:
    """Write a volume, a disk that is one filesystem, into a new sparse file. Blocks the thread.

    Args:
        path: of the volume, 0600.
        identity: what mounts name it by.
        tree: its files; none for an empty one.
        length: bytes that it has at least.
        checkpoint: as for :func:`write_disk`.

    Raises:
        InvalidConfigError: a file is none, or changed meanwhile.
        FileExistsError: there is something at the path.
        OSError: something cannot be read or written.
    """
    with created(path) as file:
        return write_filesystem(
            file, tree or Directory(), root={}, identity=identity, length=length, checkpoint=checkpoint
        )


def find_parts(disk: Source) -> Parts | None:
    """Where the parts of a disk are; ``None`` where it is no disk of partitions. Reads one sector.

    Raises:
        InvalidConfigError: it has partitions, but not those of a Nanos disk.
    """
    sector = disk.read(0, SECTOR)
    if not sector.endswith(_SIGNATURE):
        return None
    boot, root = (entry[4] * SECTOR for entry in _ENTRY.iter_unpack(sector[_ENTRIES : _ENTRIES + 2 * _ENTRY.size]))
    if not SECTOR + KLOG_LENGTH <= boot < root < disk.length:
        raise fail(FIELD, "has other partitions than a boot filesystem and a root filesystem")
    return Parts(klog=boot - KLOG_LENGTH, boot=boot, root=root)


def find_root(disk: Source) -> Source:
    """The root filesystem of a disk, or the one filesystem of a volume.

    Raises:
        InvalidConfigError: it has partitions, but not those of a Nanos disk.
    """
    parts = find_parts(disk)
    return disk if parts is None else Part(source=disk, offset=parts.root, length=disk.length - parts.root)


def read_kernel_log(disk: Source) -> KernelLog | None:
    """What the guest left on a disk; ``None`` where it wrote nothing.

    Raises:
        InvalidConfigError: it is no disk of Nanos.
    """
    parts = find_parts(disk)
    if parts is None:
        raise fail(FIELD, "has no partitions")
    data = disk.read(parts.klog, KLOG_LENGTH)
    if not data.startswith(_KLOG_MAGIC):
        return None
    _, boot_id, exit_code = _KLOG.unpack_from(data)
    text = data[_KLOG.size :].partition(b"\0")[0].decode(errors="replace")
    return KernelLog(boot_id=boot_id, exit_code=exit_code, text=text)


def _front(boot_image: str) -> tuple[bytearray, int]:
    """What is in front of the kernel's log, and its length."""
    if not boot_image:
        return bytearray(SECTOR - len(_SIGNATURE)) + _SIGNATURE, SECTOR
    with open(boot_image, "rb") as opened:  # noqa: PTH123 - a path of the caller's, as a str
        front = bytearray(opened.read(_MAX_BOOT_IMAGE))
    # The loader's own length is in front of the partitions.
    _, length, kind = _REGION.unpack_from(front, _ENTRIES - _REGION.size) if len(front) >= SECTOR else (0, 0, 0)
    whole = SECTOR + length
    if (
        front[SECTOR - 2 : SECTOR] != _SIGNATURE
        or kind != _REGION_FILESYSTEM
        or not len(front) <= whole < _MAX_BOOT_IMAGE
    ):
        raise fail("boot_image", f"{boot_image} is no boot image of Nanos")
    return front, -(-whole // SECTOR) * SECTOR


def _entry(start: int, length: int) -> bytes:
    return _ENTRY.pack(0x80, _BEYOND, 0x83, _BEYOND, start // SECTOR, min(length // SECTOR, 0xFFFF_FFFF))
