"""The configuration file of OPS: JSON, every key that says what an image or its VM is.

Keys are matched as OPS matches them, without regard to case. What it would refuse (an unknown key) is warned of, and what it
would ignore (an address that is none) is refused. Paths that are relative are relative to the file's directory, as OPS has it
for files; where they go in the image, they are relative to its root.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs

from asyncctr.core.validation import FrozenMap, check_text, check_token, env_key, fail, mapping, redacted, sequence

__all__ = ["Nic", "OpsConfig", "RunConfig", "read_ops_config"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_FILE: Final = 16 << 20
_MAX_DEPTH: Final = 64
_SIZE: Final = re.compile(r"([0-9]{1,18})([kmg]?)", re.IGNORECASE)
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
# As QEMU's and OPS's own memory sizes: a number alone is of megabytes.
_MEBIBYTE: Final = 1 << 20
_PORTS: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")

_Check = Callable[[str, Any], Any]


def _key(name: str, check: _Check, default: Any) -> Any:
    return attrs.field(default=default, metadata={"key": name, "check": check})


def _kind(kind: type[T], name: str) -> Callable[[str, object], T]:
    def check(field: str, value: object) -> T:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise fail(field, f"must be {name}, not {_named(value)}")
        return value

    return check


def _named(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


_boolean = _kind(bool, "a boolean")
_list: Callable[[str, object], list[Any]] = _kind(list, "a list")
_object: Callable[[str, object], dict[str, Any]] = _kind(dict, "an object")


def _string(field: str, value: object) -> str:
    return check_text(field, _kind(str, "a string")(field, value))


def _strings(field: str, value: object) -> tuple[str, ...]:
    return sequence(field, _list(field, value), _string)


def _tokens(field: str, value: object) -> tuple[str, ...]:
    return sequence(field, _list(field, value), lambda name, item: check_token(name, _string(name, item)))


def _paths(field: str, value: object) -> tuple[str, ...]:
    return sequence(field, _list(field, value), lambda name, item: check_text(name, _string(name, item), empty=False))


def _pairs(field: str, value: object) -> FrozenMap[str, str]:
    return mapping(field, _object(field, value), lambda name, key: check_text(name, key, empty=False), _string)


def _environment(field: str, value: object) -> FrozenMap[str, str]:
    return mapping(field, _object(field, value), env_key, _string)


def _address(field: str, value: object) -> str:
    text = _string(field, value)
    try:
        return str(ipaddress.IPv4Address(text)) if text else ""
    except ValueError:
        raise fail(field, f"must be an IPv4 address, not {text!r}") from None


def _address6(field: str, value: object) -> str:
    text = _string(field, value)
    try:
        return str(ipaddress.IPv6Address(text)) if text else ""
    except ValueError:
        raise fail(field, f"must be an IPv6 address, not {text!r}") from None


def _servers(field: str, value: object) -> tuple[str, ...]:
    def server(name: str, item: object) -> str:
        try:
            return str(ipaddress.ip_address(_string(name, item)))
        except ValueError:
            raise fail(name, f"must be an IP address, not {item!r}") from None

    return sequence(field, _list(field, value), server)


def _count(field: str, value: object) -> int:
    number = _kind(int, "a number")(field, value)
    if not 0 <= number < 1 << 31:
        raise fail(field, f"must be a number of things, not {number}")
    return number


def _size(field: str, value: object, *, plain: int = 1) -> int | None:
    text = _string(field, value).strip()
    if not text:
        return None
    match = _SIZE.fullmatch(text)
    if match is None or not int(match[1]):
        raise fail(field, f"must be a size such as '100m' or '2G', not {text!r}")
    return int(match[1]) * (_UNITS[match[2].lower()] if match[2] else plain)


def _memory(field: str, value: object) -> int | None:
    return _size(field, value, plain=_MEBIBYTE)


def _ports(field: str, value: object) -> tuple[tuple[int, int], ...]:
    """Host and guest ports from ``"8080"``, ``"8080-80"`` and several of these between commas."""
    pairs: list[tuple[int, int]] = []
    for place, entry in enumerate(_list(field, value)):
        name = f"{field}[{place}]"
        # The port alone may be a number; OPS wants a string.
        text = str(entry) if type(entry) is int else _string(name, entry)
        for part in text.split(","):
            match = _PORTS.fullmatch(part.strip())
            host, guest = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
            if not (1 <= host <= 65_535 and 1 <= guest <= 65_535):
                raise fail(name, f"must be a port or 'host-guest', not {text!r}")
            pairs.append((host, guest))
    return tuple(pairs)


def _nics(field: str, value: object) -> tuple[Nic, ...]:
    return sequence(field, _list(field, value), lambda name, item: _parse(Nic, _object(name, item), f"{name}."))


def _run_config(field: str, value: object) -> RunConfig:
    return _parse(RunConfig, _object(field, value), f"{field}.")


def _passthrough(field: str, value: object) -> FrozenMap[str, Any]:
    document = _object(field, value)
    return FrozenMap(
        {check_token(f"{field} key", key): _value(f"{field}.{key}", item) for key, item in document.items()}
    )


def _value(field: str, value: object, depth: int = 0) -> Any:
    """A value of the root tuple: text, a number, a list, or an object of such."""
    if depth > _MAX_DEPTH:
        raise fail(field, f"is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, bool):
        # As kernel flags have it; a false one is one that is not there, so an empty text.
        return "t" if value else ""
    if isinstance(value, str):
        return check_text(field, value)
    if isinstance(value, int):
        return value
    if isinstance(value, list):
        return tuple(_value(f"{field}[{place}]", item, depth + 1) for place, item in enumerate(value))
    if isinstance(value, dict):
        return FrozenMap(
            {
                check_text(field, key, empty=False): _value(f"{field}.{key}", item, depth + 1)
                for key, item in value.items()
            }
        )
    raise fail(field, f"must be text, a whole number, a list or an object, not {_named(value)}")


@attrs.frozen(kw_only=True)
class Nic:
    """A network card, of ``RunConfig.Nics``; without an address it asks by DHCP."""

    ip_address: str = _key("IPAddress", _address, "")
    ipv6_address: str = _key("IPv6Address", _address6, "")
    netmask: str = _key("NetMask", _address, "")
    gateway: str = _key("Gateway", _address, "")
    bridge_name: str = _key("BridgeName", _string, "")


@attrs.frozen(kw_only=True)
class RunConfig:
    """What a VM of the image is, where the container's own configuration does not say it.

    Attributes:
        memory: bytes; ``None`` where it is not given.
        cpus: 0 where it is not given.
        accel: whether to use KVM; ``None`` where it is not given.
        ports: host and guest ports, TCP.
        udp_ports: likewise.
        ip_address: the guest's, static.
        ipv6_address: likewise.
        netmask: of that network.
        gateway: of that network.
        nics: the network cards, in place of the four above.
        bridged: whether the VM is on a bridge by a tap.
        bridge_name: of that.
        tap_name: of that.
        mounts: volumes, as ``"volume:/path"``.
    """

    memory: int | None = _key("Memory", _memory, None)
    cpus: int = _key("CPUs", _count, 0)
    accel: bool | None = _key("Accel", _boolean, None)
    ports: tuple[tuple[int, int], ...] = _key("Ports", _ports, ())
    udp_ports: tuple[tuple[int, int], ...] = _key("UDPPorts", _ports, ())
    ip_address: str = _key("IPAddress", _address, "")
    ipv6_address: str = _key("IPv6Address", _address6, "")
    netmask: str = _key("NetMask", _address, "")
    gateway: str = _key("Gateway", _address, "")
    nics: tuple[Nic, ...] = _key("Nics", _nics, ())
    bridged: bool = _key("Bridged", _boolean, False)
    bridge_name: str = _key("BridgeName", _string, "")
    tap_name: str = _key("TapName", _string, "")
    mounts: tuple[str, ...] = _key("Mounts", _paths, ())


@attrs.frozen(kw_only=True)
class OpsConfig:
    """An OPS configuration. Fields whose keys the file does not have are empty.

    Attributes:
        program: the program's path.
        args: its arguments, without its name.
        env: its environment; not in the repr.
        files: files in the image, at the path that they have on this machine below ``target_root`` or beside the file.
        dirs: directories, likewise.
        map_dirs: paths on this machine whose last part may be a pattern of names, and where in the image they go.
        mounts: volumes by label, and where they are mounted; ``":ro"`` behind that for read-only.
        name_servers: of ``/etc/resolv.conf``.
        boot: the boot loader, ``boot.img``.
        kernel: the kernel, ``kernel.img``.
        klib_dir: where kernel libraries are.
        klibs: those that are loaded.
        base_volume_size: bytes that the image has at least; ``None`` where it is not given.
        passthrough: entries of the root tuple as they are.
        debug_flags: flags of the root tuple that are set.
        reboot_on_exit: start again when the program fails.
        target_root: the directory in which absolute paths on this machine are looked for first.
        volumes_dir: where volumes are kept.
        run: see :class:`RunConfig`.
        directory: of the file, to which its relative paths are relative.
    """

    program: str = _key("Program", _string, "")
    args: tuple[str, ...] = _key("Args", _strings, ())
    env: Mapping[str, str] = attrs.field(
        factory=FrozenMap, repr=redacted, metadata={"key": "Env", "check": _environment}
    )
    files: tuple[str, ...] = _key("Files", _paths, ())
    dirs: tuple[str, ...] = _key("Dirs", _paths, ())
    map_dirs: Mapping[str, str] = _key("MapDirs", _pairs, FrozenMap())
    mounts: Mapping[str, str] = _key("Mounts", _pairs, FrozenMap())
    name_servers: tuple[str, ...] = _key("NameServers", _servers, ())
    boot: str = _key("Boot", _string, "")
    kernel: str = _key("Kernel", _string, "")
    klib_dir: str = _key("KlibDir", _string, "")
    klibs: tuple[str, ...] = _key("Klibs", _tokens, ())
    base_volume_size: int | None = _key("BaseVolumeSz", _size, None)
    passthrough: Mapping[str, Any] = _key("ManifestPassthrough", _passthrough, FrozenMap())
    debug_flags: tuple[str, ...] = _key("Debugflags", _tokens, ())
    reboot_on_exit: bool = _key("RebootOnExit", _boolean, False)
    target_root: str = _key("TargetRoot", _string, "")
    volumes_dir: str = _key("VolumesDir", _string, "")
    run: RunConfig = attrs.field(factory=RunConfig, metadata={"key": "RunConfig", "check": _run_config})
    directory: str = "/"

    @classmethod
    def parse(cls, data: bytes | str, *, directory: str = "/") -> OpsConfig:
        """A configuration from its JSON.

        Raises:
            InvalidConfigError: it is none; the field is the key, such as ``"RunConfig.Memory"``.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise fail("config_path", f"the OPS configuration is no JSON: {error}") from error
        if not isinstance(document, dict):
            raise fail("config_path", f"the OPS configuration must be an object, not {_named(document)}")
        return attrs.evolve(_parse(cls, document, ""), directory=directory)

    def host_path(self, path: str) -> str:
        """A path on this machine from one of the file's: absolute ones below ``target_root`` where they are there."""
        if path.startswith("/"):
            inside = f"{self.root.rstrip('/')}{path}"
            return inside if self.target_root and os.path.lexists(inside) else path
        return f"{self.directory.rstrip('/')}/{path}"

    @property
    def root(self) -> str:
        """The directory that ``target_root`` is; ``"/"`` where it is not given."""
        return os.path.normpath(Path(self.directory, self.target_root)) if self.target_root else "/"


def _parse(kind: type[T], document: Mapping[str, Any], prefix: str) -> T:
    fields = {
        entry.metadata["key"].casefold(): entry
        for entry in attrs.fields(kind)  # type: ignore[arg-type]  # each of the three classes is one of attrs
        if "key" in entry.metadata
    }
    values: dict[str, Any] = {}
    for key, value in document.items():
        entry = fields.get(key.casefold())
        if entry is None:
            logger.warning("the OPS configuration has the key %s, which is not honoured", f"{prefix}{key}"[:200])
        elif value is not None:
            # As in Go, null leaves the default.
            values[entry.name] = entry.metadata["check"](f"{prefix}{entry.metadata['key']}", value)
    return kind(**values)


def read_ops_config(path: str | os.PathLike[str]) -> OpsConfig:
    """The configuration in a file. Blocks the thread for a read.

    Raises:
        InvalidConfigError: it cannot be read, or is none.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise fail("config_path", f"{os.fspath(path)!r} cannot be read: {reason}") from error
    if len(data) > _MAX_FILE:
        raise fail("config_path", f"{os.fspath(path)!r} has more than {_MAX_FILE} bytes")
    return OpsConfig.parse(data, directory=str(Path(path).absolute().parent))
