from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncctr.backends.nanos.document import ImageDocument
from asyncctr.backends.nanos.manifest import build_manifest
from asyncctr.backends.nanos.ops_config import OpsConfig
from asyncctr.backends.nanos.store import ImageStore
from asyncctr.backends.nanos.tfs.disk import Disk, find_root, write_disk
from asyncctr.backends.nanos.tfs.reader import read_filesystem
from asyncctr.backends.nanos.tfs.sources import RawImage, opened
from asyncctr.backends.nanos.tfs.tree import Content, Directory, HostFile, Node, Symlink
from asyncctr.core.build import NanosBuildInput
from asyncctr.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


class Project:
    def __init__(self, path: Path, make_elf: Callable[..., bytes]) -> None:
        self.path = path
        self.program = path / "hello"
        self.program.write_bytes(make_elf(kind=2))
        self.klibs = path / "klibs"

    def add(self, path: str, text: str = "") -> Path:
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text or path)
        return file

    def build(self, ops: dict[str, Any] | None = None, **fields: Any) -> Disk:
        config = None if ops is None else OpsConfig.parse(json.dumps(ops), directory=str(self.path))
        if ops is None or "Program" not in ops:
            fields.setdefault("program", self.program)
        return build_manifest(NanosBuildInput(**fields), config, klib_dir=self.klibs, kernel="/kernel.img")


@pytest.fixture
def project(tmp_path: Path, make_elf: Callable[..., bytes]) -> Project:
    return Project(tmp_path, make_elf)


def _at(tree: Directory, path: str) -> Node | None:
    node: Node | None = tree
    for step in path.strip("/").split("/"):
        node = node.children.get(step) if isinstance(node, Directory) else None
    return node


def _content(manifest: Disk, path: str) -> bytes:
    node = _at(manifest.tree, path)
    if isinstance(node, Content):
        return node.data
    assert isinstance(node, HostFile)
    return Path(node.path).read_bytes()


def test_the_least_of_an_image(project: Project) -> None:
    manifest = project.build()
    assert manifest.root.program == str(project.program)
    assert _at(manifest.tree, manifest.root.program) == HostFile(str(project.program))
    assert manifest.root.values() == {
        "program": manifest.root.program,
        "arguments": (manifest.root.program,),
        "environment": {"USER": "root", "PWD": "/"},
        "debug_exit": "t",
    }
    assert _content(manifest, "/etc/resolv.conf") == b"nameserver 10.0.2.3\n"
    assert _content(manifest, "/etc/passwd").startswith(b"root:x:0:0:")
    assert _content(manifest, "/proc/sys/kernel/hostname") == b"uniboot"
    assert not manifest.klibs


def test_a_relative_program_is_at_the_root(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.path)
    assert project.build(program="./hello").root.program == "/hello"
    monkeypatch.chdir(project.add("sub/x").parent)
    assert project.build(program="../hello").root.program == "/hello"


def test_files_directories_and_patterns(project: Project) -> None:
    project.add("web/index.html")
    project.add("web/deep/page.html")
    project.add("web/deep/style.css")
    (project.path / "web/empty").mkdir()
    (project.path / "web/link").symlink_to("nowhere")
    manifest = project.build(
        files={"/etc/passwd": project.add("users", "me")},
        dirs={"/srv": project.path / "web"},
        map_dirs={"/pages": project.path / "web" / "*.html", "/all": project.path / "web"},
    )
    assert _content(manifest, "/etc/passwd") == b"me"
    srv = _at(manifest.tree, "/srv")
    assert srv == _at(manifest.tree, "/all")
    assert isinstance(srv, Directory)
    assert srv.children["empty"] == Directory({})
    assert srv.children["link"] == Symlink("nowhere")
    web = project.path / "web"
    assert srv.children["deep"] == Directory(
        {name: HostFile(str(web / "deep" / name)) for name in ("page.html", "style.css")}
    )
    assert _at(manifest.tree, "/pages") == Directory(
        {
            "index.html": HostFile(str(web / "index.html")),
            "deep": Directory({"page.html": HostFile(str(web / "deep/page.html"))}),
        }
    )


