"""Whether a containerd is well: more than that it answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.proto import images_pb2, introspection_pb2, tasks_pb2
from asyncctr.backends.containerd.proto.services import Images, Introspection, Tasks, Version
from asyncctr.core.errors import AsyncctrError, BackendUnavailableError
from asyncctr.core.status import Health

if TYPE_CHECKING:
    from asyncctr.backends.containerd.site import Site

__all__ = ["health"]

_TIMEOUT = 10.0


async def health(site: Site, began: float) -> Health:
    """Have each service that the backend needs answer.

    Raises:
        BackendUnavailableError: one does not, or the snapshotter does not work any more.
    """
    api = site.api
    seconds = min(_TIMEOUT, api.op_timeout)
    try:
        version = await api.call(Version.Version, Version.Version.request(), timeout=seconds)
        plugins = await api.call(Introspection.Plugins, introspection_pb2.PluginsRequest(), timeout=seconds)
        # Whichever: that there is an answer is what counts.
        await site.containers("id==none")
        await api.call(Tasks.List, tasks_pb2.ListTasksRequest(), timeout=seconds)
        await api.call(Images.List, images_pb2.ListImagesRequest(), timeout=seconds)
    except AsyncctrError as error:
        message = f"the containerd at {api.socket} is not healthy: {error.message}. See its log, or restart it"
        raise BackendUnavailableError(message, backend=BACKEND, status=error.status) from error
    broken = [
        f"{plugin.type}.{plugin.id}: {plugin.init_err.message.strip()}"
        for plugin in plugins.plugins
        if plugin.init_err.message and plugin.id == site.snapshotter
    ]
    return Health(
        runtime=f"containerd {version.version}",
        api_version="v1",
        latency=time.monotonic() - began,
        warnings=(*broken, *site.networks.missing()),
        details={
            "namespace": api.namespace,
            "socket": api.socket,
            "snapshotter": site.snapshotter,
            "cgroup version": str(site.host.cgroup_version),
            "rootless": "yes" if site.host.rootless else "no",
        },
    )
