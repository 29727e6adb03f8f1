"""Whether Nanos unikernels can run here, and what is missing: QEMU, a kernel, KVM."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.core.errors import BackendUnavailableError
from asyncctr.transport.places import data_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncctr.core.backend_config import NanosConfig

__all__ = ["NanosFindings", "examine_nanos"]

_QEMU: Final = "qemu-system-x86_64"
_KVM: Final = "/dev/kvm"
_QBOOT: Final = "qboot.rom"
_SECONDS: Final = 5.0


@attrs.frozen(kw_only=True)
class NanosFindings:
    """What there is for Nanos.

    Attributes:
        details: what was found.
        missing: what keeps machines from running, a sentence each; nothing can be opened while there is any.
        warnings: what makes them worse.
        advice: what to do.
    """

    details: Mapping[str, str] = attrs.field(factory=dict)
    missing: Sequence[str] = ()
    warnings: Sequence[str] = ()
    advice: Sequence[str] = ()


async def examine_nanos(config: NanosConfig) -> NanosFindings:
    """Look around. No machine is started, but that of a few bytes which tells whether KVM works; and no directory is made.

    Raises:
        InvalidConfigError: the OPS configuration cannot be read.
    """
    data = Path(config.work_dir or data_directory(config.backend_type))
    programs, kernels = await _qemu(config), await _kernel(config, data)
    qemu = programs.details.get("qemu", "")
    accelerators = await _accelerator(qemu) if qemu else NanosFindings()
    parts = (programs, kernels, accelerators)
    details = {name: value for part in parts for name, value in part.details.items()}
    return NanosFindings(
        details={**details, "data": str(data)},
        missing=[sentence for part in parts for sentence in part.missing],
        warnings=[sentence for part in parts for sentence in part.warnings],
        advice=[sentence for part in parts for sentence in part.advice],
    )


async def _qemu(config: NanosConfig) -> NanosFindings:
    """The program, and the types of machines that it has."""
    path = _which(config.qemu_path or _QEMU)
    if not path:
        missing = f"there is no program {config.qemu_path!r}" if config.qemu_path else f"{_QEMU} is not installed"
        return NanosFindings(missing=[missing], advice=["on Debian and Ubuntu: apt-get install qemu-system-x86"])
    machines, places = await asyncio.gather(_told(path, "-M", "help"), _told(path, "-L", "help"))
    details = {"qemu": path}
    if not re.search(r"^microvm ", machines, re.MULTILINE):
        missing = f"{path} has no microvm machines"
        return NanosFindings(details=details, missing=[missing], advice=["install QEMU 5.0 or newer, with microvm"])
    # q35 is there for those who name it, and needs firmware that starts a kernel by PVH.
    qboot = await asyncio.to_thread(lambda: any(Path(place, _QBOOT).is_file() for place in places.splitlines()))
    if qboot:
        return NanosFindings(details={**details, "machines": "microvm, q35"})
    warning = f"q35 machines cannot start: QEMU's firmware {_QBOOT} is not installed"
    return NanosFindings(details={**details, "machines": "microvm"}, warnings=[warning])


def _which(program: str) -> str:
    found = shutil.which(program)
    return os.path.abspath(found) if found is not None else ""  # noqa: PTH100 - a string


async def _told(*words: str) -> str:
    """What a program prints that ends at once; nothing where it cannot be run, which opening the backend explains."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(_SECONDS):
            out, _ = await process.communicate()
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode(errors="replace")


async def _kernel(config: NanosConfig, data: Path) -> NanosFindings:
    from asyncctr.backends.nanos.kernels import find_kernel  # noqa: PLC0415 - for whoever asks for it
    from asyncctr.backends.nanos.ops_config import read_ops_config  # noqa: PLC0415 - likewise

    ops = await asyncio.to_thread(read_ops_config, config.config_path) if config.config_path else None
    try:
        # To look for one is not to download one.
        kernel = await find_kernel(attrs.evolve(config, auto_download=False), data / "kernels", ops=ops)
    except BackendUnavailableError as error:
        # What it goes on with is advice for programs.
        missing = error.message.partition(". Set ")[0]
        advice = "fetch a kernel with `ops update`, or name one: --kernel PATH, in a program NanosConfig(kernel_path=…)"
        return NanosFindings(missing=[missing], advice=[advice])
    klibs = "none"
    if kernel.klib_dir is not None:
        number = await asyncio.to_thread(lambda path: len(list(path.iterdir())), kernel.klib_dir)
        klibs = f"{number} in {kernel.klib_dir}"
    version = {"version": kernel.version} if kernel.version else {}
    return NanosFindings(details={"kernel": str(kernel.path), **version, "klibs": klibs})


async def _accelerator(qemu: str) -> NanosFindings:
    """Whether KVM works, or why not; asked anew, whatever the backend found out before."""
    from asyncctr.backends.nanos.accel import runs_on  # noqa: PLC0415 - for whoever asks for it

    if not os.access(_KVM, os.F_OK):
        why = f"there is no {_KVM}: this CPU or this virtual machine offers none"
    elif not os.access(_KVM, os.R_OK | os.W_OK):
        why = f"this user may not open {_KVM}"
        return NanosFindings(
            details={"kvm": f"no: {why}"}, advice=["for faster machines: `usermod -aG kvm USER`, and log in again"]
        )
    else:
        try:
            works = await runs_on("kvm", qemu)
        except OSError:
            # Opening the backend tells why this QEMU cannot be run.
            works = False
        if works:
            return NanosFindings(details={"kvm": "yes: a machine was run with it"})
        why = f"{_KVM} is there, and a machine does not run with it"
    return NanosFindings(details={"kvm": f"no: {why}"})
