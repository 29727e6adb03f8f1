"""What an image is built from, and what a build tells."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Literal, cast

import attrs

from asyncctr.core.validation import (
    FrozenMap,
    check_path,
    check_text,
    check_token,
    checked,
    env_key,
    environment,
    fail,
    host_address,
    is_a,
    label_key,
    mapping,
    path_text,
    redacted,
    sequence,
    texts,
)

__all__ = [
    "BuildEvent",
    "BuildInput",
    "BuildResult",
    "ContainerdBuildInput",
    "DockerBuildInput",
    "DockerfileBuildInput",
    "FirecrackerBuildInput",
    "NanosBuildInput",
]

BuildContext = str | os.PathLike[str] | bytes | AsyncIterable[bytes]


def _context(value: BuildContext) -> BuildContext:
    if isinstance(value, bytes | AsyncIterable):
        return value
    if isinstance(value, str | os.PathLike):
        path = os.fspath(value)
        return check_text("context", path, empty=False)
    raise fail("context", "must be a directory or tar file, tar bytes, or an async iterable of tar bytes")


def _show_context(value: BuildContext) -> str:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else repr(value)


def _secret(field: str, value: object) -> bytes | str:
    if isinstance(value, os.PathLike):
        return _host_path(field, value)
    if not isinstance(value, bytes):
        raise fail(field, "must be bytes (the secret) or a path to it")
    return value


def _secrets(value: Mapping[str, bytes | os.PathLike[str]]) -> FrozenMap[str, bytes | str]:
    return mapping("secrets", value, check_token, _secret)


def _ssh(value: Iterable[str]) -> tuple[str, ...]:
    return sequence("ssh", value, check_token)


def _cache_from(value: Iterable[str]) -> tuple[str, ...]:
    return sequence("cache_from", value, check_token)


def _cache_to(value: Iterable[str]) -> tuple[str, ...]:
    return sequence("cache_to", value, check_token)


def _tags(value: Iterable[str]) -> tuple[str, ...]:
    return sequence("tags", value, check_token)


def _klibs(value: Iterable[str]) -> tuple[str, ...]:
    return sequence("klibs", value, check_token)


def _build_args(value: Mapping[str, str] | Iterable[str]) -> FrozenMap[str, str]:
    return environment("build_args", value)


def _labels(value: Mapping[str, str]) -> FrozenMap[str, str]:
    return mapping("labels", value, label_key, check_text)


def _extra_hosts(value: Mapping[str, str]) -> FrozenMap[str, str]:
    return mapping("extra_hosts", value, check_token, host_address)


def _outputs(value: Mapping[str, str | os.PathLike[str]]) -> FrozenMap[str, str]:
    frozen = mapping("outputs", value, check_token, _host_path)
    for kind in frozen:
        if kind not in ("oci", "docker", "tar", "local"):
            raise fail("outputs", f"{kind!r} is no kind of output; use 'oci', 'docker', 'tar' or 'local'")
    return frozen


@attrs.frozen(kw_only=True)
class DockerfileBuildInput:
    """A Dockerfile and its context. Each field is honoured or refused by the builder.

    Attributes:
        context: a directory, a tar file, tar bytes, an async iterable of tar bytes, or a git URL.
        dockerfile: its path in the context, or an absolute path outside it.
        build_args: values for ``ARG``; not in the repr.
        target: the stage to build; empty for the last.
        platform: ``"os/arch[/variant]"``; empty for the builder's own.
        labels: added to the image.
        secrets: by id, for ``RUN --mount=type=secret``: the bytes, or a path to them; not in the repr.
        ssh: agent sockets or key files by ``"id=path"``; ``"default"`` for the running agent.
        cache_from: cache sources, such as ``"type=registry,ref=…"`` or an image name.
        cache_to: cache targets, likewise.
        no_cache: ignore the cache.
        pull: always ask the registry for base images.
        network_mode: of ``RUN``: empty for the builder's own, ``"none"`` or ``"host"``.
        extra_hosts: names and addresses added to the hosts file of ``RUN``.
        tags: further names of the image, beside the one it is built as.
        outputs: where the result also goes, by kind: ``"oci"``, ``"docker"`` and ``"tar"`` to a file, ``"local"`` to a directory.
    """

    context: BuildContext = attrs.field(converter=_context, repr=_show_context)
    dockerfile: str = attrs.field(default="Dockerfile", validator=checked(check_text, empty=False))
    build_args: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=_build_args, repr=redacted)
    target: str = attrs.field(default="", validator=checked(check_text))
    platform: str = attrs.field(default="", validator=checked(check_text))
    labels: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=_labels)
    secrets: Mapping[str, bytes | str] = attrs.field(factory=FrozenMap, converter=_secrets, repr=redacted)
    ssh: tuple[str, ...] = attrs.field(default=(), converter=_ssh)
    cache_from: tuple[str, ...] = attrs.field(default=(), converter=_cache_from)
    cache_to: tuple[str, ...] = attrs.field(default=(), converter=_cache_to)
    no_cache: bool = attrs.field(default=False, validator=is_a(bool))
    pull: bool = attrs.field(default=False, validator=is_a(bool))
    network_mode: str = attrs.field(default="", validator=checked(check_text))
    extra_hosts: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=_extra_hosts)
    tags: tuple[str, ...] = attrs.field(default=(), converter=_tags)
    outputs: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=_outputs)


DockerBuildInput = DockerfileBuildInput
ContainerdBuildInput = DockerfileBuildInput


def _path(value: str | os.PathLike[str]) -> str:
    return cast("str", path_text(value))


@attrs.frozen(kw_only=True)
class FirecrackerBuildInput:
    """A guest kernel and a root filesystem image, both as paths."""

    kernel: str = attrs.field(converter=_path, validator=checked(check_text, empty=False))
    rootfs: str = attrs.field(converter=_path, validator=checked(check_text, empty=False))


def _host_path(field: str, path: object) -> str:
    return check_text(field, path_text(path), empty=False)


def _files(value: Mapping[str, str | os.PathLike[str]]) -> FrozenMap[str, str]:
    return mapping("files", value, check_path, _host_path)


def _dirs(value: Mapping[str, str | os.PathLike[str]]) -> FrozenMap[str, str]:
    return mapping("dirs", value, check_path, _host_path)


def _map_dirs(value: Mapping[str, str | os.PathLike[str]]) -> FrozenMap[str, str]:
    return mapping("map_dirs", value, check_path, _host_path)


def _arguments(value: Iterable[str]) -> tuple[str, ...]:
    return sequence("args", value, check_text)


def _env(value: Mapping[str, str] | Iterable[str]) -> FrozenMap[str, str]:
    return environment("env", value)


def _mounts(value: Mapping[str, str]) -> FrozenMap[str, str]:
    return mapping("mounts", value, env_key, check_path)


@attrs.frozen(kw_only=True)
class NanosBuildInput:
    """A static or dynamic ELF program and what its unikernel image holds beside it.

    Attributes:
        program: the path of the program on this machine; empty for that of the OPS configuration.
        args: its arguments, without the program's name.
        env: its environment; not in the repr.
        files: files in the image, by absolute path in the image, from paths on this machine.
        dirs: directories with all that is in them, likewise.
        map_dirs: directories whose contents go below the path, likewise. The last part may be a pattern, such as
            ``"static/*.html"``: what has such a name goes there, from whatever depth.
        klibs: kernel libraries loaded, such as ``"tls"``.
        mounts: volumes by name and where they are mounted.
    """

    program: str = attrs.field(default="", converter=_path, validator=checked(check_text))
    args: tuple[str, ...] = attrs.field(default=(), converter=_arguments)
    env: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=_env, repr=redacted)
    files: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=_files)
    dirs: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=_dirs)
    map_dirs: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=_map_dirs)
    klibs: tuple[str, ...] = attrs.field(default=(), converter=_klibs)
    mounts: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=_mounts)


BuildInput = DockerfileBuildInput | FirecrackerBuildInput | NanosBuildInput


@attrs.frozen(kw_only=True)
class BuildEvent:
    """One thing a build tells.

    Attributes:
        kind: ``"vertex"`` a step began or ended, ``"log"`` its output, ``"progress"`` a transfer, ``"warning"``.
        step: the step it concerns, as the builder names it.
        message: the step's state, the output text, or the warning.
        current: what a transfer has moved, in bytes.
        total: of how many; ``None`` when that is not known.
        cached: whether the step came from the cache.
    """

    kind: Literal["vertex", "log", "progress", "warning"]
    step: str = ""
    message: str = ""
    current: int | None = None
    total: int | None = None
    cached: bool = False


@attrs.frozen(kw_only=True)
class BuildResult:
    """What a build gave: the image's digest, its names, where else it went, and how many steps came from the cache."""

    digest: str
    tags: tuple[str, ...] = ()
    outputs: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=texts)
    warnings: tuple[str, ...] = ()
    cached_steps: int = 0
