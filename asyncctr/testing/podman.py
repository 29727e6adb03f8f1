"""A private Podman with its Docker-compatible service."""

from __future__ import annotations

import ipaddress
import json
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from asyncctr.testing.base import SEARCH_PATH, Leftovers
from asyncctr.testing.networked import NetworkedDaemon, take_block
from asyncctr.testing.process import http_ok
from asyncctr.testing.programs import CommandError, Completed, RuntimeMissing, run
from asyncctr.testing.residue import remove_cgroups, remove_tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncctr.testing.subnets import Block

__all__ = ["Podman"]


def _limits() -> list[str]:
    """This process's hard limits: Podman's higher defaults need CAP_SYS_RESOURCE, which root lacks in many a CI machine."""
    found: list[str] = []
    # Podman lowers its own limit of processes to the number of process ids there can be.
    processes = int(Path("/proc/sys/kernel/pid_max").read_text())
    for name, kind, usual in (
        ("nofile", resource.RLIMIT_NOFILE, 1_048_576),
        ("nproc", resource.RLIMIT_NPROC, processes),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = usual if hard == resource.RLIM_INFINITY else min(hard, usual)
        found.append(f"{name}={limit}:{limit}")
    return found


class Podman(NetworkedDaemon):
    """A private Podman with its Docker-compatible API service; networks by the CNI plugins.

    Loopback registries may be used without TLS. The service is restarted and killed like a daemon, but containers never depend
    on it. Names between containers need the CNI plugin ``dnsname`` (Debian: golang-github-containernetworking-plugin-dnsname).
    The bridge is there from the first container on. CNI's own iptables chains, one set for the whole machine, stay behind, emptied.

    Args:
        runtime: the OCI runtime; Debian's default, crun, fails on a hybrid cgroup v1 machine.
        args: further global arguments of ``podman``.
        podman: the program, where it is not Debian's.
        env: variables added to its environment; ``None`` takes one away.
        start_timeout: seconds until it must answer.
        stop_timeout: seconds from SIGTERM to SIGKILL.
    """

    kind = "podman"

    def __init__(
        self,
        *,
        runtime: str = "runc",
        args: Sequence[str] = (),
        podman: str = "podman",
        env: Mapping[str, str | None] | None = None,
        start_timeout: float = 60.0,
        stop_timeout: float = 20.0,
    ) -> None:
        super().__init__(
            start_timeout=start_timeout, stop_timeout=stop_timeout, env={"PATH": SEARCH_PATH, **(env or {})}
        )
        self._runtime = runtime
        self._args = tuple(args)
        self._podman = podman

    @property
    def socket(self) -> Path:
        """The service's socket."""
        return self.dir / "podman.sock"

    @property
    def host(self) -> str:
        """Its address for ``DOCKER_HOST``: ``unix://`` and the socket's path."""
        return f"unix://{self.socket}"

    async def cli(
        self,
        *args: str,
        stdin: bytes = b"",
        timeout: float = 60.0,  # noqa: ASYNC109
        check: bool = True,
    ) -> Completed:
        """Run ``podman`` on the same storage, not through the service.

        Raises:
            CommandError: it failed, with ``check``, or did not end within ``timeout`` seconds.
        """
        return await run(*self._podman_command(), *args, stdin=stdin, env=self.env, timeout=timeout, check=check)

    async def load(self, archive: str | os.PathLike[str]) -> None:
        """Load an image archive."""
        await self.cli("load", "--input", os.fspath(archive))

    async def leftovers(self, *, label: str = "") -> Leftovers:
        """The containers, networks and volumes in this Podman; with ``label`` (``key`` or ``key=value``) those that have it."""
        chosen = ("--filter", f"label={label}") if label else ()
        networks = (await self.cli("network", "ls", "--format", "{{.Name}}", *chosen)).lines
        return Leftovers(
            containers=tuple((await self.cli("ps", "--all", "--quiet", "--no-trunc", *chosen)).lines),
            networks=tuple(name for name in networks if name != "podman"),
            volumes=tuple((await self.cli("volume", "ls", "--quiet", *chosen)).lines),
        )

    def _podman_command(self) -> list[str]:
        return [
            self._podman,
            *("--root", str(self.dir / "root")),
            *("--runroot", str(self.dir / "run")),
            *("--tmpdir", str(self.dir / "tmp")),
            *("--network-config-dir", str(self.dir / "net.d")),
            *("--storage-driver", "overlay"),
            *("--runtime", self._runtime),
            *("--cgroup-manager", "cgroupfs"),
            *("--events-backend", "file"),
            *self._args,
        ]

    async def _prepare(self) -> None:
        plugins = next((path for path in ("/usr/lib/cni", "/opt/cni/bin") if Path(path, "bridge").exists()), None)  # noqa: ASYNC240 - one stat
        if plugins is None:
            package = "containernetworking-plugins"
            message = f"the CNI plugin bridge is not installed; on Debian: apt-get install {package}"
            raise RuntimeMissing("bridge", message, package=package)
        block = self._block = await take_block(self.dir)
        await block.open(bridge=False)
        for name in ("net.d", "tmp", "var"):
            (self.dir / name).mkdir(mode=0o700)
        (self.dir / "net.d" / "87-podman.conflist").write_text(json.dumps(self._network(block), indent=1))
        # Locks in files: in shared memory they are one table for all of the machine's podmans, and a new one empties it.
        (self.dir / "containers.conf").write_text(
            f"""[containers]
default_ulimits = [{", ".join(f'"{limit}"' for limit in _limits())}]
[engine]
lock_type = "file"
runtime = "{self._runtime}"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{plugins}"]
network_config_dir = "{self.dir}/net.d"
default_network = "podman"
default_subnet = "{block.default}"
default_subnet_pools = [{{"base" = "{block.pool}", "size" = 26}}]
"""
        )
        (self.dir / "registries.conf").write_text(
            "".join(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n' for host in ("127.0.0.1", "localhost"))
        )
        (self.dir / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\nrunroot = "{self.dir}/run"\ngraphroot = "{self.dir}/root"\n'
        )
        (self.dir / "auth.json").write_text("{}")
        self.env |= {
            "CONTAINERS_CONF": str(self.dir / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.dir / "registries.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.dir / "storage.conf"),
            "REGISTRY_AUTH_FILE": str(self.dir / "auth.json"),
            # Even empty it makes podman a client of another service.
            "CONTAINER_HOST": None,
            "CONTAINER_CONNECTION": None,
            "TMPDIR": str(self.dir / "var"),
        }

    def _network(self, block: Block) -> dict[str, object]:
        ipam = {
            "type": "host-local",
            "dataDir": str(self.dir / "ipam"),
            "routes": [{"dst": "0.0.0.0/0"}],
            "ranges": [[{"subnet": str(block.default), "gateway": str(block.gateway.ip)}]],
        }
        bridge = {
            "type": "bridge",
            "bridge": block.bridge,
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": ipam,
        }
        plugins = [
            bridge,
            {"type": "portmap", "capabilities": {"portMappings": True}},
            {"type": "firewall"},
            {"type": "tuning"},
        ]
        return {"cniVersion": "0.4.0", "name": "podman", "plugins": plugins}

    def _command(self) -> list[str]:
        self.socket.unlink(missing_ok=True)
        return [*self._podman_command(), "system", "service", "--time", "0", self.host]

    async def _ping(self) -> bool:
        return await http_ok(None, str(self.socket), "/_ping")

    async def _empty(self) -> None:
        """Through the command line, which works whether or not the service does."""

    async def _stop_others(self) -> None:
        try:
            await self.cli("rm", "--all", "--force", "--time", "0", timeout=120, check=False)
            networks = (await self.leftovers()).networks
            if networks:
                await self.cli("network", "rm", *networks, check=False)
        except CommandError:
            # The rest of the exit goes by processes, mounts and interfaces.
            return

    async def _clean(self) -> list[str]:
        if self._block is not None:
            self._forget_addresses(self._block)
        left: list[str] = []
        containers = self.dir / "root" / "overlay-containers"
        for name in [path.name for path in containers.iterdir()] if containers.is_dir() else ():
            for prefix in ("libpod", "conmon"):
                left += await remove_cgroups(f"libpod_parent/{prefix}-{name}")
        return [f"cgroup {path}" for path in left] + await super()._clean()

    @staticmethod
    def _forget_addresses(block: Block) -> None:
        """Remove what CNI's host-local plugin keeps of our custom networks in its one place for the whole machine."""
        base = Path("/var/lib/cni/networks")
        for directory in base.iterdir() if base.is_dir() else ():
            try:
                text = (directory / "last_reserved_ip.0").read_text().strip()
                if ipaddress.ip_address(text) not in block.network:
                    continue
            except (FileNotFoundError, NotADirectoryError, ValueError):
                continue
            remove_tree(directory)
