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
RUNTIME_PACKAGES = {
    "dockerd": "docker.io",
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "/bin/busybox": "busybox-static",
}
TEST_PACKAGES = {
    **RUNTIME_PACKAGES,
    "docker": "docker.io",
    "podman": "podman",
    "docker-registry": "docker-registry",
    "htpasswd": "apache2-utils",
    "openssl": "openssl",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "git": "git",
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


def dependency_group(name: str) -> list[str]:
    """The requirements of a dependency group, without the package itself."""
    groups = nox.project.load_toml("pyproject.toml")
    return [item for item in nox.project.dependency_groups(groups, name) if not item.startswith("asyncctr")]


@nox.session
def demo(session: nox.Session) -> None:
    """Start a private runtime, run a container with streamed output, limits and an exit code, and print what happened."""
    install_packages(session, RUNTIME_PACKAGES)
    session.install("-e", ".[docker,cli]", silent=True)
    session.run("python", "-m", "asyncctr.testing.demo")


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite on private runtimes; lint, types and layers come after it."""
    install_packages(session, TEST_PACKAGES)
    install_wheel(session, "all")
    session.install(*dependency_group("test"))
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
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Mypy --strict and pyright, no module exempt."""
    session.install("-e", ".[all]", *dependency_group("typecheck"), silent=True)
    session.run("mypy")
    session.run("pyright")


@nox.session
def bench(session: nox.Session) -> None:
    """Side by side with the peers, in one run, on one private daemon."""
    install_packages(session, {**RUNTIME_PACKAGES, "docker": "docker.io"})
    install_wheel(session, "all")
    session.install(*dependency_group("bench"))
    session.run("python", "-P", "benchmarks/run.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, into ``site/``; a warning is an error."""
    session.install("-e", ".[all]", *dependency_group("docs"), silent=True)
    session.run("mkdocs", "build", "--strict", *session.posargs)


if __name__ == "__main__":
    sys.exit("run it with: python3 -m nox")
