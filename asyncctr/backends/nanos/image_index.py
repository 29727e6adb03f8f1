"""The directory of the images that are here, as one process at a time changes it. All of it blocks the thread.

Layout, mode 0700: ``index.json`` has the names and documents, ``disks/`` a file for each disk's digest, and beside it what
machines need to know of it, ``uses/`` a directory for each image in use, with a link to the state of each VM that runs from it,
and ``lock`` is what whoever changes something holds. The disk of a new image is written in a directory of its own, which its writer keeps locked, and put into place once it is whole;
what a killed writer left is removed by the next one who changes something, or opens the directory. A use ends with the directory
that its link points to, so that a VM which nobody removed in order holds nothing back.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.backends.nanos.document import ImageDocument
from asyncctr.core.backend_config import BackendType
from asyncctr.core.errors import ImageNotFoundError, InvalidConfigError
from asyncctr.core.validation import fail
from asyncctr.oci.reference import Reference
from asyncctr.transport.filelock import locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["BACKEND", "ImageIndex", "Record", "StoredImage", "canonical", "new_name", "sync"]

BACKEND: Final = BackendType.NANOS.value

_VERSION: Final = 1
_PARTIAL: Final = ".partial-"
_DISK_SUFFIX: Final = ".img"


@attrs.frozen(kw_only=True)
class StoredImage:
    """An image that is here.

    Attributes:
        digest: of its document; what a build and a pull return.
        names: its references, in full; none where VMs use what has lost its names.
        disk: the disk's path; the file never changes.
        document: what is said of it.
    """

    digest: str
    names: tuple[str, ...]
    disk: Path
    document: ImageDocument


@attrs.define
class Record:
    """An image in the index, and its names."""

    document: ImageDocument
    names: list[str]


def canonical(name: str) -> str:
    """The name under which an image is kept: written out in full, with its tag."""
    return str(Reference.parse(name).with_default_tag())


def new_name(name: str) -> str:
    """The name that an image is to get, in full.

    Raises:
        InvalidConfigError: it is no reference, or one with a digest, which only what was pulled by one can have.
    """
    reference = Reference.parse(name).with_default_tag()
    if reference.digest is not None:
        raise fail("image", f"{name!r} has a digest, which an image has by what is in it; give it a tag")
    return str(reference)


def _is_digest(name: str) -> bool:
    return name.startswith("sha256:")


class ImageIndex:
    """The images in a directory.

    Attributes:
        directory: where they are.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._disks = directory / "disks"
        self._uses = directory / "uses"
        self._file = directory / "index.json"
        self._next = directory / ".index.json"

    def prepare(self) -> None:
        """Make the directory, and remove what killed writers left."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whatever the umask is, and whoever made it.
        self.directory.chmod(0o700)
        with self.changing():
            self._disks.mkdir(mode=0o700, exist_ok=True)
            self._uses.mkdir(mode=0o700, exist_ok=True)
            self._sweep(self.read())

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock, as whoever writes, uses or sweeps must."""
        with locked(self.directory / "lock"):
            yield

    def read(self) -> dict[str, Record]:
        """The images by their digest.

        Raises:
            InvalidConfigError: the index is broken, or of a later version.
        """
        try:
            document = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError) as error:
            raise self._broken("is no JSON") from error
        if isinstance(document, dict) and document.get("version", _VERSION) != _VERSION:
            raise self._broken(f"is of version {document['version']!r}; {_VERSION} is known")
        try:
            records = [
                Record(ImageDocument.parse(entry["document"].encode()), list(entry["names"]))
                for entry in document["images"]
            ]
        except (KeyError, TypeError, AttributeError, InvalidConfigError) as error:
            raise self._broken("is not what an index of images is") from error
        return {record.document.digest: record for record in records}

    def _broken(self, text: str) -> InvalidConfigError:
        return InvalidConfigError(f"{self._file} {text}; move it away", field="work_dir", backend=BACKEND)

    def write(self, images: Mapping[str, Record]) -> None:
        """Write the index, without images that have neither names nor users; then remove what no image needs."""
        kept = {digest: record for digest, record in images.items() if record.names or self.users(digest)}
        entries = [{"document": record.document.data.decode(), "names": record.names} for record in kept.values()]
        # Under one name, for nobody else writes meanwhile.
        file = os.open(self._next, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as writer:
            writer.write(json.dumps({"version": _VERSION, "images": entries}).encode())
            writer.flush()
            os.fsync(file)
        self._next.replace(self._file)
        sync(self.directory)
        self._sweep(kept)

    def _sweep(self, images: Mapping[str, Record]) -> None:
        self._next.unlink(missing_ok=True)
        disks = {self.disk(record.document) for record in images.values()}
        for path in self._disks.iterdir():
            if path.name.startswith(_PARTIAL):
                if not _is_locked(path):
                    shutil.rmtree(path)
            elif path.with_suffix(_DISK_SUFFIX) not in disks:
                path.unlink(missing_ok=True)
        uses = {_hex(digest) for digest in images}
        for path in self._uses.iterdir():
            if path.name not in uses:
                shutil.rmtree(path)

    def new_disk(self) -> tuple[Path, int]:
        """An empty directory for a disk, and its descriptor, which holds the lock that keeps it."""
        path = self._disks / f"{_PARTIAL}{secrets.token_hex(8)}"
        # Until it is locked, it looks like what a killed writer left.
        with self.changing():
            path.mkdir(mode=0o700)
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException:
                os.close(file)
                raise
        return path, file

    def place(self, path: Path, target: Path) -> None:
        """Put a whole disk where its digest is looked for; it is written to no more."""
        path.chmod(0o400)
        path.rename(target)
        sync(target.parent)

    def disk(self, document: ImageDocument) -> Path:
        """Where the disk of an image is."""
        return self._disks / f"{_hex(document.disk_digest)}{_DISK_SUFFIX}"

    def rename(self, images: Mapping[str, Record], digest: str, names: Sequence[str]) -> None:
        """Give an image names, which are taken from those that had them."""
        for record in images.values():
            record.names = [name for name in record.names if name not in names]
        images[digest].names = sorted({*images[digest].names, *names})

    def find(self, images: Mapping[str, Record], name: str) -> StoredImage:
        """The image of a name or digest.

        Raises:
            ImageNotFoundError: it is not here.
        """
        digest = name if _is_digest(name) else self._named(images, canonical(name))
        if digest not in images:
            message = f"there is no image {name!r} in {self.directory}: build, pull or load it"
            raise ImageNotFoundError(message, backend=BACKEND, resource=name)
        return self.stored(digest, images)

    @staticmethod
    def _named(images: Mapping[str, Record], reference: str) -> str:
        for digest, record in images.items():
            if reference in record.names:
                return digest
        # A registry's digest is of the manifest, and part of a name here; but the image's own will do as well.
        return Reference.parse(reference).digest or ""

    def unname(self, images: Mapping[str, Record], name: str) -> list[str]:
        """The names that are left to an image when one is taken away; by a digest of its own, none is."""
        names = images[self.find(images, name).digest].names
        reference = "" if _is_digest(name) else canonical(name)
        return [entry for entry in names if entry != reference] if reference in names else []

    def stored(self, digest: str, images: Mapping[str, Record]) -> StoredImage:
        """The image of a digest that there is."""
        record = images[digest]
        return StoredImage(
            digest=digest, names=tuple(record.names), disk=self.disk(record.document), document=record.document
        )

    def users(self, digest: str) -> list[str]:
        """The VMs that use an image; the link of one that is gone is removed."""
        try:
            links = sorted((self._uses / _hex(digest)).iterdir())
        except FileNotFoundError:
            return []
        for link in links:
            if not link.exists():
                link.unlink(missing_ok=True)
        return [link.name for link in links if link.is_symlink()]

    def use(self, digest: str, user: Path) -> None:
        """Note that the VM with that state directory uses an image."""
        uses = self._uses / _hex(digest)
        uses.mkdir(mode=0o700, exist_ok=True)
        link = uses / user.name
        link.unlink(missing_ok=True)
        link.symlink_to(user.absolute())

    def disuse(self, digest: str, user: Path) -> None:
        """Note that it does so no more."""
        (self._uses / _hex(digest) / user.name).unlink(missing_ok=True)


def _hex(digest: str) -> str:
    return digest.rpartition(":")[2]


def _is_locked(path: Path) -> bool:
    """Whether the writer in a directory lives."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def sync(path: Path) -> None:
    """Have a file or directory on the disk."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
