"""Which backend ``connect`` takes: the one that was named, else the first that answers."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from asyncctr.core.backend_config import (
    BackendConfig,
    BackendType,
    ContainerdConfig,
    DockerConfig,
    FirecrackerConfig,
    NanosConfig,
)
from asyncctr.core.errors import AsyncctrError, BackendUnavailableError, InvalidConfigError
from asyncctr.core.registry import available_backend_types, get_backend_factory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncctr.core.backend import Backend

__all__ = ["attempts", "choose_backend", "may_start", "named_config", "open_backend"]

logger = logging.getLogger(__name__)

PROBE_TIMEOUT = 2.0
"""Seconds that each runtime has to answer while one is being looked for."""

BACKEND_VARIABLE = "ASYNCCTR_BACKEND"
AUTO_START_VARIABLE = "ASYNCCTR_AUTO_START"
"""``0`` keeps ``connect`` from starting a containerd where nothing answers."""
_CONFIGS: dict[str, type[BackendConfig]] = {
    BackendType.DOCKER: DockerConfig,
    BackendType.CONTAINERD: ContainerdConfig,
    BackendType.FIRECRACKER: FirecrackerConfig,
    BackendType.NANOS: NanosConfig,
}
# Tried in this order when nothing is named; the others run only what was prepared for them.
_PROBED = (BackendType.DOCKER, BackendType.CONTAINERD)


async def open_backend(config: BackendConfig) -> Backend:
    """Open the backend that a configuration is for.

    Raises:
        BackendUnavailableError: it cannot be reached, or its dependencies are missing; the message says what to do.
        InvalidConfigError: no backend has the configuration's type.
    """
    if not hasattr(config, "backend_type"):
        message = f"config: must be a backend configuration such as DockerConfig, not {type(config).__name__}"
        raise InvalidConfigError(message, field="config")
    return await get_backend_factory(config.backend_type)(config)


def may_start(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a containerd may be started where none answers."""
    return environ.get(AUTO_START_VARIABLE) != "0"


def named_config(environ: Mapping[str, str]) -> tuple[BackendConfig, str] | None:
    """The configuration that the environment fixes, and what fixes it; ``None`` when nothing does."""
    if name := environ.get(BACKEND_VARIABLE):
        if name == BackendType.CONTAINERD:
            # That one is started is no fall-back: it is the one that is asked for.
            return ContainerdConfig(auto_start=may_start(environ)), f"{BACKEND_VARIABLE}={name}"
        if name in _CONFIGS:
            return _CONFIGS[name](), f"{BACKEND_VARIABLE}={name}"
        if name not in available_backend_types():
            known = ", ".join(available_backend_types())
            message = f"{BACKEND_VARIABLE}: {name!r} is no backend; there are: {known}"
            raise InvalidConfigError(message, field=BACKEND_VARIABLE)
        message = f"{BACKEND_VARIABLE}: the {name} backend needs a configuration of its own: pass it to connect()"
        raise InvalidConfigError(message, field=BACKEND_VARIABLE)
    if environ.get("DOCKER_HOST"):
        return DockerConfig(), "DOCKER_HOST"
    # Found without the docker extra: contexts are files.
    from asyncctr.backends.docker.endpoint import current_context  # noqa: PLC0415

    context = current_context(environ)
    if context:
        return DockerConfig(context=context), f"the Docker context {context!r}"
    return None


async def choose_backend(config: BackendConfig | None, environ: Mapping[str, str] = os.environ) -> Backend:
    """Open the backend to use.

    A configuration, ``ASYNCCTR_BACKEND``, ``DOCKER_HOST`` or a Docker context that is not the default fixes the choice, without
    a fall-back. Otherwise each runtime is given two seconds.

    Raises:
        BackendUnavailableError: the one that is fixed, or all of them, cannot be used; lists every attempt.
    """
    if config is not None:
        return await open_backend(config)
    if named := named_config(environ):
        chosen, source = named
        backend = await open_backend(chosen)
        logger.info("using %s, as %s says", backend.backend_type, source)
        return backend
    failures: list[str] = []
    known = available_backend_types()
    for backend_type in (name for name in _PROBED if name in known):
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                backend = await open_backend(_CONFIGS[backend_type]())
        except TimeoutError:
            failures.append(f"{backend_type}: did not answer within {PROBE_TIMEOUT:g} s")
        except AsyncctrError as error:
            failures.append(f"{backend_type}: {error}")
        else:
            logger.info("using %s, the first runtime that answered", backend.backend_type)
            return backend
    if may_start(environ) and BackendType.CONTAINERD in known:
        try:
            backend = await open_backend(ContainerdConfig(auto_start=True))
        except AsyncctrError as error:
            failures.append(f"a containerd of its own: {error}")
        else:
            logger.info("using a containerd of our own, because no runtime answered")
            return backend
    raise BackendUnavailableError(attempts(failures))


def attempts(failures: list[str]) -> str:
    """The message that lists what was tried, and what to install."""
    lines = ["no container runtime answered:", *(f"  - {failure}" for failure in failures)]
    lines.append(
        "Install one (Debian, Ubuntu: apt-get install containerd runc, or docker.io; Fedora: dnf install moby-engine), start it"
    )
    lines.append(
        "(containerd is started for you), or name one with connect(DockerConfig(host=...)) or DOCKER_HOST. `asyncctr doctor` tells more."
    )
    return "\n".join(lines)
