"""Containers from configurations: what is decided before anything is made, and the making of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
from typing import TYPE_CHECKING, Final, cast

import attrs

from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.facts import EXTENSION, Facts
from asyncctr.backends.containerd.layers import image_mount, unpack_late
from asyncctr.backends.containerd.proto import containers_pb2, sandbox_pb2, snapshots_pb2
from asyncctr.backends.containerd.proto.services import Containers, Snapshots, Store
from asyncctr.backends.containerd.removing import sweep
from asyncctr.backends.containerd.site import SANDBOXES, runtime_named
from asyncctr.backends.containerd.unpack import mountable
from asyncctr.core.config import ContainerdOptions, VolumeMount
from asyncctr.core.errors import ConflictError, InvalidConfigError, NotFoundError, UnsupportedError
from asyncctr.core.network import NetworkMode
from asyncctr.core.status import ContainerId
from asyncctr.oci.runtime_spec import process_args, runtime_spec
from asyncctr.transport.logfile import LogFiles
from asyncctr.transport.ownership import ownership_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncctr.backends.containerd.images import StoredImage
    from asyncctr.backends.containerd.proto import types_pb2
    from asyncctr.backends.containerd.site import Runtime, Site
    from asyncctr.core.config import ContainerConfig
    from asyncctr.netns.networks import Place
    from asyncctr.transport.records import Record

__all__ = ["Plan", "make", "make_volumes", "plan"]

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_SPEC_TYPE: Final = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
_REMEMBERED: Final = 256
_LABEL_LIMIT: Final = 4096
"""Bytes of a label's name and value."""


@attrs.frozen(kw_only=True)
class Plan:
    """A container that is to be made."""

    container_id: ContainerId
    config: ContainerConfig
    facts: Facts
    image: StoredImage
    runtime: Runtime
    record: Record
    spec: bytes
    labels: dict[str, str]


async def plan(site: Site, config: ContainerConfig) -> Plan:
    """Decide everything about a container, and make nothing.

    Raises:
        ImageNotFoundError: the image is not here.
        InvalidConfigError: a value is wrong.
        UnsupportedError: a field cannot be honoured here.
    """
    if config.options is not None and not isinstance(config.options, ContainerdOptions):
        message = (
            f"options: {type(config.options).__name__} is for another backend; use ContainerdOptions or leave it unset"
        )
        raise UnsupportedError(message, field="options", backend=BACKEND)
    if config.name and not _NAME.fullmatch(config.name):
        message = f"name: must match {_NAME.pattern}, but is {config.name!r}"
        raise InvalidConfigError(message, field="name", backend=BACKEND)
    runtime = runtime_named(config.runtime, site.runc_root)
    image = await site.images.get(config.image, config.platform)
    args = process_args(config, image.config)
    user = await site.users.of(site, image, config.user or image.config.user)
    container_id = ContainerId(secrets.token_hex(32))
    record = site.records.of(container_id)
    hostname = config.hostname or container_id[:12]
    place = site.networks.place(container_id, config.network.mode)
    spec = runtime_spec(
        config,
        image.config,
        container_id=f"asyncctr-{container_id}",
        args=args,
        user=user,
        host=site.host,
        hostname=hostname,
        netns=_netns(config.network.mode, place),
        # Before the volumes, one of which may be another hosts file.
        mounts=[*_files(place), *_volumes(site, config)],
        init=site.init,
    )
    labels = {**config.labels, **ownership_labels(config)}
    facts = Facts(
        name=config.name,
        image=config.image,
        hostname=hostname,
        tty=config.tty,
        stdin=config.stdin,
        stop_signal=_signal_number(config.stop_signal or image.config.stop_signal),
        log_limit=config.log_limit,
        resources=config.resources,
        network=config.network,
        extra_hosts=config.extra_hosts,
        volumes=[volume.source for volume in config.volumes if volume.is_volume_name],
        labels=labels,
    )
    return Plan(
        container_id=container_id,
        config=config,
        facts=facts,
        image=image,
        runtime=runtime,
        record=record,
        spec=json.dumps(spec, separators=(",", ":")).encode(),
        labels=labels,
    )


def _netns(mode: NetworkMode, place: Place) -> str | None:
    if mode is NetworkMode.HOST:
        return None
    return "" if place.netns is None else str(place.netns)


def _files(place: Place) -> list[VolumeMount]:
    return [
        VolumeMount(source=str(place.resolv_conf), destination="/etc/resolv.conf"),
        VolumeMount(source=str(place.hosts), destination="/etc/hosts"),
        VolumeMount(source=str(place.hostname), destination="/etc/hostname"),
    ]


