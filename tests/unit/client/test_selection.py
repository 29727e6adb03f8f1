"""Which backend ``connect`` takes, and what it says when there is none."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import asyncctr
from asyncctr import BackendUnavailableError, ClosedError, ContainerdConfig, DockerConfig, InvalidConfigError
from asyncctr.client import selection
from asyncctr.client.selection import choose_backend, named_config
from asyncctr.testing.proxy import BlackHole

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "ASYNCCTR_BACKEND", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


def test_what_the_environment_fixes(tmp_path: Path) -> None:
    folder = str(tmp_path / "docker")
    assert named_config({"DOCKER_CONFIG": folder}) is None
    assert named_config({"DOCKER_HOST": "tcp://192.0.2.1:2375", "DOCKER_CONFIG": folder}) == (
        DockerConfig(),
        "DOCKER_HOST",
    )
    chosen = named_config({"ASYNCCTR_BACKEND": "docker", "DOCKER_CONFIG": folder})
    assert chosen is not None
    assert chosen[0] == DockerConfig()
    with pytest.raises(InvalidConfigError, match="lxc"):
        named_config({"ASYNCCTR_BACKEND": "lxc"})
    containerd = {"ASYNCCTR_BACKEND": "containerd"}
    assert named_config(containerd) == (ContainerdConfig(auto_start=True), "ASYNCCTR_BACKEND=containerd")
    without = named_config({**containerd, "ASYNCCTR_AUTO_START": "0"})
    assert without == (ContainerdConfig(), "ASYNCCTR_BACKEND=containerd")
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"currentContext": "far"}))
    chosen = named_config({"DOCKER_CONFIG": folder})
    assert chosen is not None
    assert chosen[0] == DockerConfig(context="far")


async def test_nothing_answers_and_the_message_says_what_to_do() -> None:
    with pytest.raises(BackendUnavailableError) as caught:
        async with asyncctr.connect(DockerConfig(host="unix:///nowhere/docker.sock")):
            pass
    assert "/nowhere/docker.sock" in str(caught.value)


async def test_a_fixed_choice_does_not_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(BackendUnavailableError, match=r"/nowhere/docker\.sock"):
        await choose_backend(None)


async def test_a_runtime_that_never_answers_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with BlackHole() as hole:
        monkeypatch.setattr(selection, "PROBE_TIMEOUT", 0.2)
        monkeypatch.setattr(selection, "_PROBED", ("docker",))
        monkeypatch.setattr(selection, "_CONFIGS", {"docker": lambda: DockerConfig(host=f"unix://{hole.path}")})
        async with asyncio.timeout(5):
            with pytest.raises(BackendUnavailableError) as caught:
                await choose_backend(None, {"ASYNCCTR_AUTO_START": "0"})
    message = str(caught.value)
    assert "docker: did not answer within 0.2 s" in message
    assert "apt-get install" in message


async def test_the_last_attempt_is_a_containerd_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[ContainerdConfig] = []

    async def open_none(config: ContainerdConfig) -> None:
        tried.append(config)
        raise BackendUnavailableError("install something")

    monkeypatch.setattr(selection, "open_backend", open_none)
    with pytest.raises(BackendUnavailableError, match="a containerd of its own: install something"):
        await choose_backend(None, {})
    assert [config.backend_type for config in tried] == ["docker", "containerd", "containerd"]
    assert [getattr(config, "auto_start", None) for config in tried] == [None, False, True]
    tried.clear()
    with pytest.raises(BackendUnavailableError):
        await choose_backend(None, {"ASYNCCTR_AUTO_START": "0"})
    assert [config.backend_type for config in tried] == ["docker", "containerd"]


def test_without_the_docker_extra_its_contexts_are_looked_at_all_the_same() -> None:
    script = (
        "import sys; sys.modules['aiodocker'] = None\n"
        "from asyncctr.client.selection import named_config\n"
        "print(named_config({'DOCKER_CONTEXT': 'default', 'HOME': '/nowhere'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("None\n", "")


async def test_a_client_is_used_open() -> None:
    client = asyncctr.connect(DockerConfig(host="unix:///nowhere/docker.sock"))
    with pytest.raises(ClosedError, match="async with"):
        await client.run("image")
    await client.aclose()
    await client.aclose()
    with pytest.raises(ClosedError):
        await client
