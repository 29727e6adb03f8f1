"""Which backends there are."""

from __future__ import annotations

import pytest

from asyncctr import (
    BackendConfig,
    InvalidConfigError,
    available_backend_types,
    get_backend_factory,
    open_backend,
    register_backend,
)
from asyncctr.core import registry

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


async def test_a_registered_backend_is_opened_by_its_type() -> None:
    class OwnConfig(BackendConfig):
        backend_type = "own"

    made = []

    async def factory(config: BackendConfig) -> object:
        made.append(config)
        return "the backend"

    register_backend("own", factory)  # type: ignore[arg-type]
    assert "own" in available_backend_types()
    config = OwnConfig()
    assert await open_backend(config) == "the backend"  # type: ignore[comparison-overlap]
    assert made == [config]


def test_unknown_types_list_the_known_ones() -> None:
    with pytest.raises(InvalidConfigError, match="docker"):
        get_backend_factory("lxc")
    with pytest.raises(InvalidConfigError):
        register_backend("x y", lambda _: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidConfigError):
        register_backend("x", None)  # type: ignore[arg-type]


def test_docker_is_built_in() -> None:
    assert "docker" in available_backend_types()
    assert callable(get_backend_factory("docker"))
