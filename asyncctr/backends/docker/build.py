"""Building images by the engine's classic builder (Engine API, ``POST /build`` with ``version=1``)."""

from __future__ import annotations

import json
import re
from collections import deque
from typing import TYPE_CHECKING, Any

from asyncctr.backends.docker.build_context import open_context
from asyncctr.backends.docker.errors import BACKEND, is_exhausted
from asyncctr.backends.docker.jsonstream import ProgressMeter, documents, error_of
from asyncctr.backends.docker.naming import tag
from asyncctr.core.build import BuildEvent, BuildResult, DockerfileBuildInput
from asyncctr.core.errors import (
    AsyncctrError,
    BuildError,
    BuildNotSupportedError,
    ConflictError,
    ImageNotFoundError,
    InvalidConfigError,
    NotFoundError,
    ResourceExhaustedError,
    UnsupportedError,
)
from asyncctr.oci.auth import all_credentials, docker_config_header
from asyncctr.oci.dockerfile import line_of
from asyncctr.oci.reference import names_to_give
from asyncctr.oci.remote_context import without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncctr.backends.docker.api import DockerApi
    from asyncctr.backends.docker.build_context import Context
    from asyncctr.backends.docker.naming import Engine
    from asyncctr.core.build import BuildInput
    from asyncctr.core.images import Progress
    from asyncctr.oci.reference import Reference

__all__ = ["build"]

_NEED_BUILDKIT = ("secrets", "ssh", "cache_to", "outputs")
_TAIL = 50
_LINE_LIMIT = 4096

_STEP = re.compile(r"(?:\[\d+/\d+\] )?S(?:tep|TEP) (\d+)/(\d+) ?: (.*)", re.DOTALL)
_CACHED = re.compile(r" ?-{2,3}> Using cache")
_DONE = re.compile(r" ?-{2,3}> [0-9a-f]{10,64}$|(?: ---> Removed|Removing) intermediate container [0-9a-f]{12}$")
_CHATTER = re.compile(
    r" ?-{2,3}> |Removing intermediate container |Successfully (?:built|tagged) |COMMIT\b|[0-9a-f]{64}$"
)
_RUNNING = re.compile(r" ---> Running in [0-9a-f]+$")
_WARNING = re.compile(r"(?: ---> )?\[Warning\] (.*)|time=\"[^\"]*\" level=warning msg=\"(.*)\"$", re.DOTALL)
_EXIT = re.compile(r"returned a non-zero code: (\d+)|exit status (\d+)\s*$")
_PARSE_LINE = re.compile(r"parse error (?:on )?line (\d+)|on line (\d+)", re.IGNORECASE)
_FAILED_STEP = re.compile(r'building at STEP "(.*)": ', re.DOTALL)
# Docker colours what a step prints to its standard error.
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"


async def build(
    api: DockerApi,
    engine: Engine,
    name: str,
    build_input: BuildInput,
    on_event: Callable[[BuildEvent], None] | None,
) -> BuildResult:
    """Build an image and give it a name; see :meth:`asyncctr.Image.build`. Cancelling closes the connection, which ends the build.

    Raises:
        BuildNotSupportedError: the input is for another kind of backend.
        UnsupportedError: a field that the classic builder, or this engine, does not honour.
        InvalidConfigError: the context or the Dockerfile is not there, or a name is wrong.
        BuildError: the build failed.
        ResourceExhaustedError: the engine's disk is full.
    """
    if not isinstance(build_input, DockerfileBuildInput):
        message = f"a Docker engine builds from a DockerfileBuildInput, not from a {type(build_input).__name__}"
        raise BuildNotSupportedError(message, field="build", backend=BACKEND, resource=name)
    references = names_to_give(name, build_input.tags)
    params = _params(engine, build_input, references)
    context = await open_context(build_input)
    if engine.is_podman and "remote" in context.params:
        raise _unsupported(
            "context.remote", "Podman's Docker-compatible API ignores it; fetch it here and give the directory"
        )
    progress = _BuildProgress(on_event, context)
    credentials = await all_credentials()
    headers = {"X-Registry-Config": docker_config_header(credentials)} if credentials else {}
    try:
        async with documents(
            api,
            "POST",
            "/build",
            params={**params, **context.params},
            headers=headers,
            body=context.body,
            kind="",
            resource=name,
            silent=True,
        ) as answer:
            async for document in answer:
                if message := error_of(document):
                    raise progress.error(
                        without_credentials(message, build_input.context), name, document.get("errorDetail")
                    )
                progress.feed(document)
    except AsyncctrError as error:
        if context.failure is not None:
            raise context.failure from error
        refused = type(error) in (AsyncctrError, InvalidConfigError, NotFoundError, ConflictError, ImageNotFoundError)
        if refused and isinstance(error.status, int):
            message = without_credentials(error.message, build_input.context)
            raise progress.error(message, name, None, status=error.status) from error
        raise
    progress.finish()
    digest = progress.digest or await _identify(api, references[0])
    if build_input.platform:
        await _check_platform(api, digest, build_input.platform)
        for reference in references:
            await tag(api, digest, reference)
    return BuildResult(
        digest=digest,
        tags=tuple(reference.familiar for reference in references),
        warnings=tuple(progress.warnings),
        cached_steps=progress.cached_steps,
    )


