"""Directories of the host in machines, with the real kernel where ``ASYNCCTR_TEST_NANOS_DIR`` names its directory."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from asyncctr import connect
from asyncctr.backends.nanos.sharing import Shared, machine_type, plan_shared, shared_mounts
from asyncctr.core.backend_config import NanosConfig
from asyncctr.core.build import NanosBuildInput
from asyncctr.core.config import ContainerConfig, NanosOptions, VolumeMount
from asyncctr.core.errors import InvalidConfigError, UnsupportedError
from asyncctr.testing.guests import build_guests
from asyncctr.testing.programs import require

pytestmark = pytest.mark.anyio

VARIABLE = "ASYNCCTR_TEST_NANOS_DIR"
IMAGE = "test/guest:1"
DIRECTORIES = frozenset({"/", "/data", "/etc", "/a:ro"})


def mount(source: str | Path, destination: str, **options: bool) -> VolumeMount:
    return VolumeMount(source=str(source), destination=destination, **options)


def config(*volumes: VolumeMount, machine: str = "") -> ContainerConfig:
    return ContainerConfig(IMAGE, volumes=volumes, options=NanosOptions(machine=machine) if machine else None)


def test_the_smallest_machine_that_has_what_is_needed() -> None:
    bound, named = mount("/", "/data"), mount("name", "/data", is_volume_name=True)
    assert machine_type(config()) == machine_type(config(named)) == "microvm"
    assert machine_type(config(bound)) == machine_type(config(machine="q35")) == "q35"
    with pytest.raises(UnsupportedError, match="q35") as refused:
        machine_type(config(bound, machine="microvm"))
    assert refused.value.field == "volumes"
    with pytest.raises(UnsupportedError, match="pc"):
        machine_type(config(machine="pc"))


def test_what_is_mounted_where(tmp_path: Path) -> None:
    source = str(tmp_path)
    asked = config(
        mount(source, "/data"),
        mount("name", "/var", is_volume_name=True),
        mount(source, "/etc/", read_only=True),
    )
    planned = plan_shared(asked, DIRECTORIES)
    assert planned == (
        Shared(source=source, path="/data", read_only=False),
        Shared(source=source, path="/etc", read_only=True),
    )
    assert shared_mounts(planned) == {"virtfs0": "/data", "virtfs1": "/etc:ro"}
    (tmp_path / "file").touch()
    for volume, what in (
        (mount(source + "/none", "/data"), "on the host"),
        (mount(source + "/file", "/data"), "on the host"),
        (mount(source + "/" + "n" * 300, "/data"), "on the host"),
        (mount(source, "/none"), "the image has no"),
        (mount(source, "/"), "the image has no"),
        (mount(source, "/a:ro"), "':ro'"),
    ):
        with pytest.raises(InvalidConfigError, match=what):
            plan_shared(config(volume), DIRECTORIES)


async def test_both_sides_see_what_the_other_one_writes(tmp_path: Path) -> None:
    require("guests")
    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} names no directory with a Nanos kernel")
    tree, writable, kept = tmp_path / "tree", tmp_path / "writable, ü", tmp_path / "kept"
    for path in (tree / "one", tree / "two", writable, kept):
        path.mkdir(parents=True)
    # An empty directory is in the image for its file.
    for path in (tree / "one", tree / "two"):
        (path / "of the image").touch()
    (writable / "from the host").write_text("hello\n")
    (kept / "file").write_text("kept\n")
    kernel = str(Path(os.environ[VARIABLE], "kernel.img"))
    async with connect(NanosConfig(kernel_path=kernel, work_dir=str(tmp_path / "work"))) as client:
        build = NanosBuildInput(program=str(build_guests().shell), dirs={"/vol": str(tree)})
        await client.image(IMAGE).build(build)
        script = (
            "cat '/vol/one/from the host' /vol/two/file; echo 'from the guest' > /vol/one/new; "
            "echo spoilt >> /vol/two/file; echo spoilt > /vol/two/new"
        )
        asked = ContainerConfig(
            IMAGE,
            command=["-c", script],
            volumes=[mount(writable, "/vol/one"), mount(kept, "/vol/two", read_only=True)],
        )
        async with asyncio.timeout(30):
            ended = await client.run(asked)
        assert ended.stdout == (
            b"hello\nkept\nsh: /vol/two/file: Read-only file system\nsh: /vol/two/new: Read-only file system\n"
        )
        assert (writable / "new").read_text() == "from the guest\n"
        assert [path.read_text() for path in kept.iterdir()] == ["kept\n"]
