"""Named volumes: disks of one filesystem each, kept when machines go, and which machine has which of them where.

A machine's root tuple names volumes by their UUIDs: names may be longer than a label, and a volume that was removed and made
again is another one. Nanos boots without a volume that it does not find; so each is looked at before QEMU starts.
"""

from __future__ import annotations

import os
import re
import uuid
from typing import TYPE_CHECKING, Any, Final

import attrs

from asyncctr.backends.nanos.facts import Attached, Facts
from asyncctr.backends.nanos.qmp import BACKEND
from asyncctr.backends.nanos.tfs.disk import write_volume
from asyncctr.backends.nanos.tfs.log import LABEL_LENGTH, Identity, read_identity
from asyncctr.backends.nanos.tfs.sources import RawImage, opened
from asyncctr.core.errors import ConflictError, InvalidConfigError, InvalidStateError
from asyncctr.transport import volumes
from asyncctr.transport.hostfiles import host_files
from asyncctr.vm.process import VmProcess

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from asyncctr.backends.nanos.prepared import Prepared
    from asyncctr.backends.nanos.site import Site
    from asyncctr.core.config import ContainerConfig
    from asyncctr.transport.records import Records

__all__ = ["Mount", "VolumeStore", "check_volumes", "mounts_value", "plan_mounts", "users_of", "volume_conflict"]

_DISK: Final = "volume.img"
_LENGTH: Final = 64 << 30
"""Of a new volume, which is a sparse file: an empty one takes 8 KiB, and a guest starts with it as fast as with one of 1 GiB."""
_LOCKED: Final = re.compile(r'Failed to get (?:shared )?"\w+" lock\s+Is another process using the image \[(.*)\]\?')


@attrs.frozen(kw_only=True)
class Mount:
    """A volume that a machine is to have.

    Attributes:
        name: the volume's.
        path: where it is mounted.
        read_only: refuse writes.
        made: whether it is made where there is none.
    """

    name: str
    path: str
    read_only: bool
    made: bool


class VolumeStore(volumes.VolumeStore):
    """The volumes of one directory of machines."""

    def _furnish(self, new: Path, name: str) -> None:
        # The label is for whoever finds the disk: names are of ASCII, and may be longer.
        identity = Identity(uuid=os.urandom(16), label=name[:LABEL_LENGTH])
        write_volume(str(new / _DISK), identity, length=_LENGTH)

    def disk(self, name: str) -> str:
        """The path of a volume's disk, whether or not there is one."""
        return str(self._place(name) / _DISK)

    def identity(self, name: str) -> str | None:
        """The UUID of a volume; ``None`` where there is none. It blocks on the disk, shortly.

        Raises:
            InvalidConfigError: a guest has broken it.
        """
        with host_files(f"the volume {name!r}", name, backend=self._backend):
            try:
                with opened(self.disk(name)) as file:
                    return str(uuid.UUID(bytes=read_identity(RawImage(file)).uuid))
            except FileNotFoundError:
                return None

    def attach(self, mounts: Iterable[Mount]) -> tuple[Attached, ...]:
        """What is to be mounted, made where that is to be done. It blocks on the disk, shortly.

        Raises:
            InvalidConfigError: a volume that an image names is not there, or one is broken.
        """
        return tuple(self._attach(mount) for mount in mounts)

    def _attach(self, mount: Mount) -> Attached:
        if mount.made and self.identity(mount.name) is None:
            try:
                self.create(mount.name, {})
            except ConflictError:
                # Made meanwhile, with labels, which a mount does not speak of.
                pass
        identity = self.identity(mount.name)
        if identity is None:
            message = (
                f"volumes: the image mounts the volume {mount.name!r} at {mount.path}, and there is none: "
                "make it with create_volume, or mount another one there"
            )
            raise InvalidConfigError(message, field="volumes", backend=BACKEND, resource=mount.name)
        return Attached(name=mount.name, uuid=identity, path=mount.path, read_only=mount.read_only)


