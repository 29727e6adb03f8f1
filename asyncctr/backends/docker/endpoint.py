"""Where the Docker engine is: hosts, contexts and environment variables, read as the docker CLI reads them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs

from asyncctr.backends.docker.errors import BACKEND
from asyncctr.core.backend_config import TLSConfig
from asyncctr.core.errors import BackendUnavailableError, InvalidConfigError, UnsupportedError
from asyncctr.transport.dial import TcpDialer, UnixDialer, load_tls
from asyncctr.transport.ssh import SshDialer, check_destination

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncctr.core.backend_config import DockerConfig
    from asyncctr.transport.dial import Dialer

__all__ = ["Endpoint", "current_context", "open_dialer", "resolve_endpoint"]

SYSTEM_SOCKETS: Final = ("/run/docker.sock", "/var/run/docker.sock")
_DEFAULT_CONTEXT: Final = "default"
_PORT, _TLS_PORT = 2375, 2376
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)
_CONFIG_LIMIT: Final = 4 << 20


@attrs.frozen(kw_only=True)
class Endpoint:
    """One engine's place.

    Attributes:
        scheme: ``"unix"``, ``"tcp"`` (with or without ``tls``) or ``"ssh"``.
        path: of the socket; for ssh, that on the other side, empty for what the docker CLI there uses.
        host: a name or address; for tcp and ssh.
        port: its number; for ssh, ``None`` leaves it to ssh's configuration.
        user: for ssh; empty leaves it to ssh's configuration.
        tls: the files to use; ``None`` for no TLS.
        source: what named this place, such as ``"DOCKER_HOST"`` or ``"the context 'x'"``.
        explicit: somebody named it; false for a socket that was found.
    """

    scheme: str
    path: str = ""
    host: str = ""
    port: int | None = None
    user: str = ""
    tls: TLSConfig | None = None
    source: str = ""
    explicit: bool = True

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port is not None else ""
        scheme = "https" if self.tls is not None else self.scheme
        return f"{scheme}://{user}{host}{port}{self.path}"

    @property
    def advice(self) -> str:
        """What to do when nothing answers here: a sentence or two for the end of an error's message."""
        source = f" (the address is from {self.source})" if self.explicit and self.source else ""
        if self.scheme == "ssh":
            command = ["ssh", *(["-p", str(self.port)] if self.port else [])]
            destination = f"{self.user}@{self.host}" if self.user else self.host
            return f"Try `{' '.join([*command, destination])} docker version`{source}."
        if self.scheme == "unix":
            return (
                "Is the engine running, and may this user open its socket (for Docker's own: is it in the group docker)? "
                f"Otherwise name another with DockerConfig(host=...) or DOCKER_HOST{source}."
            )
        return f"Is the engine running, and does it listen there{' with TLS' if self.tls else ''}{source}?"


