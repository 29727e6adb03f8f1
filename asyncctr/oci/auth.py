"""Registry credentials from the Docker and Podman configuration files and their credential helpers."""

# ruff: noqa: ASYNC109 - the timeout is for each call of a helper, which no caller's scope can say

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import anyio
import anyio.to_thread
import attrs

from asyncctr.core.errors import InvalidConfigError, RegistryAuthError
from asyncctr.core.images import RegistryAuth
from asyncctr.core.validation import FrozenMap, check_text, check_token, fail

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DOCKER_HUB_SERVER",
    "all_credentials",
    "docker_config_header",
    "docker_header",
    "find_credentials",
    "server_address",
]

logger = logging.getLogger(__name__)

DOCKER_HUB_SERVER = "https://index.docker.io/v1/"
"""What Docker Hub is called in configuration files, by helpers and in headers."""

_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_MAX_FILE = 16 << 20
_MAX_ANSWER = 1 << 20
_PARALLEL_HELPERS = 4
_REAP_SECONDS = 2.0
# The name becomes part of a program's name; a '/' in it would run a file that is not on PATH.
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
# docker-credential-helpers, credentials/error.go: on standard output, with a non-zero exit.
_NOT_FOUND = b"credentials not found in native keychain"
# The user name with which a helper says that the secret is an identity token.
_IDENTITY_USER = "<token>"


class _HelperError(RegistryAuthError):
    """A helper could not be asked, as against a file that is wrong."""


def server_address(registry: str) -> str:
    """What a registry is called in configuration files and headers: its host and port, or Docker Hub's address.

    Scheme, user and path are taken off, as the Docker CLI does (``ConvertToHostname``).
    """
    host = registry.partition("://")[2] if "://" in registry else registry
    host = host.partition("/")[0].rpartition("@")[2].lower()
    return DOCKER_HUB_SERVER if host in _HUB_HOSTS else host


def _is_namespaced(key: str) -> bool:
    path = key.partition("://")[2] if "://" in key else key
    return path.partition("/")[2].strip("/") not in ("", "v1", "v2")


@attrs.frozen(kw_only=True)
class _ConfigFile:
    path: Path
    auths: Mapping[str, Mapping[str, object]] = attrs.field(repr=False)
    store: str
    helpers: Mapping[str, str]

    def helper(self, server: str) -> tuple[str, str]:
        """The helper for a server and the key it was found under; both empty for none."""
        for key in sorted(self.helpers, key=lambda key: key != server):
            if server_address(key) == server:
                # An empty name turns the general store off for this one registry.
                return self.helpers[key], key
        return self.store, server

    def entry(self, server: str) -> RegistryAuth | None:
        """What the file itself holds for a server."""
        keys = [key for key in self.auths if server_address(key) == server]
        # The Docker CLI takes any that matches; one for the whole registry is a better guess than one for a namespace.
        for key in sorted(keys, key=lambda key: (key != server, _is_namespaced(key))):
            auth = self._decode(self.auths[key], server)
            if auth is not None:
                return auth
        return None

    def _decode(self, entry: Mapping[str, object], server: str) -> RegistryAuth | None:
        texts: dict[str, str] = {}
        for name in ("auth", "username", "password", "identitytoken", "registrytoken"):
            value = entry.get(name)
            if value is not None and not isinstance(value, str):
                raise self._broken(server, f"'{name}' must be a string")
            texts[name] = value or ""
        username, password = texts["username"], texts["password"]
        if texts["auth"]:
            pair = _decode_pair(texts["auth"])
            if pair is None:
                raise self._broken(server, "'auth' must be the base64 form of 'user:password'")
            username, password = pair
        if not any((username, password, texts["identitytoken"], texts["registrytoken"])):
            return None
        try:
            return RegistryAuth(
                username=username,
                password=password,
                identity_token=texts["identitytoken"],
                registry_token=texts["registrytoken"],
                server=server,
            )
        except InvalidConfigError as error:
            raise self._broken(server, str(error)) from error

    def _broken(self, server: str, problem: str) -> RegistryAuthError:
        return RegistryAuthError(
            f"the entry for {server} in {self.path} is broken: {problem}; log out of that registry and in again",
            resource=server,
        )


