"""Cases 5 and 6: volumes and resource limits."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from asyncctr.core.backend import SupportsVolumes
from asyncctr.core.config import VolumeMount
from asyncctr.core.errors import ConflictError, NotFoundError
from asyncctr.core.resources import ResourceLimits
from asyncctr.testing.conformance.checks import equal, honoured, raises, scratch, supported, unique
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.conformance.workloads import shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncctr.core.status import RunResult
    from asyncctr.testing.conformance.suite import Context

__all__: list[str] = []

BOUND = 60.0
"""Seconds that one step of a case may take."""

_MIB = 1 << 20
_LABELS = {"asyncctr-test": "1"}


async def _run(context: Context, script: str, **fields: object) -> RunResult:
    async with asyncio.timeout(BOUND):
        return await context.client.run(shell(context, script, **fields))


# -- 5


@case(5, "bind mounts")
async def bind_mounts(context: Context) -> None:
    """What the host writes is read inside and the other way round; read-only refuses writes, of directories and of files."""
    async with scratch() as directory:
        (directory / "in").write_bytes(b"from the host")
        mount = VolumeMount(source=str(directory), destination="/mnt/bound")
        if not await honoured(context, shell(context, "true", volumes=[mount]), "volumes"):
            return
        result = await _run(context, "cat /mnt/bound/in && printf inside > /mnt/bound/out", volumes=[mount])
        equal((result.exit_code, result.stdout), (0, b"from the host"), "what the container reads")
        equal((directory / "out").read_bytes(), b"inside", "what the container wrote")

        frozen = attrs.evolve(mount, read_only=True)
        config = shell(context, "true", volumes=[frozen])
        if not await honoured(context, config, "volumes.read_only"):
            return
        if not context.target.is_linux:
            result = await _run(context, "cat /mnt/bound/in; printf new > /mnt/bound/new || exit 5", volumes=[frozen])
            equal((result.exit_code, result.stdout[:13]), (5, b"from the host"), "what a read-only mount lets through")
            equal(sorted(path.name for path in directory.iterdir()), ["in", "out"], "the files on the host")
            return
        script = "cat /mnt/bound/in; for what in 'touch new' 'rm in' 'chmod 777 in'; do (cd /mnt/bound && $what) && echo done: $what; done; exit 5"
        result = await _run(context, script, volumes=[frozen])
        equal((result.exit_code, result.stdout), (5, b"from the host"), "what a read-only mount lets through")
        equal(sorted(path.name for path in directory.iterdir()), ["in", "out"], "the files on the host")
        if await honoured(context, config, "volumes.file"):
            single = VolumeMount(source=str(directory / "in"), destination="/etc/single", read_only=True)
            result = await _run(context, "cat /etc/single; echo more >> /etc/single", volumes=[single])
            equal((result.exit_code != 0, result.stdout), (True, b"from the host"), "a single file, read-only")
            equal((directory / "in").read_bytes(), b"from the host", "the file on the host")


@asynccontextmanager
async def _volume(context: Context) -> AsyncIterator[str]:
    """A named volume that is gone afterwards."""
    name = unique("asyncctr-conformance")
    backend = context.client.backend
    assert isinstance(backend, SupportsVolumes), "supports_volumes is set, but the methods are not there"  # noqa: S101 - for the type
    async with asyncio.timeout(BOUND):
        volume = await backend.create_volume(name, labels=_LABELS)
        equal((volume.name, dict(volume.labels)), (name, _LABELS), "the volume")
        # Making it again, alike, gives the same one.
        equal((await backend.create_volume(name, labels=_LABELS)).name, name, "the volume made again")
    try:
        yield name
    finally:
        await backend.remove_volume(name)
    with raises(NotFoundError, "removing a removed volume"):
        await backend.remove_volume(name)


@case(5, "named volumes")
async def named_volumes(context: Context) -> None:
    """A volume keeps its data from one container to the next, and cannot be removed while one has it."""
    mount = VolumeMount(source=unique("asyncctr-refused"), destination="/data", is_volume_name=True)
    if not context.client.capabilities.supports_volumes:
        config = shell(context, "true", volumes=[mount])
        refused = await honoured(context, config, "volumes", "volumes.is_volume_name")
        equal(refused, wanted=False, what="that a mount of a named volume is honoured")
        return
    backend = context.client.backend
    assert isinstance(backend, SupportsVolumes)  # noqa: S101 - as in _volume
    async with _volume(context) as name:
        mount = attrs.evolve(mount, source=name)
        equal(
            [entry.name for entry in await backend.list_volumes(labels=_LABELS)], [name], "the volumes with our label"
        )
        result = await _run(context, "printf kept > /data/file", volumes=[mount])
        equal(result.exit_code, 0, "the exit code of the writer")
        reader = shell(context, "cat /data/file && printf more > /data/second", volumes=[mount])
        async with asyncio.timeout(BOUND), context.client.container(reader) as container:
            with raises(ConflictError, "removing a volume that a container has"):
                await backend.remove_volume(name)
            await container.start()
            equal((await container.logs().read()).stdout, b"kept", "what the second container reads")
            equal((await container.wait()).code, 0)
        if supported(context, "volumes.read_only"):
            script = "cat /data/file /data/second; printf third > /data/third || exit 5"
            result = await _run(context, script, volumes=[attrs.evolve(mount, read_only=True)])
            equal((result.exit_code, result.stdout[:8]), (5, b"keptmore"), "the volume, read-only")


async def _empty_volume(context: Context) -> None:
    """Where nothing is copied, a new volume is empty."""
    async with _volume(context) as name:
        mount = VolumeMount(source=name, destination="/filled", is_volume_name=True)
        equal((await _run(context, "cat /filled/file")).stdout, b"the image's", "what the image has")
        result = await _run(context, "cat /filled/file || exit 5", volumes=[mount])
        equal((result.exit_code, result.stdout.count(b"the image's")), (5, 0), "what a new volume has")


@case(5, "new volumes get what the image has")
async def filled_volumes(context: Context) -> None:
    """A new volume has what the image has in its place: content, owners, modes, links; once, so that what is deleted stays so."""
    if not context.client.capabilities.supports_volumes:
        # Refused, as the case above shows.
        return
    if not context.target.is_linux:
        await _empty_volume(context)
        return
    backend = context.client.backend
    assert isinstance(backend, SupportsVolumes)  # noqa: S101 - as in _volume
    names = [unique("asyncctr-filled") for _ in range(3)]
    # A program with its links, another user's directory, and what is not there.
    mounts = [
        VolumeMount(source=name, destination=destination, is_volume_name=True)
        for name, destination in zip(names, ("/bin", "/home", "/not/there"), strict=True)
    ]
    look = "stat -c '%N %u:%g %a %h %F' /bin /bin/* /home/*; stat -c '%Y %s' /bin/busybox; ls -A /home"
    try:
        plain = await _run(context, look)
        result = await _run(context, f"{look}; ls -A /not/there", volumes=mounts)
        equal((result.stderr, result.stdout), (b"", plain.stdout), "what is in new volumes")
        await _run(context, "rmdir /home/app && mkdir -m 777 /home/all && echo kept > /home/mine", volumes=mounts)
        # What nobody but its owner may enter is removed with the rest.
        await _run(context, "mkdir -m 700 /home/all/own && echo own > /home/all/own/file", volumes=mounts, user="app")
        result = await _run(context, "ls -A /home; cat /home/mine /home/all/own/file", volumes=mounts)
        equal(result.stdout, b"all\nmine\nkept\nown\n", "what is left in a volume")
        # Nothing of it is the image's own.
        equal((await _run(context, "ls -A /home")).stdout, b"app\n", "what the image has")
    finally:
        for name in names:
            try:
                await backend.remove_volume(name)
            except NotFoundError:
                # It was not made.
                continue


# -- 6


async def _inspected(context: Context, limits: ResourceLimits) -> None:
    """What inspect says of the limits is what was asked, and what was not asked is not there."""
    async with asyncio.timeout(BOUND), context.client.container(shell(context, "true", resources=limits)) as container:
        found = (await container.inspect()).resources
    asked = attrs.asdict(limits, filter=lambda _, value: value is not None)
    equal({name: getattr(found, name) for name in asked}, asked, "the inspected limits")
    # Runtimes have defaults of their own for these.
    rest = {name for name in attrs.asdict(found) if name not in asked} - {"memory_swap", "cpu_period", "pids"}
    equal({name: getattr(found, name) for name in rest}, dict.fromkeys(rest), "the limits that were not asked for")


@case(6, "memory limit")
async def memory_limit(context: Context) -> None:
    """Going beyond it kills, and says so; a kill by somebody else is not taken for it."""
    limits = ResourceLimits(memory=64 * _MIB)
    fields = ["resources.memory"]
    if supported(context, "resources.memory_swap"):
        limits = attrs.evolve(limits, memory_swap=64 * _MIB)
    equal(context.client.capabilities.supports_memory, supported(context, *fields), "supports_memory")
    # One block of that size, written to: the kernel kills dd, which is the container's first process.
    script = "exec dd if=/dev/zero of=/dev/null bs={}M count=1"
    if not await honoured(context, shell(context, "true", resources=limits), *fields):
        return
    reports = context.client.capabilities.reports_oom
    if not context.target.is_linux:
        # What its only program does without memory is its kernel's to say.
        result = await _run(context, "exit 137", resources=limits)
        equal((result.exit_code, result.status.oom_killed), (137, None), "code and oom_killed of exit 137")
        await _inspected(context, limits)
        return
    async with (
        asyncio.timeout(BOUND),
        context.client.container(shell(context, script.format(200), resources=limits)) as container,
    ):
        await container.start()
        status = await container.wait()
        equal(
            (status.code, status.oom_killed), (137, True if reports else None), "code and oom_killed beyond the limit"
        )
        equal((await container.inspect()).oom_killed, True if reports else None, "the inspected oom_killed")
    result = await _run(context, script.format(200), resources=limits)
    equal(
        (result.exit_code, result.status.oom_killed), (137, True if reports else None), "code and oom_killed of a run"
    )
    result = await _run(context, script.format(16), resources=limits)
    equal(
        (result.exit_code, result.status.oom_killed),
        (0, False if reports else None),
        "code and oom_killed within the limit",
    )
    result = await _run(context, "exit 137", resources=limits)
    equal(
        (result.exit_code, result.status.oom_killed),
        (137, False if reports else None),
        "code and oom_killed of exit 137",
    )
    async with (
        asyncio.timeout(BOUND),
        context.client.container(shell(context, "exec sleep 300", resources=limits)) as container,
    ):
        await container.start()
        await container.kill()
        status = await container.wait()
        equal(
            (status.code, status.oom_killed), (137, False if reports else None), "code and oom_killed of a killed one"
        )
    await _inspected(context, limits)


@case(6, "memory and swap limit")
async def swap_limit(context: Context) -> None:
    """Honoured, as inspect says, or refused by name."""
    equal(
        context.client.capabilities.supports_memory_swap,
        supported(context, "resources.memory_swap"),
        "supports_memory_swap",
    )
    limits = ResourceLimits(memory=32 * _MIB, memory_swap=64 * _MIB)
    if await honoured(context, shell(context, "true", resources=limits), "resources.memory_swap", "resources.memory"):
        await _inspected(context, limits)
        unlimited = attrs.evolve(limits, memory_swap=-1)
        if await honoured(context, shell(context, "true", resources=unlimited), "resources.memory_swap.unlimited"):
            await _inspected(context, unlimited)


@case(6, "pids limit")
async def pids_limit(context: Context) -> None:
    """No more processes than that."""
    equal(context.client.capabilities.supports_pids, supported(context, "resources.pids"), "supports_pids")
    limits = ResourceLimits(pids=16)
    script = "i=0; while [ $i -lt 32 ]; do sleep 60 & i=$((i + 1)); done; echo all"
    if not await honoured(context, shell(context, "true", resources=limits), "resources.pids"):
        return
    result = await _run(context, script, resources=limits)
    equal((result.exit_code != 0, result.stdout), (True, b""), "32 forks with a limit of 16")
    equal(b"fork" in result.stderr, wanted=True, what=f"that {result.stderr!r} speaks of a fork")
    result = await _run(context, script, resources=ResourceLimits(pids=64))
    equal((result.exit_code, result.stdout), (0, b"all\n"), "32 forks with a limit of 64")
    await _inspected(context, limits)


_BURN = """
read before _ < /proc/uptime
timeout 3 sh -c 'while :; do :; done'
read after _ < /proc/uptime
echo "$before $after"
times
"""
_TIMES = re.compile(r"(\d+)m([\d.]+)s (\d+)m([\d.]+)s")


@case(6, "cpu quota")
async def cpu_quota(context: Context) -> None:
    """A busy loop uses no more CPU seconds than its share of the time; how long it takes proves nothing."""
    equal(context.client.capabilities.supports_cpu, supported(context, "resources.cpu_quota"), "supports_cpu")
    limits = ResourceLimits.from_cpus(0.2)
    config = shell(context, "true", resources=limits)
    if not await honoured(context, config, "resources.cpu_quota", "resources.cpu_period"):
        return
    if not await honoured(context, config, "resources.cpu_quota.part"):
        await _inspected(context, ResourceLimits.from_cpus(2))
        return
    result = await _run(context, _BURN, resources=limits)
    clock, *times = result.stdout.decode().splitlines()
    before, after = map(float, clock.split())
    spent = [_TIMES.fullmatch(line.strip()) for line in times]
    used = sum(
        60 * int(match[1]) + float(match[2]) + 60 * int(match[3]) + float(match[4])
        for match in spent
        if match is not None
    )
    equal(len(spent), 2, "the lines of times")
    # The kernel hands out slices of 5 ms and lets a period's rest go by, so a little more than the share is right.
    allowed = 0.2 * (after - before) * 1.25 + 0.1
    equal(
        0.1 < used < allowed,
        wanted=True,
        what=f"that {used:.2f} CPU s in {after - before:.2f} s are above 0.1 and below {allowed:.2f}",
    )
    await _inspected(context, limits)
    await _inspected(context, ResourceLimits(cpu_quota=50_000, cpu_period=200_000))


@case(6, "storage limit")
async def storage_limit(context: Context) -> None:
    """The root filesystem takes no more than that, or the limit is refused by name."""
    equal(context.client.capabilities.supports_storage, supported(context, "resources.storage"), "supports_storage")
    limits = ResourceLimits(storage=64 * _MIB)
    if not await honoured(context, shell(context, "true", resources=limits), "resources.storage"):
        return
    script = "dd if=/dev/zero of=/file bs=1M count={} 2>&1"
    if not context.target.is_linux:
        await _inspected(context, limits)
        return
    result = await _run(context, script.format(16), resources=limits)
    equal(result.exit_code, 0, "writing 16 MiB of 64")
    result = await _run(context, script.format(128), resources=limits)
    equal(result.exit_code != 0, wanted=True, what=f"that writing 128 MiB of 64 fails: {result.stdout!r}")
    await _inspected(context, limits)
