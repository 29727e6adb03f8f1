"""QMP: commands to a running QEMU, and its events, over the unix socket of its monitor.

QEMU serves one client at a time: the next one is connected at once and greeted when the one before has gone. So several processes
share a virtual machine by connecting for each operation and closing again, which takes 0.4 ms; nobody keeps a connection open
that others have to pass. The specification is docs/interop/qmp-spec of QEMU.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, cast

import attrs

from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    ClosedError,
    ConnectionLostError,
    InvalidConfigError,
    NotFoundError,
    UnsupportedError,
)
from asyncctr.core.validation import FrozenMap
from asyncctr.transport.deadline import Deadline
from asyncctr.transport.dial import UnixDialer

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["BACKEND", "MAX_SOCKET_PATH", "Event", "Monitor", "check_socket_path", "listening_socket"]

BACKEND: Final = "nanos"
MAX_LINE: Final = 1 << 20
"""No answer has more bytes than this; the longest of QEMU's own, its whole schema, has a fifth of it."""
_KEPT_EVENTS: Final = 256
MAX_SOCKET_PATH: Final = 107
"""Bytes that a unix socket's path may have (unix(7): 108 with the NUL)."""
_WAITING: Final = 16
_LEFT_OVER: Final = 64


def check_socket_path(path: str) -> None:
    """Refuse a path that no unix socket can have (unix(7): 108 bytes with the NUL).

    Raises:
        InvalidConfigError: it is too long.
    """
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH:
        message = f"work_dir: {path} has {length} bytes, and the path of a unix socket may have {MAX_SOCKET_PATH}; use a shorter one"
        raise InvalidConfigError(message, field="work_dir", backend=BACKEND)


