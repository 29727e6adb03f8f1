"""Named volumes: directories with labels, kept when containers go."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from asyncctr.backends.containerd.errors import host_files
from asyncctr.core.backend import Volume
from asyncctr.core.errors import ConflictError, NotFoundError
from asyncctr.core.validation import FrozenMap, check_object_name
from asyncctr.transport.ownership import Owner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["VolumeStore"]

_DATA = "_data"
_LABELS = "labels.json"


class VolumeStore:
    """The volumes of one containerd namespace. All of it blocks on the disk; removing one may take long.

    Args:
        directory: which no other namespace or daemon uses.
        backend: for errors.
    """

    def __init__(self, directory: Path, *, backend: str) -> None:
        self._directory = directory
        self._backend = backend

    def path(self, name: str) -> str:
        """Where a volume's data is, whether or not there is one."""
        return str(self._directory / check_object_name("source", name) / _DATA)

    def exists(self, name: str) -> bool:
        """Whether there is a volume of that name."""
        return os.path.isdir(self.path(name))  # noqa: PTH112  # one look

    def ensure(self, name: str, *, like: os.stat_result | None = None) -> None:
        """Make a volume, unless there is one of that name.

        Args:
            name: its name.
            like: whose owner, group and mode the new one's root is to have.
        """
        try:
            self.create(name, {}, like=like)
        except ConflictError:
            # Made with labels, which a mount does not speak of.
            pass

    def create(self, name: str, labels: Mapping[str, str], *, like: os.stat_result | None = None) -> Volume:
        """Make a volume; one that is there with the same labels is returned.

        Raises:
            ConflictError: there is one with other labels.
            ResourceExhaustedError: the disk is full, or no descriptor is left.
        """
        directory = self._directory / check_object_name("name", name)
        new = self._new()
        with host_files(f"the volume {name!r}", name):
            self._directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            try:
                data = new / _DATA
                data.mkdir(parents=True)
                if like is not None:
                    # The owner first, which takes bits of the mode away.
                    os.chown(data, like.st_uid, like.st_gid)
                    data.chmod(stat.S_IMODE(like.st_mode))
                (new / _LABELS).write_text(json.dumps(dict(labels)), encoding="utf-8")
                # There whole, or not at all.
                new.rename(directory)
            except OSError:
                shutil.rmtree(new, ignore_errors=True)
                found = self._read(directory)
                if found is None:
                    raise
                if dict(found.labels) != dict(labels):
                    message = f"there is a volume {name!r} with other labels"
                    raise ConflictError(message, backend=self._backend, resource=name) from None
                return found
        return Volume(name=name, labels=FrozenMap(labels))

    def _new(self) -> Path:
        """A name that no volume has, and nobody else at the same time; with who uses it, so that it can be removed when that is gone."""
        owner = str(Owner.current()).replace("/", "_")
        return self._directory / f".{owner}.{secrets.token_hex(8)}"

    def sweep(self) -> None:
        """Remove what processes left that were killed while they made or removed a volume."""
        try:
            names = [entry.name for entry in os.scandir(self._directory) if entry.name.startswith(".")]
        except FileNotFoundError:
            return
        for name in names:
            owner = Owner.parse(name[1:].rpartition(".")[0].replace("_", "/"))
            if owner is not None and owner.has_ended:
                shutil.rmtree(self._directory / name, ignore_errors=True)

    def list(self, labels: Mapping[str, str]) -> Sequence[Volume]:
        """The volumes that have all the labels, by name."""
        try:
            names = sorted(entry.name for entry in os.scandir(self._directory) if not entry.name.startswith("."))
        except FileNotFoundError:
            return ()
        found = (self._read(self._directory / name) for name in names)
        return tuple(volume for volume in found if volume and labels.items() <= volume.labels.items())

    def remove(self, name: str, *, used: Iterable[str]) -> None:
        """Remove a volume and its data.

        Args:
            name: which.
            used: the names of volumes that containers have mounted.

        Raises:
            ConflictError: a container uses it.
            NotFoundError: there is none.
        """
        directory = self._directory / check_object_name("name", name)
        if name in used:
            message = f"the volume {name!r} is in use: remove the containers that have it first"
            raise ConflictError(message, backend=self._backend, resource=name)
        gone = self._new()
        with host_files(f"the volume {name!r}", name):
            try:
                directory.rename(gone)
            except FileNotFoundError as error:
                message = f"there is no volume {name!r}"
                raise NotFoundError(message, backend=self._backend, resource=name) from error
            shutil.rmtree(gone)

    def _read(self, directory: Path) -> Volume | None:
        try:
            labels = json.loads((directory / _LABELS).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Volume(name=directory.name, labels=FrozenMap(labels))
