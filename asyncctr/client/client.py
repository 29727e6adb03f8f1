"""``connect`` and ``Client``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Self, TypeVar

import attrs

from asyncctr.client.container import Container, ContainerScope
from asyncctr.client.reaping import reapable
from asyncctr.client.running import run_to_completion
from asyncctr.client.selection import choose_backend
from asyncctr.client.tracing import traced
from asyncctr.core.config import ContainerConfig, Lifetime, Ownership
from asyncctr.core.errors import ClosedError, ContainerNotFoundError, ImageNotFoundError
from asyncctr.core.images import PullPolicy
from asyncctr.core.status import ContainerId
from asyncctr.core.validation import fail, is_number
from asyncctr.transport.cleanup import Janitor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

    from asyncctr.client.tracing import TraceHook
    from asyncctr.core.backend import Backend, Image
    from asyncctr.core.backend_config import BackendConfig
    from asyncctr.core.capabilities import BackendCapabilities
    from asyncctr.core.config import VolumeMount
    from asyncctr.core.network import NetworkConfig
    from asyncctr.core.resources import ResourceLimits
    from asyncctr.core.status import ContainerInfo, Health, RunResult

__all__ = ["Client", "connect"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

DEFAULT_MAX_OUTPUT = 64 << 20
DEFAULT_CLEANUP_TIMEOUT = 10.0
_REAP_CONCURRENCY = 8
# Times the clean-up timeout that a clean-up may go on when nobody waits for it any more.
_BACKGROUND = 6


def connect(
    config: BackendConfig | None = None, *, cleanup_timeout: float | None = None, trace: TraceHook | None = None
) -> Client:
    """Connect to a runtime. Enter the client with ``async with``, or await it.

    A configuration, ``ASYNCCTR_BACKEND``, ``DOCKER_HOST`` or a Docker context that is not the default fixes the runtime; without
    any of them the first that answers is taken.

    Args:
        config: which runtime, and how to reach it.
        cleanup_timeout: seconds that clean-up after an error or a cancellation may take; ``None`` for the configuration's.
        trace: called before each call of the backend, with what is called; the call happens in the context that it returns.

    Raises:
        BackendUnavailableError: when it is entered: no runtime can be reached; the message lists every attempt.
    """

    async def opener() -> Backend:
        backend = await choose_backend(config)
        return backend if trace is None else traced(backend, trace)

    configured = DEFAULT_CLEANUP_TIMEOUT if config is None else config.cleanup_timeout
    return Client(opener, cleanup_timeout=configured if cleanup_timeout is None else cleanup_timeout)


class Client:
    """Containers, over any backend. Made by :func:`connect`, or from a backend with :meth:`over`.

    One client serves any number of tasks of one event loop.
    """

    def __init__(
        self, opener: Callable[[], Awaitable[Backend]], *, cleanup_timeout: float = DEFAULT_CLEANUP_TIMEOUT
    ) -> None:
        self._opener = opener
        self._janitor = Janitor(cleanup_timeout, background=_BACKGROUND * cleanup_timeout)
        self._opened: Backend | None = None
        self._closed = False

    @classmethod
    def over(cls, backend: Backend, *, cleanup_timeout: float = DEFAULT_CLEANUP_TIMEOUT) -> Self:
        """An open client over a backend that is open already; closing the client closes the backend."""

        async def opener() -> Backend:
            return backend

        client = cls(opener, cleanup_timeout=cleanup_timeout)
        client._opened = backend
        return client

    def __repr__(self) -> str:
        state = (
            "closed" if self._closed else "not opened" if self._opened is None else f"on {self._opened.backend_type}"
        )
        return f"<Client {state}>"

    async def _open(self) -> Self:
        if self._closed:
            raise ClosedError("this client is closed; connect() makes a new one")
        if self._opened is None:
            self._opened = await self._opener()
        return self

    def __await__(self) -> Generator[object, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Finish clean-up that is under way, by its deadline, and close the backend. Containers go on."""
        if self._closed:
            return
        self._closed = True
        backend = self._opened
        # Clean-up under way and the backend have deadlines of their own; this one is for what keeps to none.
        held = await Janitor(3 * self._janitor.timeout).finish(self._end(backend), "close the client")
        if held is not None:
            raise held

    async def _end(self, backend: Backend | None) -> None:
        # Of other tasks, which need the backend for it.
        await self._janitor.aclose()
        if backend is not None:
            await backend.aclose()

    @property
    def backend(self) -> Backend:
        """The backend below.

        Raises:
            ClosedError: the client is closed, or was never opened.
        """
        if self._closed:
            raise ClosedError("this client is closed")
        if self._opened is None:
            raise ClosedError(
                "this client is not open: use `async with connect() as client` or `client = await connect()`"
            )
        return self._opened

    @property
    def capabilities(self) -> BackendCapabilities:
        """What works here."""
        return self.backend.capabilities

    def image(self, name: str) -> Image:
        """The image of that name, whether or not it exists."""
        return self.backend.image(name)

    def container(
        self,
        config: ContainerConfig,
        *,
        stop_grace: float | None = None,
        pull: PullPolicy | str = PullPolicy.MISSING,
    ) -> ContainerScope:
        """A container for an ``async with`` block: created on the way in, removed with force on the way out.

        Args:
            config: what it is made from.
            stop_grace: ask it to stop first, and give it so many seconds; ``None`` does not ask.
            pull: when to ask the registry for the image.
        """
        return ContainerScope(lambda: self.create(config, pull=pull), self.backend, self._janitor, stop_grace)

    async def create(
        self, config: ContainerConfig, *, detached: bool = False, pull: PullPolicy | str = PullPolicy.MISSING
    ) -> Container:
        """Make a container, which the caller removes.

        Args:
            config: what it is made from.
            detached: it outlives this process: ``reap`` leaves it alone when this process is gone.
            pull: when to ask the registry for the image.
        """
        lifetime = Lifetime.DETACHED if detached else Lifetime.OWNED
        owned = attrs.evolve(config, ownership=Ownership(lifetime=lifetime))
        container_id = await self._with_image(config, pull, lambda: self.backend.create(owned))
        return Container(self.backend, container_id)

    async def _with_image(
        self, config: ContainerConfig, pull: PullPolicy | str, operation: Callable[[], Awaitable[T]]
    ) -> T:
        """Do what needs an image, pulling it as the policy says; when it is here, that costs no call."""
        try:
            policy = PullPolicy(pull)
        except ValueError:
            raise fail("pull", f"must be 'missing', 'always' or 'never', not {pull!r}") from None
        platform = config.platform or None
        if policy is PullPolicy.ALWAYS:
            await self.backend.image(config.image).pull(platform=platform)
            return await operation()
        try:
            return await operation()
        except ImageNotFoundError:
            if policy is PullPolicy.NEVER:
                raise
        await self.backend.image(config.image).pull(platform=platform)
        return await operation()

    async def get(self, container_id: ContainerId | str) -> Container:
        """The handle of a container that exists, whoever made it.

        Raises:
            ContainerNotFoundError: there is none.
        """
        info = await self.backend.inspect(ContainerId(container_id))
        return Container(self.backend, info.id)

    async def run(
        self,
        image: str | ContainerConfig,
        command: Sequence[str] = (),
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # counted from the start of the container
        check: bool = False,
        input: bytes | None = None,  # noqa: A002
        max_output: int = DEFAULT_MAX_OUTPUT,
        pull: PullPolicy | str = PullPolicy.MISSING,
        env: Mapping[str, str] | Iterable[str] | None = None,
        volumes: Iterable[VolumeMount] = (),
        network: NetworkConfig | None = None,
        resources: ResourceLimits | None = None,
    ) -> RunResult:
        """Run a container to its end, remove it, and give what it printed. Cancelled, it kills and removes.

        Args:
            image: an image's name, or a whole configuration, with which ``command`` and the arguments after ``pull`` are refused.
            command: the arguments; empty for the image's.
            timeout: seconds it may run, counted from its start; past it the container is killed and removed.
            check: raise on an exit code other than 0.
            input: given to its standard input, which is then closed; without it standard input is empty. Not with a terminal.
            max_output: bytes kept of each stream; the rest is read and dropped, and ``truncated`` says so.
            pull: when to ask the registry for the image.
            env: variables.
            volumes: mounts.
            network: how it is connected.
            resources: limits.

        Raises:
            RunTimeoutError: ``timeout`` passed; ``.result`` has what was printed.
            ExitError: ``check``, and the exit code was not 0; ``.result`` is the whole result.
            StartError: the process could not be started.
            ImageNotFoundError: the image is neither here nor in its registry.
        """
        config = _run_config(image, command, env, volumes, network, resources)
        if timeout is not None and (not is_number(timeout) or not timeout > 0):
            raise fail("timeout", f"must be None or a positive number of seconds, not {timeout!r}")
        if isinstance(max_output, bool) or not isinstance(max_output, int) or max_output < 0:
            raise fail("max_output", f"must be a number of bytes, 0 or more, not {max_output!r}")
        if input is not None:
            if not isinstance(input, bytes):
                raise fail("input", f"must be bytes, not {type(input).__name__}")
            config = attrs.evolve(config, stdin=True)
        elif config.stdin:
            # Nobody will write to it: without an end a reader would wait for ever.
            input = b""  # noqa: A001
        if input is not None and config.tty:
            raise fail("input", "cannot be ended on a terminal: leave tty unset, or use Container.stdin()")
        backend = self.backend

        async def once() -> RunResult:
            return await run_to_completion(
                backend,
                self._janitor,
                config,
                timeout=timeout,
                check=check,
                input_data=input,
                max_output=max_output,
            )

        return await self._with_image(config, pull, once)

    async def list(self, *, labels: Mapping[str, str] | None = None, all: bool = False) -> Sequence[ContainerInfo]:  # noqa: A002
        """The containers made through this SDK, in any state, that have all the ``labels``; ``all`` for everyone's."""
        return await self.backend.list(labels=labels, all=all)

    async def reap(
        self, *, older_than: float | None = None, foreign: bool = False, dry_run: bool = False
    ) -> Sequence[ContainerInfo]:
        """Remove what dead owners left, and tell what that was.

        Only owned containers whose owner ran on this boot and in this pid namespace, and is gone, are removed.

        Args:
            older_than: leave alone what was created less than so many seconds ago.
            foreign: also those whose owner ran on another boot, host or namespace, so that it cannot be known to be gone.
            dry_run: remove nothing.

        Raises:
            AsyncctrError: one could not be removed; the first such error, when the others are removed.
        """
        if older_than is not None and (not is_number(older_than) or not older_than >= 0):
            raise fail("older_than", f"must be None or a number of seconds, 0 or more, not {older_than!r}")
        backend = self.backend
        found = [info for info in await backend.list() if reapable(info, older_than=older_than, foreign=foreign)]
        if dry_run:
            return tuple(found)
        limit = asyncio.Semaphore(_REAP_CONCURRENCY)

        async def remove(info: ContainerInfo) -> None:
            async with limit:
                try:
                    await backend.remove(info.id, force=True)
                except ContainerNotFoundError:
                    # Another reaper was faster.
                    return
                logger.info("reaped container %s", info.id[:12], extra={"container_id": info.id})

        # One that cannot be removed is no reason to leave the others.
        outcomes = await asyncio.gather(*(remove(info) for info in found), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        return tuple(found)

    async def health_check(self) -> Health:
        """Ask more than a ping of the runtime."""
        return await self.backend.health_check()


def _run_config(
    image: str | ContainerConfig,
    command: Sequence[str],
    env: Mapping[str, str] | Iterable[str] | None,
    volumes: Iterable[VolumeMount],
    network: NetworkConfig | None,
    resources: ResourceLimits | None,
) -> ContainerConfig:
    if not isinstance(image, ContainerConfig):
        return ContainerConfig(
            image, command=command, env=env or {}, volumes=volumes, network=network, resources=resources
        )
    given = {"command": command, "env": env, "volumes": volumes, "network": network, "resources": resources}
    for name, value in given.items():
        if value is not None and value != ():
            raise fail(name, "goes into the ContainerConfig when there is one")
    return image