def listening_socket(path: str) -> socket.socket:
    """A socket for QEMU to inherit as its monitor, which then greets whoever has connected since.

    So nobody has to look for the socket of a QEMU that is starting, and a QEMU that fails to start is noticed as it closes it:
    close this one once the process has it.

    Raises:
        InvalidConfigError: the path is too long.
        OSError: it exists, or its directory does not.
    """
    check_socket_path(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        listener.listen(_WAITING)
    except OSError:
        listener.close()
        raise
    return listener


@attrs.frozen
class Event:
    """What QEMU tells unasked, such as ``SHUTDOWN`` with ``guest`` and ``reason`` in its data.

    Attributes:
        name: as QEMU has it: ``SHUTDOWN``, ``STOP``, ``RESUME``, ``POWERDOWN``, ``RESET``, ``GUEST_PANICKED``.
        data: what belongs to it.
    """

    name: str
    data: Mapping[str, Any] = attrs.field(factory=FrozenMap)


class Monitor:
    """One connection to a monitor, for one task: ``async with`` opens it, and closes it again.

    A connection that ends says nothing about the virtual machine: how that has ended is for who supervises its process to tell.

    Args:
        path: of the socket.
        timeout: seconds for the connection with its greeting, and again for each command; ``None`` for as long as it takes.
        resource: whose monitor it is, for errors.
    """

    def __init__(self, path: str, *, timeout: float | None, resource: str = "") -> None:
        self._path = path
        self._timeout = timeout
        self._resource = resource
        self._reader: asyncio.StreamReader | None = None
        self._transport: asyncio.Transport | None = None
        self._serial = 0
        # The newest, where nobody asks for them: a guest that resets all the time must not fill our memory.
        self._events: deque[Event] = deque(maxlen=_KEPT_EVENTS)

    async def __aenter__(self) -> Self:
        """Connect, and wait for the greeting.

        Raises:
            BackendUnavailableError: no QEMU listens there.
            ConnectionLostError: it went away meanwhile, or it is no QEMU.
            OperationTimeoutError: it did not greet in time: it hangs, or another client does not let go of it.
        """
        try:
            async with Deadline(
                self._timeout,
                f"QEMU did not greet at {self._path} (it serves one client at a time)",
                backend=BACKEND,
                resource=self._resource,
            ):
                await self._connect()
                await self._negotiate()
        except BaseException:  # a cancellation, too
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """What a command returns.

        Raises:
            UnsupportedError: this QEMU has no such command.
            NotFoundError: it has no such device.
            ConnectionLostError: it went away before the answer. Whether it did what it was told is unknown.
            OperationTimeoutError: it did not answer in time.
            ClosedError: the connection is closed.
            AsyncctrError: it refused; the message has its reason, ``status`` the class of its error.
        """
        try:
            async with Deadline(
                self._timeout, f"QEMU did not answer {command}", backend=BACKEND, resource=self._resource
            ):
                answer = await self._call(command, arguments or {})
        except BaseException:
            # Its answer may still come, and would be taken for that of the next command.
            self._close()
            raise
        if isinstance(error := answer.get("error"), dict):
            raise self._refused(command, error)
        return answer["return"]

    async def status(self) -> str:
        """The run state: ``running``, ``paused``, ``prelaunch`` before the first instruction, ``internal-error`` and others.

        Raises:
            AsyncctrError: as :meth:`execute`.
        """
        answer = await self.execute("query-status")
        status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(status, str):
            self._malformed("its state is no text")
        return status

    async def human(self, line: str) -> str:
        """What the monitor for people prints for a line. It tells of errors in the same way, in words.

        Raises:
            AsyncctrError: as :meth:`execute`.
        """
        answer = await self.execute("human-monitor-command", {"command-line": line})
        if not isinstance(answer, str):
            self._malformed("what it printed is no text")
        return answer

    async def quit(self) -> None:
        """Tell QEMU to end. That its process has ended is for who watches it to tell.

        Raises:
            AsyncctrError: as :meth:`execute`, but for a connection that is lost: QEMU may be gone before it has answered.
        """
        try:
            await self.execute("quit")
        except ConnectionLostError:
            pass

    async def next_event(self) -> Event:
        """The next event, among them those that came while commands were waited for; no deadline.

        Raises:
            ConnectionLostError: QEMU went away, after all of its events were given out.
            ClosedError: the connection is closed.
        """
        try:
            while not self._events:
                self._note(await self._receive())
        except BaseException:
            self._close()
            raise
        return self._events.popleft()

    async def _connect(self) -> None:
        def factory() -> asyncio.StreamReaderProtocol:
            self._reader = asyncio.StreamReader(limit=MAX_LINE)
            return asyncio.StreamReaderProtocol(self._reader)

        try:
            transport, _ = await UnixDialer(self._path).connect(factory)
        except OSError as error:
            message = f"no QEMU listens at {self._path}: {error.strerror or error}"
            raise BackendUnavailableError(
                message, backend=BACKEND, resource=self._resource, status=error.errno
            ) from error
        self._transport = cast("asyncio.Transport", transport)

    async def _negotiate(self) -> None:
        for _ in range(_LEFT_OVER):
            message = await self._receive()
            if "QMP" in message:
                break
            # What the client before did not stay for, where QEMU had no chance to send it.
            if not message.keys() & {"event", "return", "error"}:
                self._malformed("its first word is no greeting")
        else:
            self._malformed("it does not greet")
        answer = await self._call("qmp_capabilities", {})
        if isinstance(error := answer.get("error"), dict):
            raise self._refused("qmp_capabilities", error)

    async def _call(self, command: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        if self._transport is None:
            raise ClosedError("this connection to QEMU is closed", backend=BACKEND, resource=self._resource)
        self._serial += 1
        request = {"execute": command, "arguments": dict(arguments), "id": self._serial}
        self._transport.write(json.dumps(request).encode() + b"\n")
        while True:
            answer = await self._receive()
            if "event" in answer:
                self._note(answer)
            elif answer.get("id") == self._serial and ("return" in answer or isinstance(answer.get("error"), dict)):
                return answer
            else:
                self._malformed("an answer that belongs to no command")

    async def _receive(self) -> dict[str, Any]:
        """The next message, whatever it is."""
        if self._reader is None or self._transport is None:
            raise ClosedError("this connection to QEMU is closed", backend=BACKEND, resource=self._resource)
        try:
            line = await self._reader.readline()
        except ValueError as error:
            self._malformed(f"a line of more than {MAX_LINE} bytes", error)
        except OSError as error:
            raise self._lost(error.strerror or type(error).__name__) from error
        if not line.endswith(b"\n"):
            raise self._lost("it closed the connection")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            self._malformed("a line that is not JSON", error)
        if not isinstance(message, dict):
            self._malformed("a line that is no object")
        return message

    def _note(self, message: dict[str, Any]) -> None:
        name, data = message.get("event"), message.get("data", {})
        if not isinstance(name, str) or not isinstance(data, dict):
            self._malformed("an event without its name")
        self._events.append(Event(name, FrozenMap(data)))

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _lost(self, reason: str) -> ConnectionLostError:
        message = f"the connection to QEMU at {self._path} was lost: {reason}"
        return ConnectionLostError(message, backend=BACKEND, resource=self._resource)

    def _malformed(self, what: str, cause: Exception | None = None) -> NoReturn:
        self._close()
        raise self._lost(f"what answers there does not speak QMP ({what})") from cause

    def _refused(self, command: str, error: dict[str, Any]) -> AsyncctrError:
        kind, reason = str(error.get("class", "")), str(error.get("desc", ""))
        message = f"QEMU refused {command}: {reason}"
        if kind == "CommandNotFound":
            return UnsupportedError(message, field=command, backend=BACKEND, resource=self._resource, status=kind)
        refusal = NotFoundError if kind == "DeviceNotFound" else AsyncctrError
        return refusal(message, backend=BACKEND, resource=self._resource, status=kind)
