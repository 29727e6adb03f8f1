"""Which runtime to talk to, and how: one configuration class per backend."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, cast

import attrs

from asyncctr.core.validation import (
    FrozenMap,
    check_text,
    check_token,
    checked,
    fail,
    is_a,
    mapping,
    member,
    path_text,
    positive,
    sequence,
)

__all__ = [
    "BackendConfig",
    "BackendType",
    "ContainerdConfig",
    "DockerConfig",
    "FirecrackerConfig",
    "NanosConfig",
    "RootlessMode",
    "TLSConfig",
]


class BackendType(StrEnum):
    """The built-in backends. A backend's type is any string, so that others can add theirs."""

    CONTAINERD = "containerd"
    DOCKER = "docker"
    FIRECRACKER = "firecracker"
    NANOS = "nanos"


class RootlessMode(StrEnum):
    """Whether containers run without root."""

    AUTO = "auto"
    """By the user that runs this process."""
    ENABLED = "enabled"
    """Always; refused as root."""
    DISABLED = "disabled"
    """Never."""


def _rootless_mode(value: RootlessMode | str) -> RootlessMode:
    return member("rootless_mode", RootlessMode, value)


def _mirrors(value: Mapping[str, Sequence[str]]) -> FrozenMap[str, tuple[str, ...]]:
    return mapping("registry_mirrors", value, check_token, lambda name, entry: sequence(name, entry, check_token))


def _registries(value: Sequence[str]) -> tuple[str, ...]:
    return sequence("insecure_registries", value, check_token)


def _path(value: str | os.PathLike[str] | None) -> str:
    return "" if value is None else cast("str", path_text(value))


def path_field() -> Any:
    """An optional path: empty where it is not given."""
    return attrs.field(default="", converter=_path, validator=checked(check_text))


def _version(value: str) -> str:
    return str(value).removeprefix("v")


def _show_address(address: str) -> str:
    # Nothing takes a password in an address, but somebody may have written one.
    return repr(re.sub(r"//[^/@]*:[^/]*@", "//***@", address))