def test_what_is_no_file_is_left_out(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    (project.path / "run").mkdir()
    os.mkfifo(project.path / "run/fifo")
    with socket.socket(socket.AF_UNIX) as listening, caplog.at_level(logging.WARNING):
        listening.bind(str(project.path / "run/s"))
        assert _at(project.build(dirs={"/run": project.path / "run"}).tree, "/run") == Directory({})
    assert len(caplog.records) == 2


def test_the_configuration_gives_what_the_input_does_not(project: Project) -> None:
    project.add("etc/app.conf")
    project.add("root/srv/data")
    project.add("klibs/tls")
    project.add("klibs/cloud_init")
    project.add("bin/app").write_bytes(project.program.read_bytes())
    ops = {
        "Program": "bin/app",
        "Args": ["-a"],
        "Env": {"A": "ops", "B": "ops"},
        "Files": ["etc/app.conf", "/srv/data"],
        "TargetRoot": "root",
        "Klibs": ["cloud_init"],
        "Mounts": {"data": "/data:ro"},
        "NameServers": ["192.0.2.1"],
        "Debugflags": ["trace"],
        "RebootOnExit": True,
        "BaseVolumeSz": "8m",
        "ManifestPassthrough": {"debug_exit": "f", "exec_wait_for_ip4_secs": 5},
        "RunConfig": {"Mounts": ["logs:/var/log"], "IPAddress": "192.0.2.9", "Gateway": "192.0.2.1"},
    }
    manifest = project.build(ops, env={"A": "input"}, mounts={"more": "/more"})
    assert manifest.root.program == "/bin/app"
    assert manifest.root.values() == {
        "program": "/bin/app",
        "arguments": ("/bin/app", "-a"),
        "environment": {"USER": "root", "PWD": "/", "A": "input", "B": "ops"},
        "mounts": {"data": "/data:ro", "logs": "/var/log", "more": "/more"},
        "klibs": "bootfs",
        "trace": "t",
        "reboot_on_exit": "t",
        "ipaddr": "192.0.2.9",
        "gateway": "192.0.2.1",
        "debug_exit": "f",
        "exec_wait_for_ip4_secs": 5,
    }
    assert set(manifest.klibs) == {"cloud_init", "tls"}
    assert manifest.length == 8 << 20
    assert _at(manifest.tree, "/data") == _at(manifest.tree, "/var/log") == _at(manifest.tree, "/more") == Directory({})
    assert _content(manifest, "/etc/app.conf") == b"etc/app.conf"
    assert _content(manifest, "/srv/data") == b"root/srv/data"
    assert project.build({"Args": ["-a"]}, args=["-b"]).root.values()["arguments"][1:] == ("-b",)


def test_links_in_a_root_lead_nowhere_else(project: Project) -> None:
    project.add("root/run/real/file")
    (project.path / "root/srv").symlink_to("/run/real")
    project.add("static/a.html")
    ops = {
        "TargetRoot": "root",
        "Dirs": ["/srv"],
        "MapDirs": {"/srv/*": "/mapped", "static/*.html": "/", "static": "/s"},
    }
    tree = project.build(ops).tree
    expected = Directory({"file": HostFile(str(project.path / "root/run/real/file"))})
    assert _at(tree, "/srv") == _at(tree, "/mapped") == expected
    assert _at(tree, "/a.html") == _at(tree, "/s/a.html") == HostFile(str(project.path / "static/a.html"))


async def test_a_disk_is_built_stored_and_read(project: Project) -> None:
    disk = project.build(args=["-v"], env={"A": "b"}, files={"/big": project.add("big", "x" * 200_000)})
    store = await ImageStore.open(project.path / "images")
    async with await store.create() as new:
        await asyncio.to_thread(write_disk, str(new.path), disk)
        document = ImageDocument.make(
            disk_digest=await new.digest(), disk_size=new.path.stat().st_size, program=disk.root.program
        )
        image = await new.commit(["app"], document)
    with opened(str(image.disk)) as file:
        filesystem = read_filesystem(find_root(RawImage(file)))
        assert filesystem.read("/big") == b"x" * 200_000
        assert filesystem.read(disk.root.program) == project.program.read_bytes()
        assert filesystem.read("/etc/resolv.conf") == b"nameserver 10.0.2.3\n"
    assert filesystem.root["arguments"] == [disk.root.program, "-v"]
    assert filesystem.root["environment"] == {"USER": "root", "PWD": "/", "A": "b"}


def test_several_cards(project: Project) -> None:
    nics = [{}, {"IPAddress": "192.0.2.9", "NetMask": "255.255.255.0"}, {"IPv6Address": "2001:db8::1"}]
    attributes = project.build({"RunConfig": {"Nics": nics}}).root.values()
    assert "ipaddr" not in attributes
    assert attributes["en2"] == {"ipaddr": "192.0.2.9", "netmask": "255.255.255.0"}
    assert attributes["en3"] == {"ip6addr": "2001:db8::1"}


def test_a_dynamic_program_brings_its_libraries(project: Project, make_elf: Callable[..., bytes]) -> None:
    loader = "/lib64/ld-linux-x86-64.so.2"
    for path in (f"root{loader}", "root/lib/liba.so"):
        project.add(path).write_bytes(make_elf())
    project.program.write_bytes(make_elf(interpreter=loader, needed=["liba.so"]))
    manifest = project.build({"TargetRoot": "root"})
    assert _at(manifest.tree, loader) == HostFile(str(project.path / f"root{loader}"))
    assert _at(manifest.tree, "/lib/liba.so") == HostFile(str(project.path / "root/lib/liba.so"))


@pytest.mark.parametrize(
    ("ops", "fields", "field"),
    [
        (None, {"program": "/missing"}, "program"),
        (None, {"files": {"/a": "/missing"}}, "files"),
        (None, {"files": {"/a": "/"}}, "files"),
        (None, {"files": {"/": "/etc/passwd"}}, "files"),
        (None, {"files": {"/etc": "/etc/passwd"}}, "files"),
        (None, {"files": {"/etc/passwd/x": "/etc/passwd"}}, "files"),
        (None, {"dirs": {"/a": "/etc/passwd"}}, "dirs"),
        (None, {"map_dirs": {"/a": "/missing/*"}}, "map_dirs"),
        (None, {"klibs": ["tls"]}, "klibs"),
        (None, {"klibs": ["../tls"]}, "klibs"),
        (None, {"mounts": {"v" * 32: "/a"}}, "mounts"),
        ({"Program": ""}, {}, "program"),
        ({"Program": "missing"}, {}, "Program"),
        ({"Files": ["../x"]}, {}, "Files"),
        ({"Files": ["missing"]}, {}, "Files"),
        ({"Mounts": {"a": "relative"}}, {}, "Mounts"),
        ({"RunConfig": {"Mounts": ["a"]}}, {}, "RunConfig.Mounts"),
        ({"ManifestPassthrough": {"children": {}}}, {}, "ManifestPassthrough.children"),
    ],
)
def test_what_does_not_fit_is_refused(
    project: Project, ops: dict[str, Any] | None, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        project.build(ops, **fields)
    assert caught.value.field == field


def test_no_value_of_the_environment_is_shown(project: Project) -> None:
    assert "secret-value" not in repr(project.build(env={"TOKEN": "secret-value"}))