def _params(
    engine: Engine, build_input: DockerfileBuildInput, references: Sequence[Reference]
) -> dict[str, str | int | bool | Sequence[str]]:
    for field in _NEED_BUILDKIT:
        if getattr(build_input, field):
            raise _unsupported(field, "the classic builder has none; it takes BuildKit")
    params: dict[str, str | int | bool | Sequence[str]] = {"version": "1", "rm": True, "forcerm": True}
    # With a platform they are given afterwards: the builder takes a base image of another platform where it has one.
    if not build_input.platform:
        params["t"] = [str(reference) for reference in references]
    if build_input.no_cache:
        params["nocache"] = True
    if build_input.pull:
        params["pull"] = True
    plain = {
        "target": build_input.target,
        "platform": build_input.platform,
        "networkmode": _podman_network(build_input.network_mode) if engine.is_podman else build_input.network_mode,
    }
    params.update({key: value for key, value in plain.items() if value})
    if build_input.build_args:
        params["buildargs"] = json.dumps(dict(build_input.build_args))
    if build_input.labels:
        params["labels"] = json.dumps(dict(build_input.labels))
    if build_input.extra_hosts:
        hosts = [f"{host}:{address}" for host, address in build_input.extra_hosts.items()]
        params["extrahosts"] = json.dumps(hosts) if engine.is_podman else hosts
    if build_input.cache_from:
        if engine.is_podman:
            raise _unsupported("cache_from", "Podman's Docker-compatible API means something else by it")
        params["cachefrom"] = json.dumps([_cache_image(source) for source in build_input.cache_from])
    return params


def _podman_network(mode: str) -> str:
    # Podman takes Buildah's names and ignores all others; its own default is the host's network.
    names = {"": "", "none": "NetworkDisabled", "host": "host"}
    if mode not in names:
        raise _unsupported(
            "network_mode", f"Podman's Docker-compatible API takes 'none' and 'host' alone, not {mode!r}"
        )
    return names[mode]


def _unsupported(field: str, why: str) -> UnsupportedError:
    return UnsupportedError(f"build.{field}: {why}", field=f"build.{field}", backend=BACKEND)


def _cache_image(source: str) -> str:
    """An image's name from ``name`` or ``type=registry,ref=name``."""
    if "=" not in source:
        return source
    attributes: dict[str, str] = {}
    for part in source.split(","):
        key, _, value = part.partition("=")
        attributes[key] = value
    if attributes.get("type", "registry") != "registry" or not attributes.get("ref"):
        raise _unsupported("cache_from", f"the classic builder takes images alone, not {source!r}")
    return attributes["ref"]


async def _identify(api: DockerApi, reference: Reference) -> str:
    document = await api.call("GET", f"/images/{reference}/json", kind="image", resource=str(reference))
    return str(document["Id"])


async def _check_platform(api: DockerApi, digest: str, wanted: str) -> None:
    document = await api.call("GET", f"/images/{digest}/json", kind="image", resource=digest)
    system, _, rest = wanted.partition("/")
    architecture, _, variant = rest.partition("/")
    found = (document.get("Os"), document.get("Architecture"), document.get("Variant") or "")
    if found[:2] != (system, architecture) or (variant and found[2] and found[2] != variant):
        text = "/".join(str(part) for part in found if part)
        message = (
            f"build.platform: the builder made an image for {text}, not {wanted}: that is what it has of a base image"
        )
        raise UnsupportedError(message, field="build.platform", backend=BACKEND, resource=digest)


