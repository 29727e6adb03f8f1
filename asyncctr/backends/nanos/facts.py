"""What a virtual machine was made with, kept in its directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import attrs

from asyncctr.backends.nanos.addresses import Addresses
from asyncctr.backends.nanos.qmp import BACKEND
from asyncctr.backends.nanos.sharing import Shared, read_shared
from asyncctr.core.errors import BackendUnavailableError
from asyncctr.transport import facts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncctr.transport.records import Record

__all__ = ["Attached", "Facts"]

_FILE = "machine.json"


def _addresses(value: Addresses | Mapping[str, Any]) -> Addresses:
    return Addresses(**value) if isinstance(value, Mapping) else value


@attrs.frozen(kw_only=True)
class Attached:
    """A volume that a machine has.

    Attributes:
        name: the volume's.
        uuid: of its filesystem, by which the machine knows it.
        path: where it is mounted.
        read_only: refuse writes.
    """

    name: str
    uuid: str
    path: str
    read_only: bool


def _attached(value: Iterable[Attached | Mapping[str, Any]]) -> tuple[Attached, ...]:
    return tuple(each if isinstance(each, Attached) else Attached(**each) for each in value)


@attrs.frozen(kw_only=True)
class Facts(facts.Facts):
    """As for every backend, and what the machine is.

    Attributes:
        created_at: when it was made, in ISO 8601.
        digest: of its image.
        disk: the path of the image's disk, below the machine's own.
        kernel: the path of the kernel.
        machine: the QEMU machine type.
        memory: bytes.
        cpus: how many.
        attached: its volumes.
        addresses: of its card.
        shared: the directories of the host that it has.
    """

    created_at: str = ""
    digest: str = ""
    disk: str = ""
    kernel: str = ""
    machine: str = ""
    memory: int = 0
    cpus: int = 1
    attached: tuple[Attached, ...] = attrs.field(default=(), converter=_attached)
    addresses: Addresses = attrs.field(factory=Addresses, converter=_addresses)
    shared: tuple[Shared, ...] = attrs.field(default=(), converter=read_shared)

    def write(self, record: Record) -> None:
        """Keep it: from then on the machine exists."""
        with record.files:
            descriptor = os.open(
                record.path(f"{_FILE}.new"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.to_json())
            os.rename(record.path(f"{_FILE}.new"), record.path(_FILE))  # noqa: PTH104  # strings, as the record's are

    @classmethod
    def read(cls, record: Record) -> Self | None:
        """A machine's; ``None`` where there is none, or none yet.

        Raises:
            BackendUnavailableError: it cannot be read.
        """
        try:
            with record.files, open(record.path(_FILE), "rb") as file:  # noqa: PTH123  # a string, as the record's are
                return cls.from_json(file.read())
        except BackendUnavailableError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                return None
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            message = f"what is kept of container {record.container_id[:12]} cannot be read: {error}"
            raise BackendUnavailableError(message, backend=BACKEND, resource=record.container_id) from error
