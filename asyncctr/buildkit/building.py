"""Building an image from a Dockerfile: the context, the requests, the results."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from grpclib.exceptions import GRPCError

from asyncctr.buildkit.answers import agents_of, auth, health, secrets, ssh
from asyncctr.buildkit.channel import BuildkitChannel
from asyncctr.buildkit.contexts import open_context
from asyncctr.buildkit.filesync import file_sync
from asyncctr.buildkit.outputs import Output
from asyncctr.buildkit.progress import BuildProgress
from asyncctr.buildkit.request import Result, caches_to_write, frontend, request
from asyncctr.buildkit.session import Session
from asyncctr.buildkit.solving import Solving
from asyncctr.core.build import BuildResult, DockerfileBuildInput
from asyncctr.core.errors import BuildNotSupportedError
from asyncctr.oci.reference import names_to_give

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from asyncctr.buildkit.channel import Address
    from asyncctr.buildkit.contexts import BuildContext
    from asyncctr.buildkit.request import Daemon
    from asyncctr.core.build import BuildEvent, BuildInput
    from asyncctr.oci.reference import Reference

__all__ = ["build"]


async def build(
    address: Address,
    daemon: Daemon,
    store: Result,
    name: str,
    build_input: BuildInput,
    on_event: Callable[[BuildEvent], None] | None,
) -> BuildResult:
    """Build an image and give it its names; see :meth:`asyncctr.Image.build`. Cancelled, the daemon ends the build.

    Args:
        address: where the daemon is.
        daemon: what it can do.
        store: the exporter that puts images where the backend has them, under the names that it is given.
        name: of the image.
        build_input: what to build.
        on_event: told everything.

    Raises:
        BuildNotSupportedError: the input is for another kind of backend.
        UnsupportedError: a field that this daemon does not honour.
        InvalidConfigError: the context or the Dockerfile is not there, or a name is wrong.
        BuildError: the build failed.
        ResourceExhaustedError: the daemon's disk is full.
        BackendUnavailableError: nothing answers there.
        ConnectionLostError: the daemon, or its connection, has gone.
    """
    if not isinstance(build_input, DockerfileBuildInput):
        message = f"BuildKit builds from a DockerfileBuildInput, not from a {type(build_input).__name__}"
        raise BuildNotSupportedError(message, field="build", backend=daemon.backend, resource=name)
    names = names_to_give(name, build_input.tags)
    daemon.check(build_input)
    agents = await agents_of(build_input.ssh, backend=daemon.backend)
    progress = BuildProgress(on_event, build_input.context)
    failures: list[Exception] = []
    async with open_context(build_input) as context, _channel(address) as channel:
        progress.dockerfile = context.dockerfile
        output = Output(failures.append)
        services = {
            **health(),
            **auth(failures.append),
            **file_sync(context.trees, failures.append),
            **secrets(build_input.secrets),
            **ssh(agents),
            **output.service(),
        }
        session = Session(channel, services, shared_key=context.shared_key)
        async with Solving(channel, session, failures) as solving:
            steps = _Steps(solving, session.id, build_input, context, output, progress)
            try:
                digest = await steps.run(names, store)
            except GRPCError as error:
                failure = progress.error(
                    error.message or "",
                    error.details or (),
                    backend=daemon.backend,
                    name=name,
                    status=error.status.name,
                )
                # Without what came with it: all of the Dockerfile, and the context's URL as it was given.
                raise failure from GRPCError(error.status, failure.message)
    progress.finish(build_input.build_args)
    return BuildResult(
        digest=digest,
        tags=tuple(reference.familiar for reference in names),
        outputs=build_input.outputs,
        warnings=tuple(progress.warnings),
        cached_steps=progress.cached_steps,
    )


@asynccontextmanager
async def _channel(address: Address) -> AsyncIterator[BuildkitChannel]:
    channel = BuildkitChannel(address)
    try:
        yield channel
    finally:
        channel.close()


class _Steps:
    """The requests of one build. A daemon may know one result for each, so each result is a request of its own: all but the
    first find everything done. The store comes last, so that there is no image where another result failed.
    """

    def __init__(
        self,
        solving: Solving,
        session: str,
        build_input: DockerfileBuildInput,
        context: BuildContext,
        output: Output,
        progress: BuildProgress,
    ) -> None:
        self._solving = solving
        self._session = session
        self._input = build_input
        self._attributes = {**frontend(build_input), **context.attributes}
        self._output = output
        self._progress: BuildProgress | None = progress

    async def run(self, names: Sequence[Reference], store: Result) -> str:
        """Everything that was asked for; the image's digest."""
        joined = ",".join(str(reference) for reference in names)
        for kind, path in self._input.outputs.items():
            self._output.expect(path, unpack=kind == "local")
            named = {"name": joined} if kind in ("oci", "docker") else {}
            await self._solve(Result("tar" if kind == "local" else kind, named))
        said = await self._solve(Result(store.kind, {"name": joined, **store.attributes}))
        return said.get("containerimage.digest") or said["containerimage.config.digest"]

    async def _solve(self, result: Result) -> Mapping[str, str]:
        asked = request(uuid.uuid4().hex, self._session, self._attributes, self._input, result)
        progress, self._progress = self._progress, None
        if progress is not None:
            asked.cache.exports.extend(caches_to_write(self._input))
        said = await self._solving.solve(asked, progress)
        # What it has just made is the newest of its cache.
        self._attributes.pop("no-cache", None)
        return said
