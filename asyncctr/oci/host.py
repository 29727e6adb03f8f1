"""What a machine offers its containers: control groups, capabilities, seccomp; and the sets of capabilities made from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from asyncctr.core.errors import UnsupportedError
from asyncctr.core.validation import fail, is_a, names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["CAPABILITIES", "DEFAULT_CAPABILITIES", "Host", "bounding_set"]

_NUMBERED = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST
NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE
SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""

CAPABILITIES = tuple(f"CAP_{name}" for name in _NUMBERED.split())
"""Linux's capabilities; each one's place is its number (``linux/capability.h``)."""

_DEFAULT = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE
"""

DEFAULT_CAPABILITIES = tuple(f"CAP_{name}" for name in _DEFAULT.split())
"""What Docker leaves to a container."""

_KNOWN = frozenset((*CAPABILITIES, "ALL"))


@attrs.frozen(kw_only=True)
class Host:
    """Where containers are to run.

    Attributes:
        cgroup_version: 1 or 2; a hybrid machine is 1, since its controllers are.
        cgroup_parent: the control group that the containers' own are made in; empty where none may be made, which leaves out limits.
        rootless: the runtime is in a user namespace.
        swap_limit: swap can be limited.
        seccomp: the kernel filters system calls.
        capabilities: those that the runtime has to give.
    """

    cgroup_version: int = attrs.field(default=2, validator=attrs.validators.in_((1, 2)))
    cgroup_parent: str = ""
    rootless: bool = attrs.field(default=False, validator=is_a(bool))
    swap_limit: bool = attrs.field(default=True, validator=is_a(bool))
    seccomp: bool = attrs.field(default=True, validator=is_a(bool))
    capabilities: frozenset[str] = attrs.field(default=frozenset(CAPABILITIES), converter=names)

    @classmethod
    def detect(cls, pid: int = 0, *, cgroup_parent: str = "", rootless: bool = False) -> Host:
        """This machine, as the runtime of a process sees it.

        Args:
            pid: the daemon's; 0 for this process.
            cgroup_parent: as the attribute.
            rootless: as the attribute.

        Raises:
            OSError: there is no such process.
        """
        lines = Path(f"/proc/{pid or 'self'}/status").read_text("ascii", "replace").splitlines()
        status = {name: value for name, _, value in (line.partition(":") for line in lines)}
        bounding = int(status.get("CapBnd", "").strip() or "0", 16)
        groups = Path("/sys/fs/cgroup")
        version = 2 if (groups / "cgroup.controllers").exists() else 1
        # The root group of version 2 has no limits.
        swap = "memory/memory.memsw.limit_in_bytes" if version == 1 else "*/memory.swap.max"
        return cls(
            cgroup_version=version,
            cgroup_parent=cgroup_parent,
            rootless=rootless,
            swap_limit=next(groups.glob(swap), None) is not None,
            seccomp="Seccomp" in status,
            capabilities=frozenset(name for bit, name in enumerate(CAPABILITIES) if bounding >> bit & 1),
        )


def bounding_set(add: Sequence[str], drop: Iterable[str], host: Host) -> tuple[str, ...]:
    """The capabilities of a container, by Docker's rules.

    Adding ``"ALL"`` means all that there are but those dropped; dropping it, none but those added. Otherwise what is added stays even
    where it is dropped as well.

    Args:
        add: the configuration's ``cap_add``.
        drop: its ``cap_drop``.
        host: what can be given. The default ones and ``"ALL"`` are cut down to it.

    Raises:
        InvalidConfigError: there is no such capability.
        UnsupportedError: one that is added is none of the host's.
    """
    dropped = set(drop)
    for field, given in (("cap_add", add), ("cap_drop", dropped)):
        if unknown := [name for name in given if name not in _KNOWN]:
            raise fail(field, f"there is no capability {unknown[0]!r}; capabilities(7) lists them")
    if "ALL" in add:
        return tuple(name for name in CAPABILITIES if name in host.capabilities and name not in dropped)
    if missing := [name for name in add if name not in host.capabilities]:
        message = f"cap_add: the runtime here may not give {missing[0]}: it does not have it itself"
        raise UnsupportedError(message, field="cap_add")
    kept = () if "ALL" in dropped else DEFAULT_CAPABILITIES
    chosen = [name for name in kept if name not in dropped and name in host.capabilities]
    return tuple(dict.fromkeys([*chosen, *add]))
