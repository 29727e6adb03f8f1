"""The ports that a machine's start has published, written down for whoever asks later."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from asyncctr.core.network import PortMapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncctr.transport.records import Record

__all__ = ["note_ports", "published_ports"]

_FILE = "ports.json"


def note_ports(record: Record, ports: Sequence[PortMapping]) -> None:
    """Write them down; nothing where there are none."""
    if not ports:
        return
    with record.files:
        descriptor = os.open(record.path(_FILE), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump([attrs.asdict(port) for port in ports], file)


def published_ports(record: Record) -> tuple[PortMapping, ...]:
    """What was written down."""
    try:
        documents = json.loads(Path(record.path(_FILE)).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # None, or half of them from a start that was killed.
        return ()
    return tuple(PortMapping(**document) for document in documents)
