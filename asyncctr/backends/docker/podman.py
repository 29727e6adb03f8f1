"""What Podman's Docker-compatible socket would garble: refused before it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncctr.backends.docker.errors import BACKEND
from asyncctr.core.errors import ImageNotFoundError, InvalidConfigError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncctr.core.config import ContainerConfig

__all__ = ["check_for_podman", "check_platform"]

_SEPARATORS = frozenset(',"\r\n')


def check_for_podman(config: ContainerConfig) -> None:
    """Refuse values that Podman takes apart where Docker passes them on.

    It writes each mount as one line of comma-separated options, unquoted, and each label as ``key=value``
    (cmd/podman/common/create_opts.go, ContainerCreateToContainerCLIOpts), so that a path could bring options of its own.

    Raises:
        InvalidConfigError: there is one.
        UnsupportedError: an unlimited swap, which it drops, or a seccomp profile, which it takes for the path of one.
    """
    if config.resources.memory_swap == -1:
        message = (
            "resources.memory_swap: Podman's Docker-compatible API drops an unlimited swap (-1); name a number of bytes"
        )
        raise UnsupportedError(message, field="resources.memory_swap.unlimited", backend=BACKEND)
    if config.seccomp not in ("", "unconfined"):
        message = "seccomp: Podman's Docker-compatible API takes no profile; leave it unset, or use 'unconfined'"
        raise UnsupportedError(message, field="seccomp.profile", backend=BACKEND)
    paths = {
        "volumes": [path for volume in config.volumes for path in (volume.source, volume.destination)],
        "tmpfs": [tmpfs.destination for tmpfs in config.tmpfs],
    }
    for field, texts in paths.items():
        for text in texts:
            if _SEPARATORS.intersection(text):
                message = f"{field}: Podman's API takes no path with a comma, a double quote or a line end: {text!r}"
                raise InvalidConfigError(message, field=field, backend=BACKEND)
    for key in config.labels:
        if "=" in key:
            message = f"labels: Podman's API takes no key with an equals sign: {key!r}"
            raise InvalidConfigError(message, field="labels", backend=BACKEND)


def check_platform(image: Mapping[str, object], wanted: str, name: str) -> None:
    """Refuse an image, as its inspect document tells it, that is for another platform: Podman's create does not look.

    Raises:
        ImageNotFoundError: it is; Docker's own answer to the same.
    """
    system, architecture, *variant = wanted.split("/")
    has = (image.get("Os"), image.get("Architecture"), image.get("Variant") or "")
    if has[:2] != (system, architecture) or (variant and has[2] and has[2] != variant[0]):
        message = f"image {name} was found but is for {'/'.join(str(part) for part in has if part)}, not for {wanted}"
        raise ImageNotFoundError(message, backend=BACKEND, resource=name, status=404)
