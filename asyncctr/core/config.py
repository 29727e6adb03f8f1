"""What a container is made from."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import attrs

from asyncctr.core.errors import InvalidConfigError
from asyncctr.core.network import NetworkConfig
from asyncctr.core.resources import ResourceLimits
from asyncctr.core.validation import (
    FrozenMap,
    check_object_name,
    check_path,
    check_text,
    check_token,
    checked,
    environment,
    fail,
    host_address,
    is_a,
    label_key,
    mapping,
    member,
    positive,
    redacted,
    sequence,
    signal_name,
    unless_empty,
)

__all__ = [
    "LABEL_PREFIX",
    "BackendOptions",
    "ContainerConfig",
    "ContainerdOptions",
    "DeviceMapping",
    "DockerOptions",
    "FirecrackerOptions",
    "Lifetime",
    "NanosOptions",
    "Ownership",
    "TmpfsMount",
    "Ulimit",
    "VolumeMount",
]

LABEL_PREFIX = "dev.asyncctr."
"""Labels under this prefix are the SDK's own: user labels with it are refused."""

DEFAULT_LOG_LIMIT = 1 << 30
_SECCOMP_MAX = 4 << 20


@attrs.frozen(kw_only=True)
class VolumeMount:
    """A host path or named volume inside the container.

    Attributes:
        source: an absolute path on the runtime's host or, with ``is_volume_name``, a volume's name.
        destination: an absolute path in the container.
        read_only: refuse writes.
        is_volume_name: ``source`` names a volume, which is made when it does not exist and kept when the container goes.
    """

    source: str
    destination: str = attrs.field(validator=checked(check_path))
    read_only: bool = attrs.field(default=False, validator=is_a(bool))
    is_volume_name: bool = attrs.field(default=False, validator=is_a(bool))

    def __attrs_post_init__(self) -> None:
        if self.is_volume_name:
            check_object_name("source", self.source)
        else:
            check_path("source", self.source)


@attrs.frozen(kw_only=True)
class TmpfsMount:
    """A memory-backed directory.

    Attributes:
        destination: an absolute path in the container.
        size: bytes; ``None`` for the kernel's default, half of the memory.
        mode: permission bits, such as ``0o1777``; ``None`` for the runtime's default.
    """

    destination: str = attrs.field(validator=checked(check_path))
    size: int | None = attrs.field(default=None, validator=checked(positive))
    mode: int | None = attrs.field(default=None, validator=checked(positive, minimum=0))


@attrs.frozen(kw_only=True)
class DeviceMapping:
    """A host device inside the container.

    Attributes:
        host_path: such as ``"/dev/fuse"``.
        container_path: where it appears; empty for the same path.
        permissions: some of ``r``, ``w`` and ``m`` (mknod), as in the devices cgroup.
    """

    host_path: str = attrs.field(validator=checked(check_path))
    container_path: str = attrs.field(default="", validator=unless_empty(check_path))
    permissions: str = attrs.field(default="rwm", validator=checked(check_text))

    def __attrs_post_init__(self) -> None:
        if not self.permissions or set(self.permissions) - set("rwm"):
            raise fail("permissions", f"must be some of the letters 'rwm', not {self.permissions!r}")


@attrs.frozen(kw_only=True)
class Ulimit:
    """A process limit (``getrlimit(2)``), by its lower-case name without ``RLIMIT_``; -1 is unlimited."""

    name: str = attrs.field(validator=checked(check_token))
    soft: int = attrs.field(validator=checked(positive, minimum=0, minus_one=True, required=True))
    hard: int = attrs.field(validator=checked(positive, minimum=0, minus_one=True, required=True))

    def __attrs_post_init__(self) -> None:
        if self.hard != -1 and (self.soft == -1 or self.soft > self.hard):
            raise fail("soft", f"must not be above hard ({self.hard}), but is {self.soft}")


def _group_add(value: Iterable[str]) -> tuple[str, ...]:
    return sequence("group_add", value, check_token)


def _sysctls(value: Mapping[str, str]) -> FrozenMap[str, str]:
    return mapping("sysctls", value, label_key, check_text)


