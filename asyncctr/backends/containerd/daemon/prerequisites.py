"""What a containerd without root needs of the machine, and what to do where it is missing."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.backends.containerd.daemon.programs import install, look_for

if TYPE_CHECKING:
    from asyncctr.core.backend_config import ContainerdConfig

__all__ = ["Finding", "rootless_findings"]

_IDS: Final = 65_536
_FILE_LIMIT: Final = 1 << 20


@attrs.frozen(kw_only=True)
class Finding:
    """One prerequisite.

    Attributes:
        name: what it is.
        ok: whether it is met.
        detail: what was found.
        advice: what to do where it is not met; else empty.
        needed: false for what only some machines or features need.
    """

    name: str
    ok: bool
    detail: str
    advice: str = ""
    needed: bool = True


def rootless_findings(config: ContainerdConfig) -> list[Finding]:
    """All prerequisites of a containerd that this user starts without root, met or not.

    Reads a few small files and runs nothing: what only an attempt can tell, the start tells.
    """
    user = _user()
    return [
        _program("containerd", config.containerd_path),
        _program("containerd-shim-runc-v2", _beside(config.containerd_path, "containerd-shim-runc-v2")),
        _program("runc"),
        _program("rootlesskit", config.rootlesskit_path),
        _program("slirp4netns"),
        _program("nsenter"),
        _mapper("newuidmap"),
        _mapper("newgidmap"),
        _subordinate("/etc/subuid", user, "uids"),
        _subordinate("/etc/subgid", user, "gids"),
        _user_namespaces(),
        _device("/dev/net/tun", "networking"),
        _program("fuse-overlayfs", config.fuse_overlayfs_path, needed=bool(config.fuse_overlayfs_path)),
    ]


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _beside(program: str, other: str) -> str:
    """``other`` in the directory of a program that was named by its path; empty where it is not there."""
    path = Path(program).parent / other
    return str(path) if "/" in program and os.access(path, os.X_OK) else ""


def _program(name: str, named: str = "", *, needed: bool = True) -> Finding:
    if found := look_for(name, named):
        return Finding(name=name, ok=True, detail=found, needed=needed)
    if named:
        return Finding(
            name=name, ok=False, detail=f"there is no program {named!r}", advice="correct its path", needed=needed
        )
    return Finding(name=name, ok=False, detail="not installed", advice=install(name), needed=needed)


def _mapper(name: str) -> Finding:
    finding = _program(name)
    if not finding.ok:
        return finding
    setuid = os.stat(finding.detail).st_mode & stat.S_ISUID  # noqa: PTH116 - a string
    if setuid or "security.capability" in os.listxattr(finding.detail):
        return finding
    return attrs.evolve(
        finding, ok=False, detail=f"{finding.detail} is not set-user-id root", advice=f"chmod u+s {finding.detail}"
    )


def _subordinate(path: str, user: str, what: str) -> Finding:
    """subuid(5): lines of ``name or uid:first:count``."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a string
            text = file.read(_FILE_LIMIT).decode(errors="replace")
    except OSError:
        text = ""
    count = 0
    for line in text.splitlines():
        owner, _, rest = line.partition(":")
        number = rest.rpartition(":")[2].strip()
        if owner in (user, str(os.geteuid())) and number.isdecimal():
            count += int(number)
    if count >= _IDS:
        return Finding(name=path, ok=True, detail=f"{count} {what}")
    option = "--add-subuids" if what == "uids" else "--add-subgids"
    return Finding(
        name=path,
        ok=False,
        detail=f"has {count or 'no'} {what} for {user}; {_IDS} are needed",
        advice=f"as root: usermod {option} 100000-165535 {user} (a range that nobody else has)",
    )


def _user_namespaces() -> Finding:
    name = "user namespaces"
    if _setting("/proc/sys/user/max_user_namespaces") == "0":
        return Finding(
            name=name, ok=False, detail="switched off", advice="as root: sysctl -w user.max_user_namespaces=28633"
        )
    if _setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return Finding(
            name=name, ok=False, detail="for root only", advice="as root: sysctl -w kernel.unprivileged_userns_clone=1"
        )
    restricted = _setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
    # Ubuntu's package has this profile, which exempts it.
    if restricted and not any(Path("/etc/apparmor.d").glob("*rootlesskit*")):
        advice = (
            "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for rootlesskit"
        )
        return Finding(name=name, ok=False, detail="restricted by AppArmor", advice=advice)
    return Finding(name=name, ok=True, detail="allowed")


def _setting(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _device(path: str, purpose: str) -> Finding:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Finding(
            name=path, ok=False, detail=f"is missing, and {purpose} needs it", advice="as root: modprobe tun"
        )
    except OSError as error:
        advice = f"as root: chmod 666 {path}"
        return Finding(name=path, ok=False, detail=f"{error.strerror}; {purpose} needs it", advice=advice)
    return Finding(name=path, ok=True, detail="can be opened")
