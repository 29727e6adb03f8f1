"""The guests of the tests' own do as the real Nanos does; where its directory is named, the same tests run on it, too."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from asyncctr.backends.nanos.tfs.disk import Disk, KernelLog, read_kernel_log, write_disk, write_volume
from asyncctr.backends.nanos.tfs.log import Identity
from asyncctr.backends.nanos.tfs.reader import read_filesystem
from asyncctr.backends.nanos.tfs.sources import RawImage, opened
from asyncctr.backends.nanos.tfs.tree import Content, Directory, HostFile, Node, Root, Symlink
from asyncctr.testing.guests import Guests, build_guests
from asyncctr.testing.programs import find, require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

VARIABLE = "ASYNCCTR_TEST_NANOS_DIR"
BOUND = 30.0
KERNEL_LINE = re.compile(r"\[\d+\.\d{6}\] (?:en1: assigned|NET:) .*\n")


@attrs.frozen
class Ended:
    """How a guest ended: what its program printed, the whole console, the kernel's log, QEMU's exit code."""

    output: str
    console: str
    log: KernelLog | None
    code: int


@attrs.frozen
class Machine:
    """A guest that runs."""

    process: asyncio.subprocess.Process
    monitor: Path

    async def press_power(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self.monitor))
        await reader.readline()
        for command in ("qmp_capabilities", "system_powerdown"):
            writer.write(json.dumps({"execute": command}).encode() + b"\n")
            await reader.readline()
        writer.close()

    async def said(self, line: bytes) -> None:
        assert self.process.stdout is not None
        while line not in await self.process.stdout.readline():
            assert not self.process.stdout.at_eof()


@attrs.frozen(kw_only=True)
class Site:
    """A kernel, the shell, and a directory for disks."""

    kernel: Path
    guests: Guests
    directory: Path

    def disk(self, *words: str, files: dict[str, Node] | None = None, **root: object) -> Path:
        path = self.directory / "disk"
        path.unlink(missing_ok=True)
        children: dict[str, Node] = {
            "bin": Directory({"sh": HostFile(str(self.guests.shell))}),
            "tmp": Directory(),
            "vol": Directory(),
            **(files or {}),
        }
        settings: dict[str, object] = {"program": "/bin/sh", **root}
        tuple_ = Root(arguments=words, **settings)  # type: ignore[arg-type]
        write_disk(str(path), Disk(tree=Directory(children), root=tuple_, identity=Identity(uuid=os.urandom(16))))
        return path

    @asynccontextmanager
    async def start(
        self, disk: Path, *, volume: Path | None = None, memory: str = "256M", forward: str = ""
    ) -> AsyncIterator[Machine]:
        monitor = self.directory / "monitor"
        words = ["-M", "microvm,rtc=on,ioapic2=off", "-global", "virtio-mmio.force-legacy=false", "-accel", "tcg"]
        words += [
            "-cpu",
            "max",
            "-m",
            memory,
            "-kernel",
            str(self.kernel),
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ]
        words += ["-device", "isa-debug-exit", "-serial", "stdio", "-qmp", f"unix:{monitor},server=on,wait=off"]
        words += ["-netdev", f"user,id=n0{forward}", "-device", "virtio-net-device,netdev=n0"]
        for number, path in enumerate([disk, *([volume] if volume else [])]):
            words += [
                "-drive",
                f"if=none,id=d{number},format=raw,file={path}",
                "-device",
                f"virtio-blk-device,drive=d{number}",
            ]
        process = await asyncio.create_subprocess_exec(
            find("qemu-system-x86_64"),
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield Machine(process, monitor)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def end(self, machine: Machine, disk: Path) -> Ended:
        async with asyncio.timeout(BOUND):
            stdout, stderr = await machine.process.communicate()
        assert not stderr, stderr
        with opened(str(disk)) as file:
            log = read_kernel_log(RawImage(file))
        console = stdout.decode(errors="replace")
        assert machine.process.returncode is not None
        return Ended(KERNEL_LINE.sub("", console), console, log, machine.process.returncode)

    async def boot(self, disk: Path, *, volume: Path | None = None, memory: str = "256M") -> Ended:
        async with self.start(disk, volume=volume, memory=memory) as machine:
            return await self.end(machine, disk)


async def asked(port: int) -> bytes:
    """All that a server says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.fixture(params=["stand-in", "nanos"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    require("guests")
    guests = build_guests()
    kernel = guests.kernel
    if request.param == "nanos":
        if VARIABLE not in os.environ:
            pytest.skip(f"{VARIABLE} names no directory with a Nanos kernel")
        kernel = Path(os.environ[VARIABLE], "kernel.img")
    return Site(kernel=kernel, guests=guests, directory=tmp_path)


async def test_output_and_exit_codes(site: Site) -> None:
    for code in (0, 7, 255):
        ended = await site.boot(site.disk("sh", "-c", f"echo out; printf end >&2; exit {code}"))
        assert (ended.output, ended.code) == ("out\nend", (code << 1 | 1) & 0xFF)
        assert re.match(r"\[\d+\.\d{6}\] en1: assigned 10\.0\.2\.15\nout\nend\Z", ended.console)
        if code:
            assert ended.log == KernelLog(boot_id=0, exit_code=code, text=ended.console)
        else:
            assert ended.log is None


async def test_arguments_variables_and_directory(site: Site) -> None:
    script = 'pwd; for word in "$@"; do printf "%s|" "$word"; done; echo "$ONE|$TWO"; cat here; cat /link; cd ..; pwd'
    files: dict[str, Node] = {
        "etc": Directory({"here": Content(b"there\n"), "deep": Directory({"file": Content(b"linked\n")})}),
        "link": Symlink("etc/deep/file"),
    }
    disk = site.disk(
        "sh", "-c", script, "name", "a b", "", "ü", files=files, environment={"ONE": "1 1", "TWO": "zwei"}, cwd="/etc"
    )
    ended = await site.boot(disk)
    assert ended.output == "/etc\na b||ü|1 1|zwei\nthere\nlinked\n/\n"
    assert ended.code == 1


async def test_signals(site: Site) -> None:
    for name, number, last in (("TERM", 15, "   terminate\n"), ("KILL", 9, ""), ("SEGV", 11, "")):
        ended = await site.boot(site.disk("sh", "-c", f"echo before; kill -{name} $$; echo after"))
        assert ended.output.startswith("before\n")
        assert "after" not in ended.output
        assert ended.output.endswith(last)
        assert (f"*** signal {number} received by" in ended.output) == (name != "TERM")
        assert ended.log is not None
        assert (ended.log.exit_code, ended.code) == (number, number << 1 | 1)


@pytest.mark.parametrize(
    ("script", "output", "code"),
    [
        ("trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.1; done", "caught\n", 3),
        ("trap 'exit 0' TERM; echo ready; sleep 100", "", 0),
        ("echo ready; sleep 100", "   terminate\n", 15),
        ("echo ready; while :; do :; done", "   terminate\n", 15),
    ],
)
async def test_power_button(site: Site, script: str, output: str, code: int) -> None:
    disk = site.disk("sh", "-c", script)
    async with site.start(disk) as machine, asyncio.timeout(BOUND):
        await machine.said(b"ready\n")
        await machine.press_power()
        ended = await site.end(machine, disk)
    assert (ended.output, ended.log.exit_code if ended.log else 0) == (output, code)


async def test_a_port_is_served(site: Site) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    script = "trap 'exit 0' TERM; echo ready; nc -ll -p 8080 -e sh -c 'echo served by $(hostname); seq 1 3000'"
    disk = site.disk("sh", "-c", script)
    numbers = b"".join(b"%d\n" % number for number in range(1, 3001))
    async with site.start(disk, forward=f",hostfwd=tcp:127.0.0.1:{port}-:8080") as machine, asyncio.timeout(BOUND):
        await machine.said(b"ready\n")
        # QEMU takes a connection at once, and drops it where the guest's network is not up yet; nothing tells when it is.
        while not await asked(port):  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.05)
        # One after the other: QEMU's own queue has room for one.
        for _ in range(10):
            assert re.fullmatch(rb"served by .*\n" + numbers, await asked(port))
        await machine.press_power()
        ended = await site.end(machine, disk)
    assert ended.code == 1


async def test_a_program_that_is_not_there(site: Site) -> None:
    ended = await site.boot(site.disk("sh", program="/bin/none"))
    assert "program startup failed on exec: (result:unable to open program file /bin/none)\n" in ended.console
    assert ended.log is not None
    assert (ended.log.exit_code, ended.code) == (127, 255)


async def test_lines_of_the_kernel_within_those_of_the_program(site: Site) -> None:
    ended = await site.boot(site.disk("sh", "-c", "printf begun-; sleep 4; echo ended"))
    assert re.search(r"begun-\[\d+\.\d{6}\] en1: assigned FE80::5054:FF:FE12:3456\nended\n\Z", ended.console)


async def test_a_volume_keeps_its_data(site: Site) -> None:
    volume = site.directory / "volume"
    write_volume(str(volume), Identity(uuid=os.urandom(16), label="data"), length=4 << 20)
    mounts = {"data": "/vol"}
    script = "echo one > /vol/f; echo two >> /vol/f; echo other > /vol/g; echo gone > /vol/h; : > /vol/h"
    assert (await site.boot(site.disk("sh", "-c", script, mounts=mounts), volume=volume)).output == ""
    ended = await site.boot(
        site.disk("sh", "-c", "cat /vol/f /vol/g /vol/h; echo new > /vol/g", mounts=mounts), volume=volume
    )
    assert ended.output == "one\ntwo\nother\n"
    with opened(str(volume)) as file:
        filesystem = read_filesystem(RawImage(file))
        assert [filesystem.read(f"/{name}") for name in "fgh"] == [b"one\ntwo\n", b"new\n", b""]
    script = "cat /vol/f; echo more > /vol/f"
    ended = await site.boot(site.disk("sh", "-c", script, mounts={"data": "/vol:ro"}), volume=volume)
    assert ended.output == "one\ntwo\nsh: /vol/f: Read-only file system\n"
    # Neither kernel minds a volume that is not there.
    ended = await site.boot(site.disk("sh", "-c", "cat /vol/f", mounts={"absent": "/vol"}), volume=volume)
    assert ended.output == "sh: /vol/f: No such file or directory\n"


async def test_many_files_and_large_ones(site: Site) -> None:
    many: dict[str, Node] = {f"file {number}": Content(b"%d\n" % number) for number in range(18_000)}
    large = b"".join(b"%08d" % number for number in range(300_000))
    files = {"many": Directory(many), "large": Content(large)}
    script = (
        "cat '/many/file 0' '/many/file 17999'; cat /large | head -c 16; echo; [ -f /large ] && [ ! -e /many/none ]"
    )
    ended = await site.boot(site.disk("sh", "-c", script, files=files))
    assert (ended.output, ended.code) == ("0\n17999\n0000000000000001\n", 1)


async def test_the_least_memory(tmp_path: Path) -> None:
    require("guests")
    guests = build_guests()
    site = Site(kernel=guests.kernel, guests=guests, directory=tmp_path)
    assert (await site.boot(site.disk("sh", "-c", "echo ok"), memory="32M")).output == "ok\n"
    assert (await site.boot(site.disk("sh", "-c", "echo ok"), memory="2G")).output == "ok\n"


SCRIPTS = [
    "printf 'a\\101\\012\\\\%s %d\\n' b 7; printf '%s\\n' 1 2 3; echo 'a  b'   c; echo -n q; echo \"q\\\"\\$\"",
    "seq 1 2000; printf out-tail; { seq 1 2000; printf err-tail; } >&2",
    "yes abc | head -c 100; yes abc | head -n 3; head -c 10 /dev/zero | tr '\\0' x; echo; echo end >&2",
    "i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo line $i; done; printf tail; exit 5",
    'A=1; B="x $A"; echo $B \'$A\' ${A}b "$((A*3 - 1 + (2*2)))"; until [ "$x" = xxx ]; do x=x$x; done; echo $x',
    "trap 'echo caught; exit 3' TERM; kill -TERM $$; echo no",
    "trap 'echo u' USR1; trap '' TERM; kill -USR1 $$; kill -TERM $$; echo yes",
    "if [ 1 = 2 ]; then echo a; elif [ 3 -gt 2 ]; then echo b; else echo c; fi; if false; then echo d; else echo e; fi",
    "false || echo x; true && echo y; ! true; echo $?; no-such-command 2>/dev/null; echo $?",
    "echo hi > f; cat f; cat < f; echo b >> f; cat f | head -n 1; test -e none; echo $?; [ ! -f none ] && echo nf; cd /; pwd",
    'x=$(echo one; echo two); echo "<$x>"; echo $(printf a)b$(seq 1 2 | head -n 1); while [ "$y" != $(echo yy) ]; do y=y$y; done',
    "for p in a b; do for q in c d; do echo $p$q; done; done; { echo b; echo c >&2; } 2>/dev/null; exec echo last",
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_shell_is_one(script: str, tmp_path: Path) -> None:
    require("guests")
    words = {"the guests'": [str(build_guests().shell)], "the machine's": ["/bin/sh"]}
    ended = {
        name: subprocess.run([*shell, "-c", script], capture_output=True, check=False, timeout=10, cwd=tmp_path)
        for name, shell in words.items()
    }
    told = {name: (done.returncode, done.stdout, done.stderr) for name, done in ended.items()}
    assert told["the guests'"] == told["the machine's"]
