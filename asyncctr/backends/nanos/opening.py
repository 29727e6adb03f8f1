"""Opening a backend: QEMU and the kernel found, what works here learned, and the parts put together."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import Final

from asyncctr.backends.nanos.accel import choose_accelerator
from asyncctr.backends.nanos.backend import NanosBackend
from asyncctr.backends.nanos.exits import Exits
from asyncctr.backends.nanos.kernels import find_kernel
from asyncctr.backends.nanos.ops_config import OpsConfig, read_ops_config
from asyncctr.backends.nanos.prepared import PreparedImages
from asyncctr.backends.nanos.qmp import BACKEND, MAX_SOCKET_PATH
from asyncctr.backends.nanos.removing import sweep
from asyncctr.backends.nanos.site import Site
from asyncctr.backends.nanos.store import ImageStore
from asyncctr.backends.nanos.volumes import VolumeStore
from asyncctr.core.backend_config import BackendConfig, NanosConfig
from asyncctr.core.capabilities import BackendCapabilities
from asyncctr.core.errors import BackendUnavailableError, InvalidConfigError
from asyncctr.transport.cleanup import Janitor
from asyncctr.transport.logspace import LogKeeper, SpaceWatch
from asyncctr.transport.places import data_directory, own_directory, run_directory
from asyncctr.transport.records import Records

__all__ = ["open_backend"]

_QEMU: Final = "qemu-system-x86_64"
_VERSION: Final = re.compile(r"version (\d+(?:\.\d+)*)")
_VERSION_SECONDS: Final = 20.0
# Times the clean-up timeout that a clean-up may go on when nobody waits for it any more.
_BACKGROUND: Final = 6
_LONGEST_SOCKET: Final = "/0123456789abcdef.qmp"
_REFUSED: Final = frozenset(
    {
        # One program, as root, with one console, and nobody else to tell it anything.
        "user",
        "stdin",
        "tty",
        "init",
        "stop_signal",
        "runtime",
        "ulimits",
        "shm_size",
        "resources.pids",
        "resources.memory_swap",
        "cap_add",
        "cap_drop",
        "no_new_privileges",
        "seccomp",
        "devices",
        # What its kernel has not.
        "tmpfs",
        "platform",
        "logs.since",
        "logs.timestamps",
        # Not yet.
        "network.aliases",
        "network.backend_options",
        "network.mode.host",
        "network.mode.custom",
        # A machine has whole CPUs.
        "resources.cpu_quota.part",
        "build.context",
    }
)


async def open_backend(config: BackendConfig) -> NanosBackend:
    """Find QEMU and a kernel, and open the directories.

    Raises:
        BackendUnavailableError: one is missing; the message says what to do.
    """
    if not isinstance(config, NanosConfig):
        message = f"config: must be a NanosConfig, not {type(config).__name__}"
        raise InvalidConfigError(message, field="config")
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        message = f"Nanos machines are x86-64 ones, and run on Linux there; this is {platform.machine()} {sys.platform}"
        raise BackendUnavailableError(message, backend=BACKEND)
    ops = await asyncio.to_thread(read_ops_config, config.config_path) if config.config_path else OpsConfig()
    qemu = _qemu(config)
    data, run = await asyncio.to_thread(_directories, config)
    kernel = await find_kernel(config, data / "kernels", ops=ops)
    records = Records(data, BACKEND)
    await asyncio.to_thread(records.open)
    site = Site(
        config=config,
        ops=ops,
        qemu=qemu,
        runtime=await _runtime(qemu, min(config.op_timeout, _VERSION_SECONDS)),
        kernel=str(kernel.path),
        version=kernel.version,
        klibs=kernel.klib_dir,
        accelerator=await _accelerator(qemu, data, ops),
        run=run,
        capabilities=_CAPABILITIES,
        records=records,
        images=await ImageStore.open(data / "images"),
        prepared=PreparedImages(),
        volumes=VolumeStore(data / "volumes", backend=BACKEND),
        exits=Exits(records),
        janitor=Janitor(config.cleanup_timeout, background=_BACKGROUND * config.cleanup_timeout),
        keeper=LogKeeper(),
        space=SpaceWatch(data, backend=BACKEND),
    )
    # Nobody waits for it, but whoever closes the backend at once.
    site.janitor.spawn(sweep(site), "sweep what killed processes left")
    return NanosBackend(site)


def _qemu(config: NanosConfig) -> str:
    found = shutil.which(config.qemu_path or _QEMU)
    if found is None:
        what = f"there is no program {config.qemu_path!r}" if config.qemu_path else f"{_QEMU} is not installed"
        message = f"{what}; on Debian or Ubuntu: apt-get install qemu-system-x86, or name it with qemu_path"
        raise BackendUnavailableError(message, backend=BACKEND)
    return os.path.abspath(found)  # noqa: PTH100 - a string


def _directories(config: NanosConfig) -> tuple[Path, str]:
    """Where machines and images are, and where the sockets are; this user's alone."""
    data = os.path.abspath(config.work_dir) if config.work_dir else data_directory(BACKEND)  # noqa: PTH100 - a string
    run = run_directory(BACKEND, data, _LONGEST_SOCKET, MAX_SOCKET_PATH)
    own_directory(data, backend=BACKEND)
    own_directory(os.path.dirname(run), backend=BACKEND, shared=True)  # noqa: PTH120 - a string
    own_directory(run, backend=BACKEND)
    return Path(data), run


async def _runtime(qemu: str, seconds: float) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            qemu, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        message = f"{qemu} cannot be run: {error.strerror}"
        raise BackendUnavailableError(message, backend=BACKEND, status=error.errno) from error
    try:
        async with asyncio.timeout(seconds):
            told, _ = await process.communicate()
    except TimeoutError as error:
        message = f"{qemu} did not tell its version within {seconds:g} s"
        raise BackendUnavailableError(message, backend=BACKEND) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found = _VERSION.search(told.decode(errors="replace"))
    if found is None:
        message = f"{qemu} is no QEMU: asked for its version it said {told[:200].decode(errors='replace')!r}"
        raise BackendUnavailableError(message, backend=BACKEND, status=process.returncode)
    return f"nanos on QEMU {found[1]}"


async def _accelerator(qemu: str, data: Path, ops: OpsConfig) -> str:
    return "tcg" if ops.run.accel is False else await choose_accelerator(qemu, data)


_CAPABILITIES: Final = BackendCapabilities(
    supports_memory=True,
    supports_cpu=True,
    supports_storage=True,
    supports_build=True,
    supports_networking=True,
    supports_pause=True,
    supports_volumes=True,
    refused_fields=_REFUSED,
)
