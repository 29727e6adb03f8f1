"""A private containerd."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from asyncctr.testing.base import SEARCH_PATH, Daemon, Leftovers
from asyncctr.testing.programs import CommandError, Completed, run
from asyncctr.testing.residue import remove_shim_traces

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Containerd"]


class Containerd(Daemon):
    """A private containerd, without its CRI plugin.

    Args:
        config: further lines of TOML for its config.toml (version 2), after the settings made here.
        args: further arguments.
        containerd: the program, where it is not Debian's.
        env: variables added to its environment; ``None`` takes one away.
        start_timeout: seconds until it must answer.
        stop_timeout: seconds from SIGTERM to SIGKILL.
    """

    kind = "containerd"

    def __init__(
        self,
        *,
        config: str = "",
        args: Sequence[str] = (),
        containerd: str = "containerd",
        env: Mapping[str, str | None] | None = None,
        start_timeout: float = 60.0,
        stop_timeout: float = 20.0,
    ) -> None:
        super().__init__(
            start_timeout=start_timeout, stop_timeout=stop_timeout, env={"PATH": SEARCH_PATH, **(env or {})}
        )
        self._config = config
        self._args = tuple(args)
        self._containerd = containerd

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
        """Run ``ctr`` against this daemon.

        Raises:
            CommandError: it failed, with ``check``, or did not end within ``timeout`` seconds.
        """
        return await run(
            "ctr",
            "--address",
            str(self.socket),
            "--namespace",
            namespace,
            *args,
            stdin=stdin,
            timeout=timeout,
            check=check,
        )

    async def load(self, archive: str | os.PathLike[str], *, namespace: str = "default") -> None:
        """Import an OCI-layout archive into a namespace."""
        await self.cli("images", "import", os.fspath(archive), namespace=namespace)

    async def leftovers(self) -> Leftovers:
        """The containers of all namespaces, as ``namespace/id``."""
        found: list[str] = []
        for namespace in (await self.cli("namespaces", "list", "--quiet")).lines:
            ended = await self.cli("containers", "list", "--quiet", namespace=namespace)
            found += [f"{namespace}/{name}" for name in ended.lines]
        return Leftovers(containers=tuple(found))

    async def _prepare(self) -> None:
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

    def _command(self) -> list[str]:
        return [self._containerd, "--config", str(self.dir / "config.toml"), "--log-level", "info", *self._args]

    async def _ping(self) -> bool:
        # Not a bare connect: the socket is there before the services behind it are.
        ended = await run("ctr", "--address", str(self.socket), "version", timeout=5, check=False)
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
        return []
