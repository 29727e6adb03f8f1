"""A network namespace for each test, which it must leave as it found it."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncctr.netns.networks import Networks

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_SERVE = """
import socket, sys
kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[sys.argv[1]]
server = socket.socket(type=kind)
server.bind(("0.0.0.0", int(sys.argv[2])))
if kind == socket.SOCK_STREAM:
    server.listen()
print("ready", flush=True)
while True:
    if kind == socket.SOCK_STREAM:
        connection, _ = server.accept()
        connection.sendall(sys.argv[3].encode())
        connection.close()
    else:
        _, sender = server.recvfrom(100)
        server.sendto(sys.argv[3].encode(), sender)
"""

_ASK = """
import socket, sys
kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[sys.argv[1]]
client = socket.socket(type=kind)
client.settimeout(5)
client.connect((sys.argv[2], int(sys.argv[3])))
if kind == socket.SOCK_DGRAM:
    client.send(b"?")
print(client.recv(100).decode())
"""


class Host:
    """The network namespace that a test has to itself, as its threads and programs see it."""

    @staticmethod
    def run(*argv: str | Path | None) -> str:
        """What a program prints, which must succeed."""
        words = [str(word) for word in argv]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def links(self) -> set[str]:
        found = json.loads(self.run("ip", "-json", "link"))
        return {link["ifname"] for link in found}

    def rules(self) -> set[str]:
        """The packet filter's rules but for those that the plugins share between all networks of a host."""
        listing = self.run("iptables-save")
        shared = re.compile(r"CNI-(HOSTPORT|FORWARD|ADMIN)(?!.*(CNI-DN| -[ds] ))")
        return {
            line
            for line in listing.splitlines()
            if (line.startswith("-A") or (line.startswith(":") and "CNI" in line)) and not shared.search(line)
        }

    @staticmethod
    @contextmanager
    def serving(netns: Path | None, protocol: str, port: int, words: str) -> Iterator[None]:
        """A server in a container's namespace that says this to whoever asks."""
        argv = ["nsenter", f"--net={netns}", sys.executable, "-c", _SERVE, protocol, str(port), words]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                yield
            finally:
                process.kill()

    @staticmethod
    def ask(protocol: str, address: str, port: int, *, netns: Path | None = None) -> str:
        """What a server says to this namespace, or to a container's; the last line of the error if it does not."""
        prefix = [] if netns is None else ["nsenter", f"--net={netns}"]
        argv = [*prefix, sys.executable, "-c", _ASK, protocol, address, str(port)]
        ended = subprocess.run(argv, capture_output=True, text=True, check=False)
        return ended.stdout.strip() or ended.stderr.strip().splitlines()[-1]


@pytest.fixture
def host() -> Iterator[Host]:
    """Another network namespace for this thread and the programs that it starts, with loopback alone."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    _call("unshare", _CLONE_NEWNET)
    try:
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            fcntl.ioctl(probe, 0x8914, struct.pack("16sH22x", b"lo", 0x41))
        yield Host()
    finally:
        _call("setns", before, _CLONE_NEWNET)
        os.close(before)


@pytest.fixture
def state(host: Host, tmp_path: Path) -> Iterator[Path]:
    """A state directory; all that was made for it must be gone at the end."""
    before = host.links()
    directory = tmp_path / "state"
    yield directory
    assert list(directory.glob("containers/*")) == []
    assert list(directory.glob("leases/*/[0-9]*")) == []
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()
    bridges = {json.loads(path.read_bytes())["dev.asyncctr"]["bridge"] for path in directory.glob("networks/*")}
    assert host.links() - before <= bridges
    assert host.rules() == set()


@pytest.fixture
def networks(state: Path) -> Networks:
    return Networks(state, system=())
