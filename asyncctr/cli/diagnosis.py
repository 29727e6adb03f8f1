"""Why no Docker engine answers here, and what to do about it."""

from __future__ import annotations

import grp
import os
import platform
import pwd
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from asyncctr.backends.docker.endpoint import Endpoint, resolve_endpoint
from asyncctr.core.errors import AsyncctrError, BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["docker_advice", "docker_endpoint"]

_INSTALL = {
    # By ID and ID_LIKE of os-release(5).
    "debian": "sudo apt-get install docker.io",
    "ubuntu": "sudo apt-get install docker.io",
    "fedora": "sudo dnf install moby-engine",
    "rhel": "sudo dnf install podman  (and use its socket, see below)",
    "arch": "sudo pacman -S docker",
    "alpine": "sudo apk add docker",
    "suse": "sudo zypper install docker",
}
_PROGRAMS = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))


def docker_endpoint(host: str, environ: Mapping[str, str] = os.environ) -> Endpoint | None:
    """Where Docker is looked for; ``None`` where nothing tells, or what tells is wrong."""
    try:
        return resolve_endpoint(host or None, environ=environ)
    except AsyncctrError:
        return None


def docker_advice(
    error: AsyncctrError, endpoint: Endpoint | None, environ: Mapping[str, str] = os.environ
) -> list[str]:
    """What to do about an engine that does not answer, the likeliest first."""
    if isinstance(error.__cause__, ModuleNotFoundError):
        # Nobody was asked; the message says what to install.
        return []
    if not isinstance(error, BackendUnavailableError):
        # A wrong address, context or certificate: the message says which; the way back is the same.
        sources = [name for name in ("DOCKER_HOST", "DOCKER_CONTEXT") if environ.get(name)]
        return [f"correct or unset {name}" for name in sources] or [
            "`docker context ls` shows what the docker command uses"
        ]
    if endpoint is None:
        return [*_start_or_install(), *_podman(environ)]
    if endpoint.scheme != "unix":
        where = f"{endpoint.source} names {endpoint}" if endpoint.source else f"the address is {endpoint}"
        return [f"{where}: is the engine running there, and does it listen?"]
    path = Path(endpoint.path)
    try:
        status = path.stat()
    except FileNotFoundError:
        named = (
            [f"{endpoint.source} names a socket that is not there; correct or unset it"] if endpoint.explicit else []
        )
        return [*named, *_start_or_install(), *_podman(environ)]
    except PermissionError:
        return [f"this user may not even look into {path.parent}: use another socket, or another user"]
    except OSError as problem:
        return [f"{path}: {problem.strerror}"]
    if not stat.S_ISSOCK(status.st_mode):
        return [f"{path} is no socket; remove it, or name another with DOCKER_HOST"]
    if not os.access(path, os.R_OK | os.W_OK):
        return [*_permission(status), *_podman(environ)]
    return [f"the socket is there, but the engine behind it does not answer: {_start()}", *_podman(environ)]


def _permission(status: os.stat_result) -> list[str]:
    user = _user()
    try:
        group = grp.getgrgid(status.st_gid)
    except KeyError:
        return [f"the socket belongs to the group id {status.st_gid}, which {user} is not in"]
    if not status.st_mode & stat.S_IWGRP or group.gr_gid == 0:
        return [
            "the socket is for root alone: run this as root, or use a rootless engine (dockerd-rootless-setuptool.sh install)"
        ]
    if user in group.gr_mem:
        return [
            f"{user} is in the group {group.gr_name} since this session began: log in again, or `newgrp {group.gr_name}`"
        ]
    return [
        f"sudo usermod -aG {group.gr_name} {user}   and log in again (members of {group.gr_name} are as good as root)",
        "or without root: dockerd-rootless-setuptool.sh install",
    ]


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"the user {os.geteuid()}"


def _start() -> str:
    if platform.system() == "Darwin":
        return "start Docker Desktop, or `colima start`"
    if Path("/run/systemd/system").is_dir():
        return "sudo systemctl start docker"
    return "sudo service docker start, or `sudo dockerd` where nothing manages services"


def _start_or_install() -> list[str]:
    if shutil.which("dockerd", path=_PROGRAMS):
        return [f"Docker is installed, but does not run: {_start()}"]
    if platform.system() == "Darwin":
        return ["install Docker Desktop, or: brew install colima docker && colima start"]
    return [f"install Docker: {_install()}", f"then: {_start()}"]


def _install() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    for name in (release.get("ID", ""), *release.get("ID_LIKE", "").split()):
        if name in _INSTALL:
            return _INSTALL[name]
        if name.startswith(("opensuse", "suse")):
            return _INSTALL["suse"]
    return "see https://docs.docker.com/engine/install/"


def _podman(environ: Mapping[str, str]) -> list[str]:
    """Podman's socket in place of Docker's, where there is Podman."""
    runtime = environ.get("XDG_RUNTIME_DIR", "") or f"/run/user/{os.getuid()}"
    for path in ("/run/podman/podman.sock", f"{runtime}/podman/podman.sock"):
        if os.access(path, os.R_OK | os.W_OK):
            return [f"or use Podman, whose socket is here: export DOCKER_HOST=unix://{path}"]
    if shutil.which("podman"):
        address = f"unix://{runtime}/podman/podman.sock"
        start = f"mkdir -p {runtime}/podman && podman system service --time=0 {address} &"
        if Path("/run/systemd/system").is_dir():
            start = "systemctl --user start podman.socket"
        return [f"or use Podman, which is installed: {start}", f"   and then: export DOCKER_HOST={address}"]
    return []
