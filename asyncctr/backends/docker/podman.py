"""What Podman's Docker-compatible socket would garble: refused before it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncctr.backends.docker.errors import BACKEND
from asyncctr.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from asyncctr.core.config import ContainerConfig

__all__ = ["check_for_podman"]

_SEPARATORS = frozenset(',"\r\n')


def check_for_podman(config: ContainerConfig) -> None:
    """Refuse values that Podman takes apart where Docker passes them on.

    It writes each mount as one line of comma-separated options, unquoted, and each label as ``key=value``
    (cmd/podman/common/create_opts.go, ContainerCreateToContainerCLIOpts), so that a path could bring options of its own.

    Raises:
        InvalidConfigError: there is one.
    """
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
