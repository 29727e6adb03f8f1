"""The programs that tests need: finding them, requiring them, running them to their end."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

__all__ = [
    "REQUIRE_VARIABLE",
    "RUNTIMES",
    "CommandError",
    "Completed",
    "RuntimeMissing",
    "find",
    "give_up",
    "missing",
    "require",
    "run",
]

REQUIRE_VARIABLE = "ASYNCCTR_REQUIRE"
"""``all``, or names of runtimes separated by commas: those that must be present, whose absence fails instead of skips."""

# Debian keeps daemons in the sbin directories, which an ordinary user's PATH lacks.
# CNI's plugins are in no PATH anywhere: Debian has its own directory for them, upstream another.
_EXTRA_PATH = (
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
    "/usr/libexec",
    "/usr/lib/podman",
    "/usr/lib/cni",
    "/opt/cni/bin",
)

_PACKAGES = {
    "busybox": "busybox-static",
    "conmon": "conmon",
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "crun": "crun",
    "ctr": "containerd",
    "docker": "docker.io (docker-cli from Debian 13 on)",
    "docker-proxy": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "fuse-overlayfs": "fuse-overlayfs",
    "firewall": "containernetworking-plugins",
    "gcc": "gcc libc6-dev",
    "host-local": "containernetworking-plugins",
    "htpasswd": "apache2-utils",
    "ip": "iproute2",
    "iptables": "iptables",
    "iptables-save": "iptables",
    "newuidmap": "uidmap",
    "mkfs.ext4": "e2fsprogs",
    "mount": "mount",
    "openssl": "openssl",
    "podman": "podman",
    "portmap": "containernetworking-plugins",
    "qemu-system-x86_64": "qemu-system-x86",
    "nsenter": "util-linux",
    "rootlesskit": "rootlesskit",
    "runc": "runc",
    "setpriv": "util-linux",
    "slirp4netns": "slirp4netns",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "umount": "mount",
    "unshare": "util-linux",
    "useradd": "passwd",
}

RUNTIMES: dict[str, tuple[str, ...]] = {
    "containerd": ("containerd", "containerd-shim-runc-v2", "ctr", "runc", "umount"),
    "containerd2": ("runc", "umount"),
    "rootless": ("rootlesskit", "slirp4netns", "newuidmap", "nsenter", "setpriv", "useradd"),
    "docker": ("dockerd", "docker", "containerd", "containerd-shim-runc-v2", "runc", "ip", "iptables", "umount"),
    "runc": ("runc", "busybox"),
    "crun": ("crun", "busybox", "unshare", "umount"),
    "podman": ("podman", "conmon", "runc", "ip", "iptables", "umount"),
    # Not bridge: iproute2 has a program of that name, too.
    "cni": ("portmap", "firewall", "host-local", "ip", "iptables", "iptables-save"),
    "registry": ("docker-registry", "htpasswd", "openssl"),
    "image": ("busybox",),
    "docker-cli": ("docker",),
    "ssh": ("ssh", "sshd"),
    "mount": ("mount", "umount", "mkfs.ext4"),
    "qemu": ("qemu-system-x86_64",),
    "guests": ("gcc", "qemu-system-x86_64"),
}
"""What :func:`require` knows: the name of a runtime and the programs that it takes. ``containerd2``, containerd 2.x, is built from
Go modules besides (:mod:`asyncctr.testing.golang`)."""

_WITHOUT_ROOT = frozenset({"registry", "image", "docker-cli", "ssh", "qemu", "guests"})


class RuntimeMissing(Exception):  # noqa: N818 - a state of the machine, which a test skips on; not a failure of the code
    """A program is not installed, or this user may not run it. The message says what to do.

    Attributes:
        program: the program that is missing; ``"root"`` where it is the right to run it.
        package: the Debian package to install; empty where none would help.
    """

    def __init__(self, program: str, reason: str, *, package: str = "") -> None:
        super().__init__(reason)
        self.program = program
        self.package = package

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_missing, (self.program, str(self), self.package))


def _rebuild_missing(program: str, reason: str, package: str) -> RuntimeMissing:
    return RuntimeMissing(program, reason, package=package)


class CommandError(Exception):
    """A command ended with another code than 0, or not in time. The message has the end of its output, not its environment."""


@attrs.frozen(kw_only=True)
class Completed:
    """How a command ended.

    Attributes:
        returncode: its exit code, or minus the number of the signal that ended it.
        stdout: all that it printed there.
        stderr: all that it printed there.
    """

    returncode: int
    stdout: bytes = attrs.field(repr=False)
    stderr: bytes = attrs.field(repr=False)

    @property
    def text(self) -> str:
        """``stdout`` decoded, without the white space around it."""
        return self.stdout.decode(errors="replace").strip()

    @property
    def lines(self) -> list[str]:
        """The lines of ``stdout`` that are not empty."""
        return [line for line in self.stdout.decode(errors="replace").splitlines() if line.strip()]


def _look(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(_EXTRA_PATH))


def find(program: str) -> str:
    """The absolute path of a program.

    Raises:
        RuntimeMissing: it is not installed; the message names the Debian package.
    """
    path = _look(program)
    if path is None:
        package = _PACKAGES.get(program, "")
        hint = f"; on Debian: apt-get install {package}" if package else ""
        raise RuntimeMissing(program, f"{program} is not installed{hint}", package=package)
    return path


def missing(name: str) -> RuntimeMissing | None:
    """Why the runtime ``name`` cannot be used here, or ``None`` when it can.

    Raises:
        KeyError: ``name`` is not in :data:`RUNTIMES`.
    """
    programs = RUNTIMES[name]
    if name not in _WITHOUT_ROOT:
        if platform.system() != "Linux":
            return RuntimeMissing("linux", f"a private {name} needs Linux")
        if os.geteuid() != 0:
            return RuntimeMissing("root", f"a private {name} needs root: run the tests as root, or with sudo")
    if name == "guests" and platform.machine() != "x86_64":
        return RuntimeMissing("x86_64", "the guests of the tests' own are for x86-64, and are compiled on it")
    for program in programs:
        try:
            find(program)
        except RuntimeMissing as error:
            return error
    if name == "containerd2":
        from asyncctr.testing.golang import CONTAINERD  # noqa: PLC0415 - it is built on this module

        return CONTAINERD.missing()
    return None


def require(name: str) -> None:
    """Skip the running pytest test with its reason if a runtime is missing; fail it if ``ASYNCCTR_REQUIRE`` asks for it.

    Raises:
        KeyError: ``name`` is not in :data:`RUNTIMES`.
    """
    error = missing(name)
    if error is not None:
        give_up(name, error)


def give_up(name: str, error: RuntimeMissing) -> NoReturn:
    """Skip the running pytest test, or fail it if ``ASYNCCTR_REQUIRE`` asks for the runtime ``name``."""
    import pytest  # noqa: PLC0415 - only its users need it

    wanted = {part.strip() for part in os.environ.get(REQUIRE_VARIABLE, "").split(",")}
    if wanted & {"all", name}:
        pytest.fail(f"{REQUIRE_VARIABLE} asks for {name}: {error}", pytrace=False)
    pytest.skip(f"{name}: {error}")


def environment(changes: Mapping[str, str | None] | None) -> dict[str, str]:
    """This process's environment with ``changes``; ``None`` takes a variable away."""
    changed = {**os.environ, **(changes or {})}
    return {name: value for name, value in changed.items() if value is not None}


