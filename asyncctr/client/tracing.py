"""What is told of each call of a backend: for tracing, metrics, or a log of one's own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import attrs

from asyncctr.core.config import ContainerConfig

if TYPE_CHECKING:
    from types import TracebackType

    from asyncctr.core.backend import Backend

__all__ = ["BackendCall", "TraceHook", "traced"]


@attrs.frozen(kw_only=True)
class BackendCall:
    """One call of a backend. It holds no environment, credentials or output.

    Attributes:
        backend: the type of the backend, such as ``"docker"``.
        operation: the method: ``"create"``, ``"image.pull"``, ``"launched.wait"``.
        resource: the container's id, or the name of the image, volume or network; empty for a call about none of these.
    """

    backend: str
    operation: str
    resource: str


TraceHook: TypeAlias = Callable[[BackendCall], AbstractContextManager[object]]
"""Called on the event loop before each call of the backend; the call happens in the context that it returns, whose exit gets
its exception. What the hook itself raises comes out of the call."""

# What these return is called in its turn, under these names.
_PARTS = {"image": "image.", "launch": "launched."}


def traced(backend: Backend, hook: TraceHook) -> Backend:
    """A backend whose every call goes through a hook; it has the methods that the backend has, and no others."""
    return cast("Backend", _Traced(backend, hook, backend.backend_type, ""))


class _Traced:
    # The methods are the instance's own, so that what isinstance() says of the backend holds for this too.
    def __init__(self, inner: Any, hook: TraceHook, backend: str, prefix: str, resource: str = "") -> None:
        self._inner = inner

        def call(name: str, *args: object) -> BackendCall:
            return BackendCall(backend=backend, operation=prefix + name, resource=resource or _resource(*args))

        def part(name: str, found: Any, resource: str) -> Any:
            return _Traced(found, hook, backend, _PARTS[name], resource)

        for name in dir(type(inner)):
            method = None if name.startswith("_") else getattr(inner, name, None)
            if inspect.iscoroutinefunction(method):
                setattr(self, name, _through(hook, functools.partial(call, name), method, name, part))
            elif name in _PARTS and callable(method):
                setattr(self, name, lambda given, name=name, method=method: part(name, method(given), given))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __repr__(self) -> str:
        return f"<traced {self._inner!r}>"

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _through(
    hook: TraceHook,
    call: Callable[..., BackendCall],
    method: Callable[..., Awaitable[Any]],
    name: str,
    part: Callable[[str, Any, str], Any],
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def through(*args: Any, **keywords: Any) -> Any:
        with hook(call(*args)):
            found = await method(*args, **keywords)
        return part(name, found, found.id) if name in _PARTS else found

    return through


def _resource(first: object = "", *_: object) -> str:
    if isinstance(first, ContainerConfig):
        return first.name or first.image
    return first if isinstance(first, str) else ""
