"""The hook around each call of a backend."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from asyncctr.client import BackendCall, Client
from asyncctr.client.tracing import traced
from asyncctr.core.backend import Backend, SupportsLaunch, SupportsPause, SupportsVolumes
from asyncctr.core.config import ContainerConfig
from asyncctr.core.errors import ContainerNotFoundError
from asyncctr.core.status import ContainerId

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


class Part:
    id = ContainerId("c1")

    async def wait(self) -> int:
        return 7

    async def pull(self, *, platform: str = "") -> str:
        return platform


class Runtime:
    """Some of what a backend has."""

    backend_type = "made-up"
    removes_behind = True

    def __init__(self) -> None:
        self.closed = False

    def image(self, name: str) -> Part:
        assert name == "alpine:3"
        return Part()

    async def create(self, config: ContainerConfig) -> ContainerId:
        return ContainerId(config.image)

    async def inspect(self, container_id: ContainerId) -> None:
        raise ContainerNotFoundError("gone", resource=container_id)

    async def launch(self, config: ContainerConfig, sink: object) -> Part:
        del config, sink
        return Part()

    async def pause(self, container_id: ContainerId) -> None: ...

    async def unpause(self, container_id: ContainerId) -> None: ...

    async def list(self) -> tuple[str, ...]:
        return ()

    async def aclose(self) -> None:
        self.closed = True


class Trace:
    def __init__(self) -> None:
        self.told: list[str] = []

    @contextmanager
    def __call__(self, call: BackendCall) -> Iterator[None]:
        name = f"{call.backend} {call.operation}({call.resource})"
        self.told.append(name)
        try:
            yield
        except ContainerNotFoundError as error:
            self.told.append(f"{name}: {error.message}")
            raise


async def test_each_call_is_told() -> None:
    trace, runtime = Trace(), Runtime()
    backend: Any = traced(cast("Backend", runtime), trace)
    config = ContainerConfig("alpine:3", env={"SECRET": "x"})
    assert await backend.create(config) == "alpine:3"
    assert await backend.create(ContainerConfig("alpine:3", name="web")) == "alpine:3"
    assert await backend.image("alpine:3").pull(platform="linux/arm64") == "linux/arm64"
    launched = await backend.launch(config, print)
    assert (launched.id, await launched.wait()) == ("c1", 7)
    assert await backend.list() == ()
    with pytest.raises(ContainerNotFoundError):
        await backend.inspect("c9")
    assert trace.told == [
        "made-up create(alpine:3)",
        "made-up create(web)",
        "made-up image.pull(alpine:3)",
        "made-up launch(alpine:3)",
        "made-up launched.wait(c1)",
        "made-up list()",
        "made-up inspect(c9)",
        "made-up inspect(c9): gone",
    ]
    async with backend as entered:
        assert entered is backend
    assert runtime.closed
    assert trace.told[-1] == "made-up aclose()"


async def test_it_is_what_the_backend_is() -> None:
    backend: Any = traced(cast("Backend", Runtime()), Trace())
    assert isinstance(backend, SupportsLaunch)
    assert isinstance(backend, SupportsPause)
    assert not isinstance(backend, SupportsVolumes)
    assert (backend.backend_type, backend.removes_behind) == ("made-up", True)
    with pytest.raises(AttributeError):
        backend.stdin  # noqa: B018  # that it is not there


async def test_a_hook_that_fails_is_heard() -> None:
    def hook(call: BackendCall) -> Any:
        raise RuntimeError(call.operation)

    async with Client.over(cast("Backend", Runtime())) as client:
        with pytest.raises(RuntimeError, match="list"):
            await traced(client.backend, hook).list()
