"""A private containerd: Debian's, or 2.x built from its Go module."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from asyncctr.testing.base import SEARCH_PATH, Daemon, Leftovers
from asyncctr.testing.golang import CONTAINERD
from asyncctr.testing.programs import CommandError, Completed, find, run
from asyncctr.testing.residue import remove_shim_traces
from asyncctr.testing.traces import remove_networks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Containerd"]

_UNIFIED = Path("/sys/fs/cgroup/unified")
_SNAPSHOT_OF_IMAGE = re.compile(r"containerd\.io/gc\.ref\.snapshot\.[^=]+=(sha256:[0-9a-f]{64})")


class Containerd(Daemon):
    """A private containerd, without its CRI plugin.

    Args:
        release: ``"debian"`` for the installed one, ``"2.x"`` for the one built from its Go module, or the programs that
            ``ASYNCCTR_TEST_CONTAINERD`` names. The first start of 2.x on a machine builds it, which takes minutes.
        runtime: the OCI runtime that its shims find in their path as ``runc``.
        hide_unified: give it a mount namespace without ``/sys/fs/cgroup/unified``; ``None`` does so for crun, which refuses a
            machine with both versions of control groups. Network namespaces made later are seen in it all the same. One that
            is started again has a new one, without the mounts of containers that live on.
        config: further lines of TOML for its config.toml (version 2, which 2.x takes too), after the settings made here.
        args: further arguments.
        env: variables added to its environment; ``None`` takes one away.
        start_timeout: seconds until it must answer.
        stop_timeout: seconds from SIGTERM to SIGKILL.
    """

    kind = "containerd"

    def __init__(
        self,
        *,
        release: Literal["debian", "2.x"] = "debian",
        runtime: Literal["runc", "crun"] = "runc",
        hide_unified: bool | None = None,
        config: str = "",
        args: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        start_timeout: float = 60.0,
        stop_timeout: float = 20.0,
    ) -> None:
        super().__init__(
            start_timeout=start_timeout, stop_timeout=stop_timeout, env={"PATH": SEARCH_PATH, **(env or {})}
        )
        self.release = release
        self.runtime = runtime
        if release == "2.x":
            self.kind = "containerd2"
        self._hide_unified = runtime == "crun" if hide_unified is None else hide_unified
        self._config = config
        self._args = tuple(args)
        self._programs: Path | None = None

    @property
    def socket(self) -> Path:
        """Its gRPC socket."""
        return self.dir / "containerd.sock"

    @property
    def root(self) -> Path:
        """Its persistent data."""
        return self.dir / "root"

    async def cli(
        self,
        *args: str,
        namespace: str = "default",
        stdin: bytes = b"",
        timeout: float = 60.0,  # noqa: ASYNC109
        check: bool = True,
    ) -> Completed:
        """Run ``ctr``, of the same release, against this daemon.

        Raises:
            CommandError: it failed, with ``check``, or did not end within ``timeout`` seconds.
        """
        return await run(
            self._program("ctr"),
            *("--address", str(self.socket), "--namespace", namespace),
            *args,
            stdin=stdin,
            timeout=timeout,
            check=check,
        )

    async def load(self, archive: str | os.PathLike[str], *, namespace: str = "default") -> None:
        """Import an OCI-layout archive into a namespace."""
        await self.cli("images", "import", os.fspath(archive), namespace=namespace)

    async def leftovers(self) -> Leftovers:
        """What containers have in all namespaces, as ``namespace/id``; images and their snapshots are no leftovers."""
        found: dict[str, list[str]] = {"containers": [], "tasks": [], "snapshots": [], "leases": [], "ingests": []}
        for namespace in (await self.cli("namespaces", "list", "--quiet")).lines:
            lists: dict[str, list[list[str]]] = {
                "containers": [await self._listed(namespace, "containers", "list", "--quiet")],
                "tasks": [await self._listed(namespace, "tasks", "list", "--quiet")],
                "snapshots": [await self._snapshots(namespace)],
                "leases": [await self._listed(namespace, "leases", "list", "--quiet")],
                "ingests": [(await self._listed(namespace, "content", "active"))[1:]],
            }
            if self.release == "2.x":
                lists["tasks"].append((await self._listed(namespace, "sandboxes", "list"))[1:])
            for name, parts in lists.items():
                found[name] += [f"{namespace}/{entry}" for part in parts for entry in part]
        return Leftovers(**{name: tuple(entries) for name, entries in found.items()})

    async def _listed(self, namespace: str, *args: str) -> list[str]:
        return [line.split()[0] for line in (await self.cli(*args, namespace=namespace)).lines]

    async def _snapshots(self, namespace: str) -> list[str]:
        """The keys of snapshots that are containers', being unpacked, or below no image."""
        parents: dict[str, str] = {}
        others: list[str] = []
        for line in (await self.cli("snapshots", "list", namespace=namespace)).lines[1:]:
            key, *between, kind = line.split()
            if kind == "Committed":
                parents[key] = between[0] if between else ""
            else:
                others.append(key)
        kept: set[str] = set()
        for chain in _SNAPSHOT_OF_IMAGE.findall((await self.cli("content", "list", namespace=namespace)).text):
            name = chain
            while name and name not in kept:
                kept.add(name)
                name = parents.get(name, "")
        return [*others, *(key for key in parents if key not in kept)]

    def _program(self, name: str) -> str:
        return name if self._programs is None else str(self._programs / name)

    async def _prepare(self) -> None:
        if self.release == "2.x":
            self._programs = await asyncio.to_thread(CONTAINERD.build)
        # Where its shims look first: for the shim's program, and for the runtime.
        first = self.dir / "bin"
        first.mkdir()
        (first / "runc").symlink_to(find(self.runtime))
        path = [str(first), *([str(self._programs)] if self._programs else []), self.env.get("PATH") or SEARCH_PATH]
        self.env["PATH"] = os.pathsep.join(path)
        if self._hide_unified:
            await self._share_netns()
        # The opt plugin would otherwise make /opt/containerd.
        (self.dir / "config.toml").write_text(
            f"""version = 2
root = "{self.root}"
state = "{self.dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri"]
[grpc]
address = "{self.socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{self.dir}/opt"
{self._config}
"""
        )

    @staticmethod
    async def _share_netns() -> None:
        """Have ``ip`` make ``/run/netns`` a shared mount, without which a mount namespace gets no later network namespaces."""
        name = f"asyncctr-testing-{os.getpid()}"
        await run("ip", "netns", "add", name)
        await run("ip", "netns", "delete", name)

    def _command(self) -> list[str]:
        words = [
            self._program("containerd"),
            "--config",
            str(self.dir / "config.toml"),
            "--log-level",
            "info",
            *self._args,
        ]
        if self._hide_unified and _UNIFIED.is_mount():
            # What the host mounts goes on to appear there; what is unmounted there stays on the host.
            script = f'umount {_UNIFIED} && exec "$@"'
            return ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh", *words]
        return words

    async def _ping(self) -> bool:
        # Not a bare connect: the socket is there before the services behind it are.
        ended = await run(self._program("ctr"), "--address", str(self.socket), "version", timeout=5, check=False)
        return ended.returncode == 0

    async def _empty(self) -> None:
        try:
            for namespace in (await self.cli("namespaces", "list", "--quiet")).lines:
                for kind, force in (("tasks", ("--force",)), ("containers", ())):
                    for name in (await self.cli(kind, "list", "--quiet", namespace=namespace)).lines:
                        await self.cli(kind, "delete", *force, name, namespace=namespace, check=False)
        except CommandError:
            # It does not answer: the rest of the exit goes by processes and files.
            return

    async def _clean(self) -> list[str]:
        await asyncio.to_thread(remove_shim_traces, self.dir)
        return await remove_networks(self.dir)
