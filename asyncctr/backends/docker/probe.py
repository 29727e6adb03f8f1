"""What an engine is and can do: asked once when the backend is opened, and again by health checks."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import attrs

from asyncctr.backends.docker.api import negotiate, parse_version
from asyncctr.backends.docker.errors import BACKEND
from asyncctr.backends.docker.naming import Engine
from asyncctr.core.capabilities import BackendCapabilities
from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    ClosedError,
    OperationTimeoutError,
    UnsupportedError,
)
from asyncctr.core.status import Health
from asyncctr.transport.tasks import all_of

if TYPE_CHECKING:
    from asyncctr.backends.docker.api import DockerApi

__all__ = ["Facts", "check", "field_of_warning", "health", "probe"]

# A health check that takes longer than this says that the engine is stuck, whatever op_timeout allows.
_HEALTH_TIMEOUT = 10.0

_ALWAYS_REFUSED = frozenset(
    {
        # Of the network, not of the container (Engine API, NetworkCreate).
        "network.mtu",
        "network.ip_config.ipv4.gateway",
        "network.ip_config.ipv4.netmask",
        "network.ip_config.ipv4.wait_for_dhcp_seconds",
        "network.ip_config.ipv6.gateway",
        "network.ip_config.ipv6.wait_for_dhcp_seconds",
        "network.backend_options",
    }
)
_CLASSIC_BUILD_REFUSED = frozenset({"build.secrets", "build.ssh", "build.cache_to", "build.outputs"})
_BUILDKIT_REFUSED = frozenset(
    {
        # Its exporters are the store's own and plain files.
        "build.outputs.oci",
        "build.outputs.docker",
        # Engines write caches into the image alone, and read them from there or from a registry.
        "build.cache_to.registry",
        "build.cache_to.local",
        "build.cache_from.local",
        # Agents are forwarded; keys are not read here.
        "build.ssh.key",
        # The engine's own client asks it for the address first.
        "build.extra_hosts.host-gateway",
    }
)
# From here on BuildKit is reached by HTTP/2 on the engine's socket, and the switch to it is deprecated (Docker 29.3).
_HTTP2_SINCE = (1, 54)
_PODMAN_REFUSED = frozenset(
    {
        # Podman 4.3's Docker-compatible create takes -1 for "not given" and falls back to twice the memory.
        "resources.memory_swap.unlimited",
        # Its create takes a profile for the path of one.
        "seccomp.profile",
        # Its create leaves the parameter out.
        "runtime",
        # Its build means repositories of a cache of its own by this, not images.
        "build.cache_from",
        # Podman 4.3 reads the parameter and then looks for a tar in the request's body.
        "build.context.remote",
    }
)
_WARNINGS = (
    (re.compile(r"pids", re.IGNORECASE), "resources.pids"),
    (re.compile(r"swap", re.IGNORECASE), "resources.memory_swap"),
    (re.compile(r"cpu", re.IGNORECASE), "resources.cpu_quota"),
    (re.compile(r"memory|oom", re.IGNORECASE), "resources.memory"),
    (re.compile(r"seccomp", re.IGNORECASE), "seccomp"),
    (re.compile(r"port", re.IGNORECASE), "network.port_mappings"),
)


@attrs.frozen(kw_only=True)
class Facts:
    """What was learned."""

    engine: Engine
    capabilities: BackendCapabilities
    runtime: str
    warnings: tuple[str, ...]
    details: dict[str, str]


def field_of_warning(warning: str) -> str:
    """The field that a "discarded" warning of a create speaks of; empty when it does not tell."""
    return next((field for pattern, field in _WARNINGS if pattern.search(warning)), "")


async def probe(api: DockerApi, *, wanted: str = "", builder: str = "") -> Facts:
    """Agree on an API version and ask what the engine can do."""
    try:
        version = await api.call("GET", "/version")
    except (BackendUnavailableError, OperationTimeoutError):
        raise
    except AsyncctrError as error:
        if not isinstance(error.status, int):
            raise
        tls = "It wants TLS: give tls=TLSConfig(...), or set DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"
        hint = tls if "HTTPS server" in error.message else api.endpoint.advice
        message = f"what answers at {api.endpoint} is no Docker engine: GET /version gave {error.status}, {error.message.rstrip('.')}. {hint}"
        raise BackendUnavailableError(message, backend=BACKEND, status=error.status) from error
    try:
        api.pin(negotiate(version["ApiVersion"], version.get("MinAPIVersion", ""), wanted))
    except (KeyError, TypeError, ValueError) as error:
        message = f"what answers at {api.endpoint} is no Docker engine: {str(version)[:200]}"
        raise BackendUnavailableError(message, backend=BACKEND) from error
    info = await api.call("GET", "/info")
    return _facts(version, info, await _network_backend(api, version), builder)


def _is_podman(version: dict[str, Any]) -> bool:
    return any("podman" in str(component.get("Name", "")).lower() for component in version.get("Components") or ())


async def _network_backend(api: DockerApi, version: dict[str, Any]) -> str:
    """Podman's ``"netavark"`` or ``"cni"``, which only its own API tells; empty where it does not."""
    if not _is_podman(version):
        return ""
    try:
        answer = await api.call("GET", "/libpod/info")
    except AsyncctrError as error:
        # Something between here and Podman lets only Docker's API through.
        if error.status in (400, 403, 404):
            return ""
        raise
    return str(answer["host"].get("networkBackend") or "")


