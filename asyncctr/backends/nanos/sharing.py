"""Directories of the host in a machine, over 9P: which, where they are mounted, and what type of machine that takes."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from asyncctr.backends.nanos.qmp import BACKEND
from asyncctr.core.config import NanosOptions
from asyncctr.core.errors import InvalidConfigError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncctr.core.config import ContainerConfig

__all__ = ["Shared", "machine_type", "plan_shared", "read_shared", "shared_mounts"]

_MACHINES = ("microvm", "q35")
# It ends a path within the root tuple's mounts, wherever it stands.
_READ_ONLY = ":ro"


@attrs.frozen(kw_only=True)
class Shared:
    """A directory of the host that a machine has.

    Attributes:
        source: its path on the host.
        path: where it is mounted.
        read_only: its kernel refuses writes; see :class:`asyncctr.backends.nanos.machine.SharedDirectory`.
    """

    source: str
    path: str
    read_only: bool


def read_shared(value: Iterable[Shared | Mapping[str, Any]]) -> tuple[Shared, ...]:
    """Directories that were kept as JSON."""
    return tuple(Shared(**each) if isinstance(each, Mapping) else each for each in value)


def machine_type(config: ContainerConfig) -> str:
    """The QEMU machine type: the smallest that has what the configuration needs, where that names none.

    Raises:
        UnsupportedError: it has not, or there is none of that name.
    """
    options = config.options
    asked = options.machine if isinstance(options, NanosOptions) else ""
    if asked and asked not in _MACHINES:
        message = f"options.machine: {asked!r} is not supported; use 'microvm' or 'q35'"
        raise UnsupportedError(message, field="options.machine", backend=BACKEND)
    shares = any(not volume.is_volume_name for volume in config.volumes)
    if shares and asked == "microvm":
        message = "volumes: a microvm cannot have directories of the host; use the machine 'q35', or name none"
        raise UnsupportedError(message, field="volumes", backend=BACKEND)
    return asked or ("q35" if shares else "microvm")


def plan_shared(config: ContainerConfig, directories: frozenset[str]) -> tuple[Shared, ...]:
    """The directories of the host that a machine is to have. Blocks the thread for a look at each.

    Args:
        config: of the container.
        directories: of the image.

    Raises:
        InvalidConfigError: one is not there, on the host or in the image.
    """
    return tuple(
        _shared(volume.source, posixpath.normpath(volume.destination), directories, read_only=volume.read_only)
        for volume in config.volumes
        if not volume.is_volume_name
    )


def _shared(source: str, path: str, directories: frozenset[str], *, read_only: bool) -> Shared:
    if not os.path.isdir(source):  # noqa: PTH112  # a Path's raises for what may not be looked at
        raise _wrong(f"there is no directory {source!r} on the host to mount at {path}")
    if path == "/" or path not in directories:
        raise _wrong(f"the image has no directory {path!r} to mount {source!r} at, and Nanos makes none")
    if _READ_ONLY in path:
        raise _wrong(f"Nanos takes {_READ_ONLY!r} for the end of a path, and {path!r} goes on")
    return Shared(source=source, path=path, read_only=read_only)


def shared_mounts(shared: Iterable[Shared]) -> dict[str, str]:
    """Their entries among the mounts of the root tuple: the guest knows them by their number."""
    return {
        f"virtfs{number}": f"{each.path}{_READ_ONLY if each.read_only else ''}" for number, each in enumerate(shared)
    }


def _wrong(what: str) -> InvalidConfigError:
    return InvalidConfigError(f"volumes: {what}", field="volumes", backend=BACKEND)
