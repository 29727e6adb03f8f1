"""Named volumes of backends without a daemon that keeps any: directories with labels, there whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import secrets
import shutil
from typing import TYPE_CHECKING, Final

from asyncctr.core.backend import Volume
from asyncctr.core.errors import ConflictError, NotFoundError
from asyncctr.core.validation import FrozenMap, check_object_name
from asyncctr.transport.hostfiles import host_files
from asyncctr.transport.ownership import Owner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["VolumeStore"]

_LABELS: Final = "labels.json"


class VolumeStore:
    """The volumes of one directory. What a new one has is a backend's to say.

    Args:
        directory: which nobody else uses.
        backend: for errors.
    """

    def __init__(self, directory: Path, *, backend: str) -> None:
        self._directory = directory
        self._backend = backend

    def _furnish(self, new: Path, name: str) -> None:
        """Make what a new volume has, in its directory. It blocks on the disk, shortly."""
        raise NotImplementedError

    async def _discard(self, directory: Path) -> str:
        """Remove a directory that nobody finds any more. What keeps it; empty when it is gone."""
        try:
            await asyncio.to_thread(shutil.rmtree, directory)
        except OSError as error:
            return str(error)
        return ""

    def _place(self, name: str, field: str = "source") -> Path:
        """The directory of a volume, whether or not there is one."""
        return self._directory / check_object_name(field, name)

    def create(self, name: str, labels: Mapping[str, str]) -> Volume:
        """Make a volume; one that is there with the same labels is returned. It blocks on the disk, shortly.

        Raises:
            ConflictError: there is one with other labels.
            ResourceExhaustedError: the disk is full, or no descriptor is left.
        """
        directory = self._place(name, "name")
        new = self._new()
        with host_files(f"the volume {name!r}", name, backend=self._backend):
            self._directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            try:
                new.mkdir()
                self._furnish(new, name)
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

    async def sweep(self) -> None:
        """Remove what processes left that were killed while they made, filled or removed a volume."""
        for name in await asyncio.to_thread(self._names):
            owner = Owner.parse(name[1:].rpartition(".")[0].replace("_", "/")) if name.startswith(".") else None
            if owner is not None and owner.has_ended:
                await self._discard(self._directory / name)

    def _names(self) -> list[str]:
        try:
            return sorted(entry.name for entry in os.scandir(self._directory))
        except FileNotFoundError:
            return []

    def list(self, labels: Mapping[str, str]) -> Sequence[Volume]:
        """The volumes that have all the labels, by name. It blocks on the disk, shortly."""
        found = (self._read(self._directory / name) for name in self._names() if not name.startswith("."))
        return tuple(volume for volume in found if volume and labels.items() <= volume.labels.items())

    async def remove(self, name: str, *, used: Iterable[str]) -> None:
        """Remove a volume and its data.

        Args:
            name: which.
            used: the names of volumes that containers have mounted.

        Raises:
            ConflictError: a container uses it.
            NotFoundError: there is none.
        """
        directory = self._place(name, "name")
        if name in used:
            message = f"the volume {name!r} is in use: remove the containers that have it first"
            raise ConflictError(message, backend=self._backend, resource=name)
        gone = self._new()
        with host_files(f"the volume {name!r}", name, backend=self._backend):
            try:
                directory.rename(gone)
            except FileNotFoundError as error:
                message = f"there is no volume {name!r}"
                raise NotFoundError(message, backend=self._backend, resource=name) from error
            if words := await self._discard(gone):
                raise OSError(errno.EIO, words)

    def _read(self, directory: Path) -> Volume | None:
        try:
            labels = json.loads((directory / _LABELS).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Volume(name=directory.name, labels=FrozenMap(labels))
