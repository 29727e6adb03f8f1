"""Host ports that lead into the network of a rootless daemon: rootlesskit binds them, and is told by its API (version 1.1)."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import TYPE_CHECKING, Any, Final, Self

from asyncctr.core.errors import BackendUnavailableError, InvalidConfigError, OperationTimeoutError, UnsupportedError
from asyncctr.netns.ports import FIELD, taken
from asyncctr.transport.dial import UnixDialer
from asyncctr.transport.http1_calls import CallPool

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from types import TracebackType

    from asyncctr.core.network import PortMapping

__all__ = ["Forwarder"]

_TIMEOUT: Final = 10.0
_LIMIT: Final = 1 << 20
_PORTS: Final = "/v1/ports"
# Go's words for EADDRINUSE, and rootlesskit's own for a port that it has bound itself.
_TAKEN: Final = re.compile(r"address already in use|conflict with ID")


class Forwarder:
    """Publishes ports of containers by rootlesskit's port driver, which dials them by their own addresses.

    What is published is kept by rootlesskit alone, and found by the container's address: any process can take it back, and a
    rootlesskit that has ended has taken everything with it.

    Args:
        api_socket: of rootlesskit.
    """

    def __init__(self, api_socket: str) -> None:
        self._api_socket = api_socket

    async def publish(self, ports: Sequence[PortMapping], addresses: Sequence[str]) -> None:
        """Have ports lead to the first of a container's addresses. Failed or cancelled, some may: :meth:`withdraw` them.

        Raises:
            BackendUnavailableError: rootlesskit does not answer.
            ConflictError: a port is taken.
            InvalidConfigError: an address is none of this host's, or a port is not for this user.
            UnsupportedError: the container has no address.
        """
        if not addresses:
            message = f"{FIELD}: the network gives containers no address that a port could lead to"
            raise UnsupportedError(message, field=FIELD)
        async with _Api(self._api_socket) as api:
            for port in ports:
                spec = {
                    # With the version: "tcp" on 0.0.0.0 would take the port of IPv6 as well.
                    "proto": f"{port.protocol}{ipaddress.ip_address(port.host_ip).version}",
                    "parentIP": port.host_ip,
                    "parentPort": port.host_port,
                    "childIP": addresses[0],
                    "childPort": port.container_port,
                }
                status, answer = await api.call("POST", _PORTS, spec)
                if status != 201:
                    reason = _message(answer)
                    if _TAKEN.search(reason):
                        raise taken(port)
                    message = f"{FIELD}: {port.host_ip} port {port.host_port} cannot be used: {reason}"
                    raise InvalidConfigError(message, field=FIELD, status=status)

    async def withdraw(self, addresses: Collection[str]) -> None:
        """Take back all ports that lead to these addresses. Idempotent.

        Raises:
            BackendUnavailableError: rootlesskit does not answer, although it is there.
        """
        async with _Api(self._api_socket) as api:
            for number, address in (await api.published()).items():
                if address in addresses:
                    # Refused where another process was faster.
                    await api.call("DELETE", f"{_PORTS}/{number}")

    async def addresses(self) -> Sequence[str]:
        """The addresses that ports lead to, each as often as there are ports.

        Raises:
            BackendUnavailableError: as :meth:`withdraw`.
        """
        async with _Api(self._api_socket) as api:
            return tuple((await api.published()).values())


class _Api:
    """One connection to the API."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pool = CallPool(UnixDialer(path).connect, host="rootlesskit", connect_timeout=_TIMEOUT)

    async def call(
        self, method: str, target: str, document: dict[str, Any] | None = None, *, missing: bytes | None = None
    ) -> tuple[int, bytes]:
        """Status and body of an answer; ``missing``, where that is given, if nobody listens."""
        body = b"" if document is None else json.dumps(document).encode()
        headers = {} if document is None else {"content-type": "application/json"}
        try:
            call = await self._pool.send(method, target, headers=headers, body=body)
            return await call.answer(timeout=_TIMEOUT, limit=_LIMIT)
        except TimeoutError as error:
            message = f"rootlesskit did not answer at {self._path} within {_TIMEOUT:g} s"
            raise OperationTimeoutError(message) from error
        except OSError as error:
            if missing is not None and isinstance(error, FileNotFoundError | ConnectionRefusedError):
                return 200, missing
            message = f"rootlesskit cannot be reached at {self._path}: {error.strerror}"
            raise BackendUnavailableError(message, status=error.errno) from error

    async def published(self) -> dict[int, str]:
        """The address that each port leads to, by its id; none where nobody listens."""
        status, answer = await self.call("GET", _PORTS, missing=b"null")
        if status != 200:
            message = f"rootlesskit does not tell its ports: {_message(answer)}"
            raise BackendUnavailableError(message, status=status)
        return {int(entry["id"]): str(entry["spec"].get("childIP")) for entry in json.loads(answer) or ()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.close()


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return answer[:500].decode(errors="replace").strip()