class _BuildProgress:
    """What the builder tells, as events, and what is known when it fails."""

    def __init__(self, on_event: Callable[[BuildEvent], None] | None, context: Context) -> None:
        self._on_event = on_event
        self._context = context
        self._meter = ProgressMeter(self._transfer if on_event is not None else None)
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._partial = ""
        self._label = ""
        self._number = 0
        self._cached = False
        self._running = False
        self._begun = False
        self.step = ""
        self.digest = ""
        self.warnings: list[str] = []
        self.cached_steps = 0

    def feed(self, document: dict[str, Any]) -> None:
        """One document of the answer."""
        if isinstance(aux := document.get("aux"), dict) and aux.get("ID"):
            self.digest = str(aux["ID"])
        self._meter.feed(document)
        text = str(document.get("stream") or "")
        if text.startswith(_RED):
            text = text.removeprefix(_RED).removesuffix(_PLAIN)
        for line in text.splitlines(keepends=True):
            self._line(line)

    def _line(self, text: str) -> None:
        line = text.rstrip("\r\n")
        if match := _STEP.fullmatch(line):
            self._end_step()
            self._number, self.step, self._label = int(match[1]), match[3].strip(), line
            # Podman says nothing when it begins to run one.
            self._running = line[:4] != "Step" and self.step[:4].upper() == "RUN "
            self._event(BuildEvent(kind="vertex", step=line, message="started"))
            return
        # What a step prints may look like what the builder says, but a cached one prints nothing.
        if self._label and not self._begun and _CACHED.match(line):
            self.cached_steps += not self._cached
            self._cached, self._running = True, False
            return
        if _RUNNING.match(line):
            self._running = self._begun = True
            return
        if _DONE.match(line):
            self._running = False
            return
        if not self._running:
            if match := _WARNING.match(line):
                self.warnings.append((match[1] or match[2] or "").strip())
                self._event(BuildEvent(kind="warning", step=self._label, message=self.warnings[-1]))
                return
            if not line.strip() or _CHATTER.match(line):
                return
        self._begun = True
        self._keep(text)
        self._event(BuildEvent(kind="log", step=self._label, message=text))

    def _keep(self, text: str) -> None:
        self._partial += text
        if self._partial.endswith("\n") or len(self._partial) > _LINE_LIMIT:
            self._tail.append(self._partial.rstrip("\r\n")[:_LINE_LIMIT])
            self._partial = ""

    def _end_step(self, message: str = "completed") -> None:
        if self._label:
            self._event(BuildEvent(kind="vertex", step=self._label, message=message, cached=self._cached))
        if self._partial:
            self._keep("\n")
        self._label, self._cached, self._running, self._begun = "", False, False, False

    def _event(self, event: BuildEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)

    def _transfer(self, progress: Progress) -> None:
        message = f"{progress.id}: {progress.action}" if progress.id else progress.action
        self._event(
            BuildEvent(
                kind="progress", step=self._label, message=message, current=progress.current, total=progress.total
            )
        )

    def finish(self) -> None:
        """The build has succeeded."""
        self._meter.finish()
        self._end_step()

    def error(self, message: str, name: str, detail: object, *, status: int | None = None) -> AsyncctrError:
        """The build has failed."""
        text = message.strip()
        if is_exhausted(text):
            return ResourceExhaustedError(text, backend=BACKEND, resource=name, status=status)
        step = match[1] if (match := _FAILED_STEP.search(text)) else self.step
        code = detail.get("code") if isinstance(detail, dict) else None
        if not isinstance(code, int) and (match := _EXIT.search(text)):
            code = int(match[1] or match[2])
        line = line_of(self._context.dockerfile, step, self._number) if step else None
        if line is None and (match := _PARSE_LINE.search(text)):
            line = int(match[1] or match[2])
        self._end_step("failed")
        return BuildError(
            f"{name}: {text}",
            step=step,
            line=line,
            output=tuple(self._tail),
            exit_code=code if isinstance(code, int) else None,
            backend=BACKEND,
            resource=name,
            status=status,
        )
