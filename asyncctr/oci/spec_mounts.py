"""The mounts of a container: Docker's own, and those of its configuration over them."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Any

from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncctr.core.config import ContainerConfig, TmpfsMount, VolumeMount
    from asyncctr.oci.host import Host

__all__ = ["spec_mounts"]

_SHM_SIZE = 64 << 20
_SAFE = ["nosuid", "noexec", "nodev"]
# A mount that a user namespace got from outside keeps these: to leave one out would be refused (mount_namespaces(7)).
_LOCKED = {
    os.ST_NOSUID: "nosuid",
    getattr(os, "ST_NODEV", 4): "nodev",
    getattr(os, "ST_NOEXEC", 8): "noexec",
    os.ST_RDONLY: "ro",
}


def spec_mounts(
    config: ContainerConfig, host: Host, *, shares_network: bool, mounts: Iterable[VolumeMount]
) -> list[dict[str, Any]]:
    """``mounts`` of the runtime specification, parents before what is in them.

    Args:
        config: its ``tmpfs`` and ``shm_size`` count; its ``volumes`` come with ``mounts``, by their paths.
        host: where it will run.
        shares_network: the container is in the host's network.
        mounts: sources are paths on the host. A later one takes the place of an earlier one with the same destination.

    Raises:
        InvalidConfigError: a mount would be over the whole root filesystem; the field is ``"volumes"``.
    """
    given = {posixpath.normpath(mount.destination): _bind(mount, host) for mount in mounts}
    given |= {posixpath.normpath(mount.destination): _tmpfs(mount) for mount in config.tmpfs}
    if "/" in given or "//" in given:
        raise fail("volumes", "nothing can be mounted over the root filesystem itself")
    own = [
        mount
        for mount in _own(config.shm_size or _SHM_SIZE, host, shares_network=shares_network)
        # Under a /dev of one's own Docker's mounts would be out of place.
        if mount["destination"] not in given and not ("/dev" in given and mount["destination"].startswith("/dev/"))
    ]
    return own + [given[destination] for destination in sorted(given, key=lambda path: path.count("/"))]


def _own(shm_size: int, host: Host, *, shares_network: bool) -> list[dict[str, Any]]:
    if host.rootless and shares_network:
        # A new sysfs shows the network namespace, and is for the owner of that alone.
        sysfs = _mount("/sys", "none", "/sys", ["rbind", *_SAFE, "ro"])
    else:
        sysfs = _mount("/sys", "sysfs", "sysfs", [*_SAFE, "ro"])
    return [
        _mount("/proc", "proc", "proc", _SAFE),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        sysfs,
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", ["ro", *_SAFE]),
        _mount("/dev/mqueue", "mqueue", "mqueue", _SAFE),
        _mount("/dev/shm", "tmpfs", "shm", [*_SAFE, "mode=1777", f"size={shm_size}"]),  # noqa: S108 - a place in the container
    ]


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _bind(mount: VolumeMount, host: Host) -> dict[str, Any]:
    options = ["rbind", "ro" if mount.read_only else "rw", "rprivate"]
    if host.rootless:
        flags = _flags(mount.source)
        options += [name for flag, name in _LOCKED.items() if flags & flag and name not in options]
    return _mount(mount.destination, "bind", mount.source, options)


def _flags(path: str) -> int:
    """Of the file system that a path is on, or will be on once it is made."""
    while True:
        try:
            return os.statvfs(path).f_flag
        except FileNotFoundError:
            path = posixpath.dirname(path)
        except OSError as error:
            raise fail("volumes", f"{path} cannot be mounted: {error.strerror}") from error


def _tmpfs(mount: TmpfsMount) -> dict[str, Any]:
    options = ["noexec", "nosuid", "nodev", "rprivate"]
    if mount.size is not None:
        options.append(f"size={mount.size}")
    if mount.mode is not None:
        options.append(f"mode={mount.mode:o}")
    return _mount(mount.destination, "tmpfs", "tmpfs", options)
