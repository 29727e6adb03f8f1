"""A deadline whose error is of the tree and says what was waited for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from asyncctr.core.errors import OperationTimeoutError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Deadline"]


class Deadline:
    """``async with``: what takes longer is cancelled, and is an ``OperationTimeoutError``.

    Args:
        seconds: how long it may take; ``None`` for as long as it does.
        message: for the error; the seconds are added.
        backend: for the error.
        resource: for the error.
    """

    def __init__(self, seconds: float | None, message: str, *, backend: str, resource: str = "") -> None:
        self._seconds = seconds
        self._message = message
        self._backend = backend
        self._resource = resource
        self._scope = asyncio.timeout(seconds)

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._scope.__aexit__(kind, error, traceback)
        except TimeoutError as expired:
            message = f"{self._message} within {self._seconds:g} s"
            raise OperationTimeoutError(message, backend=self._backend, resource=self._resource) from expired