def _seconds(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1e9:
        raise fail(attribute.name, f"must be a positive number of seconds, not {value!r}")


@attrs.frozen(kw_only=True)
class TLSConfig:
    """Files for a TLS connection, PEM.

    Attributes:
        ca_file: the certificates to trust; empty for the system's.
        cert_file: the client's certificate.
        key_file: its key.
        verify: check the server's certificate and name.
    """

    ca_file: str = path_field()
    cert_file: str = path_field()
    key_file: str = path_field()
    verify: bool = attrs.field(default=True, validator=is_a(bool))


@attrs.frozen(kw_only=True)
class BackendConfig:
    """What every backend's configuration has.

    Attributes:
        op_timeout: seconds the runtime has for each answer, but for wait, follow and transfers that progress.
        cleanup_timeout: seconds that clean-up after a failure or cancellation may take.
    """

    backend_type: ClassVar[str] = ""

    op_timeout: float = attrs.field(default=60.0, validator=_seconds)
    cleanup_timeout: float = attrs.field(default=10.0, validator=_seconds)


@attrs.frozen(kw_only=True)
class DockerConfig(BackendConfig):
    """Docker, or anything that speaks its API, such as Podman's socket.

    Attributes:
        host: ``unix://``, ``tcp://``, ``http://``, ``https://`` or ``ssh://``; empty for what the environment says
            (``DOCKER_HOST``, ``DOCKER_CONTEXT``, the current Docker context), else the default sockets.
        context: a Docker context by name; empty for the above.
        api_version: such as ``"1.41"``; empty negotiates the newest that both sides speak.
        tls: for ``tcp://`` and ``https://``; ``None`` for what the context or environment says.
        max_concurrency: create, start and remove calls under way at once. Two cores are full at 8, and old engines have been
            seen to lock up at 32.
        keepalive_idle: seconds of silence after which TCP asks whether a remote engine is still there; streams may be silent
            for ever as long as it is.
        builder: of images: ``"buildkit"`` or ``"classic"``; empty for BuildKit where the engine has it, unless
            ``DOCKER_BUILDKIT=0`` is in the environment.
    """

    backend_type: ClassVar[str] = BackendType.DOCKER.value

    host: str = attrs.field(default="", validator=checked(check_text), repr=_show_address)
    context: str = attrs.field(default="", validator=checked(check_text))
    api_version: str = attrs.field(default="", converter=_version)
    tls: TLSConfig | None = attrs.field(default=None, validator=is_a(TLSConfig, type(None)))
    max_concurrency: int = attrs.field(default=8, validator=checked(positive, required=True))
    keepalive_idle: float = attrs.field(default=30.0, validator=_seconds)
    builder: str = attrs.field(default="", validator=checked(check_text))

    def __attrs_post_init__(self) -> None:
        if self.builder not in ("", "buildkit", "classic"):
            raise fail("builder", f"must be 'buildkit' or 'classic', not {self.builder!r}")
        if self.host and self.context:
            raise fail("context", "give a host or a context, not both")
        if self.api_version:
            major, _, minor = self.api_version.partition(".")
            if not (major.isdecimal() and minor.isdecimal()):
                raise fail("api_version", f"must look like '1.41', not {self.api_version!r}")


@attrs.frozen(kw_only=True)
class ContainerdConfig(BackendConfig):
    """containerd.

    Attributes:
        socket_path: empty finds it, by ``rootless_mode``.
        namespace: the containerd namespace that holds everything.
        rootless_mode: see :class:`RootlessMode`.
        rootlesskit_path: of the program; empty looks in PATH, as for the others.
        fuse_overlayfs_path: likewise.
        auto_start: start a private containerd where none answers.
        private: use the private containerd, whether or not another one answers.
        containerd_path: of the program.
        registry_mirrors: by registry, the addresses that are asked first, such as
            ``{"docker.io": ["https://mirror.example"]}``.
        insecure_registries: registries that are spoken to without TLS. Those on this machine's loopback need not be named.
    """

    backend_type: ClassVar[str] = BackendType.CONTAINERD.value

    socket_path: str = path_field()
    namespace: str = attrs.field(default="asyncctr", validator=checked(check_text, empty=False))
    rootless_mode: RootlessMode = attrs.field(default=RootlessMode.AUTO, converter=_rootless_mode)
    rootlesskit_path: str = path_field()
    fuse_overlayfs_path: str = path_field()
    auto_start: bool = attrs.field(default=False, validator=is_a(bool))
    private: bool = attrs.field(default=False, validator=is_a(bool))
    containerd_path: str = path_field()
    registry_mirrors: Mapping[str, tuple[str, ...]] = attrs.field(factory=FrozenMap, converter=_mirrors)
    insecure_registries: tuple[str, ...] = attrs.field(default=(), converter=_registries)

    def __attrs_post_init__(self) -> None:
        if self.private and self.socket_path:
            raise fail("private", "give a socket_path or private=True, not both")


@attrs.frozen(kw_only=True)
class FirecrackerConfig(BackendConfig):
    """Firecracker.

    Attributes:
        socket_path: of the API socket; empty for one per VM in a private directory.
        auto_download: fetch a release where no binary is found; its checksum is verified.
        version: of that release, such as ``"v1.14.4"``; empty for the newest known.
        binary_path: of the program; empty looks in PATH.
        kernel_path: of the guest kernel; empty finds one.
    """

    backend_type: ClassVar[str] = BackendType.FIRECRACKER.value

    socket_path: str = path_field()
    auto_download: bool = attrs.field(default=False, validator=is_a(bool))
    version: str = attrs.field(default="", validator=checked(check_text))
    binary_path: str = path_field()
    kernel_path: str = path_field()


@attrs.frozen(kw_only=True)
class NanosConfig(BackendConfig):
    """Nanos unikernels under QEMU.

    Attributes:
        config_path: of an OPS configuration file, JSON.
        work_dir: where images, volumes and state are kept; empty for the user's data directory.
        kernel_path: of ``kernel.img``; empty looks below ``$OPS_HOME`` and ``~/.ops``.
        qemu_path: of the program; empty looks in PATH.
        version: of the kernel, such as ``"0.1.54"``; empty for the newest that is there.
        auto_download: fetch the release of that version where it is not there; its checksum is verified.
        release_url: where releases are; empty for ``$ASYNCCTR_NANOS_RELEASES``, else where Nanos publishes them.
        release_sha256: the checksum of the release's tar, in hexadecimal digits; empty for that which the server has beside it.
    """

    backend_type: ClassVar[str] = BackendType.NANOS.value

    config_path: str = path_field()
    work_dir: str = path_field()
    kernel_path: str = path_field()
    qemu_path: str = path_field()
    version: str = attrs.field(default="", converter=_version, validator=checked(check_text))
    auto_download: bool = attrs.field(default=False, validator=is_a(bool))
    release_url: str = attrs.field(default="", validator=checked(check_text))
    release_sha256: str = attrs.field(default="", validator=checked(check_text))