def _decode_pair(text: str) -> tuple[str, str] | None:
    # An answer in place of an exception: a decoding error carries what it was decoding.
    try:
        decoded = base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    username, colon, password = decoded.partition(":")
    return (username, password.strip("\0")) if colon and username else None


async def find_credentials(
    registry: str, *, config_path: str | os.PathLike[str] | None = None, timeout: float = 30.0
) -> RegistryAuth | None:
    """The user's credentials for a registry; ``None`` when there are none.

    Read are ``$REGISTRY_AUTH_FILE`` where set (Podman's), then ``$DOCKER_CONFIG/config.json`` or
    ``~/.docker/config.json``. In each, a helper of ``credHelpers`` goes before the one of ``credsStore``, and a helper
    before the file's own ``auths``. A file that does not exist holds nothing, unless it was named by ``config_path``.

    Args:
        registry: a host name with an optional port, such as ``Reference.registry``; a scheme and path are ignored.
        config_path: the one file to read instead.
        timeout: seconds for each call of a helper.

    Raises:
        InvalidConfigError: ``registry`` is no host.
        RegistryAuthError: a file is unreadable or broken; a helper is missing, fails or does not answer.
    """
    check_token("registry", registry)
    server = server_address(registry)
    if not server:
        raise fail("registry", "must be a host name with an optional port")
    for config in await _load_all(config_path):
        auth = await _from_helper(config, server, (), timeout) or config.entry(server)
        if auth is not None:
            return auth
    return None


async def all_credentials(
    config_path: str | os.PathLike[str] | None = None, *, timeout: float = 30.0
) -> Mapping[str, RegistryAuth]:
    """All of the user's credentials by server address, for a build that may pull from any registry.

    The files are those of :func:`find_credentials`, and the first that has a registry wins. A helper that cannot be
    asked is logged as a warning and passed over: most builds need none of the registries it is for.

    Args:
        config_path: the one file to read instead.
        timeout: seconds for each call of a helper.

    Raises:
        RegistryAuthError: a file is unreadable or broken.
    """
    found: dict[str, RegistryAuth] = {}
    for config in await _load_all(config_path):
        # By server, the texts that its store knows it by.
        servers: dict[str, tuple[str, ...]] = {server_address(key): () for key in (*config.auths, *config.helpers)}
        held = {server: auth for server in servers if (auth := config.entry(server)) is not None}
        for key in await _listed(config, timeout):
            server = server_address(key)
            # Docker Desktop keeps tokens of its own under paths of Docker Hub's address.
            if not _is_namespaced(key):
                servers[server] = (*servers.get(server, ()), key)
        held |= await _from_helpers(config, servers, timeout)
        found = held | found
    return FrozenMap(found)


async def _from_helpers(
    config: _ConfigFile, servers: Mapping[str, tuple[str, ...]], timeout: float
) -> dict[str, RegistryAuth]:
    answers: dict[str, RegistryAuth] = {}
    limiter = anyio.CapacityLimiter(_PARALLEL_HELPERS)

    async def ask(server: str, keys: tuple[str, ...]) -> None:
        async with limiter:
            try:
                auth = await _from_helper(config, server, keys, timeout)
            except _HelperError as error:
                logger.warning("no credentials for %s: %s", server, error, extra={"registry": server})
                return
        if auth is not None:
            answers[server] = auth

    async with anyio.create_task_group() as group:
        for server, keys in servers.items():
            group.start_soon(ask, server, keys)
    return answers


async def _from_helper(config: _ConfigFile, server: str, keys: tuple[str, ...], timeout: float) -> RegistryAuth | None:
    helper, key = config.helper(server)
    if not helper:
        return None
    # Some helpers know a registry only by the very text it was stored or configured under.
    for address in dict.fromkeys((server, key, *keys)):
        answer = await _ask(config, helper, "get", address, timeout)
        if answer is None:
            continue
        username, secret = answer.get("Username", ""), answer.get("Secret", "")
        if not isinstance(username, str) or not isinstance(secret, str):
            raise _helper_error(config, helper, address, "gave a 'Username' or 'Secret' that is not a string")
        try:
            if username == _IDENTITY_USER:
                auth = RegistryAuth(identity_token=secret, server=server)
            else:
                auth = RegistryAuth(username=username, password=secret, server=server)
        except InvalidConfigError as error:
            raise _helper_error(config, helper, address, f"gave credentials that cannot be sent ({error})") from error
        if secret:
            return auth
    return None


