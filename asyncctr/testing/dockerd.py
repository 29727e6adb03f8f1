"""A private Docker daemon."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from typing import TYPE_CHECKING

import attrs

from asyncctr.testing.base import SEARCH_PATH, Leftovers
from asyncctr.testing.certificates import TlsFiles, make_authority
from asyncctr.testing.containerd import Containerd
from asyncctr.testing.networked import NetworkedDaemon, take_block
from asyncctr.testing.process import DaemonError, http_ok
from asyncctr.testing.programs import CommandError, Completed, run
from asyncctr.testing.residue import remove_cgroups

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Dockerd"]

_LISTENING = re.compile(r"API listen on 127\.0\.0\.1:(\d+)")
_OURS = (
    "bridge",
    "bip",
    "default-address-pools",
    "live-restore",
    "iptables",
    "ip6tables",
    "data-root",
    "exec-root",
    "containerd",
)

DOCKERD_VARIABLE = "ASYNCCTR_TEST_DOCKERD"
"""The path of another dockerd than the installed one, to test against."""


def _is_flag(word: str, name: str) -> bool:
    flag = word.partition("=")[0]
    return flag in {f"--{name}", f"--{name.removesuffix('s')}"} or (name == "bridge" and word.startswith("-b"))


class Dockerd(NetworkedDaemon):
    """A private Docker daemon, with a private containerd beside it, as packaged installations have it.

    (Left to itself, dockerd would use the system's containerd where one runs.) It does not touch iptables: published ports are
    served by docker-proxy, and the rules for its networks are made here, so that several daemons do not flush each other's.

    It must never remove ``docker0``, which is another daemon's. dockerd does so when it starts with ``bridge`` none, and when it
    starts again, without live-restore, with ``default-address-pools`` set (``initNetworkController`` in its daemon_unix.go).
    So the first is refused, and the pools are left out from the second start on: custom networks that are made after a restart
    without ``live_restore`` have addresses from Docker's own pools, and no way out where FORWARD drops.

    Args:
        live_restore: containers live on when the daemon ends.
        tcp: listen on a loopback port as well, without TLS: ``tcp_host`` tells where.
        tls: listen on a loopback port with TLS that verifies clients: ``tcp_host`` and ``certs``.
        config: entries of daemon.json, over those made here.
        args: further arguments.
        dockerd: the program; empty for what ``ASYNCCTR_TEST_DOCKERD`` names, else the one in the path.
        env: variables added to its environment; ``None`` takes one away.
        start_timeout: seconds until it must answer.
        stop_timeout: seconds from SIGTERM to SIGKILL; containers that ignore SIGTERM take ten of them.

    Attributes:
        containerd: the containerd beside it.
        certs: with ``tls``, the files of the authority, the server and a client.
    """

    kind = "docker"

    def __init__(
        self,
        *,
        live_restore: bool = False,
        tcp: bool = False,
        tls: bool = False,
        config: Mapping[str, object] | None = None,
        args: Sequence[str] = (),
        dockerd: str = "",
        env: Mapping[str, str | None] | None = None,
        start_timeout: float = 60.0,
        stop_timeout: float = 30.0,
    ) -> None:
        super().__init__(
            start_timeout=start_timeout, stop_timeout=stop_timeout, env={"PATH": SEARCH_PATH, **(env or {})}
        )
        self.live_restore = live_restore
        self.containerd = Containerd()
        self.certs: TlsFiles | None = None
        self._tcp = tcp or tls
        self._tls = tls
        self._port = 0
        self._config = dict(config or {})
        self._args = tuple(args)
        if refused := [
            name for name in _OURS if name in self._config or any(_is_flag(word, name) for word in self._args)
        ]:
            message = f"{refused[0]} is set here: anything else could break another Docker daemon's networks"
            raise ValueError(message)
        self._dockerd = dockerd or os.environ.get(DOCKERD_VARIABLE, "dockerd")

    @property
    def socket(self) -> Path:
        """Its API socket."""
        return self.dir / "docker.sock"

    @property
    def host(self) -> str:
        """Its address for ``DOCKER_HOST``: ``unix://`` and the socket's path."""
        return f"unix://{self.socket}"

    @property
    def tcp_host(self) -> str:
        """With ``tcp`` or ``tls``, its loopback address for ``DOCKER_HOST``; the same after a restart."""
        if not self._port:
            message = "this daemon listens on no TCP port: ask with tcp=True or tls=True"
            raise DaemonError(message)
        return f"tcp://127.0.0.1:{self._port}"

    @property
    def cgroup_parent(self) -> str:
        """The control group, just below the root, that its containers are in."""
        return self.dir.name

    async def cli(
        self,
        *args: str,
        stdin: bytes = b"",
        timeout: float = 60.0,  # noqa: ASYNC109
        check: bool = True,
    ) -> Completed:
        """Run the ``docker`` program against this daemon, with a configuration directory of its own.

        Raises:
            CommandError: it failed, with ``check``, or did not end within ``timeout`` seconds.
        """
        own: dict[str, str | None] = dict.fromkeys(
            ("DOCKER_CONTEXT", "DOCKER_API_VERSION", "DOCKER_CERT_PATH", "DOCKER_TLS", "DOCKER_TLS_VERIFY")
        )
        own |= {"DOCKER_CONFIG": str(self.dir / "cli"), "DOCKER_HOST": self.host}
        return await run("docker", *args, stdin=stdin, env=own, timeout=timeout, check=check)

    async def load(self, archive: str | os.PathLike[str]) -> None:
        """Load an image archive."""
        await self.cli("load", "--input", os.fspath(archive))

    async def leftovers(self, *, label: str = "") -> Leftovers:
        """The containers, networks and volumes in this daemon; with ``label`` (``key`` or ``key=value``) those that have it."""
        chosen = ("--filter", f"label={label}") if label else ()
        return Leftovers(
            containers=tuple((await self.cli("ps", "--all", "--quiet", "--no-trunc", *chosen)).lines),
            networks=tuple(
                (await self.cli("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}", *chosen)).lines
            ),
            volumes=tuple((await self.cli("volume", "ls", "--quiet", *chosen)).lines),
        )

    async def start(self) -> None:
        """Start the daemon, and its containerd where it does not run, and wait until it answers."""
        await self.containerd.start()
        await super().start()

    async def _prepare(self) -> None:
        (self.dir / "containerd").mkdir(mode=0o700)
        self.containerd.dir = self.dir / "containerd"
        await self.containerd._prepare()  # noqa: SLF001 - one thing in two classes
        if self._tls:
            self.certs = await make_authority(self.dir / "certs")
        self._block = await take_block(self.dir)
        await self._block.open(bridge=True)

    def _settings(self) -> dict[str, object]:
        hosts = [self.host, *([f"tcp://127.0.0.1:{self._port}"] if self._tcp else [])]
        made: dict[str, object] = {
            "data-root": str(self.dir / "data"),
            "exec-root": str(self.dir / "exec"),
            "pidfile": str(self.dir / "pid"),
            "hosts": hosts,
            "containerd": str(self.containerd.socket),
            "bridge": self.bridge,
            "iptables": False,
            "ip6tables": False,
            "cgroup-parent": f"/{self.cgroup_parent}",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "live-restore": self.live_restore,
        }
        # A start that failed half-way may have stored the network that makes the next one delete docker0.
        if self.live_restore or not (self.dir / "data").exists():
            made["default-address-pools"] = [{"base": str(self.block.pool), "size": 26}]
        if self.certs is not None:
            made |= {
                "tlsverify": True,
                "tlscacert": str(self.certs.ca),
                "tlscert": str(self.certs.server_cert),
                "tlskey": str(self.certs.server_key),
            }
        elif self._tcp:
            # Said outright, or dockerd waits before it listens without TLS.
            made["tls"] = False
        return made | self._config

    def _command(self) -> list[str]:
        # A file of our own keeps /etc/docker/daemon.json out.
        file = self.dir / "daemon.json"
        file.write_text(json.dumps(self._settings(), indent=1))
        # A pid that has been used again since a kill would keep the daemon from starting.
        (self.dir / "pid").unlink(missing_ok=True)
        return [self._dockerd, "--config-file", str(file), *self._args]

    async def _ping(self) -> bool:
        if self._tcp and not self._port:
            # Port 0 was asked for, which nobody can take in between; the log tells which it became.
            match = _LISTENING.search(await asyncio.to_thread(self.log.read_text, errors="replace"))
            if match is None:
                return False
            self._port = int(match[1])
        return await http_ok(None, str(self.socket), "/_ping")

    async def _empty(self) -> None:
        try:
            found = await self.leftovers()
            if found.containers:
                await self.cli("rm", "--force", "--volumes", *found.containers, timeout=120, check=False)
            if found.networks:
                await self.cli("network", "rm", *found.networks, check=False)
        except CommandError:
            # It does not answer: the rest of the exit goes by processes, control groups and interfaces.
            return

    async def _stop_others(self) -> None:
        await self.containerd.stop()

    async def _clean(self) -> list[str]:
        if hasattr(self.containerd, "dir"):
            await self.containerd._clean()  # noqa: SLF001 - one thing in two classes
        # Networks from outside the block, and those of a daemon that was killed: its own database has their bridges' names.
        database = self.dir / "data/network/files/local-kv.db"
        names = set(
            re.findall(rb'"BridgeName":"(br-[0-9a-f]{12})"', database.read_bytes() if database.exists() else b"")
        )
        bridges = sorted({name.decode() for name in names} & {name for _, name in socket.if_nameindex()})
        for name in bridges:
            await run("ip", "link", "delete", name, check=False)
        left = [f"cgroup {path}" for path in await remove_cgroups(self.cgroup_parent)] + await super()._clean()
        self.residue = attrs.evolve(self.residue, interfaces=(*bridges, *self.residue.interfaces))
        return left
