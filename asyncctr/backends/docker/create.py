"""A ``ContainerConfig`` as the body of ``POST /containers/create`` (Engine API 1.41)."""

from __future__ import annotations

import ipaddress
import re
import signal
from typing import TYPE_CHECKING, Any

from asyncctr.backends.docker.errors import BACKEND
from asyncctr.backends.docker.naming import Engine, image_name
from asyncctr.core.config import DockerOptions
from asyncctr.core.errors import InvalidConfigError, UnsupportedError
from asyncctr.core.network import IPv4Config, IPv6Config, NetworkMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncctr.core.config import ContainerConfig
    from asyncctr.core.network import NetworkConfig

__all__ = ["container_body", "network_field", "signal_text"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_LOG_FILES = 5
# Docker's, and Podman's further ones.
_NETWORK_MODES = frozenset({"bridge", "default", "host", "none", "private", "pasta", "slirp4netns"})
_MTU_OPTION = "com.docker.network.driver.mtu"


def network_field(network: NetworkConfig) -> str:
    """The engine's ``NetworkMode``."""
    return network.network_name if network.mode is NetworkMode.CUSTOM else network.mode.value


def container_body(config: ContainerConfig, labels: Mapping[str, str], engine: Engine) -> dict[str, Any]:
    """The request body.

    Raises:
        InvalidConfigError: a value that no engine takes.
        UnsupportedError: a value that this one does not, named by its field.
    """
    options = config.options or DockerOptions()
    if not isinstance(options, DockerOptions):
        message = f"options: {type(options).__name__} is for another backend; use DockerOptions or leave it unset"
        raise UnsupportedError(message, field="options", backend=BACKEND)
    if config.name and not _NAME.fullmatch(config.name):
        message = f"name: must match {_NAME.pattern}, but is {config.name!r}"
        raise InvalidConfigError(message, field="name", backend=BACKEND)
    if config.network.mode is NetworkMode.CUSTOM:
        _check_network_name(config.network.network_name)
    body: dict[str, Any] = {
        "Image": image_name(config.image, engine),
        "Labels": {**config.labels, **labels},
        "HostConfig": _host_config(config, options, engine),
    }
    if config.shell:
        body["Entrypoint"] = [config.shell[0]]
        body["Cmd"] = [*config.shell[1:], " ".join(config.command)]
    else:
        if config.entrypoint is not None:
            # An empty list would keep the image's entrypoint; one empty string resets it (moby runconfig, since 1.9).
            body["Entrypoint"] = list(config.entrypoint) or [""]
        if config.command:
            body["Cmd"] = list(config.command)
    simple = {
        "WorkingDir": config.workdir,
        "User": config.user,
        "Hostname": config.hostname,
        "StopSignal": config.stop_signal,
    }
    body.update({key: value for key, value in simple.items() if value})
    if config.env:
        body["Env"] = [f"{name}={value}" for name, value in config.env.items()]
    if config.stdin:
        body.update(OpenStdin=True, StdinOnce=True, AttachStdin=True)
    if config.tty:
        body["Tty"] = True
    if config.network.port_mappings:
        body["ExposedPorts"] = {f"{port.container_port}/{port.protocol}": {} for port in config.network.port_mappings}
    if endpoint := _endpoint(config.network):
        body["NetworkingConfig"] = {"EndpointsConfig": {network_field(config.network): endpoint}}
    return body


def _check_network_name(name: str) -> None:
    """Refuse what an engine takes for a mode: a name from somewhere else must not give the host's network."""
    if ":" in name or name in _NETWORK_MODES:
        message = f"network.network_name: {name!r} is a mode of the engine's, and no network of one's own"
        raise InvalidConfigError(message, field="network.network_name", backend=BACKEND)


def _host_config(config: ContainerConfig, options: DockerOptions, engine: Engine) -> dict[str, Any]:
    resources = config.resources
    host: dict[str, Any] = {
        "NetworkMode": network_field(config.network),
        "LogConfig": _logging(config, options, engine),
    }
    optional: dict[str, Any] = {
        "Memory": resources.memory,
        # Without a limit of its own, Docker lets a container swap as much again as its memory.
        "MemorySwap": resources.memory_swap,
        "CpuQuota": resources.cpu_quota,
        "CpuPeriod": resources.cpu_period if resources.cpu_quota or resources.cpu_period else None,
        "PidsLimit": resources.pids,
        "StorageOpt": {"size": str(resources.storage)} if resources.storage else None,
        "Init": config.init or None,
        "ReadonlyRootfs": config.read_only_rootfs or None,
        "CapAdd": list(config.cap_add) or None,
        "CapDrop": list(config.cap_drop) or None,
        "ShmSize": config.shm_size,
        "Runtime": config.runtime or None,
        "Privileged": options.privileged or None,
        "PidMode": options.pid_mode or None,
        "IpcMode": options.ipc_mode or None,
        "GroupAdd": list(options.group_add) or None,
        "Sysctls": dict(options.sysctls) or None,
        "ExtraHosts": [f"{name}:{address}" for name, address in config.extra_hosts.items()] or None,
        "Dns": list(config.network.dns) or None,
        "Mounts": _mounts(config) or None,
        "PortBindings": _bindings(config.network) or None,
        "Ulimits": [{"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard} for limit in config.ulimits] or None,
        "Devices": [
            {
                "PathOnHost": device.host_path,
                "PathInContainer": device.container_path or device.host_path,
                "CgroupPermissions": device.permissions,
            }
            for device in config.devices
        ]
        or None,
        "SecurityOpt": _security(config) or None,
    }
    host.update({key: value for key, value in optional.items() if value is not None})
    return host


def _logging(config: ContainerConfig, options: DockerOptions, engine: Engine) -> dict[str, Any]:
    driver = options.log_driver or engine.log_driver
    if driver in ("local", "json-file") and not engine.is_podman:
        # Files of a fifth each: rotation then drops at most that much at a time.
        settings = {
            "max-size": str(max(config.log_limit // _LOG_FILES, 1)),
            "max-file": str(_LOG_FILES),
            "compress": "false",
        }
        return {"Type": driver, "Config": settings}
    if engine.is_podman and driver in ("k8s-file", "json-file"):
        return {"Type": driver, "Config": {"max-size": str(config.log_limit)}}
    return {"Type": driver, "Config": {}}


def _mounts(config: ContainerConfig) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = []
    for volume in config.volumes:
        mount: dict[str, Any] = {
            "Type": "volume" if volume.is_volume_name else "bind",
            "Source": volume.source,
            "Target": volume.destination,
        }
        if volume.read_only:
            mount["ReadOnly"] = True
        mounts.append(mount)
    for tmpfs in config.tmpfs:
        mount = {"Type": "tmpfs", "Target": tmpfs.destination}
        sizes = {"SizeBytes": tmpfs.size, "Mode": tmpfs.mode}
        if given := {key: value for key, value in sizes.items() if value is not None}:
            mount["TmpfsOptions"] = given
        mounts.append(mount)
    return mounts


def _bindings(network: NetworkConfig) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in network.port_mappings:
        # An empty host port asks for a picked one; "0" does so as well, but not on Podman.
        binding = {"HostIp": port.host_ip, "HostPort": str(port.host_port or "")}
        bindings.setdefault(f"{port.container_port}/{port.protocol}", []).append(binding)
    return bindings


def _security(config: ContainerConfig) -> list[str]:
    options = ["no-new-privileges"] if config.no_new_privileges else []
    if config.seccomp:
        options.append(f"seccomp={config.seccomp}")
    return options


def _endpoint(network: NetworkConfig) -> dict[str, Any]:
    endpoint: dict[str, Any] = {}
    if network.aliases:
        endpoint["Aliases"] = list(network.aliases)
    addresses = network.ip_config
    if addresses is not None:
        if network.mode is not NetworkMode.CUSTOM:
            message = "network.ip_config: Docker gives fixed addresses on custom networks alone"
            raise UnsupportedError(message, field="network.ip_config", backend=BACKEND)
        fixed = {}
        if addresses.ipv4 is not None and addresses.ipv4.address:
            fixed["IPv4Address"] = addresses.ipv4.address
        if addresses.ipv6 is not None and addresses.ipv6.address:
            fixed["IPv6Address"] = str(ipaddress.IPv6Address(addresses.ipv6.address))
        for family in (addresses.ipv4, addresses.ipv6):
            _refuse_rest(family)
        if fixed:
            endpoint["IPAMConfig"] = fixed
    return endpoint


def _refuse_rest(family: IPv4Config | IPv6Config | None) -> None:
    for name in ("gateway", "netmask", "wait_for_dhcp_seconds"):
        if family is not None and getattr(family, name, None):
            field = f"network.ip_config.{'ipv4' if isinstance(family, IPv4Config) else 'ipv6'}.{name}"
            message = f"{field}: on Docker this belongs to the network, not to the container"
            raise UnsupportedError(message, field=field, backend=BACKEND)


def signal_text(name: str | None) -> str:
    """The signal a stop sends: the container's own, SIGTERM without one; names and numbers as the engine keeps them."""
    if not name:
        return "SIGTERM"
    if name.isdecimal():
        number = int(name)
        return signal.Signals(number).name if number in signal.valid_signals() and number < 32 else name
    return name if name.startswith("SIG") else f"SIG{name}"
