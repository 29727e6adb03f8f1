"""Images as the real kernel reads them, where ``ASYNCCTR_TEST_NANOS_DIR`` names a directory with its ``kernel.img``, ``boot.img``
and ``klibs``: no registry has them. The guests are one static program, built here."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from asyncctr.backends.nanos.tfs.disk import Disk, find_root, read_kernel_log, write_disk, write_volume
from asyncctr.backends.nanos.tfs.log import Identity, read_identity
from asyncctr.backends.nanos.tfs.overlay import open_overlay, write_machine_disk
from asyncctr.backends.nanos.tfs.reader import read_filesystem
from asyncctr.backends.nanos.tfs.sources import RawImage, opened
from asyncctr.backends.nanos.tfs.tree import Content, Directory, HostFile, Root, Symlink
from asyncctr.testing.programs import RuntimeMissing, find, give_up, run

if TYPE_CHECKING:
    from asyncctr.backends.nanos.tfs.disk import KernelLog
    from asyncctr.backends.nanos.tfs.tail import Tail
    from asyncctr.backends.nanos.tfs.tree import Node

pytestmark = pytest.mark.anyio

VARIABLE = "ASYNCCTR_TEST_NANOS_DIR"

GUEST = r"""
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
extern char **environ;
static char block[65536];
static int copy(const char *path, unsigned long *sum) {
    int file = open(path, O_RDONLY); long count;
    if (file < 0) { perror(path); return 1; }
    while ((count = read(file, block, sizeof block)) > 0)
        if (!sum) fwrite(block, 1, count, stdout);
        else for (long i = 0; i < count; i++) *sum = (*sum * 31 + (unsigned char)block[i]) & 0xffffffff;
    close(file);
    return count < 0;
}
static long files, bytes; static unsigned long sums;
static void walk(const char *path) {
    DIR *directory = opendir(path); struct dirent *entry; struct stat status; char below[4096];
    if (!directory) { perror(path); exit(2); }
    while ((entry = readdir(directory))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        if (lstat(below, &status)) { perror(below); exit(3); }
        if (S_ISDIR(status.st_mode)) walk(below);
        else if (S_ISREG(status.st_mode)) {
            unsigned long sum = 0;
            if (copy(below, &sum)) exit(4);
            files++; bytes += status.st_size; sums += sum;
        }
    }
    closedir(directory);
}
int main(int count, char **words) {
    if (count < 2) { puts("hello"); return 0; }
    if (!strcmp(words[1], "exit")) return atoi(words[2]);
    if (!strcmp(words[1], "cat")) { for (int i = 2; i < count; i++) if (copy(words[i], 0)) return 1; return 0; }
    if (!strcmp(words[1], "walk")) { walk(words[2]); printf("%ld files %ld bytes %lx\n", files, bytes, sums); return 0; }
    if (!strcmp(words[1], "show")) {
        for (int i = 0; i < count; i++) printf("arg %s\n", words[i]);
        for (char **variable = environ; *variable; variable++) printf("env %s\n", *variable);
        printf("cwd %s\n", getcwd(block, sizeof block));
        return 0;
    }
    if (!strcmp(words[1], "append")) {
        int file = open(words[2], O_WRONLY | O_CREAT | O_APPEND, 0644);
        if (file < 0 || write(file, words[3], strlen(words[3])) < 0 || fsync(file)) { perror(words[2]); return 1; }
        return 0;
    }
    if (!strcmp(words[1], "make")) {
        for (int i = 0; i < atoi(words[3]); i++) {
            snprintf(block, sizeof block, "%s/made %d", words[2], i);
            int file = open(block, O_WRONLY | O_CREAT, 0644);
            if (file < 0 || write(file, block, strlen(block)) < 0 || close(file)) { perror(block); return 1; }
        }
        sync();
        return 0;
    }
    return 9;
}
"""


@attrs.frozen(kw_only=True)
class Ended:
    output: str
    console: str
    log: KernelLog | None
    code: int


@attrs.frozen(kw_only=True)
class Site:
    """The kernel, a guest, and a directory to make disks in."""

    nanos: Path
    guest: str
    directory: Path

    def disk(self, *arguments: str, name: str = "disk", **options: object) -> tuple[str, Tail]:
        path = self.directory / name
        path.unlink(missing_ok=True)
        children: dict[str, Node] = {"guest": HostFile(self.guest), "vol": Directory(), **options.pop("tree", {})}  # type: ignore[dict-item]
        root = Root(program="/guest", arguments=("guest", *arguments), **options.pop("root", {}))  # type: ignore[arg-type]
        disk = Disk(tree=Directory(children), root=root, identity=Identity(uuid=os.urandom(16)), **options)  # type: ignore[arg-type]
        return str(path), write_disk(str(path), disk).tail

    async def boot(self, path: str, *, base: str = "", volume: str = "", loader: bool = False) -> Ended:
        console = self.directory / "console"
        console.unlink(missing_ok=True)
        words = [
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-device",
            "isa-debug-exit",
            "-serial",
            f"file:{console}",
        ]
        words += ["-cpu", "max", "-m", "512M", "-accel", "tcg"]
        words += ["-drive", f"file={path},format={'qcow2' if base else 'raw'},if=none,id=hd0"]
        if loader:
            words += ["-M", "q35", "-device", "virtio-scsi-pci,id=scsi0", "-device", "scsi-hd,bus=scsi0.0,drive=hd0"]
        else:
            words += ["-M", "microvm,rtc=on,ioapic2=off", "-global", "virtio-mmio.force-legacy=false"]
            words += ["-kernel", str(self.nanos / "kernel.img"), "-device", "virtio-blk-device,drive=hd0"]
        if volume:
            words += ["-drive", f"file={volume},format=raw,if=none,id=v0", "-device", "virtio-blk-device,drive=v0"]
        ended = await run("qemu-system-x86_64", *words, check=False)
        # Else the device's ways out: QEMU itself failed.
        assert not ended.stderr, ended.stderr
        if base:
            await run("qemu-img", "check", path)
            with open_overlay(path, base=base) as overlay:
                log = read_kernel_log(overlay)
        else:
            with opened(path) as file:
                log = read_kernel_log(RawImage(file))
        text = console.read_text(errors="replace")
        # The kernel's own lines begin so, and those of its modules.
        output = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("["))
        return Ended(output=output, console=text, log=log, code=ended.returncode)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> str:
    import subprocess  # noqa: PLC0415 - a fixture of a module's scope has no loop

    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} names no directory with a Nanos kernel")
    try:
        compiler = find("gcc")
        find("qemu-system-x86_64")
        find("qemu-img")
    except RuntimeMissing as error:
        give_up("qemu", error)
    directory = tmp_path_factory.mktemp("guest")
    (directory / "guest.c").write_text(GUEST)
    subprocess.run([compiler, "-static", "-O1", "-o", directory / "guest", directory / "guest.c"], check=True)
    return str(directory / "guest")


@pytest.fixture
def site(guest: str, tmp_path: Path) -> Site:
    return Site(nanos=Path(os.environ[VARIABLE]), guest=guest, directory=tmp_path)


async def test_hello_and_exit_codes(site: Site) -> None:
    path, _ = site.disk()
    ended = await site.boot(path)
    assert (ended.output, ended.log, ended.code) == ("hello\n", None, 1)
    base, tail = site.disk(name="base")
    for code in (0, 1, 2, 127, 128, 254, 255):
        machine = str(site.directory / f"machine {code}")
        write_machine_disk(machine, base=base, tail=tail, changes={"arguments": ["guest", "exit", str(code)]})
        ended = await site.boot(machine, base=base)
        assert (ended.log.exit_code if ended.log is not None else 0) == code
        assert ended.code == (code << 1 | 1) & 0xFF


async def test_a_machine_has_its_own_arguments_variables_and_directory(site: Site) -> None:
    base, tail = site.disk("show", root={"environment": {"OLD": "1"}, "cwd": "/vol"}, tree={"d": Directory()})
    machine = str(site.directory / "machine")
    changes = {"arguments": ["guest", "show", "a b", "ü"], "environment": {"NEW": "2", "guest": "3"}, "cwd": "/d"}
    write_machine_disk(machine, base=base, tail=tail, changes=changes)
    expected = "arg guest\narg show\narg a b\narg ü\nenv NEW=2\nenv guest=3\ncwd /d\n"
    assert sorted((await site.boot(machine, base=base)).output.splitlines()) == sorted(expected.splitlines())
    # More than what is left of the log's extension.
    machine += " large"
    write_machine_disk(machine, base=base, tail=tail, changes={"arguments": ["guest", "show", "x" * 700_000]})
    assert "env OLD=1\ncwd /vol\n" in (await site.boot(machine, base=base)).output


async def test_files(site: Site) -> None:
    content = os.urandom(3_000_000)
    (site.directory / "large").write_bytes(content)
    tree = {
        "large": HostFile(str(site.directory / "large")),
        "sub": Directory({"link": Symlink("../text"), "empty": Content(b"")}),
        "text": Content(b"some text\n"),
    }
    path, _ = site.disk("walk", "/t", tree={"t": Directory(tree)})
    total = 0
    for data in (content, b"", b"some text\n"):
        number = 0
        for byte in data:
            number = (number * 31 + byte) & 0xFFFFFFFF
        total += number
    assert (await site.boot(path)).output == f"3 files {len(content) + 10} bytes {total:x}\n"
    path, _ = site.disk("cat", "/t/sub/link", "/t/sub/empty", tree={"t": Directory(tree)})
    assert (await site.boot(path)).output == "some text\n"


async def test_a_guest_goes_on_with_the_log(site: Site) -> None:
    files = {str(number): Content(hashlib.md5(b"%d" % number).digest()) for number in range(18_000)}
    base, tail = site.disk(tree={"many": Directory(files)})
    machine = str(site.directory / "machine")
    changes = {"arguments": ["guest", "make", "/vol", "200"], "environment": {"NEW": "1"}}
    write_machine_disk(machine, base=base, tail=tail, changes=changes)
    assert (await site.boot(machine, base=base)).log is None
    with open_overlay(machine, base=base) as overlay:
        filesystem = read_filesystem(find_root(overlay))
    paths = [entry.path for entry in filesystem.walk()]
    assert sum(path.startswith("/many/") for path in paths) == 18_000
    assert sum(path.startswith("/vol/") for path in paths) == 200
    assert filesystem.root["environment"] == {"NEW": "1"}
    # And reads what it wrote itself.
    assert (await site.boot(machine, base=base)).log is None
    with open_overlay(machine, base=base) as overlay:
        filesystem = read_filesystem(find_root(overlay))
        assert filesystem.read("/vol/made 199") == b"/vol/made 199"


async def test_volumes_are_kept(site: Site) -> None:
    volume = str(site.directory / "volume")
    write_volume(volume, Identity(uuid=bytes(range(16)), label="data"), tree=Directory({"f": Content(b"1")}))
    for name in ("data", "00010203-0405-0607-0809-0a0b0c0d0e0f"):
        path, _ = site.disk("append", "/vol/f", "2", root={"mounts": {name: "/vol"}})
        assert (await site.boot(path, volume=volume)).log is None
    path, _ = site.disk("cat", "/vol/f", root={"mounts": {"data": "/vol:ro"}})
    assert (await site.boot(path, volume=volume)).output == "122"
    path, _ = site.disk("append", "/vol/f", "3", root={"mounts": {"data": "/vol:ro"}})
    assert "Read-only" in (await site.boot(path, volume=volume)).output
    with opened(volume) as file:
        assert read_identity(RawImage(file)).label == "data"
        assert read_filesystem(RawImage(file)).read("/f") == b"122"


async def test_disks_that_boot_by_themselves_and_kernel_modules(site: Site) -> None:
    kernel = str(site.nanos / "kernel.img")
    path, _ = site.disk("exit", "77", boot_image=str(site.nanos / "boot.img"), kernel=kernel)
    ended = await site.boot(path, loader=True)
    assert ended.log is not None
    assert ended.log.exit_code == 77
    klibs = {name: str(site.nanos / "klibs" / name) for name in ("tmpfs", "strace")}
    path, _ = site.disk(kernel=kernel, klibs=klibs, root={"settings": {"debugsyscalls": "t"}})
    ended = await site.boot(path)
    assert ended.output == "hello\n"
    # The module is at work.
    assert "write(1, " in ended.console


async def test_images_that_nanos_own_tool_wrote(site: Site) -> None:
    tool = site.nanos / "mkfs"
    if not tool.exists():
        pytest.skip(f"{VARIABLE} has no mkfs")
    (site.directory / "f").write_bytes(os.urandom(5_000))
    files = f"guest:(contents:(host:{site.guest})) d:(children:(f:(contents:(host:{site.directory}/f))))"
    manifest = f"(children:({files}) program:/guest arguments:[guest show] environment:(A:b) debug_exit:t)"
    base, machine = str(site.directory / "base"), str(site.directory / "machine")
    words = ["-b", str(site.nanos / "boot.img"), "-k", str(site.nanos / "kernel.img"), "-l", "label", base]
    await run(str(tool), *words, stdin=manifest.encode())
    with opened(base) as file:
        filesystem = read_filesystem(find_root(RawImage(file)))
        assert filesystem.identity.label == "label"
        assert filesystem.root["arguments"] == ["guest", "show"]
        assert filesystem.read("/d/f") == (site.directory / "f").read_bytes()
    changes = {"arguments": ["guest", "append", "/d/new", "text"], "environment": {"d": "1"}}
    write_machine_disk(machine, base=base, tail=filesystem.tail, changes=changes)
    assert (await site.boot(machine, base=base)).log is None
    with open_overlay(machine, base=base) as overlay:
        filesystem = read_filesystem(find_root(overlay))
        assert filesystem.read("/d/new") == b"text"
        assert filesystem.root["environment"] == {"d": "1"}
