"""What a container was made with and containerd has no field for; kept in an extension of the container's own record there."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs

from asyncctr.backends.containerd.api import any_of
from asyncctr.transport import facts

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage

    from asyncctr.backends.containerd.proto import containers_pb2

__all__ = ["EXTENSION", "Facts"]

logger = logging.getLogger(__name__)

EXTENSION = "dev.asyncctr.container"
"""The extension's key, and its type: JSON."""


@attrs.frozen(kw_only=True)
class Facts(facts.Facts):
    """As for every backend. The labels are here, too, for containerd forgets those that are empty."""

    def to_any(self) -> AnyMessage:
        """As an extension."""
        return any_of(EXTENSION, self.to_json())

    @classmethod
    def of(cls, container: containers_pb2.Container) -> Facts:
        """A container's; the default ones for a container that somebody else made."""
        foreign = cls(image=container.image, labels=dict(container.labels))
        if EXTENSION not in container.extensions:
            return foreign
        try:
            return cls.from_json(container.extensions[EXTENSION].value)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # One that cannot be read is no reason to show none of them.
            logger.warning("what is kept of container %s cannot be read: %s", container.id[:12], error)
            return foreign
