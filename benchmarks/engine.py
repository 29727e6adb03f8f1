"""Set-up and tidying on the daemon, by none of the contenders: plain HTTP over its unix socket (Engine API 1.41)."""

from __future__ import annotations

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["Engine", "EngineError"]

_TIMEOUT = 60.0
_AT_A_TIME = 4


class EngineError(Exception):
    """The daemon refused."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """The daemon at ``unix://`` and a path. It blocks: call it from a thread where there is an event loop."""

    def __init__(self, host: str) -> None:
        self._path = host.removeprefix("unix://")

    def call(self, method: str, target: str, body: object = None, *, fine: Collection[int] = ()) -> Any:
        """One call; its JSON.

        Raises:
            EngineError: the answer is an error, and not one of ``fine``.
            OSError: the daemon does not answer.
        """
        connection = _UnixConnection(self._path)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/v1.41{target}", data, {"Content-Type": "application/json"} if data else {})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status >= http.client.BAD_REQUEST and response.status not in fine:
            raise EngineError(f"{method} {target}: {response.status} {text.decode(errors='replace')}")
        return json.loads(text) if text.strip() else None

    def start(self, image: str, command: Sequence[str]) -> str:
        """A container that was started, without network; its id."""
        body = {"Image": image, "Cmd": list(command), "HostConfig": {"NetworkMode": "none"}}
        found = str(self.call("POST", "/containers/create", body)["Id"])
        self.call("POST", f"/containers/{found}/start")
        return found

    def start_many(self, image: str, command: Sequence[str], count: int) -> list[str]:
        """Several of them."""
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            return list(pool.map(lambda _: self.start(image, command), range(count)))

    def wait(self, container: str) -> int:
        """Its exit code."""
        return int(self.call("POST", f"/containers/{container}/wait")["StatusCode"])

    def kill(self, container: str, signal: str) -> None:
        """Send it a signal."""
        self.call("POST", f"/containers/{container}/kill?signal={signal}", fine=(404, 409))

    def remove(self, containers: Collection[str]) -> None:
        """Remove them, running or not."""
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            list(pool.map(self._remove, containers))

    def _remove(self, container: str) -> None:
        self.call("DELETE", f"/containers/{container}?force=1&v=1", fine=(404, 409))

    def containers(self) -> set[str]:
        """The ids of all containers."""
        return {str(entry["Id"]) for entry in self.call("GET", "/containers/json?all=1")}

    def version(self) -> dict[str, str]:
        """The versions of the daemon and of what it runs."""
        answer = self.call("GET", "/version")
        return {str(part["Name"]).lower(): str(part["Version"]) for part in answer["Components"]}
