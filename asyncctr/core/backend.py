"""What a runtime implements: the ``Backend`` and ``Image`` protocols, and the small ones beside them.

Ids in, values out, one method one operation. What every runtime gets alike is in the client, not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import attrs

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
    from datetime import datetime
    from os import PathLike
    from types import TracebackType

    from asyncctr.core.build import BuildEvent, BuildInput, BuildResult
    from asyncctr.core.capabilities import BackendCapabilities
    from asyncctr.core.config import ContainerConfig
    from asyncctr.core.images import ProgressCallback, RegistryAuth
    from asyncctr.core.logs import LogStream, StreamName
    from asyncctr.core.status import ContainerId, ContainerInfo, ExitStatus, Health

__all__ = [
    "Backend",
    "Image",
    "ImageSummary",
    "Launched",
    "Network",
    "OutputSink",
    "StdinWriter",
    "SupportsImages",
    "SupportsLaunch",
    "SupportsNetworks",
    "SupportsPause",
    "SupportsStdin",
    "SupportsVolumes",
    "Volume",
]


class Image(Protocol):
    """An image by its name; the image itself need not exist."""

    @property
    def name(self) -> str:
        """The name as it was given."""
        ...

    async def pull(
        self,
        *,
        auth: RegistryAuth | None = None,
        platform: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> None:
        """Fetch it from its registry; moves nothing that is here already.

        ``auth`` of ``None`` takes what the Docker configuration has for the registry. An exception of ``on_progress`` aborts.

        Raises:
            ImageNotFoundError: the registry has no such name or tag.
            RegistryAuthError: the registry refused the credentials, or wants some.
            DigestMismatchError: what came does not have its digest.
            ImagePullError: anything else the registry or runtime reports.
            ConnectionLostError: the runtime went away.
        """
        ...

    async def build(
        self, build_input: BuildInput, *, on_event: Callable[[BuildEvent], None] | None = None
    ) -> BuildResult:
        """Build it and give it this name.

        Raises:
            BuildNotSupportedError: the backend cannot build from this kind of input.
            UnsupportedError: it cannot honour a field of the input.
            BuildError: the build failed.
        """
        ...

    async def exists(self) -> bool:
        """Whether it is here. ``False`` means absent; a runtime that cannot be asked raises."""
        ...

    async def remove(self, *, force: bool = False) -> None:
        """Remove this name and, when it was the last, the image. ``force`` also while containers use it.

        Raises:
            ImageNotFoundError: there is none.
            ConflictError: containers use it.
        """
        ...

    async def digest(self) -> str:
        """The digest it was pulled or pushed by or, for one that never met a registry, its config's digest (its id)."""
        ...

    async def tags(self) -> Sequence[str]:
        """All names of the image, sorted."""
        ...

    async def load(self, archive: str | PathLike[str] | AsyncIterable[bytes]) -> None:
        """Load an OCI-layout or docker-save tar and give its image this name."""
        ...


class Backend(Protocol):
    """A runtime. Unless a method says otherwise it raises ``ContainerNotFoundError`` for an id that is gone,
    ``OperationTimeoutError`` when the runtime does not answer in ``op_timeout``, ``ConnectionLostError`` when it goes away,
    and ``ClosedError`` after ``aclose``.
    """

    @property
    def backend_type(self) -> str:
        """The type it is registered under."""
        ...

    @property
    def capabilities(self) -> BackendCapabilities:
        """What works here, probed when it was opened."""
        ...

    def image(self, name: str) -> Image:
        """The image of that name, whether or not it exists."""
        ...

    async def create(self, config: ContainerConfig) -> ContainerId:
        """Make a container, without starting it. Cancelled or failed, it leaves none behind.

        Raises:
            ImageNotFoundError: the image is not here.
            ConflictError: the name is taken.
            UnsupportedError: a field cannot be honoured.
            InvalidConfigError: a value is wrong.
        """
        ...

    async def start(self, container_id: ContainerId) -> None:
        """Start it; ports are published and in ``inspect`` when this returns.

        Raises:
            StartError: the process could not be started.
            ConflictError: a host port is taken.
            InvalidStateError: it was started before.
        """
        ...

    async def stop(self, container_id: ContainerId, *, grace: float = 10.0) -> None:
        """Send the stop signal, and kill it after ``grace`` seconds. Does nothing to one that is not running."""
        ...

    async def kill(self, container_id: ContainerId, signal: str | int = "SIGKILL") -> None:
        """Send a signal.

        Raises:
            InvalidStateError: it is not running.
        """
        ...

    async def remove(self, container_id: ContainerId, *, force: bool = False) -> None:
        """Remove it and all that belongs to it; when this returns it is gone. ``force`` kills it first.

        Raises:
            InvalidStateError: it is running, without ``force``.
        """
        ...

    async def wait(self, container_id: ContainerId) -> ExitStatus:
        """How it ended. Waits for the start as well; at once for one that has exited, any number of times.

        Raises:
            StartError: the start failed.
        """
        ...

    async def logs(
        self,
        container_id: ContainerId,
        *,
        follow: bool = True,
        stdout: bool = True,
        stderr: bool = True,
        since: datetime | None = None,
        tail: int | None = None,
        timestamps: bool = False,
    ) -> LogStream:
        """Its output from the first byte; returns once the reader is registered.

        Args:
            container_id: of a container in any state.
            follow: go on until it has exited and all is delivered; else end with what is there now.
            stdout: deliver standard output.
            stderr: deliver standard error.
            since: leave out what is older; aware.
            tail: begin with the last so many log records, which are lines as the runtime stores them.
            timestamps: set ``LogEntry.time``; entries are then one record each.
        """
        ...

    async def inspect(self, container_id: ContainerId) -> ContainerInfo:
        """What the runtime says of it now."""
        ...

    async def list(self, *, labels: Mapping[str, str] | None = None, all: bool = False) -> Sequence[ContainerInfo]:  # noqa: A002
        """The containers made through this SDK, in any state, that have all the ``labels``; ``all`` for everyone's."""
        ...

    async def health_check(self) -> Health:
        """Ask more than a ping of the runtime.

        Raises:
            BackendUnavailableError: it does not work; the message says what to do.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection, after clean-up that is under way; returns by its deadline. Containers go on."""
        ...

    async def __aenter__(self) -> Self:
        """The backend itself; leaving closes it."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        ...


class OutputSink(Protocol):
    """What takes a container's output as it comes: called on the event loop, must not block."""

    def __call__(self, stream: StreamName, data: bytes, /) -> None:
        """Take the next bytes of a stream."""
        ...


