"""CNI plugins: run in their order, their results handed on, their errors told by meaning (CNI specification 1.0)."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    ConflictError,
    ConnectionLostError,
    ResourceExhaustedError,
    StartError,
)
from asyncctr.core.validation import FrozenMap
from asyncctr.netns.conflist import Conflist
from asyncctr.netns.runner import HOST, Finished, Runner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

__all__ = ["DIRECTORIES", "PACKAGE", "Call", "Cni"]

PACKAGE: Final = "containernetworking-plugins"
"""Debian's package of the plugins."""
DIRECTORIES: Final = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
"""Where plugins are looked for: upstream's and containerd's place, Debian's and Fedora's."""
_TIMEOUT: Final = 60.0
_TRY_AGAIN: Final = 11
"""The specification's code for "try again later"."""

_MEANINGS: Final[tuple[tuple[re.Pattern[str], type[AsyncctrError], str], ...]] = (
    (
        re.compile(r"failed to find plugin"),
        BackendUnavailableError,
        f"; install it (Debian, Ubuntu: apt-get install {PACKAGE})",
    ),
    (
        re.compile(r'"ip6?tables": executable file not found|could not initialize iptables'),
        BackendUnavailableError,
        "; install iptables (Debian, Ubuntu: apt-get install iptables)",
    ),
    (
        re.compile(r"no IP addresses available"),
        ResourceExhaustedError,
        "; remove containers, or make a network with a larger subnet",
    ),
    (
        re.compile(r"requested IP address \S+ is not available|duplicate allocation|already (been )?allocated"),
        ConflictError,
        "; another container has it",
    ),
    (
        re.compile(r"(?i)no space left|too many open files|cannot allocate memory|no buffer space"),
        ResourceExhaustedError,
        "",
    ),
    (re.compile(r"(?i)operation not permitted|permission denied"), BackendUnavailableError, "; it takes root"),
)


@attrs.frozen(kw_only=True)
class Call:
    """What an ADD is made with, and the DEL that undoes it.

    Attributes:
        network: the plugins and their configurations.
        container_id: as plugins know the container.
        netns: the path of its network namespace; empty at the DEL of one that is gone.
        ifname: the interface's name in there.
        runtime: by capability, such as ``portMappings``; a plugin gets what it takes.
    """

    network: Conflist
    container_id: str
    netns: str
    ifname: str = "eth0"
    runtime: Mapping[str, Any] = attrs.field(factory=FrozenMap, hash=False)


