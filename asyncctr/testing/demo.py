"""``python -m asyncctr.testing.demo``: a private containerd, what the SDK does with it, and nothing left behind.

``--docker`` takes a private Docker daemon in its place.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

import asyncctr
from asyncctr import (
    AsyncctrError,
    BackendUnavailableError,
    ContainerConfig,
    ContainerdConfig,
    DockerConfig,
    NetworkConfig,
    NetworkMode,
    PortMapping,
    ResourceLimits,
    RunTimeoutError,
)
from asyncctr.testing.daemons import DaemonError, Dockerd, RuntimeMissing
from asyncctr.testing.images import ImageSpec, build_archive
from asyncctr.testing.programs import CommandError, missing, run
from asyncctr.testing.residue import kill_all, mounts_under, processes_of, remove_tree, unmount_under

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from asyncctr import Client

__all__ = ["main"]

_IMAGE = "asyncctr.test/busybox:latest"
_PACKAGES = {
    "containerd": "containerd runc containernetworking-plugins iptables iproute2 busybox-static",
    "docker": "docker.io iptables iproute2 busybox-static",
}
_WITHOUT_ROOT = "rootlesskit slirp4netns uidmap fuse-overlayfs"
_COLOURS = {"title": "1", "code": "36", "stderr": "33", "dim": "2"}

_SPEAK = "for i in 1 2 3; do echo line $i; echo warning $i >&2; sleep 0.3; done; printf 'no newline at the end'"
# cgroup v1, else v2: what the kernel has been told about this container.
_LIMITS = """
first() { for f; do [ -r "$f" ] && cat "$f" && return; done; }
c=/sys/fs/cgroup
echo "memory limit: $(first $c/memory/memory.limit_in_bytes $c/memory.max) bytes"
echo "pids limit:   $(first $c/pids/pids.max $c/pids.max)"
echo "cpu quota:    $(first $c/cpu/cpu.cfs_quota_us $c/cpu.max) microseconds in each 100000"
"""

_SERVE = """
mkdir /tmp/www && echo "hello from $(hostname)" >/tmp/www/index.html && httpd -p 8000 -h /tmp/www && echo listening
sleep 3600
"""


class _Narrator:
    """Prints steps and what happens in them, each with its time."""

    def __init__(self) -> None:
        self._began = self._step = time.monotonic()
        self._coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._coloured and colour else text

    def _print(self, text: str = "") -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def step(self, title: str, code: str = "") -> None:
        self._step = time.monotonic()
        self._print()
        self._print(self._paint(title, "title") + ("   " + self._paint(code, "code") if code else ""))

    def tell(self, text: str, colour: str = "") -> None:
        stamp = f"{time.monotonic() - self._step:6.2f} s  "
        self._print(self._paint(stamp, "dim") + self._paint(text, colour))

    def lines(self, text: str) -> None:
        for line in text.splitlines():
            self.tell(line)

    def end(self) -> None:
        self._print()
        self._print(f"All of it took {time.monotonic() - self._began:.1f} s.")


def _config(script: str, **fields: Any) -> ContainerConfig:
    # Without a network unless that is what is shown: this machine's firewall may have opinions about one.
    fields.setdefault("network", NetworkConfig(mode=NetworkMode.NONE))
    return ContainerConfig(_IMAGE, command=["sh", "-c", script], **fields)


async def _stream(client: Client, narrator: _Narrator) -> None:
    narrator.step("Output as it comes, the two streams apart", "async for entry in container.logs(): ...")
    async with client.container(_config(_SPEAK)) as container:
        await container.start()
        async for line in container.logs().lines():
            narrator.tell(f"{line.stream}: {line.text}", "stderr" if line.stream == "stderr" else "")
        status = await container.wait()
        narrator.tell(f"exit code {status.code}")


async def _limits(client: Client, narrator: _Narrator) -> None:
    limits = ResourceLimits.from_cpus(0.5, memory=64 << 20, pids=32)
    narrator.step("Limits, seen from inside", "ResourceLimits.from_cpus(0.5, memory=64 << 20, pids=32)")
    if not client.capabilities.supports_memory:
        narrator.tell("left out: this user has no control groups to make limits with")
        return
    result = await client.run(_config(_LIMITS, resources=limits))
    narrator.lines(result.stdout.decode())
    # Without swap beside it, or the kernel would write the surplus to disk instead.
    small = ResourceLimits(memory=32 << 20, memory_swap=32 << 20)
    if not client.capabilities.supports_memory_swap:
        small = ResourceLimits(memory=32 << 20)
    result = await client.run(_config("tail /dev/zero", resources=small), timeout=20)
    narrator.tell(f"too much for 32 MiB: exit code {result.exit_code}, oom_killed={result.status.oom_killed}")


async def _exit_code(client: Client, narrator: _Narrator) -> None:
    narrator.step("An exit code is a result", 'result = await client.run(image, ["sh", "-c", "exit 7"])')
    result = await client.run(_config("echo some work; exit 7"))
    narrator.tell(f"exit_code={result.exit_code}, stdout={result.stdout!r}, duration={result.duration:.2f} s")


async def _timeout(client: Client, narrator: _Narrator) -> None:
    narrator.step("A time limit, and what was printed until then", "client.run(..., timeout=1.0)")
    try:
        await client.run(_config("echo started; sleep 3600"), timeout=1.0)
    except RunTimeoutError as error:
        narrator.tell(f"RunTimeoutError: {error}")
        narrator.tell(f"error.result.stdout={error.result.stdout!r}")


async def _follow(client: Client, narrator: _Narrator) -> None:
    narrator.step("Two readers of one log, the second one late: both get it from its first byte")
    script = "for i in 1 2 3 4; do echo tick $i; sleep 0.3; done"
    async with client.container(_config(script)) as container:
        await container.start()

        async def read(name: str, delay: float) -> None:
            await asyncio.sleep(delay)
            async for line in container.logs(follow=True).lines():
                narrator.tell(f"{name}: {line.text}")

        async with asyncio.TaskGroup() as group:
            group.create_task(read("first", 0))
            group.create_task(read("    late", 0.7))


async def _publish(client: Client, narrator: _Narrator) -> None:
    narrator.step("A port, published on 127.0.0.1", "NetworkConfig(port_mappings=[PortMapping(container_port=8000)])")
    network = NetworkConfig(port_mappings=[PortMapping(container_port=8000)])
    try:
        async with client.container(_config(_SERVE, network=network)) as container:
            await container.start()
            async for _ in container.logs().lines():
                break
            (port,) = (await container.inspect()).ports
            url = f"http://{port.host_ip}:{port.host_port}/"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                narrator.tell(f"{url} says: {(await response.text()).strip()}")
    except (AsyncctrError, aiohttp.ClientError) as error:
        # Everything else works without a network.
        narrator.tell(f"left out, networks do not work here: {error}")


# --- the runtimes


@asynccontextmanager
async def _docker(narrator: _Narrator) -> AsyncIterator[Client]:
    narrator.step("A Docker daemon of its own, in a temporary directory", "asyncctr.connect(DockerConfig(host=...))")
    async with Dockerd() as daemon:
        async with asyncctr.connect(DockerConfig(host=daemon.host)) as client:
            health = await client.health_check()
            narrator.tell(
                f"{health.runtime}, API {health.api_version}, {health.details['storage driver']}, pid {daemon.pid}"
            )
            yield client
            narrator.step("And away with it")
        left = await daemon.leftovers()
        narrator.tell(f"containers left in the daemon: {len(left.containers)}")
        directory = daemon.dir
    _tell_removed(narrator, directory)


@asynccontextmanager
async def _containerd(narrator: _Narrator) -> AsyncIterator[Client]:
    from asyncctr.backends.containerd.daemon.lease import ensure_private  # noqa: PLC0415 - an extra that --docker needs not

    narrator.step(
        "A containerd of its own, in a temporary directory", "connect(ContainerdConfig(private=True, auto_start=True))"
    )
    # Not $TMPDIR: a socket's path must be short.
    directory = Path(tempfile.mkdtemp(prefix="asyncctr-demo-", dir="/tmp"))
    places = {
        "ASYNCCTR_DATA_DIR": f"{directory}/data",
        "ASYNCCTR_RUN_DIR": f"{directory}/run",
        # A demonstration that is killed leaves a daemon for no longer than that.
        "ASYNCCTR_IDLE_TIMEOUT": "2",
    }
    before = {name: os.environ.get(name) for name in places}
    os.environ.update(places)
    try:
        config = ContainerdConfig(private=True, auto_start=True)
        async with await ensure_private(config) as lease:
            try:
                async with asyncctr.connect(config) as client:
                    health = await client.health_check()
                    details = health.details
                    narrator.tell(
                        f"{health.runtime}, {details['snapshotter']}, rootless: {details['rootless']}; in {directory}"
                    )
                    for warning in health.warnings:
                        narrator.tell(f"warning: {warning}", "stderr")
                    yield client
            finally:
                narrator.step("And away with it")
                # Another client: what the first one removed behind its runs is gone when that is closed.
                async with asyncctr.connect(config) as client:
                    narrator.tell(f"containers left in the daemon: {len(await client.list(all=True))}")
                    networks = await _remove_network(client, directory)
                    # In its snapshots are directories of the kernel's, which a user may not remove, and a rootless daemon may.
                    if await client.image(_IMAGE).exists():
                        await client.image(_IMAGE).remove()
            # Else it would end by itself, when nobody has used it for a while.
            await lease.replace()
        left = await _left(directory, networks)
        narrator.tell(f"containerd ended; left of it: {', '.join(left) or 'nothing'}")
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        await _remove(directory)
    _tell_removed(narrator, directory)


async def _remove_network(client: Client, directory: Path) -> list[str]:
    """Remove the default network; the names that it, its bridge and its rules have."""
    names = [path.stem for path in directory.rglob("actr-*.conflist")]  # noqa: ASYNC240 - nothing else runs on this loop
    if names:
        await client.backend.remove_network("bridge")  # type: ignore[attr-defined]
    return names


async def _left(directory: Path, networks: Sequence[str]) -> list[str]:
    """What there is of a daemon that has ended, and of its networks, on this machine."""
    # Its supervisor has this lock until it has ended.
    await run("flock", f"{directory}/data/containerd/private/daemon.lock", "true", timeout=20)
    rules: list[str] = []
    if networks and os.geteuid() == 0:
        rules = [line for line in (await run("iptables-save")).lines if any(name in line for name in networks)]
    interfaces = os.listdir("/sys/class/net")  # noqa: PTH208 - names, not paths
    return [
        *(f"process {pid}" for pid in processes_of(directory)),
        *(f"mount {point}" for point in mounts_under(directory)),
        *(f"bridge {name}" for name in networks if name in interfaces),
        *(f"rule {rule}" for rule in rules),
    ]


async def _remove(directory: Path) -> None:
    """Remove the directory, and end what goes on in there where the way was cut short."""
    await kill_all(processes_of(directory))
    await unmount_under(directory)
    await asyncio.to_thread(remove_tree, directory)


def _tell_removed(narrator: _Narrator, directory: Path) -> None:
    narrator.tell(f"{directory} {'is still there' if directory.exists() else 'removed'}")


async def _demonstrate(
    narrator: _Narrator, runtime: Callable[[_Narrator], AbstractAsyncContextManager[Client]]
) -> None:
    async with runtime(narrator) as client:
        with tempfile.TemporaryDirectory(prefix="asyncctr-demo-image-") as directory:
            archive = Path(directory, "image.tar")
            image = await asyncio.to_thread(build_archive, ImageSpec(reference=_IMAGE), archive)
            await client.image(_IMAGE).load(archive)
        narrator.tell(f"built {_IMAGE} from busybox ({image.size >> 10} KiB) and loaded it; no registry was asked")
        for part in (_stream, _limits, _exit_code, _timeout, _follow):
            await part(client, narrator)
        if runtime is _containerd:
            await _publish(client, narrator)
    narrator.end()


def _advice(kind: str, reason: object) -> str:
    without_root = kind == "containerd" and os.geteuid()
    packages = f"{_PACKAGES[kind]} {_WITHOUT_ROOT}" if without_root else _PACKAGES[kind]
    root = ", and root" if kind == "docker" else ""
    return (
        f"The demo starts a {kind} of its own, and cannot here: {reason}\n"
        f"What it takes on Debian or Ubuntu: apt-get install {packages}{root}\n"
        "To use a runtime that is here already, see `asyncctr doctor` and `asyncctr run`.\n"
    )


def main(argv: Sequence[str] = ()) -> int:
    """Run the demonstration; the exit code.

    Args:
        argv: ``--docker`` for Docker; anything else shows what this is.
    """
    if set(argv) - {"--docker"}:
        sys.stdout.write(f"{__doc__}\n")
        return 0
    kind, runtime = ("docker", _docker) if argv else ("containerd", _containerd)
    reason = missing("image") or (missing(kind) if argv else None)
    if reason is not None:
        sys.stderr.write(_advice(kind, reason))
        return 1
    try:
        asyncio.run(_demonstrate(_Narrator(), runtime))
    except BackendUnavailableError as error:
        sys.stderr.write(_advice(kind, error))
        return 1
    except (AsyncctrError, CommandError, DaemonError, RuntimeMissing) as error:
        sys.stderr.write(f"The private {kind} did not work here: {error}\n")
        return 1
    except KeyboardInterrupt:
        # The daemon and its directory are gone: leaving the blocks above has seen to it.
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
