"""Leases: what keeps things from the collector until something else refers to them."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from asyncctr.backends.containerd.proto import leases_pb2
from asyncctr.backends.containerd.proto.services import Leases
from asyncctr.core.errors import NotFoundError
from asyncctr.transport.cleanup import persist
from asyncctr.transport.ownership import OWNER, Owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncctr.backends.containerd.api import ContainerdApi
    from asyncctr.backends.containerd.site import Site

__all__ = ["lease", "sweep_leases"]

_LEASE_TIME: Final = timedelta(hours=6)
_EXPIRE_LABEL: Final = "containerd.io/gc.expire"


@asynccontextmanager
async def lease(site: Site) -> AsyncIterator[ContainerdApi]:
    """The calls under a lease, which keeps what is made under it from being collected; ended, and what nothing else refers to with it."""
    name = f"asyncctr-{secrets.token_hex(16)}"
    # For the case that this process dies.
    expires = (datetime.now(UTC) + _LEASE_TIME).isoformat(timespec="seconds").replace("+00:00", "Z")
    request = leases_pb2.CreateRequest(id=name, labels={_EXPIRE_LABEL: expires, OWNER: str(Owner.current())})
    failed = True
    try:
        await site.janitor.unbroken(site.api.call(Leases.Create, request), f"make the lease {name}")
        yield site.api.leased(name)
        failed = False
    finally:
        held = await site.janitor.finish(_end_lease(site.api, name, sync=failed), f"end the lease {name}")
        if held is not None:
            raise held


async def _end_lease(api: ContainerdApi, name: str, *, sync: bool) -> None:
    async def end() -> None:
        try:
            await api.call(Leases.Delete, leases_pb2.DeleteRequest(id=name, sync=sync))
        except NotFoundError:
            # It had expired.
            pass

    await persist(end)


async def sweep_leases(site: Site) -> None:
    """End the leases of processes that were killed, which would otherwise keep what they have for hours."""
    answer = await site.api.call(Leases.List, leases_pb2.ListRequest(filters=[f'labels."{OWNER}"']))
    for found in answer.leases:
        owner = Owner.parse(found.labels[OWNER])
        if owner is not None and owner.has_ended:
            await _end_lease(site.api, found.id, sync=False)