class Launched(Protocol):
    """A started container whose output goes to a sink."""

    @property
    def id(self) -> ContainerId:
        """Its id."""
        ...

    async def wait(self) -> ExitStatus:
        """How it ended, after the last of its output was given to the sink. Cancelled, it can be called again.

        Output is taken while this is awaited: until then, and between two calls, a container that prints much may block.

        Raises:
            ConnectionLostError: the runtime went away before the end was seen.
        """
        ...

    async def aclose(self) -> None:
        """Stop delivering output and release the connections. The container goes on."""
        ...


@runtime_checkable
class SupportsLaunch(Protocol):
    """Create, register output and exit, then start, in the fewest calls."""

    @property
    def removes_behind(self) -> bool:
        """Whether a run is to give its result before its container is removed, because the removal takes as long as the run.

        The removal then goes on behind it, and is waited for when the client is closed, at the latest.
        """
        ...

    async def launch(
        self,
        config: ContainerConfig,
        sink: OutputSink,
        *,
        input: bytes | None = None,  # noqa: A002
    ) -> Launched:
        """Run a container from a configuration. Cancelled or failed, it leaves none behind.

        ``input`` is given to its standard input, which is then closed; the configuration must have ``stdin``.
        """
        ...


class StdinWriter(Protocol):
    """A container's standard input."""

    async def write(self, data: bytes) -> None:
        """Write, waiting while the reader is behind."""
        ...

    async def send_eof(self) -> None:
        """Tell the reader that no more comes."""
        ...

    async def aclose(self) -> None:
        """Release the connection, after ``send_eof``."""
        ...


@runtime_checkable
class SupportsStdin(Protocol):
    """Containers whose configuration has ``stdin`` can be written to."""

    async def stdin(self, container_id: ContainerId) -> StdinWriter:
        """The writer of a created or running container's standard input."""
        ...


@runtime_checkable
class SupportsPause(Protocol):
    """Containers can be frozen."""

    async def pause(self, container_id: ContainerId) -> None:
        """Freeze all its processes."""
        ...

    async def unpause(self, container_id: ContainerId) -> None:
        """Let them go on."""
        ...


@attrs.frozen(kw_only=True)
class Volume:
    """A named volume and its labels."""

    name: str
    labels: Mapping[str, str]


@runtime_checkable
class SupportsVolumes(Protocol):
    """Named volumes can be managed."""

    async def create_volume(self, name: str, *, labels: Mapping[str, str] | None = None) -> Volume:
        """Make a volume; one that exists with the same labels is returned."""
        ...

    async def list_volumes(self, *, labels: Mapping[str, str] | None = None) -> Sequence[Volume]:
        """The volumes that have all the labels."""
        ...

    async def remove_volume(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and its data; ``ConflictError`` while a container uses it, ``NotFoundError`` if there is none."""
        ...


@attrs.frozen(kw_only=True)
class Network:
    """A network that containers can join by its name."""

    id: str
    name: str
    labels: Mapping[str, str]
    subnets: tuple[str, ...] = ()


@runtime_checkable
class SupportsNetworks(Protocol):
    """Networks can be managed."""

    async def create_network(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        subnet: str | None = None,
        internal: bool = False,
        mtu: int | None = None,
    ) -> Network:
        """Make a bridge network; ``ConflictError`` when the name is taken."""
        ...

    async def list_networks(self, *, labels: Mapping[str, str] | None = None) -> Sequence[Network]:
        """The networks that have all the labels."""
        ...

    async def remove_network(self, name: str) -> None:
        """Remove a network; ``ConflictError`` while containers are on it, ``NotFoundError`` if there is none."""
        ...


@attrs.frozen(kw_only=True)
class ImageSummary:
    """An image in the backend: its id, names, digests by repository, and size in bytes."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    labels: Mapping[str, str]


@runtime_checkable
class SupportsImages(Protocol):
    """Images can be listed, renamed, pushed and saved."""

    async def images(self) -> Sequence[ImageSummary]:
        """All images."""
        ...

    async def tag(self, source: str, target: str) -> None:
        """Give an image a further name."""
        ...

    async def push(
        self, name: str, *, auth: RegistryAuth | None = None, on_progress: ProgressCallback | None = None
    ) -> None:
        """Send an image to the registry in its name."""
        ...

    def save(self, names: Sequence[str]) -> AsyncIterator[bytes]:
        """The images as a tar that ``load`` takes."""
        ...
