"""The engine's HTTP API: connections, version, calls, and errors translated at the edge."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlencode

import aiohttp
import attrs

from asyncctr.backends.docker.errors import BACKEND, translate
from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    ClosedError,
    ConnectionLostError,
    OperationTimeoutError,
    UnsupportedError,
)
from asyncctr.transport.http1 import HttpStream, PendingStream, start_stream
from asyncctr.transport.http1_calls import Call, CallPool

if TYPE_CHECKING:
    from asyncctr.backends.docker.endpoint import Endpoint
    from asyncctr.transport.dial import Dialer

__all__ = [
    "NEWEST",
    "NOT_MODIFIED",
    "OLDEST",
    "DockerApi",
    "Opening",
    "Pending",
    "message_of",
    "negotiate",
    "parse_version",
]

logger = logging.getLogger(__name__)

OLDEST = (1, 41)
"""Docker 20.10, and what Podman's socket speaks: the oldest version this backend was checked against."""
NEWEST = (1, 51)
"""Docker 28.5: the newest."""

_NO_TIMEOUT = aiohttp.ClientTimeout()
_NOTHING: Mapping[str, str] = {}
_JSON: Mapping[str, str] = {"Content-Type": "application/json"}
_ANSWER_LIMIT = 256 << 20
_INSPECTIONS = 16
_HOST = "docker"
_PLAIN_PATH = re.compile(r"[a-zA-Z0-9/_.-]*")
_MESSAGE_LIMIT = 1 << 20

Json = Any
Params = Mapping[str, str | int | bool | Sequence[str]]


def parse_version(version: str) -> tuple[int, int]:
    """``"1.41"`` as numbers."""
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def negotiate(offered: str, minimum: str, wanted: str = "") -> str:
    """The version to speak: ``wanted`` if the engine has it, else the newest that both sides know.

    Args:
        offered: the engine's ``ApiVersion``.
        minimum: its ``MinAPIVersion``; empty for the oldest.
        wanted: the user's choice; empty to negotiate.

    Raises:
        UnsupportedError: there is none.
    """
    newest, oldest = parse_version(offered), parse_version(minimum or "1.12")
    if wanted:
        if not oldest <= parse_version(wanted) <= newest:
            message = f"api_version: the engine speaks {minimum or '1.12'} to {offered}, not {wanted}"
            raise UnsupportedError(message, field="api_version", backend=BACKEND)
        return wanted
    chosen = min(newest, NEWEST)
    if chosen < OLDEST or chosen < oldest:
        message = (
            f"the engine speaks API {minimum or '1.12'} to {offered}; this package needs one of "
            f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} (Docker 20.10 or newer)"
        )
        raise UnsupportedError(message, field="api_version", backend=BACKEND)
    return f"{chosen[0]}.{chosen[1]}"


def _query(params: Params | None) -> str:
    if not params:
        return ""
    if all(
        (type(value) is str and value.isascii() and value.isalnum()) or isinstance(value, int)
        for value in params.values()
    ):
        # Quoting is dear, and most values need none.
        return "?" + "&".join(
            f"{key}={int(value) if value is True or value is False else value}" for key, value in params.items()
        )
    plain = {key: int(value) if isinstance(value, bool) else value for key, value in params.items()}
    return "?" + urlencode(plain, doseq=True)


@attrs.frozen
class Pending:
    """A call that was sent, and what it was about."""

    call: Call
    what: str
    resource: str


@attrs.frozen
class Opening:
    """A stream whose request was sent, and what it is about."""

    pending: PendingStream
    what: str
    resource: str


