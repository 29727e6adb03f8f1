"""The error tree: what each carries, and that it crosses processes."""

from __future__ import annotations

import pickle

import pytest

from asyncctr.core import errors
from asyncctr.core.status import ExitStatus, RunResult

RESULT = RunResult(exit_code=3, status=ExitStatus(code=3), stdout=b"out", stderr=b"")
TREE = {
    "NotFoundError": ("ContainerNotFoundError", "ImageNotFoundError"),
    "UnsupportedError": ("BuildNotSupportedError",),
    "ImagePullError": ("RegistryAuthError", "DigestMismatchError"),
}


def make(name: str) -> errors.AsyncctrError:
    extra = {"result": RESULT} if name in ("ExitError", "RunTimeoutError") else {}
    error: errors.AsyncctrError = getattr(errors, name)("it failed", backend="docker", resource="abc", **extra)
    return error


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_carries_its_facts_and_pickles(name: str) -> None:
    error = make(name)
    assert isinstance(error, errors.AsyncctrError)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.backend, copy.resource, copy.status) == ("it failed", "docker", "abc", error.status)
    if hasattr(error, "result"):
        assert copy.result == RESULT


def test_the_tree() -> None:
    for parent, children in TREE.items():
        for child in children:
            assert issubclass(getattr(errors, child), getattr(errors, parent))
    for name in ("OperationTimeoutError", "RunTimeoutError"):
        assert issubclass(getattr(errors, name), TimeoutError)
    assert issubclass(errors.InvalidConfigError, ValueError)


def test_fields_and_consoles() -> None:
    assert errors.UnsupportedError("no", field="network.mtu").field == "network.mtu"
    assert errors.StartError("no", console="panic").console == "panic"
    build = errors.BuildError("no", step="RUN x", line=3, output=["a"], exit_code=2)
    assert (build.step, build.line, build.output, build.exit_code) == ("RUN x", 3, ("a",), 2)