_PID_MODE = re.compile(r"host|container:[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_IPC_MODE = re.compile(r"host|none|private|shareable|container:[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def _namespace_mode(field: str, value: object, *, pattern: re.Pattern[str]) -> None:
    text = check_text(field, value)
    if not pattern.fullmatch(text):
        raise fail(field, f"must be one of {pattern.pattern.partition('[')[0].replace('|', ', ')}<id>, not {text!r}")


@attrs.frozen(kw_only=True)
class DockerOptions:
    """What Docker alone knows.

    Attributes:
        log_driver: the engine's log driver. Empty for the SDK's choice, which keeps every byte and can be read back;
            drivers that cannot be read back make ``logs`` refuse.
        privileged: all capabilities and devices.
        pid_mode: ``""``, ``"host"`` or ``"container:<id>"``.
        ipc_mode: ``""``, ``"host"``, ``"none"``, ``"private"``, ``"shareable"`` or ``"container:<id>"``.
        group_add: supplementary groups of the process, by name or number.
        sysctls: namespaced kernel parameters.
    """

    log_driver: str = attrs.field(default="", validator=checked(check_text))
    privileged: bool = attrs.field(default=False, validator=is_a(bool))
    pid_mode: str = attrs.field(default="", validator=unless_empty(_namespace_mode, pattern=_PID_MODE))
    ipc_mode: str = attrs.field(default="", validator=unless_empty(_namespace_mode, pattern=_IPC_MODE))
    group_add: tuple[str, ...] = attrs.field(default=(), converter=_group_add)
    sysctls: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=_sysctls)


@attrs.frozen(kw_only=True)
class ContainerdOptions:
    """What containerd alone knows; nothing yet beyond the common fields."""


@attrs.frozen(kw_only=True)
class FirecrackerOptions:
    """What Firecracker alone knows.

    Attributes:
        jailer: run the VMM under the jailer; ``None`` does so as root. ``False`` is explicit.
    """

    jailer: bool | None = attrs.field(default=None, validator=is_a(bool, type(None)))


@attrs.frozen(kw_only=True)
class NanosOptions:
    """What Nanos alone knows.

    Attributes:
        machine: the QEMU machine type; empty for the smallest that has what the configuration needs.
    """

    machine: str = attrs.field(default="", validator=checked(check_text))


BackendOptions = DockerOptions | ContainerdOptions | FirecrackerOptions | NanosOptions


class Lifetime(StrEnum):
    """What ``reap`` may do with a container when its owner is gone."""

    OWNED = "owned"
    DETACHED = "detached"


def _lifetime(value: Lifetime | str) -> Lifetime:
    return member("lifetime", Lifetime, value)


def _new_token() -> str:
    return secrets.token_hex(16)


@attrs.frozen(kw_only=True)
class Ownership:
    """Who a container belongs to; becomes the labels under ``dev.asyncctr.``.

    Attributes:
        token: random; set before the create call, so that a create whose answer was lost can be found.
        lifetime: see :class:`Lifetime`.
    """

    token: str = attrs.field(factory=_new_token, validator=checked(check_token))
    lifetime: Lifetime = attrs.field(default=Lifetime.OWNED, converter=_lifetime)


def _command(value: Iterable[str]) -> tuple[str, ...]:
    return sequence("command", value, check_text)


def _entrypoint(value: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if value is None else sequence("entrypoint", value, check_text)


def _shell(value: Iterable[str]) -> tuple[str, ...]:
    return sequence("shell", value, check_text)


def _environment(value: Mapping[str, str] | Iterable[str]) -> FrozenMap[str, str]:
    return environment("env", value)


def _instances(field: str, kind: type[Any], from_str: Any = None) -> Any:
    def item(name: str, value: object) -> object:
        if from_str is not None and isinstance(value, str):
            try:
                return from_str(value)
            except InvalidConfigError as error:
                raise fail(name, error.message) from None
        if not isinstance(value, kind):
            raise fail(name, f"must be a {kind.__name__}, not {type(value).__name__}")
        return value

    return lambda value: sequence(field, value, item)


def _volumes(value: Iterable[VolumeMount]) -> tuple[VolumeMount, ...]:
    return tuple(_instances("volumes", VolumeMount)(value))


def _tmpfs(value: Iterable[TmpfsMount | str]) -> tuple[TmpfsMount, ...]:
    return tuple(_instances("tmpfs", TmpfsMount, lambda path: TmpfsMount(destination=path))(value))


def _devices(value: Iterable[DeviceMapping | str]) -> tuple[DeviceMapping, ...]:
    return tuple(_instances("devices", DeviceMapping, lambda path: DeviceMapping(host_path=path))(value))


def _ulimits(value: Iterable[Ulimit]) -> tuple[Ulimit, ...]:
    return tuple(_instances("ulimits", Ulimit)(value))


def _capabilities(field: str) -> Any:
    def item(name: str, value: object) -> str:
        text = check_token(name, value).upper()
        return text if text.startswith("CAP_") or text == "ALL" else f"CAP_{text}"

    return lambda value: sequence(field, value, item)


def _cap_add(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(_capabilities("cap_add")(value))


def _cap_drop(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(_capabilities("cap_drop")(value))


def _label_key(field: str, value: object) -> str:
    text = label_key(field, value)
    if text.startswith(LABEL_PREFIX):
        raise fail("labels", f"{text!r} is under {LABEL_PREFIX!r}, which is the SDK's own")
    return text


def _labels(value: Mapping[str, str]) -> FrozenMap[str, str]:
    return mapping("labels", value, _label_key, check_text)


def _extra_hosts(value: Mapping[str, str]) -> FrozenMap[str, str]:
    return mapping("extra_hosts", value, check_token, host_address)


def _network(value: NetworkConfig | None) -> NetworkConfig:
    return NetworkConfig() if value is None else value


def _resources(value: ResourceLimits | None) -> ResourceLimits:
    return ResourceLimits() if value is None else value


def _stop_signal(value: str | int | None) -> str | None:
    return None if value is None else signal_name("stop_signal", value)


def _check_platform(field: str, value: object) -> None:
    parts = check_token(field, value).split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise fail(field, f"must be 'os/architecture' or 'os/architecture/variant', not {value!r}")


def _check_seccomp(field: str, value: object) -> None:
    text = check_text(field, value, limit=_SECCOMP_MAX)
    if text in ("", "unconfined"):
        return
    try:
        profile = json.loads(text)
    except ValueError:
        raise fail(field, "must be empty, 'unconfined', or a profile as JSON text") from None
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise fail(field, "must be a profile: a JSON object with a 'defaultAction'")


@attrs.frozen(kw_only=True)
class ContainerConfig:
    """What a container is made from. Only the image is needed.

    A field that a backend cannot honour is in its ``capabilities.refused_fields``, and ``create`` raises ``UnsupportedError``.

    Attributes:
        image: the image's name as the backend knows it.
        command: the arguments; empty for the image's, which an ``entrypoint`` of one's own leaves out (as on Docker).
        entrypoint: the program in front of them; ``None`` for the image's, ``()`` for none.
        shell: when given, the process is ``[*shell, " ".join(command)]``, in place of the entrypoint.
        env: variables added to the image's or in place of them; a sequence of ``"NAME=value"`` is accepted. Not in the repr.
        workdir: an absolute path; empty for the image's.
        volumes: see :class:`VolumeMount`.
        tmpfs: see :class:`TmpfsMount`; a path alone is accepted.
        network: see :class:`NetworkConfig`.
        resources: see :class:`ResourceLimits`.
        name: unique in the backend; empty for one of the backend's making.
        labels: kept with the container; none under ``dev.asyncctr.``.
        user: ``"name"``, ``"uid"``, ``"name:group"`` or ``"uid:gid"``; empty for the image's.
        hostname: as seen inside; empty for the backend's choice.
        extra_hosts: names and addresses added to the container's hosts file.
        stdin: keep standard input open for a writer.
        tty: give the process a terminal; stdout and stderr are then one stream.
        init: run an init process that reaps orphans and passes signals on.
        platform: ``"os/arch[/variant]"`` of the image; empty for the backend's own.
        read_only_rootfs: mount the root filesystem read-only.
        cap_add: Linux capabilities added, with or without ``CAP_``, or ``"ALL"``.
        cap_drop: Linux capabilities taken away.
        no_new_privileges: set the kernel's flag, so that set-user-id programs gain nothing.
        seccomp: empty for the runtime's profile, ``"unconfined"``, or a profile as JSON text.
        devices: see :class:`DeviceMapping`; a path alone is accepted.
        ulimits: see :class:`Ulimit`.
        shm_size: bytes of ``/dev/shm``; ``None`` for the runtime's default.
        stop_signal: sent by ``stop``; ``None`` for the image's.
        runtime: the OCI runtime by its name at the backend, such as ``"runsc"``; empty for its default.
        log_limit: bytes of output kept; the oldest are dropped beyond it.
        options: what one backend alone knows; another backend's options are refused.
        ownership: who the container belongs to; ``None`` for this process.
    """

    image: str = attrs.field(kw_only=False, validator=checked(check_token))
    command: tuple[str, ...] = attrs.field(default=(), converter=_command)
    entrypoint: tuple[str, ...] | None = attrs.field(default=None, converter=_entrypoint)
    shell: tuple[str, ...] = attrs.field(default=(), converter=_shell)
    env: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=_environment, repr=redacted)
    workdir: str = attrs.field(default="", validator=unless_empty(check_path))
    volumes: tuple[VolumeMount, ...] = attrs.field(default=(), converter=_volumes)
    tmpfs: tuple[TmpfsMount, ...] = attrs.field(default=(), converter=_tmpfs)
    network: NetworkConfig = attrs.field(default=None, converter=_network, validator=is_a(NetworkConfig))
    resources: ResourceLimits = attrs.field(default=None, converter=_resources, validator=is_a(ResourceLimits))
    name: str = attrs.field(default="", validator=checked(check_text))
    labels: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=_labels)
    user: str = attrs.field(default="", validator=checked(check_text))
    hostname: str = attrs.field(default="", validator=unless_empty(check_token, limit=64))
    extra_hosts: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=_extra_hosts)
    stdin: bool = attrs.field(default=False, validator=is_a(bool))
    tty: bool = attrs.field(default=False, validator=is_a(bool))
    init: bool = attrs.field(default=False, validator=is_a(bool))
    platform: str = attrs.field(default="", validator=unless_empty(_check_platform))
    read_only_rootfs: bool = attrs.field(default=False, validator=is_a(bool))
    cap_add: tuple[str, ...] = attrs.field(default=(), converter=_cap_add)
    cap_drop: tuple[str, ...] = attrs.field(default=(), converter=_cap_drop)
    no_new_privileges: bool = attrs.field(default=False, validator=is_a(bool))
    seccomp: str = attrs.field(default="", validator=checked(_check_seccomp))
    devices: tuple[DeviceMapping, ...] = attrs.field(default=(), converter=_devices)
    ulimits: tuple[Ulimit, ...] = attrs.field(default=(), converter=_ulimits)
    shm_size: int | None = attrs.field(default=None, validator=checked(positive))
    stop_signal: str | None = attrs.field(default=None, converter=_stop_signal)
    runtime: str = attrs.field(default="", validator=checked(check_text))
    log_limit: int = attrs.field(default=DEFAULT_LOG_LIMIT, validator=checked(positive, minimum=65_536, required=True))
    options: BackendOptions | None = attrs.field(
        default=None,
        validator=is_a(DockerOptions, ContainerdOptions, FirecrackerOptions, NanosOptions, type(None)),
    )
    ownership: Ownership | None = attrs.field(default=None, validator=is_a(Ownership, type(None)))

    def __attrs_post_init__(self) -> None:
        if self.shell and not self.command:
            raise fail("shell", "needs a command to run")
        destinations = [mount.destination for mount in self.volumes] + [mount.destination for mount in self.tmpfs]
        destinations = [destination.rstrip("/") or "/" for destination in destinations]
        for destination in destinations:
            if destinations.count(destination) > 1:
                raise fail("volumes", f"more than one mount at {destination!r}")
