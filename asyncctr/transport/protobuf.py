"""Protocol buffer messages from a serialized schema, in a pool of their own.

What ``protoc`` generates for Python refuses every runtime but those of its own two major versions, and registers its messages for
the whole process, where they meet those of other packages that speak to the same servers. A schema is loaded here instead: it works
with every protobuf runtime from 4.25 on, and nobody else sees it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.message import Message

__all__ = ["Schema"]


class Schema:
    """The messages and enums of a ``FileDescriptorSet`` (descriptor.proto) that holds all it imports."""

    def __init__(self, serialized: bytes) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(serialized).file:
            self._pool.Add(file)

    def message(self, full_name: str) -> type[Message]:
        """A message's class, by its name with its package."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(full_name))

    def names(self, file: str) -> dict[str, Any]:
        """What the module of a file holds: the classes of its messages, and its enums with their values."""
        descriptor: FileDescriptor = self._pool.FindFileByName(file)
        found: dict[str, Any] = {
            name: message_factory.GetMessageClass(message) for name, message in descriptor.message_types_by_name.items()
        }
        for name, enum in descriptor.enum_types_by_name.items():
            found[name] = EnumTypeWrapper(enum)
            found.update((value.name, value.number) for value in enum.values)
        return found