def resolve_endpoint(
    host: str | None = None,
    context: str | None = None,
    tls: TLSConfig | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Endpoint:
    """The engine to use, with the docker CLI's precedence.

    ``host``; ``context``; ``DOCKER_HOST``; ``DOCKER_CONTEXT``; ``currentContext`` of the CLI's config.json; else the first
    default socket that can be opened. Reads a few small files: call it in a thread where the loop matters.

    Args:
        host: an address: ``unix:///path``, ``tcp://``, ``http://`` or ``https://host[:port]``, or
            ``ssh://[user@]host[:port][/path/to/socket]``.
        context: a Docker context's name.
        tls: for TCP; ``None`` for what the context says, or ``DOCKER_TLS_VERIFY``, ``DOCKER_TLS`` and ``DOCKER_CERT_PATH``.
        environ: the environment.

    Raises:
        InvalidConfigError: an address, context or file is malformed or missing.
        UnsupportedError: an address of a kind that this package does not connect to.
        BackendUnavailableError: nothing names an engine, and there is no default socket.
    """
    if host and context:
        raise InvalidConfigError("context: give a host or a context, not both", field="context")
    if host:
        return _from_address(host, tls, environ, source="host", field="host")
    if context and context != _DEFAULT_CONTEXT:
        return _from_context(context, tls, environ, source=f"the context {context!r}", field="context")
    if address := environ.get("DOCKER_HOST", ""):
        return _from_address(address, tls, environ, source="DOCKER_HOST", field="DOCKER_HOST")
    if not context:
        if name := environ.get("DOCKER_CONTEXT", ""):
            if name != _DEFAULT_CONTEXT:
                source = f"the context {name!r} of DOCKER_CONTEXT"
                return _from_context(name, tls, environ, source=source, field="DOCKER_CONTEXT")
        elif name := _configured_context(environ):
            return _from_context(name, tls, environ, source=f"the current context {name!r}", field="currentContext")
    return _default(tls, environ)


def current_context(environ: Mapping[str, str] = os.environ) -> str:
    """The name of the Docker context that ``DOCKER_CONTEXT`` or the CLI's config.json chooses; empty for the default one.

    Raises:
        InvalidConfigError: config.json cannot be read.
    """
    if environ.get("DOCKER_HOST"):
        return ""
    name = environ.get("DOCKER_CONTEXT", "") or _configured_context(environ)
    return "" if name == _DEFAULT_CONTEXT else name


async def open_dialer(config: DockerConfig, environ: Mapping[str, str] = os.environ) -> tuple[Endpoint, Dialer]:
    """The engine that a configuration and the environment name, and how to connect to it. Nothing is connected yet.

    Raises:
        InvalidConfigError, UnsupportedError, BackendUnavailableError: as :func:`resolve_endpoint`, and for TLS files.
    """
    endpoint = await asyncio.to_thread(resolve_endpoint, config.host, config.context, config.tls, environ)
    if endpoint.scheme == "unix":
        return endpoint, UnixDialer(endpoint.path)
    if endpoint.scheme == "ssh":
        return endpoint, SshDialer(endpoint.host, user=endpoint.user, port=endpoint.port, socket_path=endpoint.path)
    context = await load_tls(endpoint.tls) if endpoint.tls is not None else None
    port = endpoint.port or _PORT
    return endpoint, TcpDialer(endpoint.host, port, tls=context, keepalive_idle=config.keepalive_idle)


# -- addresses


def _from_address(
    address: str, tls: TLSConfig | None, environ: Mapping[str, str], *, source: str, field: str
) -> Endpoint:
    """An endpoint from an address. The address is in no error: somebody may have put a password into it."""
    match = _SCHEME.fullmatch(address)
    if match is None:
        if address.startswith("/"):
            raise InvalidConfigError(f"{field}: a socket's path is written unix:///path/to/socket", field=field)
        # As the CLI takes it: DOCKER_HOST=192.0.2.1:2375.
        scheme, rest = "tcp", address
    else:
        scheme, rest = match[1].lower(), match[2]
    if any(character.isspace() or not character.isprintable() for character in rest):
        raise InvalidConfigError(f"{field}: must not contain white space or control characters", field=field)
    if scheme == "unix":
        return _unix(rest, tls, source=source, field=field)
    if scheme == "ssh":
        return _ssh(rest, tls, source=source, field=field)
    if scheme in ("tcp", "http", "https"):
        return _tcp(scheme, rest, tls, environ, source=source, field=field)
    reasons = {
        "npipe": "Windows' named pipes are not supported",
        "fd": "fd:// is where a daemon listens, not where it is reached",
    }
    reason = reasons.get(scheme, f"the scheme {scheme}:// is not known")
    raise UnsupportedError(f"{field}: {reason}; use unix://, tcp://, https:// or ssh://", field=field, backend=BACKEND)


def _unix(path: str, tls: TLSConfig | None, *, source: str, field: str) -> Endpoint:
    if tls is not None:
        raise InvalidConfigError("tls: is for tcp:// and https://, not for a unix socket", field="tls")
    path = path or SYSTEM_SOCKETS[-1]
    if not path.startswith("/"):
        raise InvalidConfigError(
            f"{field}: a unix:// address needs an absolute path: unix:///path/to/socket", field=field
        )
    return Endpoint(scheme="unix", path=path, source=source)


def _ssh(rest: str, tls: TLSConfig | None, *, source: str, field: str) -> Endpoint:
    if tls is not None:
        raise InvalidConfigError("tls: is for tcp:// and https://, not for ssh://", field="tls")
    user, host, port, path = _authority(rest, field)
    path = "" if path == "/" else path
    check_destination(host, user=user, socket_path=path, field=field)
    return Endpoint(scheme="ssh", user=user, host=host, port=port, path=path, source=source)


def _tcp(
    scheme: str, rest: str, tls: TLSConfig | None, environ: Mapping[str, str], *, source: str, field: str
) -> Endpoint:
    user, host, port, path = _authority(rest, field)
    if user:
        raise InvalidConfigError(f"{field}: the engine has no user names; use TLS certificates", field=field)
    if path not in ("", "/"):
        message = f"{field}: a path behind the host is not supported; for a socket on that host use ssh://"
        raise UnsupportedError(message, field=field, backend=BACKEND)
    if scheme == "http":
        if tls is not None:
            raise InvalidConfigError("tls: contradicts the http:// address; use https:// or tcp://", field="tls")
    elif tls is None:
        tls = _tls_from_environment(environ)
        if tls is None and scheme == "https":
            tls = TLSConfig()
    if port is None:
        port = _PORT if tls is None else _TLS_PORT
    return Endpoint(scheme="tcp", host=host or "localhost", port=port, tls=tls, source=source)


def _authority(rest: str, field: str) -> tuple[str, str, int | None, str]:
    try:
        parts = urlsplit(f"//{rest}")
        port = parts.port
    except ValueError:
        raise InvalidConfigError(f"{field}: the host or port is malformed", field=field) from None
    if parts.password is not None:
        message = f"{field}: must not contain a password; use keys and ssh's agent, or TLS certificates"
        raise InvalidConfigError(message, field=field)
    if parts.query or parts.fragment or rest.endswith(("?", "#")):
        raise InvalidConfigError(f"{field}: must end with the host, port or path", field=field)
    if port == 0:
        raise InvalidConfigError(f"{field}: 0 is no port to connect to", field=field)
    # urlsplit's hostname is in lower case, and ssh's aliases are not.
    host = parts.netloc.rpartition("@")[2]
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return parts.username or "", host, port, parts.path


# -- TLS


def _tls_from_environment(environ: Mapping[str, str]) -> TLSConfig | None:
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not environ.get("DOCKER_TLS"):
        return None
    named = environ.get("DOCKER_CERT_PATH", "")
    folder = Path(named) if named else _config_folder(environ)
    if not _exists(folder) or (verify and not _exists(folder / "ca.pem")):
        message = (
            f"DOCKER_CERT_PATH: {folder} has no ca.pem, which DOCKER_TLS_VERIFY needs beside cert.pem and key.pem; "
            "set it to their folder"
        )
        raise InvalidConfigError(message, field="DOCKER_CERT_PATH")
    return _tls_from_folder(folder, verify=verify)


def _tls_from_folder(folder: Path, *, verify: bool) -> TLSConfig:
    def existing(name: str) -> str:
        return str(folder / name) if _exists(folder / name) else ""

    ca_file = existing("ca.pem") if verify else ""
    return TLSConfig(ca_file=ca_file, cert_file=existing("cert.pem"), key_file=existing("key.pem"), verify=verify)


# -- the docker CLI's files


def _exists(path: Path) -> bool:
    """Whether it is there; not being allowed to look means no, where Path.exists raises."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path("~").expanduser()


def _config_folder(environ: Mapping[str, str]) -> Path:
    named = environ.get("DOCKER_CONFIG", "")
    return Path(named) if named else _home(environ) / ".docker"


def _read_json(path: Path, field: str) -> dict[str, Any] | None:
    """The document; ``None`` for no such file. What is in it is in no error: config.json may hold passwords."""
    try:
        with path.open("rb") as file:
            text = file.read(_CONFIG_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        message = f"{field}: cannot read {path}: {error.strerror}"
        raise InvalidConfigError(message, field=field) from error
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise InvalidConfigError(f"{field}: {path} is not a JSON object; repair or remove it", field=field)
    return document


def _configured_context(environ: Mapping[str, str]) -> str:
    document = _read_json(_config_folder(environ) / "config.json", "DOCKER_CONFIG") or {}
    name = document.get("currentContext", "")
    if not isinstance(name, str):
        raise InvalidConfigError("currentContext: config.json has no name there", field="currentContext")
    return "" if name == _DEFAULT_CONTEXT else name


def _from_context(name: str, tls: TLSConfig | None, environ: Mapping[str, str], *, source: str, field: str) -> Endpoint:
    """The docker endpoint of a context: ``contexts/meta/<SHA-256 of the name>/meta.json`` (docker/cli, cli/context)."""
    contexts = _config_folder(environ) / "contexts"
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    document = _read_json(contexts / "meta" / digest / "meta.json", field)
    if document is None:
        message = f"{field}: there is no Docker context {name!r} in {contexts}; `docker context ls` lists them"
        raise InvalidConfigError(message, field=field)
    endpoints = document.get("Endpoints")
    docker = endpoints.get("docker") if isinstance(endpoints, dict) else None
    address = docker.get("Host") if isinstance(docker, dict) else None
    if not isinstance(docker, dict) or not isinstance(address, str) or not address:
        raise InvalidConfigError(f"{field}: the Docker context {name!r} names no engine", field=field)
    folder = contexts / "tls" / digest / "docker"
    verify = not docker.get("SkipTLSVerify", False)
    if tls is None and not address.startswith(("unix:", "ssh:", "http:")) and (_exists(folder) or not verify):
        tls = _tls_from_folder(folder, verify=verify)
    # Only the context's own TLS files count for it, not the environment's.
    return _from_address(address, tls, {}, source=source, field=field)


# -- default sockets


def _default(tls: TLSConfig | None, environ: Mapping[str, str]) -> Endpoint:
    if tls is not None:
        raise InvalidConfigError("tls: is of use only with the host of a TCP port", field="tls")
    candidates = list(SYSTEM_SOCKETS)
    runtime = environ.get("XDG_RUNTIME_DIR", "") or f"/run/user/{os.getuid()}"
    candidates += [f"{runtime}/docker.sock", str(_home(environ) / ".docker/run/docker.sock")]
    existing = [path for path in candidates if _exists(Path(path))]
    usable = [path for path in existing if os.access(path, os.R_OK | os.W_OK)]
    for path in usable or existing:
        return Endpoint(scheme="unix", path=path, source="default", explicit=False)
    message = (
        f"no Docker socket: looked for {', '.join(candidates)}. Install and start Docker, or name an engine with "
        "DockerConfig(host=...), DOCKER_HOST or a Docker context"
    )
    raise BackendUnavailableError(message, backend=BACKEND)
