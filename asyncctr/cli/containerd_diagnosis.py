"""Which containerd there is here, whether one can be started, and what is missing for it and for its networks."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from asyncctr.client.selection import AUTO_START_VARIABLE, may_start
from asyncctr.core.errors import AsyncctrError
from asyncctr.netns.networks import Networks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncctr.backends.containerd.daemon.endpoint import Endpoint
    from asyncctr.core.backend_config import ContainerdConfig

__all__ = ["ContainerdFindings", "examine_containerd"]


@attrs.frozen(kw_only=True)
class ContainerdFindings:
    """What there is of containerd.

    Attributes:
        address: of the socket that answers; empty without one.
        source: whose it is.
        log: of a private one.
        startable: a private one can be started.
        auto_start: with which program, or why not.
        networking: what is missing for networks, a sentence each.
        advice: what to do for one to be started, the likeliest first.
    """

    address: str = ""
    source: str = ""
    log: str = ""
    startable: bool = False
    auto_start: str = ""
    networking: Sequence[str] = ()
    advice: Sequence[str] = ()


async def examine_containerd(config: ContainerdConfig) -> ContainerdFindings | None:
    """Look for one, without starting any; ``None`` where the packages that it takes are not installed."""
    try:
        from asyncctr.backends.containerd import finding  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        return None
    endpoint: Endpoint | None = None
    try:
        async with await finding.acquire(attrs.evolve(config, auto_start=False)) as lease:
            endpoint = lease.endpoint
    except AsyncctrError:
        # Opening it says the same, and why.
        pass
    found = await asyncio.to_thread(_auto_start, config)
    if os.geteuid() == 0:
        # Without root they are made in the daemon's own namespaces, which only the backend can look into.
        found = attrs.evolve(found, networking=await Networks(Path("/nonexistent")).probe())
    if endpoint is None:
        return found
    source = "--host" if config.socket_path else "private" if endpoint.private else "this user's"
    if endpoint.socket == finding.SYSTEM_SOCKET and not config.socket_path:
        source = "the system's"
    return attrs.evolve(found, address=endpoint.socket, source=source, log=endpoint.log)


def _auto_start(config: ContainerdConfig) -> ContainerdFindings:
    """Whether a private one can be started."""
    from asyncctr.backends.containerd.daemon.launching import check_rootless_mode, plan_launch  # noqa: PLC0415
    from asyncctr.backends.containerd.daemon.places import Places  # noqa: PLC0415
    from asyncctr.backends.containerd.daemon.prerequisites import rootless_findings  # noqa: PLC0415
    from asyncctr.backends.containerd.daemon.programs import install, look_for  # noqa: PLC0415

    def impossible(reason: str, *advice: str) -> ContainerdFindings:
        return ContainerdFindings(auto_start=f"impossible: {reason}", advice=advice)

    if not may_start():
        return impossible(f"{AUTO_START_VARIABLE}=0 forbids it", f"unset {AUTO_START_VARIABLE}")
    try:
        if check_rootless_mode(config):
            unmet = [finding for finding in rootless_findings(config) if finding.needed and not finding.ok]
            if unmet:
                advice = [f"{finding.name}: {finding.detail}; {finding.advice}" for finding in unmet]
                return impossible(f"without root it lacks {', '.join(finding.name for finding in unmet)}", *advice)
        elif missing := [name for name in ("containerd", "runc") if not look_for(name)]:
            return impossible(f"{' and '.join(missing)} not installed", f"on Debian and Ubuntu: {install(*missing)}")
        launch = plan_launch(config, Places.of())
    except AsyncctrError as error:
        return impossible(error.message)
    return ContainerdFindings(startable=True, auto_start=f"possible, with {launch.containerd}")
