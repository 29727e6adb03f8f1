"""A container's configuration and its image's as the OCI runtime specification 1.0.2 for Linux, with what Docker gives by default."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from asyncctr.core.config import VolumeMount
from asyncctr.core.errors import UnsupportedError
from asyncctr.core.validation import fail
from asyncctr.oci.host import bounding_set
from asyncctr.oci.seccomp import seccomp_profile
from asyncctr.oci.spec_mounts import spec_mounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncctr.core.config import ContainerConfig, DeviceMapping, Ulimit
    from asyncctr.core.resources import ResourceLimits
    from asyncctr.oci.host import Host
    from asyncctr.oci.image_config import ImageConfig
    from asyncctr.oci.users import User

__all__ = ["DEFAULT_PATH", "INIT_PATH", "process_args", "runtime_spec"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""``PATH`` where neither the image nor the configuration has one."""

INIT_PATH = "/dev/init"
"""Where the init program is in the container: in ``/dev``, so that the root filesystem gets no file that is not its own."""

_UNLIMITED = 2**64 - 1
_UMASK = 0o022
_LIMITS = "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK"
_RLIMITS = frozenset(_LIMITS.split())
_MASKED_PATHS = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
_READ_ONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def _device_rule(major: int, minor: int | None) -> dict[str, Any]:
    rule = {"allow": True, "type": "c", "major": major, "access": "rwm"}
    return rule if minor is None else {**rule, "minor": minor}


_DEVICE_RULES = [
    {"allow": False, "access": "rwm"},
    # null, zero, full, random, urandom; tty, console, ptmx; the pseudo-terminals.
    *(_device_rule(1, minor) for minor in (3, 5, 7, 8, 9)),
    *(_device_rule(5, minor) for minor in (0, 1, 2)),
    _device_rule(136, None),
]


def process_args(config: ContainerConfig, image: ImageConfig) -> tuple[str, ...]:
    """The command line, by Docker's rules.

    Raises:
        InvalidConfigError: it is empty; the field is ``"command"``.
    """
    if config.shell:
        return (*config.shell, " ".join(config.command))
    entrypoint = image.entrypoint if config.entrypoint is None else config.entrypoint
    command = config.command or (image.cmd if config.entrypoint is None else ())
    # One empty word is how Docker's API says that there is no entrypoint.
    args = command if entrypoint == ("",) else (*entrypoint, *command)
    if not args or not args[0]:
        raise fail("command", "there is nothing to run: give a command, the image has none")
    return args


def runtime_spec(
    config: ContainerConfig,
    image: ImageConfig,
    *,
    container_id: str,
    args: Sequence[str],
    user: User,
    host: Host,
    hostname: str,
    netns: str | None = "",
    mounts: Iterable[VolumeMount] = (),
    init: str = "",
) -> dict[str, Any]:
    """The specification; its parts are shared between containers, and not to be changed.

    The image's volumes, its exposed ports and the stop signal are not in it, and neither is ``resources.storage``.

    Args:
        config: the container's.
        image: the image's.
        container_id: names the control group.
        args: what :func:`process_args` gives.
        user: whom it runs as.
        host: where it will run.
        hostname: as seen inside.
        netns: the path of a network namespace; empty for a new one, ``None`` for the host's.
        mounts: bind mounts, sources being paths on the host: ``config.volumes`` resolved, and files such as resolv.conf. A later
            one takes the place of an earlier one with the same destination.
        init: with ``config.init``, the path on the host of a static init program that is called as ``init -- command…``.

    Raises:
        InvalidConfigError: a value that no runtime takes; a device that is not there; a volume that cannot be looked at.
        UnsupportedError: a capability or limit that this host cannot give.
    """
    bounding = list(bounding_set(config.cap_add, config.cap_drop, host))
    bound = list(mounts)
    if config.init:
        if not init:
            raise UnsupportedError("init: there is no init program to run", field="init")
        bound.append(VolumeMount(source=init, destination=INIT_PATH, read_only=True))
        args = (INIT_PATH, "--", *args)
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": _process(config, image, args, user, bounding, hostname),
        "root": {"path": "rootfs", "readonly": config.read_only_rootfs},
        "hostname": hostname,
        "mounts": spec_mounts(config, host, shares_network=netns is None, mounts=bound),
        "linux": {
            "namespaces": _namespaces(host, netns),
            "maskedPaths": _MASKED_PATHS,
            "readonlyPaths": _READ_ONLY_PATHS,
        },
    }
    linux = spec["linux"]
    if not host.rootless:
        # A daemon's own protection from the out-of-memory killer is not its containers'; rootless nobody may go back to 0.
        spec["process"]["oomScoreAdj"] = 0
    if netns is not None:
        linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0"}
        if not host.rootless:
            # In a user namespace not all of these groups exist.
            linux["sysctl"]["net.ipv4.ping_group_range"] = "0 2147483647"
    found = [(device, _device(device)) for device in config.devices]
    if found:
        linux["devices"] = [node for _, node in found]
    if host.cgroup_parent:
        linux["cgroupsPath"] = f"{host.cgroup_parent.rstrip('/')}/{container_id}"
        linux["resources"] = _resources(config.resources, host)
        linux["resources"]["devices"] = [
            *_DEVICE_RULES,
            *(
                {"allow": True, **{key: node[key] for key in ("type", "major", "minor")}, "access": device.permissions}
                for device, node in found
            ),
        ]
    else:
        _refuse_limits(config.resources)
    if host.seccomp:
        if profile := seccomp_profile(config.seccomp, bounding):
            linux["seccomp"] = profile
    elif config.seccomp not in ("", "unconfined"):
        raise UnsupportedError("seccomp: the kernel here does not filter system calls", field="seccomp")
    return spec


