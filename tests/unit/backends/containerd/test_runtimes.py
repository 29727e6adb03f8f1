"""Runtimes by name."""

from __future__ import annotations

import pytest

from asyncctr.backends.containerd import site as site_module
from asyncctr.backends.containerd.proto import runc_pb2
from asyncctr.backends.containerd.site import runtime_named
from asyncctr.core.errors import UnsupportedError


@pytest.mark.parametrize(
    ("name", "shim"),
    [
        ("", "io.containerd.runc.v2"),
        ("runsc", "io.containerd.runsc.v1"),
        ("kata", "io.containerd.kata.v2"),
        ("io.containerd.other.v3", "io.containerd.other.v3"),
    ],
)
def test_a_shim_without_options(name: str, shim: str) -> None:
    found = runtime_named(name)
    assert (found.name, found.options) == (shim, None)


def test_one_like_runc_is_called_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_module.shutil, "which", lambda *_, **__: "/usr/bin/crun")
    found = runtime_named("crun")
    assert found.name == "io.containerd.runc.v2"
    assert found.options is not None
    assert found.options.type_url == "containerd.runc.v1.Options"
    assert runc_pb2.Options.FromString(found.options.value).binary_name == "crun"


def test_one_that_is_not_installed_and_one_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_module.shutil, "which", lambda *_, **__: None)
    with pytest.raises(UnsupportedError, match="apt-get install crun") as caught:
        runtime_named("crun")
    assert caught.value.field == "runtime"
    for name in ("docker", "io.containerd", "../runc", "io.containerd.Runc.v2", "a b.c.d"):
        with pytest.raises(UnsupportedError, match="not known"):
            runtime_named(name)
