"""Removing machines: the process, the socket, the image's use, and at last what says that the machine exists."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from asyncctr.backends.nanos.facts import Facts
from asyncctr.backends.nanos.qmp import BACKEND
from asyncctr.core.errors import AsyncctrError, ContainerNotFoundError, InvalidStateError
from asyncctr.vm.process import VmProcess

if TYPE_CHECKING:
    from asyncctr.backends.nanos.site import Site
    from asyncctr.transport.records import Record

__all__ = ["remove", "sweep"]

_TOLD = 2.0
"""Seconds that a supervisor may take to write down how its machine ended."""

logger = logging.getLogger(__name__)


async def remove(site: Site, container_id: str, *, force: bool) -> None:
    """Remove a machine, and all that belongs to it.

    Raises:
        ContainerNotFoundError: there is none.
        InvalidStateError: it is running, without ``force``.
    """
    record = site.records.of(container_id)
    with await record.lock(site.config.op_timeout):
        await _remove(site, record, force=force)


async def _remove(site: Site, record: Record, *, force: bool) -> None:
    process = VmProcess.adopt(record.directory, backend=BACKEND)
    if process is not None:
        try:
            if process.running and not force:
                message = f"container {record.container_id[:12]} is running: stop it, or remove it with force"
                raise InvalidStateError(message, backend=BACKEND, resource=record.container_id)
            if process.kill():
                # What watches over it tells those who wait how it ended, before it is ended itself.
                await asyncio.wait({ending := asyncio.ensure_future(process.ended())}, timeout=_TOLD)
                ending.cancel()
                await asyncio.gather(ending, return_exceptions=True)
            await process.end()
        finally:
            process.close()
    # Half of it would be a machine that others may take the name and the image of.
    await site.janitor.unbroken(_take_away(site, record), f"remove {record.container_id[:12]}")


async def _take_away(site: Site, record: Record) -> None:
    facts = Facts.read(record) or Facts()
    if facts.name:
        site.records.release(facts.name, record.container_id)
    site.keeper.unregister(record.log_files(tty=True))
    try:
        os.unlink(site.socket(record.container_id))  # noqa: PTH108  # a string
    except FileNotFoundError:
        # It was never started.
        pass
    if facts.digest:
        await site.images.release(facts.digest, record.directory)
    await asyncio.to_thread(record.remove)


async def sweep(site: Site) -> None:
    """Remove what killed processes left of machines that are half made."""
    for record in await asyncio.to_thread(site.records.abandoned):
        try:
            with await record.lock(site.config.op_timeout):
                # Asked after its maker was seen to have ended: it makes no machine any more.
                if Facts.read(record) is None:
                    await _remove(site, record, force=True)
                    logger.info("swept what was left of container %s", record.container_id[:12])
        except ContainerNotFoundError:
            # Another sweep was faster.
            continue
        except AsyncctrError as error:
            logger.warning("what is left of container %s stays: %s", record.container_id[:12], error)
    await asyncio.to_thread(site.records.release_all)
    await site.volumes.sweep()
