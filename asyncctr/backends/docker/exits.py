"""How a container ends, and that it starts: waits and events, each on a connection of its own."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from asyncctr.backends.docker.errors import BACKEND, translate
from asyncctr.core.errors import AsyncctrError, ConnectionLostError, ContainerNotFoundError

if TYPE_CHECKING:
    from asyncctr.backends.docker.api import DockerApi, Opening
    from asyncctr.transport.http1 import HttpStream

__all__ = ["ExitWait", "begin_exit_wait", "describe", "exit_wait", "open_exit_wait", "wait_for_start"]

_ANSWER_LIMIT = 1 << 20
_SERVER_ERROR = 500
# Seconds between attempts to ask about a container that ends at that moment.
_ENDING = (0.02, 0.1, 0.3)
# What Podman says of a container's state that it reads while it is being written.
_TORN = "unexpected end of JSON input"
# Engines send no event for a start that fails, so a waiter for another process's start looks again this often, in seconds.
_RECHECK = 5.0


class ExitWait:
    """A registered wait: the engine has answered with headers and sends the exit code when it comes."""

    __slots__ = ("_api", "_container_id", "_stream", "_text")

    def __init__(self, api: DockerApi, stream: HttpStream, container_id: str) -> None:
        self._api = api
        self._stream = stream
        self._container_id = container_id
        self._text = b""

    async def code(self) -> int:
        """The exit code. Cancelled, it can be asked for again; so can a code that was given.

        Raises:
            ConnectionLostError: the engine went away first.
            ContainerNotFoundError: the container was removed, and the engine does not know how it ended.
        """
        for pause in (*_ENDING, None):
            try:
                return await self._code()
            except AsyncctrError as error:
                if pause is None or error.status != _SERVER_ERROR or _TORN not in error.message:
                    raise
                await asyncio.sleep(pause)
                await self._register_again()
        raise AssertionError  # the last round returns or raises

    async def _register_again(self) -> None:
        created = await _status(self._api, self._container_id) == "created"
        again = await open_exit_wait(self._api, self._container_id, "next-exit" if created else "not-running")
        self._stream.close()
        self._stream, self._text = again._stream, b""  # noqa: SLF001  # the same class

    async def _code(self) -> int:
        while data := await self._stream.receive():
            self._text += data
            if len(self._text) > _ANSWER_LIMIT:
                break
        text = self._text
        try:
            answer = json.loads(text)
            code = int(answer["StatusCode"])
            failure = (answer.get("Error") or {}).get("Message")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"the engine ended a wait without an exit code: {text[:200]!r}"
            raise ConnectionLostError(message, backend=BACKEND, resource=self._container_id) from error
        if failure and code <= 0:
            # Inside a successful answer, beside a code that means nothing: Podman, for a container that was removed. (Docker
            # has an error for one that exited, too, such as a failed start, and a code that is true.)
            raise translate(_SERVER_ERROR, str(failure), resource=self._container_id, kind="container")
        if code < 0:
            message = f"container {self._container_id[:12]} was removed before it was started"
            raise ContainerNotFoundError(message, backend=BACKEND, resource=self._container_id)
        return code

    def close(self) -> None:
        """Release the connection."""
        self._stream.close()


async def begin_exit_wait(api: DockerApi, container_id: str, condition: str) -> Opening:
    """Ask for a wait: ``not-running`` for what runs or has ended, ``next-exit`` for what has not started, ``removed``."""
    return await api.open(
        "POST", f"/containers/{container_id}/wait", params={"condition": condition}, resource=container_id
    )


async def exit_wait(api: DockerApi, opening: Opening) -> ExitWait:
    """The wait that was asked for, once the engine has registered it."""
    return ExitWait(api, await api.opened(opening, kind="container"), opening.resource)


async def open_exit_wait(api: DockerApi, container_id: str, condition: str) -> ExitWait:
    """Register a wait; the conditions are those of :func:`begin_exit_wait`."""
    return await exit_wait(api, await begin_exit_wait(api, container_id, condition))


async def wait_for_start(api: DockerApi, container_id: str) -> None:
    """Return once a created container has been started, by anyone.

    Raises:
        ContainerNotFoundError: it was removed instead.
    """
    filters = json.dumps(
        {"type": ["container"], "container": [container_id], "event": ["start", "die", "destroy", "remove"]}
    )
    events = await api.stream("GET", "/events", params={"filters": filters}, resource=container_id)
    try:
        # Registered, so that a start from here on is seen; one before it shows in the state.
        while (await _status(api, container_id)) == "created":
            try:
                async with asyncio.timeout(_RECHECK):
                    data = await events.receive()
            except TimeoutError:
                continue
            if not data:
                message = "the engine ended the event stream while a start was awaited"
                raise ConnectionLostError(message, backend=BACKEND, resource=container_id)
    finally:
        events.close()


async def _status(api: DockerApi, container_id: str) -> str:
    document = await describe(api, container_id)
    return str(document["State"]["Status"]).replace("configured", "created").replace("initialized", "created")


async def describe(api: DockerApi, container_id: str) -> dict[str, Any]:
    """``GET /containers/{id}/json``.

    Raises:
        ContainerNotFoundError: there is none with exactly this id; engines would take a prefix or a name as well.
    """
    # Thousands may ask at once, as when waits are opened; the engine answers no faster on more connections.
    async with api.inspections:
        document = await _inspect(api, container_id)
    if document.get("Id") != container_id:
        message = f"no container has the id {container_id!r} (a full id is needed, not a name or prefix)"
        raise ContainerNotFoundError(message, backend=BACKEND, resource=container_id, status=404)
    return document


async def _inspect(api: DockerApi, container_id: str) -> dict[str, Any]:
    for pause in (*_ENDING, None):
        try:
            document: dict[str, Any] = await api.call(
                "GET", f"/containers/{container_id}/json", kind="container", resource=container_id
            )
        except AsyncctrError as error:
            # Podman, of a container whose process ends while it is being described: it reads that process's /proc.
            if pause is None or error.status != _SERVER_ERROR or "no such process" not in error.message:
                raise
            await asyncio.sleep(pause)
        else:
            return document
    raise AssertionError  # the last round returns or raises
