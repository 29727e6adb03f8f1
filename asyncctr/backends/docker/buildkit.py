"""Building images by the BuildKit inside the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncctr.backends.docker.errors import BACKEND
from asyncctr.buildkit.building import build
from asyncctr.buildkit.channel import Address
from asyncctr.buildkit.request import Daemon, Result

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncctr.backends.docker.api import DockerApi
    from asyncctr.backends.docker.naming import Engine
    from asyncctr.core.build import BuildEvent, BuildInput, BuildResult

__all__ = ["build_by_buildkit"]

_DAEMON: Final = Daemon(
    backend=BACKEND,
    outputs=frozenset({"tar", "local"}),
    caches=frozenset({"inline"}),
    without_outputs="the engine's BuildKit writes 'tar' and 'local' alone; save the image from the engine instead",
)
# Its exporter puts images into the engine's own store, whichever that is.
_STORE: Final = Result("moby")


async def build_by_buildkit(
    api: DockerApi,
    engine: Engine,
    name: str,
    build_input: BuildInput,
    on_event: Callable[[BuildEvent], None] | None,
) -> BuildResult:
    """Build an image and give it its names; see :func:`asyncctr.buildkit.building.build`."""
    api.check_open()
    address = Address(
        dialer=api.dialer,
        backend=BACKEND,
        place=str(api.endpoint),
        advice=api.endpoint.advice,
        upgrade=None if engine.speaks_http2 else f"/v{api.version}",
        op_timeout=api.op_timeout,
    )
    return await build(address, _DAEMON, _STORE, name, build_input, on_event)
