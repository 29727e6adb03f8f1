"""Which backends there are: the built-in ones, those registered in code, and entry points of the group ``asyncctr.backends``."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Any, cast

from asyncctr.core.backend import Backend
from asyncctr.core.backend_config import BackendConfig
from asyncctr.core.errors import BackendUnavailableError, InvalidConfigError
from asyncctr.core.validation import check_token

__all__ = ["BackendFactory", "available_backend_types", "get_backend_factory", "register_backend"]

BackendFactory = Callable[[BackendConfig], Awaitable[Backend]]
"""Opens a backend from its configuration."""

ENTRY_POINT_GROUP = "asyncctr.backends"

# The type, the module whose `open_backend` opens it, and the extra that brings what the module imports.
_BUILT_IN = {
    "docker": ("asyncctr.backends.docker.backend", "docker"),
    "containerd": ("asyncctr.backends.containerd", "containerd"),
    "nanos": ("asyncctr.backends.nanos", "nanos"),
}
_registered: dict[str, BackendFactory] = {}


def register_backend(backend_type: str, factory: BackendFactory) -> None:
    """Make ``factory`` the one that opens backends of that type; it goes before entry points and built-in ones."""
    check_token("backend_type", backend_type)
    if not callable(factory):
        msg = "factory: must be an async callable that takes a backend configuration"
        raise InvalidConfigError(msg, field="factory")
    _registered[str(backend_type)] = factory


def _entry_points() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}


def available_backend_types() -> tuple[str, ...]:
    """All types that ``get_backend_factory`` knows, sorted. Their dependencies may still be missing."""
    return tuple(sorted({*_BUILT_IN, *_entry_points(), *_registered}))


def get_backend_factory(backend_type: str) -> BackendFactory:
    """The factory for a type; its module is imported now.

    Raises:
        InvalidConfigError: no backend has that type.
        BackendUnavailableError: its dependencies are not installed; the message says what to install.
    """
    name = str(backend_type)
    if name in _registered:
        return _registered[name]
    if name in _BUILT_IN:
        module_name, extra = _BUILT_IN[name]
        try:
            module: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            message = f"the {name} backend needs the {error.name!r} package: pip install 'asyncctr[{extra}]'"
            raise BackendUnavailableError(message, backend=name) from error
        return cast("BackendFactory", module.open_backend)
    if point := _entry_points().get(name):
        try:
            return cast("BackendFactory", point.load())
        except ImportError as error:
            message = f"the {name} backend ({point.value}) cannot be imported: {error}"
            raise BackendUnavailableError(message, backend=name) from error
    known = ", ".join(available_backend_types())
    message = f"backend_type: {name!r} is no backend; there are: {known}"
    raise InvalidConfigError(message, field="backend_type")