async def run(
    *argv: str | os.PathLike[str],
    stdin: bytes = b"",
    env: Mapping[str, str | None] | None = None,
    timeout: float = 60.0,  # noqa: ASYNC109 - the deadline is the process's: past it, it is killed
    check: bool = True,
) -> Completed:
    """Run a program to its end; no shell is involved.

    Args:
        argv: the program and its arguments.
        stdin: what it reads; nothing by default.
        env: variables added to this process's; ``None`` takes one away.
        timeout: seconds until it is killed.
        check: whether another exit code than 0 raises.

    Raises:
        CommandError: it failed, with ``check``, or did not end in time.
        RuntimeMissing: there is no such program.
    """
    words = [os.fspath(word) for word in argv]
    program = words[0] if "/" in words[0] else find(words[0])
    process = await asyncio.create_subprocess_exec(
        program,
        *words[1:],
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(env),
    )
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate(stdin or None)
    except TimeoutError as error:
        message = f"{' '.join(words)} did not end within {timeout:g} s"
        raise CommandError(message) from error
    finally:
        if process.returncode is None:
            process.kill()
            # Not communicate: a grandchild may hold the pipes open long after the program has gone.
            await process.wait()
    returncode = await process.wait()
    if check and returncode:
        output = (stderr + stdout).decode(errors="replace").strip()[-2000:]
        message = f"{' '.join(words)} ended with {returncode}: {output}"
        raise CommandError(message)
    return Completed(returncode=returncode, stdout=stdout, stderr=stderr)