def plan_mounts(site: Site, config: ContainerConfig, prepared: Prepared) -> tuple[Mount, ...]:
    """The volumes of a machine: the configuration's, and the image's where the configuration has none. Blocks on the disk, shortly.

    Raises:
        InvalidConfigError: they cannot be mounted so.
    """
    mounts: dict[str, Mount] = {}
    taken: set[str] = set()
    for volume in config.volumes:
        path = _normal(volume.destination)
        if path in taken:
            raise _wrong(f"two volumes are mounted at {path}")
        taken.add(path)
        if volume.is_volume_name:
            mounts[path] = Mount(name=volume.source, path=path, read_only=volume.read_only, made=True)
    for key, where in prepared.mounts.items():
        path = _normal(where.removesuffix(":ro"))
        if path not in taken:
            mounts[path] = Mount(name=_named(site, key), path=path, read_only=where.endswith(":ro"), made=False)
    _check(list(mounts.values()), prepared.directories)
    return tuple(mounts.values())


def _normal(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _named(site: Site, key: str) -> str:
    """The name of the volume that an image means: by its name, or its UUID."""
    if key.startswith("%"):
        raise _wrong(f"the image mounts a disk by its number, {key!r}, and machines here have none: name a volume")
    try:
        identity = str(uuid.UUID(key))
    except ValueError:
        return key
    named = (volume.name for volume in site.volumes.list({}) if site.volumes.identity(volume.name) == identity)
    return next(named, key)


def _check(mounts: Sequence[Mount], directories: frozenset[str]) -> None:
    names: set[str] = set()
    for mount in mounts:
        if mount.name in names:
            raise _wrong(f"the volume {mount.name!r} is mounted twice, which Nanos cannot do")
        names.add(mount.name)
        if mount.path not in directories or mount.path == "/":
            raise _wrong(
                f"the image has no directory {mount.path!r} to mount {mount.name!r} on, and Nanos makes none: build it with "
                "NanosBuildInput(mounts={...}) or one of its dirs there"
            )
        if ":" in mount.path:
            raise _wrong(f"Nanos takes what is behind the colon in {mount.path!r} for options: use a path without one")
        for other in mounts:
            if other.path.startswith(f"{mount.path}/"):
                raise _wrong(f"{other.path} is within {mount.path}, on which another volume is mounted")


def _wrong(message: str) -> InvalidConfigError:
    return InvalidConfigError(f"volumes: {message}", field="volumes", backend=BACKEND)


def mounts_value(attached: Iterable[Attached]) -> Mapping[str, str]:
    """What the root tuple says of them."""
    return {volume.uuid: volume.path + (":ro" if volume.read_only else "") for volume in attached}


def check_volumes(site: Site, facts: Facts, *, resource: str) -> None:
    """See that a machine's volumes are those that it was made with. Blocks on the disk, shortly.

    Raises:
        InvalidStateError: one is not there any more, or is broken.
    """
    for volume in facts.attached:
        common: dict[str, Any] = {"backend": BACKEND, "resource": resource}
        try:
            identity = site.volumes.identity(volume.name)
        except InvalidConfigError as error:
            message = (
                f"the volume {volume.name!r} is broken: what is at {site.volumes.disk(volume.name)} is no filesystem"
            )
            raise InvalidStateError(message, **common) from error
        if identity != volume.uuid:
            message = f"the volume {volume.name!r} of container {resource[:12]} was removed: remove the container, and create it anew"
            raise InvalidStateError(message, **common)


def volume_conflict(site: Site, said: str, facts: Facts, *, resource: str) -> ConflictError | None:
    """The error for what QEMU says when another one has a volume, which it locks; ``None`` if it speaks of something else."""
    refused = _LOCKED.search(said)
    names = (
        [] if refused is None else [each.name for each in facts.attached if site.volumes.disk(each.name) == refused[1]]
    )
    if not names:
        return None
    holders = [other[:12] for other in users_of(site.records, names[0], running=True) if other != resource]
    who = f"container {' and '.join(holders)}" if holders else "another process"
    message = (
        f"the volume {names[0]!r} is in use by {who}, which is running: one machine at a time can write to it, "
        "or several can have it read-only"
    )
    return ConflictError(message, backend=BACKEND, resource=names[0])


def users_of(records: Records, name: str, *, running: bool = False) -> list[str]:
    """The machines that have a volume; only those that run, if so. Blocks on the disk, shortly."""
    users: list[str] = []
    for record in records.all():
        facts = Facts.read(record)
        if facts is None or name not in facts.volumes:
            continue
        process = VmProcess.adopt(record.directory, backend=BACKEND) if running else None
        if not running or (process is not None and process.running):
            users.append(record.container_id)
        if process is not None:
            process.close()
    return users
