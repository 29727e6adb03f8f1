"""``python -m asyncctr.testing.demo``: a private Docker daemon, what the SDK does with it, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING

import asyncctr
from asyncctr import ContainerConfig, DockerConfig, NetworkConfig, ResourceLimits, RunTimeoutError
from asyncctr.testing.daemons import DaemonError, Dockerd, RuntimeMissing
from asyncctr.testing.images import ImageSpec, build_archive
from asyncctr.testing.programs import missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncctr import Client

__all__ = ["main"]

_IMAGE = "asyncctr.test/busybox:latest"
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


def _config(script: str, **fields: object) -> ContainerConfig:
    # Without a network, which this machine's firewall may have opinions about.
    network = NetworkConfig(mode=asyncctr.NetworkMode.NONE)
    return ContainerConfig(_IMAGE, command=["sh", "-c", script], network=network, **fields)  # type: ignore[arg-type]


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


async def _demonstrate(narrator: _Narrator) -> None:
    narrator.step("A Docker daemon of its own, in a temporary directory")
    async with Dockerd() as daemon:
        async with asyncctr.connect(DockerConfig(host=daemon.host)) as client:
            health = await client.health_check()
            narrator.tell(
                f"{health.runtime}, API {health.api_version}, {health.details['storage driver']}, pid {daemon.pid}"
            )
            archive = daemon.dir / "image.tar"
            image = await asyncio.to_thread(build_archive, ImageSpec(reference=_IMAGE), archive)
            await client.image(_IMAGE).load(archive)
            narrator.tell(f"built {_IMAGE} from busybox ({image.size >> 10} KiB) and loaded it; no registry was asked")
            for part in (_stream, _limits, _exit_code, _timeout, _follow):
                await part(client, narrator)
            narrator.step("And away with it")
        left = await daemon.leftovers()
        narrator.tell(f"containers left in the daemon: {len(left.containers)}")
        directory = daemon.dir
    gone = not await asyncio.to_thread(directory.exists)
    narrator.tell(f"daemon stopped, {directory} {'removed' if gone else 'is still there'}")
    narrator.end()


def main(argv: Sequence[str] = ()) -> int:
    """Run the demonstration; the exit code.

    Args:
        argv: no arguments are taken; any shows what this is.
    """
    if argv:
        sys.stdout.write(f"{__doc__}\n")
        return 0
    reason = missing("docker") or missing("image")
    if reason is not None:
        advice = "sudo " if reason.program == "root" else ""
        sys.stderr.write(
            f"The demo starts a Docker daemon of its own, and cannot here: {reason}.\n"
            "It needs root, and on Debian or Ubuntu: apt-get install docker.io iptables iproute2 busybox-static\n"
            f"Then: {advice}{sys.executable} -m asyncctr.testing.demo\n"
            "To use an engine that runs already, see `asyncctr doctor` and `asyncctr run`.\n"
        )
        return 1
    try:
        asyncio.run(_demonstrate(_Narrator()))
    except (DaemonError, RuntimeMissing) as error:
        sys.stderr.write(f"The private Docker daemon did not work here: {error}\n")
        return 1
    except KeyboardInterrupt:
        # The daemon and its directory are gone: leaving the blocks above has seen to it.
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