def _process(
    config: ContainerConfig, image: ImageConfig, args: Sequence[str], user: User, bounding: list[str], hostname: str
) -> dict[str, Any]:
    env: dict[str, str] = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if config.tty:
        env["TERM"] = "xterm"
    env.update(image.env)
    env.update(config.env)
    env.setdefault("HOME", user.home)
    capabilities = {"bounding": bounding}
    if user.uid == 0:
        # As execve(2) does it: another user than root has none, and can only gain what is in the bounding set.
        capabilities |= {"effective": bounding, "permitted": bounding}
    process: dict[str, Any] = {
        "terminal": config.tty,
        "user": {
            "uid": user.uid,
            "gid": user.gid,
            "umask": _UMASK,
            "additionalGids": list(user.additional_gids),
        },
        "args": list(args),
        "env": [f"{name}={value}" for name, value in env.items()],
        "cwd": config.workdir or image.workdir,
        "capabilities": capabilities,
        "noNewPrivileges": config.no_new_privileges,
    }
    if config.ulimits:
        process["rlimits"] = list({limit.name: _rlimit(limit) for limit in config.ulimits}.values())
    return process


def _rlimit(limit: Ulimit) -> dict[str, Any]:
    name = limit.name.upper()
    if name not in _RLIMITS:
        raise fail("ulimits", f"there is no limit {limit.name!r}; getrlimit(2) lists them")
    hard, soft = (_UNLIMITED if value == -1 else value for value in (limit.hard, limit.soft))
    return {"type": f"RLIMIT_{name}", "hard": hard, "soft": soft}


def _namespaces(host: Host, netns: str | None) -> list[dict[str, str]]:
    kinds = ["mount", "uts", "pid", "ipc"]
    if host.cgroup_version == 2:
        kinds.append("cgroup")
    namespaces = [{"type": kind} for kind in kinds]
    if netns is not None:
        namespaces.append({"type": "network", "path": netns} if netns else {"type": "network"})
    return namespaces


def _resources(limits: ResourceLimits, host: Host) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    if limits.memory is not None:
        memory = {"limit": limits.memory}
        # Without a limit of its own, a container may swap as much again as its memory, as on Docker.
        swap = 2 * limits.memory if limits.memory_swap is None else limits.memory_swap
        if host.swap_limit:
            # Memory and swap together: runtimes turn it into the swap alone that cgroup v2 has. None is unlimited.
            if swap != -1:
                memory["swap"] = swap
        elif limits.memory_swap not in (None, -1):
            message = "resources.memory_swap: the kernel here does not count swap"
            raise UnsupportedError(message, field="resources.memory_swap")
        resources["memory"] = memory
    cpu = {"quota": limits.cpu_quota, "period": limits.cpu_period}
    if given := {key: value for key, value in cpu.items() if value is not None}:
        resources["cpu"] = given
    if limits.pids is not None:
        resources["pids"] = {"limit": limits.pids}
    return resources


def _refuse_limits(limits: ResourceLimits) -> None:
    for name in ("memory", "cpu_quota", "cpu_period", "pids"):
        if getattr(limits, name) is not None:
            field = f"resources.{name}"
            raise UnsupportedError(f"{field}: the runtime here may make no control groups", field=field)


def _device(device: DeviceMapping) -> dict[str, Any]:
    try:
        status = os.stat(device.host_path)  # noqa: PTH116 - on the hot path
    except OSError as error:
        raise fail("devices", f"{device.host_path}: {error.strerror}") from error
    kinds: Mapping[int, str] = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise fail("devices", f"{device.host_path} is no device")
    return {
        "path": device.container_path or device.host_path,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode) & 0o777,
        "uid": status.st_uid,
        "gid": status.st_gid,
    }
