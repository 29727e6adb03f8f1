"""What one opened Nanos backend is made of, for its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from asyncctr.backends.nanos.facts import Facts
from asyncctr.backends.nanos.qmp import BACKEND, Monitor
from asyncctr.core.errors import ClosedError, ContainerNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from asyncctr.backends.nanos.exits import Exits
    from asyncctr.backends.nanos.ops_config import OpsConfig
    from asyncctr.backends.nanos.prepared import PreparedImages
    from asyncctr.backends.nanos.store import ImageStore
    from asyncctr.backends.nanos.volumes import VolumeStore
    from asyncctr.core.backend_config import NanosConfig
    from asyncctr.core.capabilities import BackendCapabilities
    from asyncctr.transport.cleanup import Janitor
    from asyncctr.transport.logspace import LogKeeper, SpaceWatch
    from asyncctr.transport.records import Record, Records

__all__ = ["Site"]


@attrs.define(kw_only=True)
class Site:
    """One directory of machines, as one client has it open.

    Attributes:
        config: what it was opened with.
        ops: the OPS configuration, if any.
        qemu: the path of QEMU.
        runtime: name and version of QEMU.
        kernel: the path of the kernel.
        version: of the kernel; empty where it is not known.
        klibs: the directory of its libraries; ``None`` where there is none.
        accelerator: ``"kvm"`` or ``"tcg"``.
        run: the directory of the sockets.
        capabilities: what works here.
        records: a directory for each machine.
        images: the store.
        prepared: what is known of images.
        volumes: by name.
        exits: the waits.
        janitor: owns the clean-up.
        keeper: keeps the logs to their limits.
        space: watches the disk that holds them.
        closed: whether the backend is closed.
    """

    config: NanosConfig
    ops: OpsConfig
    qemu: str
    runtime: str
    kernel: str
    version: str
    klibs: Path | None
    accelerator: str
    run: str
    capabilities: BackendCapabilities
    records: Records
    images: ImageStore
    prepared: PreparedImages
    volumes: VolumeStore
    exits: Exits
    janitor: Janitor
    keeper: LogKeeper
    space: SpaceWatch
    closed: bool = False

    def check_open(self, resource: str = "") -> None:
        """Raise ``ClosedError`` once it is closed."""
        if self.closed:
            raise ClosedError("this Nanos backend is closed", backend=BACKEND, resource=resource)

    def find(self, container_id: str) -> tuple[Record, Facts]:
        """A machine's directory, and what it was made with.

        Raises:
            ContainerNotFoundError: there is none.
        """
        self.check_open(container_id)
        record = self.records.of(container_id)
        facts = Facts.read(record)
        if facts is None or not record.exists:
            message = f"there is no container {container_id[:12]}"
            raise ContainerNotFoundError(message, backend=BACKEND, resource=container_id)
        return record, facts

    def socket(self, container_id: str) -> str:
        """The path of a machine's monitor."""
        return f"{self.run}/{container_id[:16]}.qmp"

    def monitor(self, container_id: str) -> Monitor:
        """A connection to a machine's monitor."""
        return Monitor(self.socket(container_id), timeout=self.config.op_timeout, resource=container_id)