async def check(api: DockerApi, *, builder: str = "") -> Facts:
    """Have the engine answer from each of its parts: an engine stuck in its network code still answers pings.

    Raises:
        BackendUnavailableError: a part does not answer, or answers with an error.
    """

    async def part(path: str) -> Any:
        try:
            return await api.call("GET", path, timeout=min(_HEALTH_TIMEOUT, api.op_timeout))
        except ClosedError:
            raise
        except AsyncctrError as error:
            message = (
                f"the engine at {api.endpoint} is not healthy: GET {path}: {error.message}. See its log, or restart it"
            )
            raise BackendUnavailableError(message, backend=BACKEND, status=error.status) from error

    parts = ("/version", "/info", "/networks", "/volumes", "/containers/json")
    version, info, *_ = await all_of([part(path) for path in parts])
    return _facts(version, info, await _network_backend(api, version), builder)


def health(facts: Facts, api_version: str, latency: float) -> Health:
    """What a health check tells."""
    return Health(
        runtime=facts.runtime,
        api_version=api_version,
        latency=latency,
        warnings=facts.warnings,
        details=facts.details,
    )


def _has_buildkit(info: dict[str, Any], *, is_podman: bool, builder: str) -> bool:
    """Whether images are built by the engine's BuildKit: there is one in every engine of these versions, but on Windows."""
    there = not is_podman and info.get("OSType", "linux") == "linux"
    if builder == "buildkit" and not there:
        message = "builder: this engine has no BuildKit; leave it empty, or name 'classic'"
        raise UnsupportedError(message, field="builder", backend=BACKEND)
    if not builder and os.environ.get("DOCKER_BUILDKIT", "").lower() in ("0", "false"):
        # As Docker's own client has it.
        return False
    return there and builder != "classic"


def _facts(version: dict[str, Any], info: dict[str, Any], network_backend: str, builder: str) -> Facts:
    is_podman = _is_podman(version)
    has_buildkit = _has_buildkit(info, is_podman=is_podman, builder=builder)
    log_drivers = (info.get("Plugins") or {}).get("Log") or ()
    # json-file replaces what is not UTF-8; local keeps every byte, and takes half the time.
    docker_driver = "local" if "local" in log_drivers else "json-file"
    log_driver = "k8s-file" if is_podman else docker_driver
    security = {str(option).removeprefix("name=").partition(",")[0] for option in info.get("SecurityOptions") or ()}
    return Facts(
        engine=Engine(
            is_podman=is_podman,
            log_driver=log_driver,
            has_buildkit=has_buildkit,
            speaks_http2=parse_version(str(version["ApiVersion"])) >= _HTTP2_SINCE,
        ),
        capabilities=_capabilities(
            info,
            is_podman=is_podman,
            has_buildkit=has_buildkit,
            network_backend=network_backend,
            seccomp="seccomp" in security,
        ),
        runtime=f"{'podman' if is_podman else 'docker'} {version.get('Version', '')}".strip(),
        warnings=tuple(str(warning) for warning in info.get("Warnings") or ()),
        details={
            "storage driver": str(info.get("Driver", "")),
            "cgroup version": str(info.get("CgroupVersion", "")),
            "cgroup driver": str(info.get("CgroupDriver", "")),
            "rootless": "yes" if "rootless" in security else "no",
            "kernel": str(info.get("KernelVersion", "")),
            "architecture": str(info.get("Architecture", "")),
        },
    )


def _storage(info: dict[str, Any]) -> bool:
    driver = str(info.get("Driver", ""))
    if driver in ("btrfs", "zfs", "devicemapper", "windowsfilter"):
        return True
    # overlay2 needs project quotas, which the engine does not report; without them the create is refused, by name.
    backing = {str(row[0]): str(row[1]) for row in info.get("DriverStatus") or () if len(row) == 2}
    return driver == "overlay2" and backing.get("Backing Filesystem") == "xfs"


def _capabilities(
    info: dict[str, Any], *, is_podman: bool, has_buildkit: bool, network_backend: str, seccomp: bool
) -> BackendCapabilities:
    refused = set(_ALWAYS_REFUSED | (_BUILDKIT_REFUSED if has_buildkit else _CLASSIC_BUILD_REFUSED))
    # Podman's answer to /info leaves flags out that it does honour.
    have = {
        "resources.memory": bool(info.get("MemoryLimit", is_podman)),
        "resources.memory_swap": bool(info.get("SwapLimit", is_podman)),
        "resources.cpu_quota": bool(info.get("CpuCfsQuota", info.get("CPUCfsQuota", is_podman))),
        "resources.cpu_period": bool(info.get("CpuCfsPeriod", info.get("CPUCfsPeriod", is_podman))),
        "resources.pids": bool(info.get("PidsLimit", is_podman)),
        "resources.storage": _storage(info),
        "seccomp": seccomp or is_podman,
    }
    refused.update(field for field, honoured in have.items() if not honoured)
    if is_podman:
        refused.update(_PODMAN_REFUSED)
        if network_backend == "cni":
            # Names between containers need a CNI plugin, dnsname, that few installations have and no API tells of.
            refused.add("network.aliases")
    return BackendCapabilities(
        supports_memory=have["resources.memory"],
        supports_cpu=have["resources.cpu_quota"],
        supports_storage=have["resources.storage"],
        supports_pids=have["resources.pids"],
        supports_memory_swap=have["resources.memory_swap"],
        supports_build=True,
        supports_oci=True,
        supports_networking=True,
        supports_volumes=True,
        supports_stdin=True,
        supports_pause=True,
        supports_separate_stderr=True,
        # The engine reports codes alone, and Podman's OOMKilled stays false.
        reports_signal=False,
        reports_oom=not is_podman,
        refused_fields=frozenset(refused),
    )