class DockerApi:
    """One engine at one place. Calls share pooled connections; streams have a connection each, which their handle owns."""

    def __init__(self, endpoint: Endpoint, dialer: Dialer, *, op_timeout: float) -> None:
        self.endpoint = endpoint
        self.op_timeout = op_timeout
        self.version = ""
        self.dialer = dialer
        self._calls = CallPool(dialer.connect, host=_HOST, connect_timeout=op_timeout)
        self.inspections = asyncio.Semaphore(_INSPECTIONS)
        self._prefix = ""
        self._closed = False
        self.session = aiohttp.ClientSession(
            connector=dialer.connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_NO_TIMEOUT,
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )

    def pin(self, version: str) -> None:
        """Speak this version from now on."""
        self.version = version
        self._prefix = f"/v{version}"

    async def aclose(self) -> None:
        """Close the pooled connections, by a deadline; streams belong to their handles."""
        self._closed = True
        self._calls.close()
        try:
            async with asyncio.timeout(5):
                await self.session.close()
        except TimeoutError:
            logger.warning("connections to %s did not close within 5 s", self.endpoint)

    def target(self, path: str, params: Params | None = None) -> str:
        """The request target: version, quoted path and query."""
        if not _PLAIN_PATH.fullmatch(path):
            path = quote(path, safe="/:@")
        return f"{self._prefix}{path}{_query(params)}"

    def check_open(self) -> None:
        """Raise ``ClosedError`` after ``aclose``."""
        if self._closed:
            msg = "this docker backend is closed"
            raise ClosedError(msg, backend=BACKEND)

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: Json = None,
        kind: str = "",
        resource: str = "",
        timeout: float | None = None,  # noqa: ASYNC109  # the caller's deadline is op_timeout's, translated here
    ) -> Json:
        """One call with a JSON answer, parsed; ``None`` for an empty one (204, and 304: nothing to do).

        Raises:
            AsyncctrError: as the answer's status and message mean for that ``kind`` of ``resource``.
        """
        pending = await self.begin(method, path, params=params, body=body, resource=resource)
        try:
            return await self.answer(pending, kind=kind, timeout=timeout)
        except asyncio.CancelledError:
            pending.call.close()
            raise

    async def begin(
        self, method: str, path: str, *, params: Params | None = None, body: Json = None, resource: str = ""
    ) -> Pending:
        """Send a call. Its answer can be awaited by somebody else when the first to wait is cancelled."""
        self.check_open()
        what = f"{method} {path}"
        try:
            call = await self._calls.send(
                method,
                self.target(path, params),
                headers=_NOTHING if body is None else _JSON,
                body=b"" if body is None else json.dumps(body).encode(),
            )
        except (AsyncctrError, OSError) as error:
            if isinstance(error, TimeoutError) and error.errno is None:
                raise self._unreached(resource) from error
            self._raise(error, what, resource)
        return Pending(call, what, resource)

    async def answer(self, pending: Pending, *, kind: str = "", timeout: float | None = None) -> Json:  # noqa: ASYNC109
        """The answer to a call that was begun; see :meth:`call`."""
        seconds = timeout or self.op_timeout
        resource = pending.resource
        try:
            status, text = await pending.call.answer(timeout=seconds, limit=_ANSWER_LIMIT)
        except TimeoutError as error:
            message = f"the engine did not answer {pending.what} within {seconds:g} s"
            raise OperationTimeoutError(message, backend=BACKEND, resource=resource) from error
        except (AsyncctrError, OSError) as error:
            self._raise(error, pending.what, resource)
        if status >= 300:
            if status == 304:
                return NOT_MODIFIED
            raise translate(status, message_of(text), resource=resource, kind=kind)
        if not text.strip():  # podman answers some calls with a newline
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            message = f"the engine answered {pending.what} with something that is not JSON: {text[:100]!r}"
            raise AsyncctrError(message, backend=BACKEND, resource=resource, status=status) from error

    def _unreached(self, resource: str) -> OperationTimeoutError:
        message = f"connecting to {self.endpoint} took longer than {self.op_timeout:g} s. {self.endpoint.advice}"
        return OperationTimeoutError(message, backend=BACKEND, resource=resource)

    def _raise(self, error: AsyncctrError | OSError, what: str, resource: str) -> NoReturn:
        """What went wrong below, as what it means for the call."""
        if isinstance(error, ConnectionLostError):
            if isinstance(error.__cause__, ssl.SSLError) and "ALERT" in str(error.__cause__):
                # With TLS 1.3 a server refuses a client's certificate only after the handshake.
                message = (
                    f"{self.endpoint} ended the TLS connection: {error.__cause__}. Does it accept this client's "
                    "certificate (tls.cert_file and tls.key_file, or DOCKER_CERT_PATH)?"
                )
                raise BackendUnavailableError(message, backend=BACKEND, resource=resource) from error
            message = f"the engine went away during {what}: {error.message}"
            raise ConnectionLostError(message, backend=BACKEND, resource=resource, status=error.status) from error
        if isinstance(error, AsyncctrError):
            error.backend, error.resource = error.backend or BACKEND, error.resource or resource
            raise error
        advice = self.endpoint.advice
        if isinstance(error, ssl.SSLCertVerificationError):
            advice = (
                "Is its certificate from the authority in tls.ca_file (or DOCKER_CERT_PATH), and for this host name?"
            )
        message = f"cannot connect to {self.endpoint}: {error.strerror or error}. {advice}"
        raise BackendUnavailableError(message, backend=BACKEND, resource=resource, status=error.errno) from error

    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        upgrade: str | None = None,
        kind: str = "",
        resource: str = "",
    ) -> HttpStream:
        """A call on a connection of its own whose body is read as it comes. Returns with the response's head."""
        opening = await self.open(
            method, path, params=params, headers=headers, body=body, upgrade=upgrade, resource=resource
        )
        return await self.opened(opening, kind=kind)

    async def open(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        upgrade: str | None = None,
        resource: str = "",
    ) -> Opening:
        """Send the request of a stream, whose answer :meth:`opened` awaits: several can be under way without a task each."""
        self.check_open()
        what = f"{method} {path}"
        try:
            async with asyncio.timeout(self.op_timeout):
                pending = await start_stream(
                    self.dialer.connect,
                    method,
                    self.target(path, params),
                    headers=headers or _NOTHING,
                    body=body,
                    upgrade=upgrade,
                    host=_HOST,
                )
        except TimeoutError as error:
            raise self._unreached(resource) from error
        except (AsyncctrError, OSError) as error:
            self._raise(error, what, resource)
        return Opening(pending, what, resource)

    async def opened(self, opening: Opening, *, kind: str = "", patient: bool = False) -> HttpStream:
        """The stream whose request was sent, once its head is here. Failed or cancelled, the connection is closed.

        ``patient`` is for an engine that sends the head with the first of the body, which may take for ever.
        """
        resource = opening.resource
        try:
            stream = await opening.pending.response(timeout=None if patient else self.op_timeout)
        except TimeoutError as error:
            message = f"the engine did not answer {opening.what} within {self.op_timeout:g} s"
            raise OperationTimeoutError(message, backend=BACKEND, resource=resource) from error
        except (AsyncctrError, OSError) as error:
            self._raise(error, opening.what, resource)
        if stream.status < 300:
            return stream
        try:
            async with asyncio.timeout(self.op_timeout):
                text = await stream.receive_all(_MESSAGE_LIMIT)
        except TimeoutError:
            text = b""
        finally:
            stream.close()
        raise translate(stream.status, message_of(text), resource=resource, kind=kind)


NOT_MODIFIED = object()
"""What a call gives for a 304: the state was already as asked."""


def message_of(body: bytes) -> str:
    """The message of an error answer: JSON as every engine sends it, or the plain text of old ones."""
    try:
        document = json.loads(body)
    except ValueError:
        return body.decode(errors="replace").strip()
    if isinstance(document, dict):
        message, cause = document.get("message", ""), document.get("cause", "")
        return f"{message}" if not cause or str(cause) in str(message) else f"{message}: {cause}"
    return str(document)