async def _listed(config: _ConfigFile, timeout: float) -> tuple[str, ...]:
    if not config.store:
        return ()
    try:
        answer = await _ask(config, config.store, "list", "", timeout)
        return tuple(check_text("a server", key, empty=False) for key in answer or ())
    except (_HelperError, InvalidConfigError) as error:
        logger.warning("the stored registries cannot be listed: %s", error, extra={"helper": config.store})
        return ()


async def _ask(config: _ConfigFile, helper: str, verb: str, text: str, timeout: float) -> Mapping[str, object] | None:
    if not _HELPER_NAME.fullmatch(helper):
        raise _helper_error(config, helper, text, "has a name with characters other than letters, digits and '._+-'")
    program = f"docker-credential-{helper}"
    try:
        answer = await _run(program, verb, text, timeout)
    except FileNotFoundError as error:
        problem = "is not on PATH, or the interpreter it names is missing; install it, or start from where PATH has it"
        raise _helper_error(config, helper, text, problem) from error
    except OSError as error:
        raise _helper_error(config, helper, text, f"cannot be run ({error.strerror}); make it executable") from error
    if answer is None:
        raise _helper_error(config, helper, text, f"did not answer within {timeout:g} s")
    code, output = answer
    # What it printed is in no message: it may be the secret.
    by_hand = f"run '{program} {verb}' by hand to see why (it reads the server from standard input)"
    if output.strip() == _NOT_FOUND:
        return None
    if len(output) > _MAX_ANSWER:
        raise _helper_error(config, helper, text, f"gave more than {_MAX_ANSWER} bytes; {by_hand}")
    if code != 0:
        raise _helper_error(config, helper, text, f"failed with exit status {code}; {by_hand}")
    parsed, problem = _parse(output)
    if not isinstance(parsed, dict):
        raise _helper_error(config, helper, text, f"gave no JSON object{problem and f' ({problem})'}; {by_hand}")
    return cast("dict[str, object]", parsed)


def _helper_error(config: _ConfigFile, helper: str, text: str, problem: str) -> _HelperError:
    server = server_address(text)
    return _HelperError(
        f"the credential helper 'docker-credential-{helper}', which {config.path} names{server and f' for {server}'}, "
        f"{problem}. To do without it, take it out of 'credsStore' or 'credHelpers' there and log in again",
        resource=server,
    )


