"""Which accelerator virtual machines get: KVM where it was seen to work, else QEMU's own translation."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Final

from asyncctr.backends.nanos.pvh import pvh_kernel
from asyncctr.netns.files import write_atomic

__all__ = ["choose_accelerator", "runs_on"]

_DEADLINE: Final = 3.0
_CACHE: Final = "accelerator.json"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_KVM: Final = "/dev/kvm"

# Into 64-bit mode by way of a page table of its own, then arithmetic that takes a while, and what comes out is the exit code:
#     movl $0x102003, 0x101000; movl $0x103003, 0x102000; movl $0x83, 0x103000    one page of 2 MiB, mapped to itself
#     mov $0x101000, %eax; mov %eax, %cr3
#     mov %cr4, %eax; or $0x20, %eax; mov %eax, %cr4                               PAE
#     mov $0xc0000080, %ecx; rdmsr; or $0x100, %eax; wrmsr                         EFER.LME
#     mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0                         paging
#     lgdt gdtr; ljmp $8, $long
#   long:
#     movabs $6364136223846793005, %rbx; xor %eax, %eax; mov $100000, %ecx
#   1: imul %rbx, %rax; inc %rax; dec %ecx; jnz 1b
#     shr $56, %rax; mov $0x501, %dx; out %al, (%dx)
#   2: hlt; jmp 2b
#     nop
#   gdt: .quad 0, 0x00209a0000000000
#   gdtr: .word 15; .long gdt
_GUEST: Final = bytes.fromhex(
    "c7050010100003201000 c7050020100003301000 c7050030100083000000"
    "b800101000 0f22d8 0f20e0 83c820 0f22e0 b9800000c0 0f32 0d00010000 0f30"
    "0f20c0 0d00000080 0f22c0 0f011590001000 ea560010000800"
    "48bb2d7f954c2df45158 31c0 b9a0860100 480fafc3 48ffc0 ffc9 75f5"
    "48c1e838 66ba0105 ee f4 ebfd 6690"
    "0000000000000000 00000000009a2000 0f0080001000"
)
_GUEST_MEMORY: Final = 0x4000
# The highest byte of the arithmetic is 71; isa-debug-exit makes twice that and 1 of it.
_EXPECTED: Final = 143


async def choose_accelerator(qemu: str, state: Path) -> str:
    """``"kvm"`` or ``"tcg"``. What a probe found is kept in ``state``, for this boot and this QEMU.

    The directory must exist. A nested or restricted host may offer ``/dev/kvm`` and then fail at once, or hang in the guest.
    """
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return "tcg"
    key, known = await asyncio.to_thread(_recall, qemu, state / _CACHE)
    if known is None:
        try:
            known = await runs_on("kvm", qemu)
        except OSError:
            # Whoever starts this QEMU for real tells why it cannot be.
            return "tcg"
        await asyncio.to_thread(write_atomic, state / _CACHE, json.dumps({"of": key, "kvm": known}).encode())
    return "kvm" if known else "tcg"


async def runs_on(accelerator: str, qemu: str, *, deadline: float = _DEADLINE) -> bool:
    """Whether a tiny guest runs to its end, and with the right result.

    Raises:
        OSError: there is no such program, or it could not be started.
    """
    # A file without a name, which a child that inherits its descriptor opens by this path.
    descriptor = os.memfd_create("guest")
    try:
        os.write(descriptor, pvh_kernel(_GUEST, memory=_GUEST_MEMORY))
        process = await asyncio.create_subprocess_exec(
            qemu,
            *(
                "-M",
                "microvm",
                "-accel",
                accelerator,
                "-cpu",
                "max",
                "-m",
                "32M",
                "-kernel",
                f"/proc/self/fd/{descriptor}",
            ),
            *("-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-device", "isa-debug-exit"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(descriptor,),
        )
        try:
            async with asyncio.timeout(deadline):
                return await process.wait() == _EXPECTED
        except TimeoutError:
            return False
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    finally:
        os.close(descriptor)


def _recall(qemu: str, cache: Path) -> tuple[list[str | int], bool | None]:
    """What a result holds for, and the one that is kept."""
    key: list[str | int] = [_BOOT_ID.read_text(encoding="ascii").strip(), qemu, os.geteuid()]
    try:
        key.append(Path(qemu).stat().st_mtime_ns)
        kept = json.loads(cache.read_bytes())
        if kept["of"] == key and isinstance(kept["kvm"], bool):
            return key, kept["kvm"]
    except (OSError, ValueError, TypeError, KeyError):
        # Not there yet, or not ours: asked again.
        pass
    return key, None
