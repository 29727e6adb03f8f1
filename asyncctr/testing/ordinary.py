"""An ordinary user of one's own: with subordinate ids, and a Python and packages that they may run."""

# ruff: noqa: ASYNC240 - of /proc and /tmp, while nothing else runs

from __future__ import annotations

import asyncio
import os
import pwd
import select
import shutil
import sys
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from asyncctr.testing.programs import RuntimeMissing, find, missing, run
from asyncctr.testing.residue import kill_all, remove_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["OrdinaryUser", "everybodys_devices", "ordinary_user"]

_IDS = "900000-965535"
_DEVICES = (Path("/dev/net/tun"), Path("/dev/fuse"))


@attrs.frozen
class OrdinaryUser:
    """Somebody.

    Attributes:
        name: in the password file.
        uid: the user's, and their group's id.
        directory: everybody may enter it; ``home`` in it is the user's.
        environ: for their programs.
        python: the words that run Python as this user.
    """

    name: str
    uid: int
    directory: Path
    environ: dict[str, str]
    python: tuple[str, ...] = ()

    def words(self, *words: str) -> tuple[str, ...]:
        """The words that run a program as this user; it ends with the thread that starts it."""
        become = (f"--reuid={self.uid}", f"--regid={self.uid}", "--init-groups", "--pdeathsig", "KILL")
        return (find("setpriv"), *become, "--", *words)

    def processes(self) -> list[int]:
        """All that runs as this user."""
        found: list[int] = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
                if path.stat().st_uid == self.uid and state != "Z":
                    found.append(int(path.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found

    async def left(self) -> list[int]:
        """The processes that do not end by themselves: a lock is free a moment before its holder has ended."""
        for pid in self.processes():
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            await asyncio.to_thread(select.select, [descriptor], [], [], 5)
            os.close(descriptor)
        return self.processes()


@asynccontextmanager
async def ordinary_user(imports: str) -> AsyncIterator[OrdinaryUser]:
    """Make a user, with copies of the packages that they are to use; all of it is gone afterwards, their processes as well.

    Args:
        imports: import statements; what is imported by them is there for the user's Python.

    Raises:
        RuntimeMissing: a program is missing, or this Python's version for all users.
    """
    if error := missing("rootless"):
        raise error
    name = f"asyncctr-test-{os.getpid()}"
    directory = Path(tempfile.mkdtemp(prefix="asyncctr-user-", dir="/tmp"))
    directory.chmod(0o755)
    await run("useradd", "--home-dir", f"{directory}/home", "--create-home", name)
    try:
        uid = pwd.getpwnam(name).pw_uid
        if f"{name}:" not in Path("/etc/subuid").read_text():
            await run("usermod", "--add-subuids", _IDS, "--add-subgids", _IDS, name)
        environ = {
            "HOME": f"{directory}/home",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": f"{directory}/packages",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        user = OrdinaryUser(name, uid, directory, environ)
        await _copy_packages(imports, directory / "packages")
        yield attrs.evolve(user, python=user.words(await _python(user, imports)))
    finally:
        if pids := [int(path.name) for path in Path("/proc").glob("[0-9]*") if _owner(path) == name]:
            await kill_all(pids)
        await run("userdel", name)
        await asyncio.to_thread(remove_tree, directory)


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return ""


async def _copy_packages(imports: str, target: Path) -> None:
    """Copy what is imported to where every user may read it."""
    script = f"import sys\n{imports}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    path = os.pathsep.join(path for path in sys.path if path)
    names = (await run(sys.executable, "-c", script, env={"PYTHONPATH": path})).text.split()
    roots = {Path(__file__).parents[2], Path(attrs.__file__).parents[1]}

    def copy() -> None:
        # What is installed tells its version, and its plugins, by a directory beside it.
        told = [
            path.name for root in roots for path in root.glob("*.dist-info") if path.name.partition("-")[0] in names
        ]
        for name in [*names, *told]:
            for root in roots:
                if (root / name).is_dir():
                    shutil.copytree(root / name, target / name, dirs_exist_ok=True)
                elif (root / f"{name}.py").is_file():
                    target.mkdir(exist_ok=True)
                    shutil.copy(root / f"{name}.py", target)

    await asyncio.to_thread(copy)


async def _python(user: OrdinaryUser, imports: str) -> str:
    # Of the same version, for the packages have compiled parts. setpriv starts even what the user may not start again.
    same = f"sys.version_info[:2] == {sys.version_info[:2]} and os.access(sys.executable, os.X_OK)"
    script = f"import os, sys\nif not ({same}): sys.exit(1)\n{imports}"
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        if (await run(*user.words(python), "-c", script, env=_only(user.environ), check=False)).returncode == 0:
            return python
    reason = "other users can run no Python of this version: install python3 for all of them"
    raise RuntimeMissing("python3", reason, package="python3")


def _only(environ: dict[str, str]) -> dict[str, str | None]:
    return {**dict.fromkeys(os.environ), **environ}


@contextmanager
def everybodys_devices() -> Iterator[None]:
    """Let every user open the devices that networking and fuse-overlayfs take, as most machines do."""
    modes = {path: path.stat().st_mode for path in _DEVICES if path.exists()}
    for path in modes:
        path.chmod(0o666)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