def _volumes(site: Site, config: ContainerConfig) -> list[VolumeMount]:
    mounts: list[VolumeMount] = []
    for volume in config.volumes:
        if volume.is_volume_name:
            mounts.append(attrs.evolve(volume, source=site.volumes.path(volume.source), is_volume_name=False))
        elif not os.path.exists(volume.source):  # noqa: PTH110  # one look
            message = f"volumes: there is no {volume.source!r} on the host to mount at {volume.destination}"
            raise InvalidConfigError(message, field="volumes", backend=BACKEND)
        else:
            mounts.append(volume)
    return mounts


def _signal_number(name: str) -> int:
    if not name:
        return signal.SIGTERM
    if name.isdecimal():
        return int(name)
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    try:
        return signal.Signals[full]
    except KeyError:
        # An image's, which nobody checked; one's own was.
        return signal.SIGTERM


async def make(site: Site, planned: Plan) -> Sequence[types_pb2.Mount]:
    """Make a container without starting it; what its root filesystem is mounted from.

    Raises:
        ConflictError: the name is taken.
    """
    record, facts = planned.record, planned.facts
    record.make()
    if facts.name:
        await _claim(site, facts.name, planned.container_id)
    with record.files:
        LogFiles.create(record.directory, tty=facts.tty)
        if facts.stdin:
            os.mkfifo(record.stdin, 0o600)
    container = containers_pb2.Container(
        id=planned.container_id,
        labels=_short_labels(planned.labels),
        image=planned.image.name,
        snapshotter=site.snapshotter,
        snapshot_key=planned.container_id,
    )
    container.runtime.name = planned.runtime.name
    if planned.runtime.options is not None:
        container.runtime.options.CopyFrom(planned.runtime.options)
    container.spec.type_url = _SPEC_TYPE
    container.spec.value = planned.spec
    container.extensions[EXTENSION].CopyFrom(facts.to_any())
    # First of all: it is what keeps the snapshot from being collected.
    await site.api.call(
        Containers.Create,
        containers_pb2.CreateContainerRequest(container=container),
        resource=planned.container_id,
        kind="container",
    )
    container.ClearField("spec")
    while len(site.made) >= _REMEMBERED:
        del site.made[next(iter(site.made))]
    site.made[planned.container_id] = (container, facts)
    if site.version < SANDBOXES:
        return await _prepare(site, planned)
    # Both to their ends: what is still under way when the first one fails would be made behind the removal.
    mounts, made = await asyncio.gather(_prepare(site, planned), _make_sandbox(site, planned), return_exceptions=True)
    for outcome in (mounts, made):
        if isinstance(outcome, BaseException):
            raise outcome
    return cast("Sequence[types_pb2.Mount]", mounts)


async def _make_sandbox(site: Site, planned: Plan) -> None:
    """Without it, a task whose shim outlives a restart of containerd 2, but ends before that is up again, is forgotten."""
    sandbox = sandbox_pb2.Sandbox(sandbox_id=planned.container_id)
    sandbox.runtime.name = planned.runtime.name
    await site.api.call(
        Store.Create, sandbox_pb2.StoreCreateRequest(sandbox=sandbox), resource=planned.container_id, kind="sandbox"
    )


async def _prepare(site: Site, planned: Plan) -> Sequence[types_pb2.Mount]:
    request = snapshots_pb2.PrepareSnapshotRequest(
        snapshotter=site.snapshotter, key=planned.container_id, parent=planned.image.chain_id
    )
    try:
        prepared = await site.api.call(Snapshots.Prepare, request, resource=planned.image.name, kind="snapshot")
    except NotFoundError:
        await unpack_late(site, planned.image)
        prepared = await site.api.call(Snapshots.Prepare, request, resource=planned.image.name, kind="snapshot")
    return mountable(prepared.mounts, site.mount_with)


async def _claim(site: Site, name: str, container_id: str) -> None:
    try:
        await asyncio.to_thread(site.records.claim, name, container_id)
    except ConflictError:
        # Whoever has it may be a container that came to nothing.
        await sweep(site)
        await asyncio.to_thread(site.records.claim, name, container_id)


async def make_volumes(site: Site, planned: Plan) -> None:
    """Make those named volumes that are not there, and fill those that no container had yet with what the image has in their places.

    That may take long, and can be cancelled: a volume is filled whole or not at all.
    """
    new = [
        volume
        for volume in planned.config.volumes
        if volume.is_volume_name and not site.volumes.is_settled(volume.source)
    ]
    if not new:
        return
    async with image_mount(site, planned.image, field="volumes") as mount:
        mounts = mountable([] if mount is None else [mount], site.mount_with)
        image = [word for given in mounts for word in (given.type, given.source, *given.options)]
        for volume in new:
            await site.volumes.settle(volume.source, volume.destination, image)


def _short_labels(labels: dict[str, str]) -> dict[str, str]:
    """Those that containerd takes (labels/validate.go); all of them are in the facts."""
    return {name: value for name, value in labels.items() if len(name.encode()) + len(value.encode()) <= _LABEL_LIMIT}
