"""What the command line's words mean: sizes, durations, mounts, ports, and the configurations made from them."""

from __future__ import annotations

import argparse
import math
import os
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

import attrs

from asyncctr.client.selection import may_start
from asyncctr.core.backend_config import (
    BackendConfig,
    ContainerdConfig,
    DockerConfig,
    FirecrackerConfig,
    NanosConfig,
)
from asyncctr.core.config import ContainerConfig, VolumeMount
from asyncctr.core.errors import InvalidConfigError
from asyncctr.core.network import NetworkConfig, NetworkMode, PortMapping
from asyncctr.core.resources import ResourceLimits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "CONFIGS",
    "backend_config",
    "container_config",
    "count",
    "cpus",
    "duration",
    "env_entry",
    "environment",
    "moment",
    "network",
    "pids",
    "port",
    "size",
    "volume",
]

CONFIGS: Mapping[str, type[BackendConfig]] = {
    config.backend_type: config for config in (DockerConfig, ContainerdConfig, FirecrackerConfig, NanosConfig)
}
"""The built-in runtimes' configurations, in the order in which people are told of them."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_PORT = re.compile(
    r"(?:(?:(?P<ip>\[[0-9a-fA-F:.]+\]|[0-9.]+):)?(?P<host>\d*):)?(?P<container>\d+)(?:/(?P<protocol>[a-z]+))?"
)
_MODES = {mode.value: mode for mode in NetworkMode if mode is not NetworkMode.CUSTOM}


def _refuse(message: str) -> NoReturn:
    raise argparse.ArgumentTypeError(message)


def size(text: str) -> int:
    """Bytes from ``1024``, ``256m``, ``1.5g``, ``512KiB``; the units are powers of 1024, as Docker's are."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        _refuse(f"{text!r} is no size: write bytes, or a number with k, m, g or t, such as 256m")
    return round(float(match[1]) * _UNITS[match[2].lower()])


def cpus(text: str) -> float:
    """A positive number of CPUs."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        _refuse(f"{text!r} is no number of CPUs: write such as 0.5 or 2")
    return value


def count(text: str) -> int:
    """A number of 0 or more."""
    if not (text.isascii() and text.isdecimal()):
        _refuse(f"{text!r} is no number of 0 or more")
    return int(text)


def pids(text: str) -> int:
    """A number of 1 or more."""
    value = count(text)
    return value or _refuse("a limit of 0 processes would let nothing run")


def duration(text: str) -> float:
    """Seconds from ``90``, ``1.5``, ``90s``, ``10m``, ``1h30m``, ``2d``; more than 0."""
    try:
        seconds = float(text)
    except ValueError:
        match = _DURATION.fullmatch(text) if text else None
        if match is None:
            _refuse(f"{text!r} is no duration: write seconds, or such as 90s, 10m, 1h30m, 2d")
        days, hours, minutes, rest = (float(part or 0) for part in match.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if not 0 < seconds < math.inf:
        _refuse(f"{text!r}: a duration must be more than 0 seconds")
    return seconds


def moment(text: str) -> datetime:
    """An aware time from how long ago (``10m``) or an ISO 8601 date and time, local where it names no zone."""
    if _DURATION.fullmatch(text) and text:
        return datetime.now(UTC) - timedelta(seconds=duration(text))
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        _refuse(f"{text!r} is no time: write how long ago, such as 10m, or such as 2024-05-31T12:00:00Z")


def env_entry(text: str) -> str:
    """``K=V``, or ``K`` alone for a variable of this process."""
    if not text or text.startswith("="):
        _refuse(f"{text!r} is no variable: write NAME=value, or NAME alone to take it from here")
    return text


def environment(entries: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of ``--env``; one that is to come from ``environ`` and is not there is left out, as Docker does."""
    found: dict[str, str] = {}
    for entry in entries:
        name, separator, value = entry.partition("=")
        if separator:
            found[name] = value
        elif name in environ:
            found[name] = environ[name]
    return found


