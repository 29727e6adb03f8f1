from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncctr.backends.nanos.libraries import find_libraries, resolve
from asyncctr.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

_LOADER = "/lib64/ld-linux-x86-64.so.2"


class Root:
    """A root directory with ELF files in it."""

    def __init__(self, path: Path, make_elf: Callable[..., bytes]) -> None:
        self.path = path
        self._make_elf = make_elf
        self.add(_LOADER)

    def add(self, path: str, **fields: object) -> Path:
        file = self.path / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self._make_elf(**fields))
        return file

    def program(self, *needed: str, path: str = "/bin/program", **fields: object) -> Path:
        return self.add(path, interpreter=_LOADER, needed=needed, **fields)

    def find(self, program: Path, image: str = "/bin/program") -> dict[str, str]:
        found = find_libraries(program, image, root=self.path)
        return {path: f"/{file.relative_to(self.path)}" for path, file in found.files.items() if path != _LOADER}


@pytest.fixture
def root(tmp_path: Path, make_elf: Callable[..., bytes]) -> Root:
    return Root(tmp_path / "root", make_elf)


def _programs() -> list[str]:
    names = ["ls", "git", "python3", "perl", "qemu-system-x86_64", "openssl", "busybox"]
    paths = [shutil.which(name, path="/usr/bin:/bin") for name in names]
    return sorted({str(Path(path).resolve()) for path in paths if path} | {sys.executable})


@pytest.mark.skipif(shutil.which("ldd") is None, reason="no ldd, with which the answers are compared")
@pytest.mark.parametrize("program", _programs())
def test_the_libraries_are_those_that_ldd_tells(program: str) -> None:
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    expected = set()
    for line in told.stdout.splitlines() if told.returncode == 0 else ():
        path = line.strip().partition(" (")[0].rpartition(" => ")[2]
        if path.startswith("/"):
            expected.add(Path(path).resolve())
    libraries = find_libraries(program, program)
    assert {file.resolve() for file in libraries.files.values()} == expected


def test_a_closure_is_followed_and_a_cycle_ends(root: Root) -> None:
    root.add("/lib/x86_64-linux-gnu/liba.so", needed=["libb.so", "ld-linux-x86-64.so.2"])
    root.add("/usr/lib/libb.so", needed=["liba.so"])
    found = root.find(root.program("liba.so"))
    assert found == {
        "/lib/x86_64-linux-gnu/liba.so": "/lib/x86_64-linux-gnu/liba.so",
        "/usr/lib/libb.so": "/usr/lib/libb.so",
    }


def test_rpath_is_for_what_a_library_needs_too_and_runpath_is_not(root: Root) -> None:
    root.add("/opt/liba.so", needed=["libb.so"])
    root.add("/opt/libb.so")
    assert set(root.find(root.program("liba.so", rpath="/opt"))) == {"/opt/liba.so", "/opt/libb.so"}
    with pytest.raises(InvalidConfigError, match=r"libb\.so \(for /opt/liba\.so\)"):
        root.find(root.program("liba.so", runpath="/opt"))
    # With both, RPATH counts for nothing.
    root.add("/usr/lib/libb.so")
    assert set(root.find(root.program("liba.so", rpath="/opt", runpath="/opt"))) == {"/opt/liba.so", "/usr/lib/libb.so"}


def test_origin_is_where_the_image_has_the_program(root: Root, tmp_path: Path, make_elf: Callable[..., bytes]) -> None:
    (tmp_path / "build/lib").mkdir(parents=True)
    (tmp_path / "build/lib/liba.so").write_bytes(make_elf(needed=["libb.so"], runpath="${ORIGIN}/more"))
    (tmp_path / "build/lib/more").mkdir()
    (tmp_path / "build/lib/more/libb.so").write_bytes(make_elf())
    program = tmp_path / "build/program"
    program.write_bytes(make_elf(interpreter=_LOADER, needed=["liba.so"], runpath="$ORIGIN/lib"))
    found = find_libraries(program, "/program", root=root.path)
    assert {path: file for path, file in found.files.items() if path != _LOADER} == {
        "/lib/liba.so": tmp_path / "build/lib/liba.so",
        "/lib/more/libb.so": tmp_path / "build/lib/more/libb.so",
    }


