"""What one opened containerd is made of, for the parts of the backend that share it."""

from __future__ import annotations

import asyncio
import re
import shutil
from typing import TYPE_CHECKING, Final

import attrs
from grpclib.const import Cardinality

from asyncctr.backends.containerd.api import any_message
from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.proto import containers_pb2, runc_pb2
from asyncctr.backends.containerd.proto.services import Containers
from asyncctr.core.errors import ContainerNotFoundError, UnsupportedError
from asyncctr.transport.deadline import Deadline

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any

    from asyncctr.backends.containerd.api import ContainerdApi
    from asyncctr.backends.containerd.exits import Exits
    from asyncctr.backends.containerd.facts import Facts
    from asyncctr.backends.containerd.images import ImageStore
    from asyncctr.backends.containerd.stdin import Inputs
    from asyncctr.backends.containerd.unpack import Unpacker
    from asyncctr.backends.containerd.users import Users
    from asyncctr.backends.containerd.volumes import VolumeStore
    from asyncctr.core.backend_config import ContainerdConfig
    from asyncctr.core.capabilities import BackendCapabilities
    from asyncctr.netns.networks import Networks
    from asyncctr.oci.host import Host
    from asyncctr.transport.cleanup import Janitor
    from asyncctr.transport.logspace import LogKeeper, SpaceWatch
    from asyncctr.transport.records import Records

__all__ = ["SANDBOXES", "Runtime", "Site", "runtime_named"]

SANDBOXES: Final = (2, 0)
"""The first version that keeps records of sandboxes for good."""

_RUNC_SHIM: Final = "io.containerd.runc.v2"
# Runtimes with a shim of their own, by the names that people use.
_SHIMS: Final = {
    "runsc": "io.containerd.runsc.v1",
    "kata": "io.containerd.kata.v2",
    "wasmtime": "io.containerd.wasmtime.v1",
}
# Those that the runc shim can call in runc's place.
_LIKE_RUNC: Final = ("runc", "crun", "youki")
# A shim's whole name (runtime v2, README "Binary Naming").
_WHOLE: Final = re.compile(r"[a-z0-9]+(?:\.[a-z0-9]+){2,}")
_SBIN: Final = ":/usr/local/sbin:/usr/sbin:/sbin"


@attrs.frozen(kw_only=True)
class Runtime:
    """A shim, and what it is told."""

    name: str
    options: Any | None = None


def runtime_named(name: str, root: str = "") -> Runtime:
    """The runtime for ``ContainerConfig.runtime``: an OCI runtime's name, or a shim's such as ``io.containerd.runsc.v1``.

    Args:
        name: empty for runc.
        root: where an OCI runtime keeps its state; empty for the shim's choice.

    Raises:
        UnsupportedError: it is neither, or not installed.
    """
    if name in _SHIMS or _WHOLE.fullmatch(name):
        return Runtime(name=_SHIMS.get(name, name))
    if name and name not in _LIKE_RUNC:
        known = ", ".join((*_LIKE_RUNC, *_SHIMS))
        message = (
            f"runtime: {name!r} is not known; use one of {known}, or a shim's name such as 'io.containerd.runsc.v1'"
        )
        raise UnsupportedError(message, field="runtime", backend=BACKEND)
    if name and not shutil.which(name) and not shutil.which(name, path=_SBIN[1:]):
        message = f"runtime: {name} is not installed; on Debian or Ubuntu: apt-get install {name}"
        raise UnsupportedError(message, field="runtime", backend=BACKEND)
    options = runc_pb2.Options(binary_name=name, root=root) if name or root else None
    return Runtime(name=_RUNC_SHIM, options=None if options is None else any_message(options))


@attrs.frozen(kw_only=True)
class Site:
    """One containerd, as one client has it open.

    Attributes:
        config: what it was opened with.
        api: its services.
        version: such as ``(2, 4)``.
        host: what containers may have where it runs.
        snapshotter: which one holds the root filesystems.
        mount_with: the program that mounts in the kernel's place; see :attr:`Endpoint.fuse_overlayfs`.
        runc_root: see :attr:`Endpoint.runc_root`.
        capabilities: what works here.
        kills_all: whether a signal can be sent to all processes of a container; that takes a control group.
        init: the path of a static init program on its host; empty for none.
        records: what the SDK keeps in files.
        images: in the namespace.
        unpacker: makes snapshots of images.
        transfers: whether it has the Transfer service.
        exits: the waits.
        inputs: the writers of standard inputs.
        networks: by CNI.
        volumes: by name.
        janitor: owns the clean-up.
        made: the newest containers that were made here, without their specifications, so that they need not be asked for.
        leaving: the containers that are being removed here, each with what is set when it is gone.
        keeper: keeps the logs to their limits.
        space: watches the disk that holds them.
        runtime: name and version of the daemon.
        users: of images.
    """

    config: ContainerdConfig
    api: ContainerdApi
    version: tuple[int, int]
    host: Host
    snapshotter: str
    mount_with: str
    runc_root: str
    capabilities: BackendCapabilities
    kills_all: bool
    init: str
    records: Records
    images: ImageStore
    unpacker: Unpacker
    transfers: bool
    exits: Exits
    inputs: Inputs
    networks: Networks
    volumes: VolumeStore
    janitor: Janitor
    made: dict[str, tuple[containers_pb2.Container, Facts]] = attrs.field(factory=dict)
    leaving: dict[str, asyncio.Event] = attrs.field(factory=dict)
    keeper: LogKeeper
    space: SpaceWatch
    runtime: str
    users: Users

    async def container(self, container_id: str) -> containers_pb2.Container:
        """A container as containerd has it.

        Raises:
            ContainerNotFoundError: there is none.
        """
        request = containers_pb2.GetContainerRequest(id=container_id)
        try:
            answer = await self.api.call(Containers.Get, request, resource=container_id, kind="container")
        except ContainerNotFoundError as error:
            message = f"no container has the id {container_id!r} (a full id is needed, not a name or prefix)"
            raise ContainerNotFoundError(
                message, backend=BACKEND, resource=container_id, status=error.status
            ) from error
        return answer.container

    async def containers(self, *filters: str) -> list[containers_pb2.Container]:
        """All containers, or those that pass one of the filters (filters/filter.go).

        One by one: an answer with all of them may be too large for containerd to send.
        """
        method = Containers.ListStream
        async with (
            self.api.deadline(method, self.api.op_timeout),
            self.api.stream(method, Cardinality.UNARY_STREAM) as stream,
        ):
            await stream.send_message(containers_pb2.ListContainersRequest(filters=filters), end=True)
            return [message.container async for message in stream]

    async def settle(self) -> None:
        """Wait until the containers that are being removed here are gone, for who asks what they still have."""
        async with Deadline(self.api.op_timeout, "containers were not removed", backend=BACKEND):
            for gone in list(self.leaving.values()):
                await gone.wait()

    def check_open(self) -> None:
        """Raise ``ClosedError`` after :meth:`aclose`, for what does without the connection."""
        self.api.check_open()

    async def aclose(self) -> None:
        """Close the connection, and end what runs beside it."""
        await self.keeper.aclose()
        await self.networks.aclose()
        await self.inputs.aclose()
        await self.exits.aclose()
        self.api.close()
