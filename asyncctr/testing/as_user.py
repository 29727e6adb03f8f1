"""Tests that root has run as an ordinary user: in a process of theirs, with results that can be passed on."""

from __future__ import annotations

import asyncio
import os
import shutil
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from asyncctr.testing.golang import CONTAINERD
from asyncctr.testing.ordinary import everybodys_devices, ordinary_user

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["AsUser", "run_as_user"]


class AsUser:
    """What tests came to, by their names."""

    def __init__(self, results: dict[str, str], output: str) -> None:
        self._results = results
        self._output = output

    def tell(self, name: str) -> None:
        """Pass, skip or fail the running test as that one did."""
        result = self._results.get(name)
        if result is None:
            pytest.fail(f"{name} did not run:\n{self._output[-5000:]}", pytrace=False)
        if result.startswith("skipped"):
            pytest.skip(result)
        if result:
            pytest.fail(result, pytrace=False)

    def tell_all(self) -> None:
        """Fail with all that failed."""
        failed = {name: result for name, result in self._results.items() if result and not result.startswith("skipped")}
        if failed or not self._results:
            told = "\n".join(f"{name}: {result}" for name, result in failed.items())
            pytest.fail(told or f"nothing ran:\n{self._output[-5000:]}", pytrace=False)


async def run_as_user(file: Path, names: Sequence[str], *, imports: str) -> AsUser:
    """Run tests of a file, which is in a directory of ``tests``, as a user that is there for this alone, and for all of them.

    Args:
        file: with a ``conftest.py`` beside it, if need be.
        names: of its tests.
        imports: statements that import what the tests need.

    Raises:
        RuntimeMissing: a program is missing, or a Python that all users may run.
    """
    async with ordinary_user(f"import pytest, _pytest.junitxml, anyio.pytest_plugin\n{imports}") as user:
        root = file.parents[2]
        project = user.directory / "project"
        report = user.directory / "home/report.xml"
        environ = {name: value for name, value in os.environ.items() if name.startswith("ASYNCCTR_")} | user.environ

        def prepare() -> None:
            for source in (root / "pyproject.toml", root / "tests/conftest.py", file, file.with_name("conftest.py")):
                if source.exists():
                    target = project / source.relative_to(root)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, target)
            if CONTAINERD.ready():
                shutil.copytree(CONTAINERD.directory, user.directory / "programs")
                environ["ASYNCCTR_TEST_CONTAINERD"] = str(user.directory / "programs")

        await asyncio.to_thread(prepare)
        words = [*user.python, "-m", "pytest", "-p", "no:cacheprovider", f"--junit-xml={report}", "--tb=short"]
        words += [f"{file.relative_to(root)}::{name}" for name in names]
        with everybodys_devices():
            process = await asyncio.create_subprocess_exec(
                *words, cwd=project, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            output, _ = await process.communicate()
        results: dict[str, str] = {}
        if report.exists():
            # Ours, from what we started.
            for case in ET.parse(report).iter("testcase"):  # noqa: S314
                problems = [f"{part.tag}: {part.get('message', '')}\n{part.text or ''}" for part in case]
                results[case.get("name", "")] = "\n".join(problems)
        if left := await user.left():
            pytest.fail(f"processes of the user are left: {left}", pytrace=False)
        return AsUser(results, output.decode(errors="replace"))
