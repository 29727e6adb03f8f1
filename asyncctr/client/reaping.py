"""Which containers a dead owner left behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from asyncctr.core.config import Lifetime
from asyncctr.transport.ownership import LIFETIME, OWNER, Owner

if TYPE_CHECKING:
    from asyncctr.core.status import ContainerInfo

__all__ = ["reapable"]


def reapable(info: ContainerInfo, *, older_than: float | None, foreign: bool) -> bool:
    """Whether ``reap`` removes it; see :meth:`asyncctr.Client.reap`."""
    if info.labels.get(LIFETIME) != Lifetime.OWNED:
        return False
    owner = Owner.parse(info.labels.get(OWNER, ""))
    if owner is None:
        return False
    if older_than is not None:
        created = info.created_at or info.started_at
        if created is None or datetime.now(UTC) - created < timedelta(seconds=older_than):
            return False
    return owner.is_gone if owner.is_local else foreign
