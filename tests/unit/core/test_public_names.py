"""What is public is complete, sorted, and documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import asyncctr

MODULES = sorted(info.name for info in pkgutil.walk_packages(asyncctr.__path__, "asyncctr."))


def test_all_is_sorted_and_true() -> None:
    assert asyncctr.__all__ == sorted(asyncctr.__all__)
    for name in asyncctr.__all__:
        assert hasattr(asyncctr, name), name


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_its_subject_and_lists_what_exists(name: str) -> None:
    if name.endswith("__main__"):
        return
    module = importlib.import_module(name)
    assert module.__doc__, name
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), f"{name}.{public}"


@pytest.mark.parametrize("name", asyncctr.__all__)
def test_public_things_are_documented(name: str) -> None:
    thing = getattr(asyncctr, name)
    if not inspect.isclass(thing) and not inspect.isfunction(thing):
        return
    assert thing.__doc__, name
    if inspect.isclass(thing):
        for member, value in vars(thing).items():
            if not member.startswith("_") and inspect.isfunction(value):
                assert value.__doc__, f"{name}.{member}"


def test_importing_the_package_imports_no_backend() -> None:
    code = "import sys, asyncctr; sys.exit(any(name in sys.modules for name in ('aiodocker', 'grpclib', 'rich')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
