"""The kernel: where one is, which of several, what is missing, and its download.

The places are those of OPS: a directory for each version below ``$OPS_HOME/.ops`` and ``~/.ops``, with ``kernel.img``, ``boot.img``
and the kernel's libraries in ``klibs/``. What is downloaded here goes to a directory of the SDK's own, which is looked into as
well. Releases are tars of these files at ``<base>/<version>/nanos-release-linux-<version>.tar.gz``.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.backends.nanos.image_index import BACKEND
from asyncctr.core.errors import BackendUnavailableError
from asyncctr.core.validation import fail
from asyncctr.vm.releases import Release, fetch_release

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncctr.backends.nanos.ops_config import OpsConfig
    from asyncctr.core.backend_config import NanosConfig
    from asyncctr.core.images import ProgressCallback

__all__ = ["RELEASES", "Kernel", "find_kernel", "kernel_homes", "version_key"]

RELEASES: Final = "https://storage.googleapis.com/nanos/release"
"""Where the releases of Nanos are."""

RELEASES_VARIABLE: Final = "ASYNCCTR_NANOS_RELEASES"
"""The variable of the environment that names another place, such as a mirror."""

_KERNEL: Final = "kernel.img"
_BOOT: Final = "boot.img"
_KLIBS: Final = "klibs"
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
_LEADING: Final = re.compile(r"v?([0-9]+(?:\.[0-9]+)*)")
_NUMBER: Final = re.compile(r"[0-9]+")
_LONGEST: Final = 256


@attrs.frozen(kw_only=True)
class Kernel:
    """A kernel on this machine.

    Attributes:
        path: of ``kernel.img``.
        boot: of ``boot.img``, which only a disk that boots by itself needs; ``None`` where there is none.
        klib_dir: of its libraries; ``None`` where there are none.
        version: as its directory is called; empty where that tells none.
    """

    path: Path
    boot: Path | None = None
    klib_dir: Path | None = None
    version: str = ""


def version_key(version: str) -> tuple[tuple[int, ...], bool, tuple[int, ...], str]:
    """What versions are ordered by: their numbers; of two with the same, one with words behind them is the older."""
    leading = _LEADING.match(version)
    numbers = leading[1] if leading else ""
    words = version[leading.end() :] if leading else version
    return _numbers(numbers), not words, _numbers(words), words


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in _NUMBER.findall(text[:_LONGEST]))


def kernel_homes(environ: Mapping[str, str], downloads: Path) -> tuple[Path, ...]:
    """The directories that have one for each version: those of OPS, and that of what was downloaded here."""
    homes = [Path(environ[name], ".ops") for name in ("OPS_HOME", "HOME") if environ.get(name)]
    return tuple(dict.fromkeys((*homes, downloads)))


async def find_kernel(
    config: NanosConfig,
    downloads: Path,
    *,
    ops: OpsConfig | None = None,
    environ: Mapping[str, str] | None = None,
    on_progress: ProgressCallback | None = None,
) -> Kernel:
    """The kernel to use: that of the configuration, that of the OPS configuration, the newest of those that are there.

    With ``auto_download``, a version that is named and not there is downloaded.

    Args:
        config: the backend's configuration.
        downloads: the directory for what is downloaded.
        ops: the OPS configuration, if any.
        environ: the environment; ``None`` for this process's.
        on_progress: is told of a download.

    Raises:
        BackendUnavailableError: there is none, or the download failed; the message says what to do.
        InvalidConfigError: the version is none.
        NotFoundError: there is no such release.
        DigestMismatchError: the release has another checksum.
        ResourceExhaustedError: there is no room for it.
    """
    environment = os.environ if environ is None else environ
    if config.version and not _VERSION.fullmatch(config.version):
        raise fail("version", f"must be a version such as '0.1.54', not {config.version!r}")
    homes = kernel_homes(environment, downloads)
    kernel = await asyncio.to_thread(_find, config, ops, homes)
    if kernel is None and config.auto_download:
        if not config.version:
            raise _unavailable("there is no Nanos kernel here, and 'version' does not say which one to download", homes)
        directory = await fetch_release(
            _release(config, environment),
            downloads / config.version,
            backend=BACKEND,
            timeout=config.op_timeout,
            on_progress=on_progress,
        )
        kernel = await asyncio.to_thread(_in_directory, directory)
    if kernel is None:
        wanted = f"no Nanos kernel of version {config.version}" if config.version else "no Nanos kernel"
        raise _unavailable(f"there is {wanted} here", homes)
    if ops is not None and ops.boot:
        kernel = attrs.evolve(kernel, boot=Path(ops.host_path(ops.boot)))
    return kernel


def _unavailable(text: str, homes: Sequence[Path]) -> BackendUnavailableError:
    message = (
        f"{text}: looked for <version>/{_KERNEL} in {', '.join(map(str, homes))}. Set 'kernel_path', run 'ops update', "
        "or set 'version' and auto_download=True"
    )
    return BackendUnavailableError(message, backend=BACKEND)


def _find(config: NanosConfig, ops: OpsConfig | None, homes: Sequence[Path]) -> Kernel | None:
    named = config.kernel_path or (ops.host_path(ops.kernel) if ops is not None and ops.kernel else "")
    if named:
        path = Path(named)
        if not path.is_file():
            message = (
                f"there is no kernel {named!r}; 'kernel_path' and, in an OPS configuration, 'Kernel' name the file"
            )
            raise BackendUnavailableError(message, backend=BACKEND)
        return _beside(path)
    found: list[Kernel] = []
    for home in homes:
        # Versions that no order knows, such as OPS's nightly builds, are taken when they are asked for.
        names = [config.version] if config.version else _versions(home)
        found += [kernel for name in names if (kernel := _in_directory(home / name)) is not None]
    # Of several of one version the first.
    return max(found, key=lambda kernel: version_key(kernel.version), default=None)


def _versions(home: Path) -> list[str]:
    try:
        # OPS keeps kernels for ARM beside the others.
        names = [path.name for path in home.iterdir() if not path.name.endswith("-arm")]
    except OSError:
        return []
    return [name for name in names if name[:1].isdecimal() and _VERSION.fullmatch(name)]


def _in_directory(directory: Path) -> Kernel | None:
    path = directory / _KERNEL
    return _beside(path) if path.is_file() else None


def _beside(path: Path) -> Kernel:
    boot, klibs = path.with_name(_BOOT), path.with_name(_KLIBS)
    name = path.absolute().parent.name
    return Kernel(
        path=path,
        boot=boot if boot.is_file() else None,
        klib_dir=klibs if klibs.is_dir() else None,
        version=name if name[:1].isdecimal() and _VERSION.fullmatch(name) else "",
    )


def _release(config: NanosConfig, environ: Mapping[str, str]) -> Release:
    base = (config.release_url or environ.get(RELEASES_VARIABLE, "") or RELEASES).rstrip("/")
    version = config.version
    return Release(
        name=f"Nanos {version}",
        url=f"{base}/{version}/nanos-release-linux-{version}.tar.gz",
        sha256=config.release_sha256,
        select=_member,
        required=frozenset({_KERNEL, _BOOT}),
    )


def _member(name: str) -> str | None:
    directory, _, file = name.rpartition("/")
    if directory == _KLIBS and file:
        return name
    return name if name in (_KERNEL, _BOOT) else None
