"""Machines from configurations: what is decided before anything is made, and the making of it."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.backends.nanos.addresses import card_changes, decide_addresses, network_of
from asyncctr.backends.nanos.exits import DISK
from asyncctr.backends.nanos.facts import Facts
from asyncctr.backends.nanos.own_files import own_files
from asyncctr.backends.nanos.qmp import BACKEND
from asyncctr.backends.nanos.sharing import machine_type, plan_shared, shared_mounts
from asyncctr.backends.nanos.tfs.disk import find_root
from asyncctr.backends.nanos.tfs.overlay import write_machine_disk
from asyncctr.backends.nanos.tfs.reader import read_filesystem
from asyncctr.backends.nanos.tfs.sources import RawImage, opened
from asyncctr.backends.nanos.volumes import Mount, mounts_value, plan_mounts
from asyncctr.core.config import NanosOptions
from asyncctr.core.errors import (
    BackendUnavailableError,
    ImageNotFoundError,
    InvalidConfigError,
    StartError,
    UnsupportedError,
)
from asyncctr.core.network import NetworkMode
from asyncctr.core.status import ContainerId
from asyncctr.core.validation import check_object_name
from asyncctr.oci.runtime_spec import process_args
from asyncctr.transport.hostfiles import host_files
from asyncctr.transport.logfile import LogFiles
from asyncctr.transport.ownership import ownership_labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncctr.backends.nanos.addresses import Addresses
    from asyncctr.backends.nanos.prepared import Prepared
    from asyncctr.backends.nanos.site import Site
    from asyncctr.backends.nanos.tfs.tail import Place
    from asyncctr.backends.nanos.tfs.values import Value
    from asyncctr.core.config import ContainerConfig

__all__ = ["Plan", "make", "plan"]

_MEMORY: Final = 256 << 20
_LEAST_MEMORY: Final = 64 << 20
"""Below that no kernel of Nanos starts."""
_LEAST_NETWORKED: Final = 96 << 20
_MIB: Final = 1 << 20
_MOST_CPUS: Final = 64


@attrs.frozen(kw_only=True)
class Plan:
    """A machine that is to be made."""

    container_id: ContainerId
    facts: Facts
    prepared: Prepared = attrs.field(repr=False)
    changes: dict[str, Value] = attrs.field(repr=False)
    files: tuple[tuple[Place, bytes], ...] = attrs.field(repr=False)
    storage: int
    mounts: tuple[Mount, ...]


async def plan(site: Site, config: ContainerConfig) -> Plan:
    """Decide everything about a machine, and make nothing.

    Raises:
        ImageNotFoundError: the image is not here.
        InvalidConfigError: a value is wrong.
        UnsupportedError: a field cannot be honoured here.
        StartError: the image has no such program.
    """
    options = config.options
    if options is not None and not isinstance(options, NanosOptions):
        message = f"options: {type(options).__name__} is for another backend; use NanosOptions or leave it unset"
        raise UnsupportedError(message, field="options", backend=BACKEND)
    machine = machine_type(config)
    if config.name:
        check_object_name("name", config.name)
    networked = config.network.mode is not NetworkMode.NONE
    memory = _memory(site, config, networked=networked)
    cpus = _cpus(site, config)
    image = await site.images.get(config.image)
    with _image_files(config.image):
        prepared = await asyncio.to_thread(site.prepared.of, image)
    mounts = await asyncio.to_thread(plan_mounts, site, config, prepared)
    shared = await asyncio.to_thread(plan_shared, config, prepared.directories)
    addresses = decide_addresses(config.network, site.ops.run, prepared.card)
    files = own_files(config, addresses, prepared.own_files)
    changes = _changes(config, prepared, addresses)
    if "program" in changes:
        with _image_files(config.image):
            await asyncio.to_thread(_check_program, str(image.disk), str(changes["program"]))
    return Plan(
        container_id=ContainerId(secrets.token_hex(32)),
        prepared=prepared,
        changes=changes,
        files=tuple((prepared.places[path], data) for path, data in files.items()),
        storage=_storage(config, prepared),
        mounts=mounts,
        facts=Facts(
            name=config.name,
            image=config.image,
            log_limit=config.log_limit,
            resources=config.resources,
            network=network_of(config.network, site.ops.run),
            labels={**config.labels, **ownership_labels(config)},
            created_at=datetime.now(UTC).isoformat(),
            digest=image.digest,
            disk=str(image.disk),
            kernel=site.kernel,
            machine=machine,
            memory=memory,
            cpus=cpus,
            addresses=addresses,
            shared=shared,
        ),
    )


@contextmanager
def _image_files(name: str) -> Iterator[None]:
    try:
        with host_files(f"the disk of the image {name!r}", name, backend=BACKEND):
            yield
    except BackendUnavailableError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        message = f"the image {name!r} was removed meanwhile: pull or build it again"
        raise ImageNotFoundError(message, backend=BACKEND, resource=name) from error


@lru_cache(maxsize=256)  # the disk of an image never changes, and its log may be long
def _check_program(disk: str, path: str) -> None:
    """Raise unless the image has the program, without which its kernel starts in vain. Blocks the thread."""
    with opened(disk) as file:
        filesystem = read_filesystem(find_root(RawImage(file)))
        names = path.strip("/").split("/")
        entry = None
        for count in range(1, len(names) + 1):
            entry = filesystem.stat("/".join(names[:count]))
            if entry is not None and entry.kind == "symlink":
                # It is the kernel's to follow.
                return
        if entry is None or entry.kind != "file":
            raise StartError(f"the image has no program {path!r}", backend=BACKEND)
        if next(iter(filesystem.blocks(path)), b"")[:4] != b"\x7fELF":
            message = f"{path!r} of the image is no ELF program, and Nanos runs no others"
            raise StartError(message, backend=BACKEND)


def _memory(site: Site, config: ContainerConfig, *, networked: bool) -> int:
    asked = config.resources.memory
    memory = asked or site.ops.run.memory or _MEMORY
    least = _LEAST_NETWORKED if networked else _LEAST_MEMORY
    if memory < least:
        message = f"resources.memory: {memory} bytes are too few for a kernel; {least >> 20} MiB are the least"
        raise InvalidConfigError(message, field="resources.memory", backend=BACKEND)
    if asked and asked % _MIB:
        message = f"resources.memory: a machine has whole MiB, not {asked} bytes"
        raise InvalidConfigError(message, field="resources.memory", backend=BACKEND)
    return memory


def _storage(config: ContainerConfig, prepared: Prepared) -> int:
    storage = config.resources.storage or 0
    if storage and storage < prepared.length:
        message = (
            f"resources.storage: the image's own filesystem has {prepared.length} bytes, which a machine's disk shares; "
            f"{storage} are too few"
        )
        raise InvalidConfigError(message, field="resources.storage", backend=BACKEND)
    return storage


def _cpus(site: Site, config: ContainerConfig) -> int:
    share = config.resources.cpus
    if share is None:
        return site.ops.run.cpus or 1
    cpus = round(share)
    if cpus != share or not 1 <= cpus <= _MOST_CPUS:
        message = f"resources.cpu_quota: a machine has whole CPUs, from 1 to {_MOST_CPUS}, not {share:g}"
        raise UnsupportedError(message, field="resources.cpu_quota.part", backend=BACKEND)
    return cpus


def _changes(config: ContainerConfig, prepared: Prepared, addresses: Addresses) -> dict[str, Value]:
    """What the machine's root tuple has that is not the image's."""
    changes: dict[str, Value] = {"debug_exit": "t"}
    changes |= card_changes(config.network, addresses, prepared.card, own=prepared.own_card)
    args = process_args(config, prepared.config)
    if args != (*prepared.config.entrypoint, *prepared.config.cmd):
        changes["program"] = args[0]
        changes["arguments"] = args
    if config.env:
        changes["environment"] = {**prepared.config.env, **config.env}
    if config.workdir:
        if config.workdir not in prepared.directories:
            message = f"workdir: the image has no directory {config.workdir!r}, and Nanos makes none"
            raise InvalidConfigError(message, field="workdir", backend=BACKEND)
        changes["cwd"] = config.workdir
    if config.read_only_rootfs:
        changes["readonly_rootfs"] = "t"
    return changes


async def make(site: Site, planned: Plan) -> Facts:
    """Make what was planned, those of its volumes included that are not there yet. Who calls this removes what is there of the
    machine when it fails.

    Raises:
        ConflictError: another machine has its name.
        ImageNotFoundError: the image was removed meanwhile.
        InvalidConfigError: a volume that the image names is not there.
    """
    record = site.records.of(planned.container_id)
    # In a thread each, for they wait for the disk and for other processes. First the directory: a use is of one that is there.
    await asyncio.to_thread(record.make)
    await site.images.hold(planned.facts.digest, record.directory)
    return await asyncio.to_thread(_make, site, planned)


def _make(site: Site, planned: Plan) -> Facts:
    record = site.records.of(planned.container_id)
    if planned.facts.name:
        site.records.claim(planned.facts.name, planned.container_id)
    attached = site.volumes.attach(planned.mounts)
    facts = attrs.evolve(planned.facts, attached=attached, volumes=[volume.name for volume in attached])
    changes = planned.changes
    if attached or facts.shared:
        changes = {**changes, "mounts": {**mounts_value(attached), **shared_mounts(facts.shared)}}
    with record.files:
        write_machine_disk(
            record.path(DISK),
            base=planned.facts.disk,
            tail=planned.prepared.tail,
            changes=changes,
            length=planned.storage,
            files=planned.files,
        )
        LogFiles.create(record.directory, tty=True)
    facts.write(record)
    return facts
