"""Opening a backend: the daemon found or started, what it can do learned, and the parts put together."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncctr.backends.containerd.api import ContainerdApi
from asyncctr.backends.containerd.backend import ContainerdBackend
from asyncctr.backends.containerd.cgroups import cgroup_version
from asyncctr.backends.containerd.daemon.places import Places
from asyncctr.backends.containerd.errors import BACKEND
from asyncctr.backends.containerd.exits import Exits
from asyncctr.backends.containerd.finding import acquire
from asyncctr.backends.containerd.held import Held
from asyncctr.backends.containerd.images import ImageStore
from asyncctr.backends.containerd.proto import introspection_pb2
from asyncctr.backends.containerd.proto.services import Introspection, Version
from asyncctr.backends.containerd.reaching import runner_for
from asyncctr.backends.containerd.removing import sweep
from asyncctr.backends.containerd.site import Site
from asyncctr.backends.containerd.stdin import Inputs
from asyncctr.backends.containerd.unpack import Unpacker
from asyncctr.backends.containerd.users import Users
from asyncctr.backends.containerd.volumes import VolumeStore
from asyncctr.core.backend_config import BackendConfig, ContainerdConfig
from asyncctr.core.capabilities import BackendCapabilities
from asyncctr.core.errors import BackendUnavailableError, InvalidConfigError
from asyncctr.netns.forwarding import Forwarder
from asyncctr.netns.networks import Networks
from asyncctr.oci.host import Host
from asyncctr.transport.cleanup import Janitor
from asyncctr.transport.logspace import LogKeeper, SpaceWatch
from asyncctr.transport.records import Records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncctr.backends.containerd.daemon.endpoint import Endpoint

__all__ = ["open_backend"]

_SNAPSHOTTERS: Final = ("overlayfs", "fuse-overlayfs", "native")
"""Those that are used, the best first."""

# The Transfer service came with 1.7, and unpacks what it fetches for good since 2.0.
_TRANSFERS: Final = (2, 0)
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
# Programs that do nothing but reap and pass signals on; static, for they run in any image.
_INITS: Final = ("tini-static", "catatonit", "docker-init", "dumb-init")


# Times the clean-up timeout that a clean-up may go on when nobody waits for it any more.
_BACKGROUND: Final = 6
_ALWAYS_REFUSED: Final = frozenset(
    {
        "logs.since",
        "logs.timestamps",
        "network.backend_options",
        "resources.storage",
        "build.context",
    }
)


async def open_backend(config: BackendConfig) -> ContainerdBackend:
    """Connect to the containerd that the configuration names, or find or start one, and learn what it can do.

    Raises:
        BackendUnavailableError: there is none; the message says what was tried and what to do.
    """
    if not isinstance(config, ContainerdConfig):
        message = f"config: must be a ContainerdConfig, not {type(config).__name__}"
        raise InvalidConfigError(message, field="config")
    if not _NAMESPACE.fullmatch(config.namespace) or len(config.namespace) > 76:
        message = f"namespace: must match {_NAMESPACE.pattern} with at most 76 characters, but is {config.namespace!r}"
        raise InvalidConfigError(message, field="namespace", backend=BACKEND)
    lease = Held(config, await acquire(config))
    api = ContainerdApi(lease.endpoint.socket, namespace=config.namespace, op_timeout=config.op_timeout)
    if lease.endpoint.private:
        api.ready = lease.renew
    try:
        site = await _site(config, api, lease.endpoint)
    except BaseException:
        api.close()
        await lease.aclose()
        raise
    # Nobody waits for it, but whoever closes the backend at once.
    site.janitor.spawn(sweep(site), "sweep what killed processes left")
    return ContainerdBackend(config, site, lease)


async def _site(config: ContainerdConfig, api: ContainerdApi, endpoint: Endpoint) -> Site:
    text = (await api.call(Version.Version, Version.Version.request())).version
    server = await api.call(Introspection.Server, Introspection.Server.request())
    plugins = (await api.call(Introspection.Plugins, introspection_pb2.PluginsRequest())).plugins
    # By the daemon's own identity: it is the same one whichever way its socket is reached.
    kept = endpoint.state_dir if endpoint.private else Places.of().kept_for(server.uuid)
    directory = Path(kept, config.namespace)
    rootless = endpoint.rootless
    groups = cgroup_version()
    host = Host.detect(cgroup_parent="" if rootless is not None or not groups else "/", rootless=rootless is not None)
    runner = await asyncio.to_thread(runner_for, endpoint, directory)
    forwarder = None if rootless is None else Forwarder(rootless.api_socket)
    networks = Networks(
        directory / "network", runner=runner, forwarder=forwarder, cleanup_timeout=config.cleanup_timeout
    )
    records = Records(directory, BACKEND)
    records.open()
    kept_exits = f"{endpoint.exits_dir}/{config.namespace}" if endpoint.exits_dir else ""
    snapshotter = _snapshotter(plugins)
    init = next((path for name in _INITS if (path := shutil.which(name))), "")
    problems = networks.missing()
    capabilities = _capabilities(host, networking=not problems, init=bool(init))
    exits = Exits(api, records, reports_oom=capabilities.reports_oom, kept=kept_exits)
    return Site(
        config=config,
        api=api,
        version=_version(text),
        runtime=f"containerd {text}",
        host=host,
        snapshotter=snapshotter,
        mount_with=endpoint.fuse_overlayfs,
        runc_root=endpoint.runc_root,
        capabilities=capabilities,
        kills_all=bool(host.cgroup_parent),
        init=init,
        records=records,
        images=ImageStore(api),
        unpacker=Unpacker(api, snapshotter, endpoint.fuse_overlayfs),
        transfers=_version(text) >= _TRANSFERS and bool(_working(plugins, "io.containerd.transfer.v1")),
        users=Users(),
        exits=exits,
        inputs=Inputs(api, records, exits),
        networks=networks,
        volumes=VolumeStore(directory / "volumes", runner=runner, backend=BACKEND),
        janitor=Janitor(config.cleanup_timeout, background=_BACKGROUND * config.cleanup_timeout),
        keeper=LogKeeper(),
        space=SpaceWatch(directory, backend=BACKEND),
    )


def _version(text: str) -> tuple[int, int]:
    # "1.6.20~ds1", "v2.4.2", "2.4.2+unknown"
    match = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (1, 6)


def _working(plugins: Sequence[introspection_pb2.Plugin], kind: str) -> set[str]:
    return {plugin.id for plugin in plugins if plugin.type == kind and not plugin.init_err.message}


def _snapshotter(plugins: Sequence[introspection_pb2.Plugin]) -> str:
    working = _working(plugins, "io.containerd.snapshotter.v1")
    found = next((name for name in _SNAPSHOTTERS if name in working), "")
    if not found:
        reasons = "; ".join(
            f"{plugin.id}: {plugin.init_err.message.strip()}" for plugin in plugins if plugin.id in _SNAPSHOTTERS
        )
        message = f"containerd has none of the snapshotters {', '.join(_SNAPSHOTTERS)} ({reasons})"
        raise BackendUnavailableError(message, backend=BACKEND)
    return found


def _capabilities(host: Host, *, networking: bool, init: bool) -> BackendCapabilities:
    limits = bool(host.cgroup_parent)
    refused = set(_ALWAYS_REFUSED)
    if not limits:
        refused |= {f"resources.{name}" for name in ("memory", "memory_swap", "cpu_quota", "cpu_period", "pids")}
    if not host.swap_limit:
        refused.add("resources.memory_swap")
    if not init:
        refused.add("init")
    if host.rootless:
        # What the daemon has for its own is no network of the host's.
        refused.add("network.mode.host")
    if not networking:
        refused |= {"network.port_mappings", "network.mode.bridge", "network.mode.custom"}
    return BackendCapabilities(
        supports_memory=limits,
        supports_cpu=limits,
        supports_pids=limits,
        supports_memory_swap=limits and host.swap_limit,
        supports_oci=True,
        supports_networking=networking,
        supports_volumes=True,
        supports_stdin=True,
        supports_pause=limits,
        supports_separate_stderr=True,
        # The shim reports codes alone, 128 + n for a signal.
        reports_signal=False,
        reports_oom=limits and os.path.isdir("/sys/fs/cgroup"),  # noqa: PTH112  # one look
        refused_fields=frozenset(refused),
    )