class _Output(asyncio.SubprocessProtocol):
    """Collects standard output; ``ended`` is set when the process has exited and its pipes are closed."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = asyncio.Event()
        self.enough = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - asyncio's signature
        self.data += data
        if len(self.data) > _MAX_ANSWER:
            self.enough.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.ended.set()
        self.enough.set()


async def _run(program: str, verb: str, text: str, timeout: float) -> tuple[int | None, bytes] | None:
    """Exit status and standard output; ``None`` when ``timeout`` seconds have passed. The process is gone on return."""
    transport, output = await asyncio.get_running_loop().subprocess_exec(
        _Output,
        program,
        verb,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Helpers explain themselves on standard output; what they write here is not for the caller's terminal.
        stderr=asyncio.subprocess.DEVNULL,
        # A group of its own, so that what a helper script started ends with it.
        start_new_session=True,
    )
    try:
        stdin = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
        stdin.write(text.encode())
        stdin.write_eof()
        with anyio.move_on_after(timeout):
            await output.enough.wait()
            return transport.get_returncode(), bytes(output.data)
        return None
    finally:
        if transport.get_returncode() is None:
            # PermissionError is what macOS answers for a process that has exited and is not yet reaped.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
        transport.close()
        with anyio.move_on_after(_REAP_SECONDS, shield=True):
            await output.ended.wait()


async def _load_all(config_path: str | os.PathLike[str] | None) -> list[_ConfigFile]:
    def load() -> list[_ConfigFile]:
        configs = (_load(path, required=config_path is not None) for path in _paths(config_path))
        return [config for config in configs if config is not None]

    return await anyio.to_thread.run_sync(load, abandon_on_cancel=True)


def _paths(config_path: str | os.PathLike[str] | None) -> list[Path]:
    if config_path is not None:
        return [Path(config_path)]
    paths: list[Path] = []
    if auth_file := os.environ.get("REGISTRY_AUTH_FILE"):
        paths.append(Path(auth_file))
    if directory := os.environ.get("DOCKER_CONFIG"):
        paths.append(Path(directory, "config.json"))
    else:
        # RuntimeError: the user has no home directory, and so no file in it.
        with suppress(RuntimeError):
            paths.append(Path.home() / ".docker" / "config.json")
    return paths


def _read(path: Path, *, required: bool) -> dict[str, object] | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not required:
            return None
        raise RegistryAuthError(f"there is no registry configuration at {path}; correct config_path") from error
    except OSError as error:
        raise RegistryAuthError(
            f"the registry configuration {path} cannot be read ({error.strerror}); make it a file this user can read"
        ) from error
    if len(data) > _MAX_FILE:
        raise _wrong(path, f"it is larger than {_MAX_FILE} bytes")
    # The Docker CLI takes an empty file for an empty configuration.
    parsed, problem = _parse(data) if data.strip() else ({}, "")
    if not isinstance(parsed, dict):
        raise _wrong(path, problem or "it must be a JSON object")
    return cast("dict[str, object]", parsed)


def _load(path: Path, *, required: bool) -> _ConfigFile | None:
    document = _read(path, required=required)
    if document is None:
        return None
    store = document.get("credsStore", "")
    if not isinstance(store, str | None):
        raise _wrong(path, "'credsStore' must be a string")
    auths: dict[str, Mapping[str, object]] = {}
    for key, entry in _section(path, document, "auths").items():
        if not isinstance(entry, dict | None):
            raise _wrong(path, f"'auths' must have an object for {server_address(key)}")
        auths[key] = cast("dict[str, object]", entry or {})
    helpers: dict[str, str] = {}
    for key, name in _section(path, document, "credHelpers").items():
        if not isinstance(name, str):
            raise _wrong(path, f"'credHelpers' must have a string for {server_address(key)}")
        helpers[key] = name
    return _ConfigFile(path=path, auths=auths, store=store or "", helpers=helpers)


def _section(path: Path, document: Mapping[str, object], name: str) -> dict[str, object]:
    section = document.get(name)
    if not isinstance(section, dict | None):
        raise _wrong(path, f"'{name}' must be an object")
    entries = cast("dict[str, object]", section or {})
    for key in entries:
        try:
            check_text(f"a server of '{name}'", key, empty=False)
        except InvalidConfigError as error:
            raise _wrong(path, str(error)) from error
    return entries


def _wrong(path: Path, problem: str) -> RegistryAuthError:
    return RegistryAuthError(
        f"the registry configuration {path} is broken: {problem}. Correct it, or move it away and log in again"
    )


def _parse(data: bytes) -> tuple[object, str]:
    # An answer in place of an exception: the decoder's errors carry the whole document, secrets and all.
    try:
        return json.loads(data), ""
    except json.JSONDecodeError as error:
        return None, f"it is not JSON, from line {error.lineno}, column {error.colno}"
    except (ValueError, RecursionError):
        return None, "it is not JSON"


def docker_header(auth: RegistryAuth) -> str:
    """The value of ``X-Registry-Auth`` (Docker Engine API, "Authentication"): URL-safe base64 of a JSON object."""
    return _encode(_wire(auth))


def docker_config_header(auths: Mapping[str, RegistryAuth]) -> str:
    """The value of ``X-Registry-Config`` (Docker Engine API, ``POST /build``): the same, by server address."""
    return _encode({server_address(server): _wire(auth) for server, auth in auths.items()})


def _wire(auth: RegistryAuth) -> dict[str, str]:
    fields = {
        "username": auth.username,
        "password": auth.password,
        "serveraddress": auth.server,
        "identitytoken": auth.identity_token,
        "registrytoken": auth.registry_token,
    }
    return {name: value for name, value in fields.items() if value}


def _encode(value: Mapping[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode("ascii")
