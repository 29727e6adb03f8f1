"""Where the engine is: precedence, addresses, contexts, TLS and default sockets, with the CLI's own files."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from asyncctr.backends.docker import endpoint as module
from asyncctr.backends.docker.endpoint import Endpoint, current_context, open_dialer, resolve_endpoint
from asyncctr.core.backend_config import DockerConfig, TLSConfig
from asyncctr.core.errors import AsyncctrError, BackendUnavailableError, InvalidConfigError, UnsupportedError
from asyncctr.transport.dial import TcpDialer, UnixDialer
from asyncctr.transport.ssh import SshDialer

if TYPE_CHECKING:
    from pathlib import Path

Environ = dict[str, str]


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environ:
    """A home without Docker, on a machine without Docker."""
    monkeypatch.setattr(module, "SYSTEM_SOCKETS", (str(tmp_path / "sys/docker.sock"),))
    (tmp_path / "home").mkdir()
    (tmp_path / "run").mkdir()
    return {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


def write_context(folder: Path, name: str, docker: object, *, tls: tuple[str, ...] = ()) -> Path:
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts/meta" / digest
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": docker}}))
    files = folder / "contexts/tls" / digest / "docker"
    if tls:
        files.mkdir(parents=True)
    for file in tls:
        (files / file).write_text("PEM")
    return files


def listen(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    return str(path)


# -- precedence


def test_precedence(environ: Environ, tmp_path: Path) -> None:
    docker = tmp_path / "home/.docker"
    for name in ("given", "variable", "current"):
        write_context(docker, name, {"Host": f"tcp://{name}:1"})
    (docker / "config.json").write_text(json.dumps({"currentContext": "current"}))
    environ |= {"DOCKER_CONTEXT": "variable", "DOCKER_HOST": "tcp://fromhost:1"}
    listen(tmp_path / "sys/docker.sock")

    assert resolve_endpoint("tcp://explicit:1", environ=environ).host == "explicit"
    given = resolve_endpoint(context="given", environ=environ)
    assert (given.host, given.source) == ("given", "the context 'given'")
    by_host = resolve_endpoint(environ=environ)
    assert (by_host.host, by_host.source) == ("fromhost", "DOCKER_HOST")
    assert resolve_endpoint("", "default", environ=environ).host == "fromhost"
    assert current_context(environ) == ""
    del environ["DOCKER_HOST"]
    by_variable = resolve_endpoint(environ=environ)
    assert (by_variable.host, by_variable.source) == ("variable", "the context 'variable' of DOCKER_CONTEXT")
    assert current_context(environ) == "variable"
    assert resolve_endpoint(context="default", environ=environ).scheme == "unix"
    del environ["DOCKER_CONTEXT"]
    current = resolve_endpoint(environ=environ)
    assert (current.host, current.source, current.explicit) == ("current", "the current context 'current'", True)
    assert current_context(environ) == "current"
    environ["DOCKER_CONTEXT"] = "default"
    assert not resolve_endpoint(environ=environ).explicit
    assert current_context(environ) == ""
    del environ["DOCKER_CONTEXT"]
    (docker / "config.json").write_text(json.dumps({"auths": {}, "currentContext": "default"}))
    assert resolve_endpoint(environ=environ).path == str(tmp_path / "sys/docker.sock")
    assert current_context(environ) == ""


def test_host_and_context_together_are_refused(environ: Environ) -> None:
    with pytest.raises(InvalidConfigError, match="not both"):
        resolve_endpoint("unix:///x", "y", environ=environ)


def test_docker_config_names_the_folder(environ: Environ, tmp_path: Path) -> None:
    write_context(tmp_path / "elsewhere", "c", {"Host": "unix:///c.sock"})
    (tmp_path / "elsewhere/config.json").write_text('{"currentContext": "c"}')
    environ["DOCKER_CONFIG"] = str(tmp_path / "elsewhere")
    assert str(resolve_endpoint(environ=environ)) == "unix:///c.sock"


# -- default sockets


def test_default_sockets_in_their_order(environ: Environ, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="DOCKER_HOST") as caught:
        resolve_endpoint(environ=environ)
    paths = [tmp_path / name for name in ("home/.docker/run/docker.sock", "run/docker.sock", "sys/docker.sock")]
    for path in paths:
        assert str(path) in str(caught.value)
    for path in paths:
        listen(path)
        found = resolve_endpoint(environ=environ)
        assert (found.scheme, found.path, found.explicit) == ("unix", str(path), False)


# -- addresses


@pytest.mark.parametrize(
    ("address", "expected", "text"),
    [
        ("unix:///run/x y".replace(" ", "_"), {"scheme": "unix", "path": "/run/x_y"}, "unix:///run/x_y"),
        ("UNIX:///a", {"scheme": "unix", "path": "/a"}, "unix:///a"),
        ("tcp://h", {"scheme": "tcp", "host": "h", "port": 2375}, "tcp://h:2375"),
        ("tcp://H.example:99/", {"scheme": "tcp", "host": "H.example", "port": 99}, "tcp://H.example:99"),
        ("tcp://[::1]:99", {"scheme": "tcp", "host": "::1", "port": 99}, "tcp://[::1]:99"),
        ("tcp://", {"scheme": "tcp", "host": "localhost", "port": 2375}, "tcp://localhost:2375"),
        ("192.0.2.1:77", {"scheme": "tcp", "host": "192.0.2.1", "port": 77}, "tcp://192.0.2.1:77"),
        (":2375", {"scheme": "tcp", "host": "localhost", "port": 2375}, "tcp://localhost:2375"),
        ("http://h", {"scheme": "tcp", "host": "h", "port": 2375}, "tcp://h:2375"),
        ("https://h", {"scheme": "tcp", "host": "h", "port": 2376, "tls": TLSConfig()}, "https://h:2376"),
        ("ssh://Alias", {"scheme": "ssh", "host": "Alias"}, "ssh://Alias"),
        ("ssh://u@h:22", {"scheme": "ssh", "user": "u", "host": "h", "port": 22}, "ssh://u@h:22"),
        (
            "ssh://u@[fe80::1]:22/run/d.sock",
            {"scheme": "ssh", "user": "u", "host": "fe80::1", "port": 22, "path": "/run/d.sock"},
            "ssh://u@[fe80::1]:22/run/d.sock",
        ),
    ],
)
def test_addresses(environ: Environ, address: str, expected: dict[str, Any], text: str) -> None:
    endpoint = resolve_endpoint(address, environ=environ)
    assert endpoint == Endpoint(source="host", **expected)
    assert str(endpoint) == text
    assert endpoint.advice


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        ("/run/docker.sock", InvalidConfigError, "unix:///"),
        ("unix://run/docker.sock", InvalidConfigError, "absolute"),
        ("unix:///a\nb", InvalidConfigError, "white space"),
        ("tcp://h:port", InvalidConfigError, "malformed"),
        ("tcp://h:0", InvalidConfigError, "0 is no port"),
        ("tcp://h:99999", InvalidConfigError, "malformed"),
        ("tcp://::1", InvalidConfigError, "malformed"),
        ("tcp://[::1", InvalidConfigError, "malformed"),
        ("tcp://h:1/prefix", UnsupportedError, "path"),
        ("tcp://u@h:1", InvalidConfigError, "user names"),
        ("tcp://h?x=y", InvalidConfigError, "must end"),
        ("tcp://u:hush@h:1", InvalidConfigError, "password"),
        ("ssh://u:hush@h", InvalidConfigError, "password"),
        ("ssh://", InvalidConfigError, "host name"),
        ("ssh://-oProxyCommand=x", InvalidConfigError, "host name"),
        ("ssh://-u@h", InvalidConfigError, "user name"),
        ("ssh://$(id)@h", InvalidConfigError, "user name"),
        ("ssh://h;id", InvalidConfigError, "host name"),
        ("ssh://`id`", InvalidConfigError, "host name"),
        ("npipe:////./pipe/docker_engine", UnsupportedError, "named pipes"),
        ("fd://", UnsupportedError, "listens"),
        ("quic://h", UnsupportedError, "quic"),
    ],
)
def test_refused_addresses(environ: Environ, address: str, error: type[AsyncctrError], text: str) -> None:
    environ["DOCKER_HOST"] = address
    with pytest.raises(error, match=text) as caught:
        resolve_endpoint(environ=environ)
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(caught.value)
    assert getattr(caught.value, "field", None) == "DOCKER_HOST"


# -- TLS


@pytest.mark.parametrize(("variable", "verify"), [("DOCKER_TLS_VERIFY", True), ("DOCKER_TLS", False)])
def test_tls_by_the_environment(environ: Environ, tmp_path: Path, variable: str, verify: bool) -> None:
    environ |= {"DOCKER_HOST": "tcp://h", variable: "1"}
    home = tmp_path / "home/.docker"
    home.mkdir()
    for file in ("ca.pem", "cert.pem", "key.pem"):
        (home / file).write_text("PEM")
    endpoint = resolve_endpoint(environ=environ)
    ca_file = str(home / "ca.pem") if verify else ""
    expected = TLSConfig(
        ca_file=ca_file, cert_file=str(home / "cert.pem"), key_file=str(home / "key.pem"), verify=verify
    )
    assert (endpoint.tls, endpoint.port) == (expected, 2376)
    environ["DOCKER_CERT_PATH"] = str(tmp_path / "certs")
    with pytest.raises(InvalidConfigError, match=r"ca\.pem"):
        resolve_endpoint(environ=environ)
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/ca.pem").write_text("PEM")
    tls = resolve_endpoint(environ=environ).tls
    assert tls == TLSConfig(ca_file=str(tmp_path / "certs/ca.pem") if verify else "", verify=verify)


def test_tls_that_is_given_wins_and_must_fit(environ: Environ) -> None:
    tls = TLSConfig(ca_file="/ca")
    environ["DOCKER_TLS_VERIFY"] = "1"
    assert resolve_endpoint("tcp://h", tls=tls, environ=environ).tls == tls
    for address in ("unix:///x", "ssh://h", "http://h"):
        with pytest.raises(InvalidConfigError, match="tls"):
            resolve_endpoint(address, tls=tls, environ=environ)
    with pytest.raises(InvalidConfigError, match="tls"):
        resolve_endpoint(tls=tls, environ=environ)
    assert resolve_endpoint("http://h", environ=environ).tls is None


# -- contexts


def test_a_context_brings_its_own_tls_and_not_the_environments(environ: Environ, tmp_path: Path) -> None:
    environ["DOCKER_TLS_VERIFY"] = "1"
    docker = tmp_path / "home/.docker"
    write_context(docker, "plain", {"Host": "tcp://h:1"})
    files = write_context(docker, "tls", {"Host": "tcp://h"}, tls=("ca.pem", "cert.pem", "key.pem"))
    write_context(docker, "trusting", {"Host": "tcp://h", "SkipTLSVerify": True}, tls=("cert.pem", "key.pem"))
    write_context(docker, "bare", {"Host": "tcp://h", "SkipTLSVerify": True})
    write_context(docker, "unix", {"Host": "unix:///x", "SkipTLSVerify": True})

    assert resolve_endpoint(context="plain", environ=environ).tls is None
    endpoint = resolve_endpoint(context="tls", environ=environ)
    names = [str(files / name) for name in ("ca.pem", "cert.pem", "key.pem")]
    assert endpoint.tls == TLSConfig(ca_file=names[0], cert_file=names[1], key_file=names[2])
    assert endpoint.port == 2376
    trusting = resolve_endpoint(context="trusting", environ=environ).tls
    assert trusting is not None
    assert not trusting.verify
    assert trusting.cert_file
    assert resolve_endpoint(context="bare", environ=environ).tls == TLSConfig(verify=False)
    assert resolve_endpoint(context="unix", environ=environ).tls is None


def test_contexts_that_are_missing_or_broken(environ: Environ, tmp_path: Path) -> None:
    docker = tmp_path / "home/.docker"
    write_context(docker, "empty", {"Host": ""})
    write_context(docker, "list", [])
    for name, text in (("empty", "names no engine"), ("list", "names no engine"), ("none", "docker context ls")):
        with pytest.raises(InvalidConfigError, match=text):
            resolve_endpoint(context=name, environ=environ)
    meta = docker / "contexts/meta" / hashlib.sha256(b"empty").hexdigest() / "meta.json"
    for content in ("{", "[]", "\x00"):
        meta.write_text(content)
        with pytest.raises(InvalidConfigError, match="not a JSON object"):
            resolve_endpoint(context="empty", environ=environ)


@pytest.mark.parametrize("content", ['{"auths": {"x": {"auth": "hush"}}', "[1]", '{"currentContext": 5}'])
def test_a_broken_config_json_is_named_and_not_quoted(environ: Environ, tmp_path: Path, content: str) -> None:
    (tmp_path / "home/.docker").mkdir()
    (tmp_path / "home/.docker/config.json").write_text(content)
    with pytest.raises(InvalidConfigError, match=r"config\.json") as caught:
        resolve_endpoint(environ=environ)
    assert "hush" not in str(caught.value)
    with pytest.raises(InvalidConfigError):
        current_context(environ)


@pytest.mark.require("docker-cli")
def test_contexts_as_the_docker_cli_writes_them(environ: Environ, tmp_path: Path) -> None:
    folder = tmp_path / "home/.docker"

    def cli(*arguments: str) -> None:
        subprocess.run(
            ["docker", "--config", folder, "context", *arguments], check=True, capture_output=True, timeout=30
        )

    cli("create", "far", "--docker", "host=ssh://me@far.example:2222")
    cli("create", "insecure", "--docker", "host=tcp://h:2376,skip-tls-verify=true")
    cli("use", "far")
    assert str(resolve_endpoint(environ=environ)) == "ssh://me@far.example:2222"
    assert resolve_endpoint(context="insecure", environ=environ).tls == TLSConfig(verify=False)


# -- dialers


@pytest.mark.anyio
async def test_open_dialer(environ: Environ) -> None:
    endpoint, dialer = await open_dialer(DockerConfig(host="unix:///x.sock"), environ)
    assert isinstance(dialer, UnixDialer)
    assert dialer.path == endpoint.path == "/x.sock"
    endpoint, dialer = await open_dialer(DockerConfig(host="https://h:5", keepalive_idle=7), environ)
    assert isinstance(dialer, TcpDialer)
    assert (dialer.host, dialer.port, dialer.keepalive_idle) == ("h", 5, 7)
    assert dialer.tls is not None
    endpoint, dialer = await open_dialer(DockerConfig(host="tcp://h:5"), environ)
    assert isinstance(dialer, TcpDialer)
    assert dialer.tls is None
    endpoint, dialer = await open_dialer(DockerConfig(host="ssh://u@h:5/run/x.sock"), environ)
    assert isinstance(dialer, SshDialer)
    assert "docker version" in endpoint.advice
    await dialer.aclose()
    with pytest.raises(InvalidConfigError, match=r"tls\.ca_file"):
        await open_dialer(DockerConfig(host="tcp://h", tls=TLSConfig(ca_file="/nonexistent/ca")), environ)