def volume(text: str) -> VolumeMount:
    """``src:dst[:ro|:rw]``; a source with a leading ``.`` is relative to here, one without a slash in front a volume's name."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        _refuse(f"{text!r} is no mount: write SOURCE:DESTINATION, with :ro behind it to refuse writes")
    source = parts[0]
    if source.startswith("."):
        # Not Path: nothing is to be looked up, the path may be of another machine.
        source = os.path.abspath(source)  # noqa: PTH100
    try:
        return VolumeMount(
            source=source,
            destination=parts[1],
            read_only=parts[2:] == ["ro"],
            is_volume_name=not source.startswith("/"),
        )
    except InvalidConfigError as error:
        _refuse(f"{text!r}: {error}")


def port(text: str) -> PortMapping:
    """``[ip:]host:container[/protocol]``; an empty host port, or none, lets the runtime pick one."""
    match = _PORT.fullmatch(text)
    if match is None:
        _refuse(f"{text!r} is no port: write HOST:CONTAINER, such as 8080:80, 0.0.0.0:53:53/udp or [::1]:8080:80")
    try:
        return PortMapping(
            container_port=int(match["container"]),
            host_port=int(match["host"] or 0),
            protocol=match["protocol"] or "tcp",
            host_ip=(match["ip"] or "127.0.0.1").strip("[]"),
        )
    except InvalidConfigError as error:
        _refuse(f"{text!r}: {error}")


def network(name: str, ports: Sequence[PortMapping] = ()) -> NetworkConfig:
    """A network by its mode's name, or by its own."""
    mode = _MODES.get(name, NetworkMode.CUSTOM)
    return NetworkConfig(mode=mode, network_name=name if mode is NetworkMode.CUSTOM else "", port_mappings=tuple(ports))


def container_config(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> ContainerConfig:
    """What ``run`` runs.

    Raises:
        InvalidConfigError: a value that no runtime takes.
    """
    limits = ResourceLimits(memory=args.memory, pids=args.pids)
    if args.cpus is not None:
        limits = ResourceLimits.from_cpus(args.cpus, memory=args.memory, pids=args.pids)
    entrypoint = None
    if args.entrypoint is not None:
        entrypoint = (args.entrypoint,) if args.entrypoint else ()
    return ContainerConfig(
        args.image,
        command=args.command,
        entrypoint=entrypoint,
        env=environment(args.env, environ),
        workdir=args.workdir,
        volumes=args.volume,
        network=network(args.network, args.publish),
        resources=limits,
        name=args.name,
        user=args.user,
        stdin=args.interactive,
    )


def backend_config(
    args: argparse.Namespace, *, op_timeout: float | None = None, environ: Mapping[str, str] = os.environ
) -> BackendConfig | None:
    """The runtime that the options name; ``None`` leaves the choice to :func:`asyncctr.connect`.

    Raises:
        InvalidConfigError: they contradict each other, or name no runtime.
    """
    name, host, namespace = args.backend, args.host, args.namespace
    if name is not None and name not in CONFIGS:
        raise InvalidConfigError(
            f"--backend: {name!r} is no runtime; there are: {', '.join(CONFIGS)}", field="--backend"
        )
    if namespace and name != ContainerdConfig.backend_type:
        raise InvalidConfigError(
            "--namespace: is of containerd; name that with --backend containerd", field="--namespace"
        )
    for option, value in (("--kernel", args.kernel), ("--ops-config", args.ops_config)):
        if value and name != NanosConfig.backend_type:
            raise InvalidConfigError(f"{option}: is of Nanos; name that with --backend nanos", field=option)
    if name is None and not host:
        return None
    config: BackendConfig
    if name in (None, DockerConfig.backend_type):
        config = DockerConfig(host=host or "")
    elif name == ContainerdConfig.backend_type:
        config = _containerd_config(host or "", namespace, environ)
    elif host:
        raise InvalidConfigError(
            f"--host: is of Docker, Podman or containerd, and the backend is {name}", field="--host"
        )
    elif name == NanosConfig.backend_type:
        config = NanosConfig(kernel_path=args.kernel or "", config_path=args.ops_config or "")
    else:
        config = CONFIGS[name]()
    return config if op_timeout is None else attrs.evolve(config, op_timeout=op_timeout)


def _containerd_config(host: str, namespace: str | None, environ: Mapping[str, str]) -> ContainerdConfig:
    path = host.removeprefix("unix://")
    if host and not path.startswith("/"):
        raise InvalidConfigError(
            f"--host: containerd listens on a unix socket: unix:///path, not {host!r}", field="--host"
        )
    # As connect() does where it may choose: whoever names it has no other.
    config = ContainerdConfig(socket_path=path, auto_start=may_start(environ))
    return attrs.evolve(config, namespace=namespace) if namespace else config