def test_directories_of_the_cache_get_links_because_images_have_no_cache(root: Root) -> None:
    (root.path / "etc/ld.so.conf.d").mkdir(parents=True)
    (root.path / "etc/ld.so.conf").write_text("include /etc/ld.so.conf.d/*.conf\n# nothing\n")
    (root.path / "etc/ld.so.conf.d/a.conf").write_text("/opt/a  \n")
    root.add("/opt/a/liba.so")
    program = root.program("liba.so")
    assert find_libraries(program, "/bin/program", root=root.path).links == {"/lib64/liba.so": "/opt/a/liba.so"}


def test_what_is_configured_comes_before_what_is_built_in(root: Root) -> None:
    root.add("/lib/x86_64-linux-gnu/liba.so")
    root.add("/usr/local/lib/liba.so")
    program = root.program("liba.so")
    (root.path / "etc").mkdir()
    (root.path / "etc/ld.so.conf").write_text("/usr/local/lib\n/lib/x86_64-linux-gnu\n")
    assert set(root.find(program)) == {"/usr/local/lib/liba.so"}
    (root.path / "etc/ld.so.conf").write_text("/lib/x86_64-linux-gnu\n/usr/local/lib\n")
    assert set(root.find(program)) == {"/lib/x86_64-linux-gnu/liba.so"}


def test_the_images_library_path_counts(root: Root) -> None:
    root.add("/opt/x/liba.so")
    root.add("/opt/run/liba.so")
    program = root.program("liba.so", runpath="/opt/run")
    found = find_libraries(program, "/bin/program", root=root.path, library_path="relative:/opt/x")
    assert set(found.files) == {_LOADER, "/opt/x/liba.so"}


def test_a_library_of_another_machine_is_passed_over(root: Root) -> None:
    root.add("/lib/x86_64-linux-gnu/liba.so", machine=3)
    (root.path / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (root.path / "usr/lib/x86_64-linux-gnu/liba.so").write_text("INPUT ( -lother )")
    root.add("/usr/lib/liba.so")
    assert set(root.find(root.program("liba.so"))) == {"/usr/lib/liba.so"}


def test_links_lead_nowhere_out_of_the_root(root: Root) -> None:
    real = root.add("/lib/x86_64-linux-gnu/liba.so.1.2")
    (real.parent / "liba.so").symlink_to("/lib/x86_64-linux-gnu/liba.so.1.2")
    assert root.find(root.program("liba.so")) == {"/lib/x86_64-linux-gnu/liba.so": "/lib/x86_64-linux-gnu/liba.so.1.2"}
    (root.path / "loop").symlink_to("loop")
    (root.path / "up").symlink_to("../../../etc/passwd")
    assert resolve(root.path, "/loop") is None
    assert resolve(root.path, "/up") is None
    assert resolve(root.path, "/../lib/x86_64-linux-gnu/./liba.so") == real


def test_optional_libraries_may_be_missing(root: Root) -> None:
    root.add("/lib/libnss_dns.so.2", needed=["libextra.so"])
    root.add("/lib/libextra.so")
    optional = ("libnss_dns.so.2", "libnss_files.so.2")
    found = find_libraries(root.program("libextra.so"), "/bin/program", root=root.path, optional=optional)
    assert set(found.files) == {_LOADER, "/lib/libnss_dns.so.2", "/lib/libextra.so"}


def test_musl_has_rules_of_its_own(root: Root) -> None:
    loader = "/lib/ld-musl-x86_64.so.1"
    root.add(loader)
    root.add("/usr/local/lib/liba.so", needed=["libc.so"])
    # To musl, RUNPATH is RPATH.
    root.add("/opt/libb.so", needed=["liba.so", "libc.musl-x86_64.so.1", "libd.so"])
    root.add("/opt/libd.so")
    program = root.add("/bin/program", interpreter=loader, needed=["libb.so", "libc.so"], runpath="/opt")
    found = find_libraries(program, "/bin/program", root=root.path)
    assert set(found.files) == {loader, "/usr/local/lib/liba.so", "/opt/libb.so", "/opt/libd.so"}


def test_what_cannot_be_run_is_refused(root: Root, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="shared library"):
        find_libraries(root.add("/lib/liba.so", needed=["libb.so"]), "/lib/liba.so", root=root.path)
    program = root.program("liba.so")
    with pytest.raises(InvalidConfigError, match="needs the loader"):
        find_libraries(program, "/bin/program", root=tmp_path)
