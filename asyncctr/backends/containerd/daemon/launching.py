"""How a private containerd is started: its configuration, its command, its environment; with root and without."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.backends.containerd.daemon.endpoint import BACKEND
from asyncctr.backends.containerd.daemon.prerequisites import rootless_findings
from asyncctr.backends.containerd.daemon.programs import SEARCH_PATH, find_program, install, look_for
from asyncctr.core.backend_config import RootlessMode
from asyncctr.core.errors import BackendUnavailableError, InvalidConfigError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncctr.backends.containerd.daemon.places import Places
    from asyncctr.core.backend_config import ContainerdConfig

__all__ = ["Launch", "check_rootless_mode", "fuse_overlayfs", "plan_launch"]

# CRI and NRI would open ports and sockets outside of the directory; the opt plugin would make /opt/containerd. Without the
# required ones (a database that it cannot read, say) it would start all the same, and be of no use.
_CONFIG: Final = """version = 2
root = "{private}/root"
state = "{run}/state"
disabled_plugins = [
    "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
]
required_plugins = ["io.containerd.content.v1.content", "io.containerd.metadata.v1.bolt", "io.containerd.runtime.v2.task"]
[grpc]
address = "{run}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{private}/opt"
"""

# Inside of rootlesskit. /run is a copy of links; /run/containerd would be a link to the system's, and shims have theirs there.
# Whether overlayfs works in a user namespace is a matter of kernel and file system, so it is tried, once for each kernel.
_SCRIPT: Final = """
rm -f /run/containerd
if [ -n "$4" ]; then
    rm -rf "$4"; mkdir "$4" "$4/l" "$4/u" "$4/w" "$4/m"; found=none
    if mount -t overlay -o "lowerdir=$4/l,upperdir=$4/u,workdir=$4/w" overlay "$4/m"; then umount "$4/m"; found=native; fi
    rm -rf "$4"; echo "$found $(uname -r)" >"$4.found"
fi
NOTIFY_SOCKET=$3 exec "$1" --config "$2" --log-level warn
"""
_INHERITED: Final = ("HOME", "LANG", "TMPDIR", "TZ", "USER", "XDG_RUNTIME_DIR")
_PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@attrs.frozen(kw_only=True)
class Launch:
    """What the supervisor is told.

    Attributes:
        command: the daemon's, with absolute paths.
        environment: of the supervisor and the daemon. Nothing of this process's that they do not need: they outlive it.
        config: the text of config.toml.
        containerd: the program, resolved.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = attrs.field(repr=False)
    config: str
    containerd: str


def check_rootless_mode(config: ContainerdConfig) -> bool:
    """Whether containers run without root, as this configuration has it for this user.

    Raises:
        InvalidConfigError: root asks for ``RootlessMode.ENABLED``.
    """
    if os.geteuid() != 0:
        return config.rootless_mode is not RootlessMode.DISABLED
    if config.rootless_mode is RootlessMode.ENABLED:
        message = "rootless_mode: ENABLED is refused as root; run as the user whose containers they are"
        raise InvalidConfigError(message, field="rootless_mode", backend=BACKEND)
    return False


def plan_launch(config: ContainerdConfig, places: Places, environ: Mapping[str, str] = os.environ) -> Launch:
    """How to start the private containerd of this user. Reads small files; nothing is started.

    Raises:
        BackendUnavailableError: a program or another prerequisite is missing; the message says what to install or configure.
        InvalidConfigError: a combination that is refused.
    """
    rootless = check_rootless_mode(config)
    if os.geteuid() != 0 and not rootless:
        message = "rootless_mode: without root a containerd can be started only with RootlessMode.AUTO or ENABLED"
        raise UnsupportedError(message, field="rootless_mode", backend=BACKEND)
    if rootless:
        _check_findings(config)
    containerd = find_program("containerd", config.containerd_path, "containerd_path")
    beside = os.path.dirname(containerd)  # noqa: PTH120 - strings throughout
    # First its own directory: a daemon and its shim belong together.
    path = os.pathsep.join([beside, environ.get("PATH", ""), SEARCH_PATH])
    environment = {name: environ[name] for name in _INHERITED if name in environ}
    for name in _PROXIES:
        environment.update({key: environ[key] for key in (name, name.upper()) if key in environ})
    environment["PATH"] = path
    if not look_for("runc") and not look_for("crun"):
        find_program("runc")
    notify, toml = f"{places.run}/notify.sock", f"{places.run}/config.toml"
    if rootless:
        command = [
            *_rootlesskit(config, places),
            *("sh", "-c", _SCRIPT, "sh", containerd, toml, notify, "" if _probed(places) else _probe(places)),
        ]
    else:
        environment["NOTIFY_SOCKET"] = notify
        command = [containerd, "--config", toml, "--log-level", "warn"]
    for path in (places.private, places.run):
        # Quoted in TOML; commas and colons part the options of overlay mounts.
        if not path.isprintable() or set(path) & set('"\\,:'):
            raise InvalidConfigError(f'the directory {path!r} must not have any of " \\ , : in its name')
    text = _CONFIG.format(private=places.private, run=places.run)
    return Launch(command=command, environment=environment, config=text, containerd=os.path.realpath(containerd))


def fuse_overlayfs(config: ContainerdConfig, places: Places) -> str:
    """The program to mount layers with, in a rootless containerd that has started; empty for the kernel's overlayfs.

    Raises:
        BackendUnavailableError: the kernel's does not work there, and there is no other.
    """
    if _probed(places) != "none":
        return ""
    try:
        find_program("mount.fuse3")
        return find_program("fuse-overlayfs", config.fuse_overlayfs_path, "fuse_overlayfs_path")
    except BackendUnavailableError as error:
        message = f"overlayfs does not work in this kernel's user namespaces, and {error}. Both are needed: "
        raise BackendUnavailableError(message + install("fuse-overlayfs", "mount.fuse3"), backend=BACKEND) from error


def _rootlesskit(config: ContainerdConfig, places: Places) -> list[str]:
    return [
        find_program("rootlesskit", config.rootlesskit_path, "rootlesskit_path"),
        "--pidns",
        f"--state-dir={places.run}/rk",
        "--net=slirp4netns",
        f"--slirp4netns-binary={find_program('slirp4netns')}",
        "--mtu=65520",
        "--disable-host-loopback",
        "--port-driver=builtin",
        "--copy-up=/etc",
        "--copy-up=/run",
        "--propagation=rslave",
    ]


def _check_findings(config: ContainerdConfig) -> None:
    unmet = [finding for finding in rootless_findings(config) if finding.needed and not finding.ok]
    if unmet:
        lines = [f"  - {finding.name}: {finding.detail}. {finding.advice}" for finding in unmet]
        message = "\n".join(["a containerd without root cannot be started here:", *lines])
        raise BackendUnavailableError(message, backend=BACKEND)


def _probe(places: Places) -> str:
    return f"{places.private}/overlay"


def _probed(places: Places) -> str:
    """``"native"`` or ``"none"``, as it was found with this kernel; empty where it has not been tried."""
    try:
        found, _, release = Path(_probe(places) + ".found").read_text(encoding="ascii").strip().partition(" ")
    except OSError:
        return ""
    return found if release == platform.release() else ""