class Cni:
    """Runs plugins.

    Args:
        directories: where they are, in front of :data:`DIRECTORIES` and of those in ``CNI_PATH``.
        runner: whose namespaces they act in.
    """

    def __init__(self, directories: Sequence[str] = (), runner: Runner = HOST) -> None:
        given = [part for part in os.environ.get("CNI_PATH", "").split(":") if part]
        self._directories = (*directories, *given, *DIRECTORIES)
        self._runner = runner

    def find(self, kind: str) -> str:
        """The path of a plugin.

        Raises:
            BackendUnavailableError: it is not installed.
        """
        # A name alone: it comes from a configuration file, and "../" has no meaning there.
        for directory in self._directories if "/" not in kind else ():
            path = Path(directory) / kind
            if path.is_file() and os.access(path, os.X_OK):
                return str(path)
        message = (
            f"the CNI plugin {kind} is not in {', '.join(self._directories)}; "
            f"install it (Debian, Ubuntu: apt-get install {PACKAGE})"
        )
        raise BackendUnavailableError(message, resource=kind)

    def require(self, network: Conflist) -> None:
        """Make sure that all plugins of a network are there, those for addresses included.

        Raises:
            BackendUnavailableError: one is not installed.
        """
        for plugin in network.plugins:
            self.find(plugin["type"])
            if kind := (plugin.get("ipam") or {}).get("type"):
                self.find(str(kind))

    async def versions(self, kind: str) -> frozenset[str]:
        """The versions of the specification that a plugin knows (section "VERSION").

        Raises:
            BackendUnavailableError: it is not installed, or does not tell.
        """
        finished = await self._execute(kind, {"CNI_COMMAND": "VERSION"}, {"cniVersion": "1.0.0"})
        answer = _object(finished.stdout)
        if finished.returncode or not isinstance(answer.get("supportedVersions"), list):
            message = f"the CNI plugin {kind} does not tell its versions: {finished.words}"
            raise BackendUnavailableError(message, resource=kind)
        return frozenset(str(version) for version in answer["supportedVersions"])

    async def add(
        self,
        call: Call,
        *,
        on_result: Callable[[Mapping[str, Any]], Awaitable[None]],
        pass_fds: Sequence[int] = (),
    ) -> Mapping[str, Any]:
        """Connect a container: every plugin's ADD, each with the result of the one before.

        Args:
            call: what to do.
            on_result: told each result before the next plugin runs, so that it can be kept for the DEL.
            pass_fds: descriptors that plugins keep open while they run.

        Raises:
            AsyncctrError: a plugin failed. What was done until then is for :meth:`delete`.
        """
        result: Mapping[str, Any] = {}
        for plugin in call.network.plugins:
            result = await self._plugin("ADD", plugin, call, result, pass_fds)
            await on_result(result)
        return result

    async def delete(self, call: Call, result: Mapping[str, Any], *, pass_fds: Sequence[int] = ()) -> None:
        """Disconnect a container: every plugin's DEL in the reverse order, with the last result of ADD. Idempotent.

        Raises:
            AsyncctrError: the first failure; the other plugins have done their part.
        """
        first: AsyncctrError | None = None
        for plugin in reversed(call.network.plugins):
            try:
                await self._plugin("DEL", plugin, call, result, pass_fds)
            except AsyncctrError as error:
                first = first or error
        if first is not None:
            raise first

    async def _plugin(
        self,
        command: str,
        plugin: Mapping[str, Any],
        call: Call,
        result: Mapping[str, Any],
        pass_fds: Sequence[int],
    ) -> Mapping[str, Any]:
        capabilities = plugin.get("capabilities") or {}
        runtime = {key: value for key, value in call.runtime.items() if capabilities.get(key)}
        config = {key: value for key, value in plugin.items() if key != "capabilities"}
        config.update(cniVersion=call.network.version, name=call.network.name)
        if runtime:
            config["runtimeConfig"] = runtime
        if result:
            config["prevResult"] = result
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": call.container_id,
            "CNI_NETNS": call.netns,
            "CNI_IFNAME": call.ifname,
        }
        kind = plugin["type"]
        finished = await self._execute(kind, variables, config, pass_fds)
        if finished.returncode:
            raise _failure(command, kind, call, finished)
        if command != "ADD":
            return {}
        answer = _object(finished.stdout)
        if not answer:
            message = f"the CNI plugin {kind} ended well without a result: {finished.words}"
            raise ConnectionLostError(message, resource=call.container_id)
        return answer

    async def _execute(
        self, kind: str, variables: Mapping[str, str], config: Mapping[str, Any], pass_fds: Sequence[int] = ()
    ) -> Finished:
        return await self._runner.run(
            self.find(kind),
            stdin=json.dumps(config).encode(),
            env={**variables, "CNI_PATH": ":".join(self._directories)},
            timeout=_TIMEOUT,
            pass_fds=pass_fds,
        )


def _object(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _failure(command: str, kind: str, call: Call, finished: Finished) -> AsyncctrError:
    answer = _object(finished.stdout)
    text = " ".join(": ".join(str(answer[key]) for key in ("msg", "details") if answer.get(key)).split())
    words = text or finished.words or f"status {finished.returncode}"
    code = answer.get("code")
    status = code if isinstance(code, int) else finished.returncode
    message = f"the CNI plugin {kind} failed at {command}: {words[:1000]}"
    for pattern, error, hint in _MEANINGS:
        if pattern.search(words):
            return error(message + hint, resource=call.container_id, status=status)
    if status == _TRY_AGAIN:
        return ResourceExhaustedError(message, resource=call.container_id, status=status)
    console = finished.stderr.decode(errors="replace")[-4096:]
    return StartError(message, console=console, resource=call.container_id, status=status)
