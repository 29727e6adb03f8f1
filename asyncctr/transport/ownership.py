"""Who owns a container: the labels that say so, and whether that owner still lives."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from asyncctr.core.config import LABEL_PREFIX, Lifetime, Ownership

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncctr.core.config import ContainerConfig

__all__ = ["LIFETIME", "MANAGED", "OWNER", "TOKEN", "Owner", "ownership_labels", "parse_start", "start_time"]

MANAGED = LABEL_PREFIX + "managed"
TOKEN = LABEL_PREFIX + "token"
OWNER = LABEL_PREFIX + "owner"
LIFETIME = LABEL_PREFIX + "lifetime"


@attrs.frozen
class Owner:
    """A process, told apart from every other one on any host at any time.

    Attributes:
        boot: the kernel's boot id (``/proc/sys/kernel/random/boot_id``); empty where there is none.
        namespace: the pid namespace, as its inode number.
        pid: in that namespace.
        start: the process's start time in clock ticks since boot (proc(5), ``/proc/pid/stat`` field 22).
    """

    boot: str
    namespace: str
    pid: int
    start: int

    def __str__(self) -> str:
        return f"{self.boot}/{self.namespace}/{self.pid}/{self.start}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """An owner from its label; ``None`` for text that is none."""
        parts = text.split("/")
        if len(parts) != 4 or not parts[2].isdecimal() or not parts[3].isdecimal():
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        return _current(os.getpid())

    @property
    def is_local(self) -> bool:
        """Whether it belongs to this boot and pid namespace, so that its pid means something here."""
        here = Owner.current()
        return bool(self.boot) and (self.boot, self.namespace) == (here.boot, here.namespace)

    @property
    def is_gone(self) -> bool:
        """Whether it is certain that the process has ended; never so for one of another boot or namespace."""
        if not self.is_local:
            return False
        try:
            return start_time(self.pid) != self.start
        except FileNotFoundError:
            return not _exists(self.pid)
        except OSError:
            # Such as too many open files here, which says nothing of the other.
            return False

    @property
    def has_ended(self) -> bool:
        """Whether it is gone, or ran before this machine's last boot; for what only processes of this machine can make."""
        return self.is_gone or (bool(self.boot) and self.boot != Owner.current().boot)


@lru_cache(maxsize=1)
def _current(pid: int) -> Owner:
    # Keyed by pid, so that a fork finds itself to be another owner.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").stat().st_ino)
        return Owner(boot, namespace, pid, start_time(pid) or 0)
    except OSError:
        return Owner("", "", pid, 0)


def _exists(pid: int) -> bool:
    """Whether there is such a process: /proc may be mounted so that it hides those of others (proc(5), hidepid)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def start_time(pid: int) -> int | None:
    """When it started; ``None`` for one that has ended and was not waited for.

    Raises:
        OSError: it cannot be read.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except ProcessLookupError:
        # It ended between the opening and the reading.
        return None
    return parse_start(stat)


def parse_start(stat: bytes) -> int | None:
    """The start time in what ``/proc/pid/stat`` says; ``None`` for a process that has ended."""
    # The command in parentheses may contain anything, so count from the last one on; a zombie has ended.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] == b"Z" else int(fields[19])


def ownership_labels(config: ContainerConfig) -> Mapping[str, str]:
    """The labels under ``dev.asyncctr.`` that a container of this configuration gets."""
    ownership = config.ownership or Ownership(lifetime=Lifetime.OWNED)
    return {
        MANAGED: "1",
        TOKEN: ownership.token,
        OWNER: str(Owner.current()),
        LIFETIME: ownership.lifetime.value,
    }
