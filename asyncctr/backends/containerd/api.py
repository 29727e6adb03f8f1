"""What every part of the backend calls containerd with."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

from asyncctr.backends.containerd.errors import BACKEND, translate
from asyncctr.backends.containerd.proto.schema import SCHEMA
from asyncctr.transport.grpc import GrpcClient

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["ContainerdApi", "any_message", "any_of", "when"]

_Any = SCHEMA.message("google.protobuf.Any")


class ContainerdApi(GrpcClient):
    """The services of one containerd, in one of its namespaces.

    Attributes:
        namespace: which one.
    """

    def __init__(self, socket: str, *, namespace: str, op_timeout: float) -> None:
        # In every call's metadata: containerd keeps namespaces apart by it (namespaces/grpc.go).
        metadata = {"containerd-namespace": namespace}
        super().__init__(socket, backend=BACKEND, translate=translate, op_timeout=op_timeout, metadata=metadata)
        self.namespace = namespace

    def leased(self, lease: str) -> ContainerdApi:
        """The same connection, with everything that is made by its calls belonging to a lease (leases/grpc.go)."""
        twin = copy.copy(self)
        twin.metadata = {**self.metadata, "containerd-lease": lease}
        return twin


def any_of(type_url: str, value: bytes) -> Any:
    """A value for a field of type ``Any``; containerd's type URLs are plain names."""
    return cast("Any", _Any(type_url=type_url, value=value))


def any_message(message: Message) -> Any:
    """A message for a field of type ``Any``."""
    return any_of(message.DESCRIPTOR.full_name, message.SerializeToString())


def when(timestamp: Timestamp) -> datetime | None:
    """An aware time; ``None`` for one that is not set."""
    if not timestamp.seconds and not timestamp.nanos:
        return None
    return datetime.fromtimestamp(timestamp.seconds, UTC) + timedelta(microseconds=timestamp.nanos // 1000)
