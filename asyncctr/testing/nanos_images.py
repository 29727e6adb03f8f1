"""Nanos disk images as OCI artifacts, in memory: as a layout in a tar, and pushed to a registry."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any, Final

import attrs

from asyncctr.backends.nanos.artifact import ARTIFACT_TYPE, CONFIG_TYPE, DISK_TYPE, GZIP_TYPE
from asyncctr.backends.nanos.document import ImageDocument
from asyncctr.testing.distribution import push_blobs
from asyncctr.testing.images import INDEX_TYPE, MANIFEST_TYPE

if TYPE_CHECKING:
    from asyncctr.testing.distribution import Auth

__all__ = ["NanosArtifact"]

_MTIME: Final = 1_704_067_200


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@attrs.frozen(kw_only=True)
class NanosArtifact:
    """A disk and what is said of it. What is wrong in a test is put in by ``attrs.evolve``.

    Attributes:
        disk: the disk as it is transferred.
        disk_type: its media type.
        config: its document.
        artifact_type: of the manifest.
        annotations: of the manifest.
    """

    disk: bytes = attrs.field(repr=False)
    disk_type: str
    config: bytes
    artifact_type: str = ARTIFACT_TYPE
    annotations: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    def make(cls, disk: bytes, *, packed: bool = False, program: str = "/hello", kernel: str = "") -> NanosArtifact:
        """The artifact of a disk."""
        document = ImageDocument.make(disk_digest=_digest(disk), disk_size=len(disk), program=program, kernel=kernel)
        return cls(
            disk=gzip.compress(disk, 1, mtime=0) if packed else disk,
            disk_type=GZIP_TYPE if packed else DISK_TYPE,
            config=document.data,
            annotations={"org.opencontainers.image.title": program},
        )

    @property
    def digest(self) -> str:
        """The image's digest, once it is in a store."""
        return _digest(self.config)

    @property
    def manifest(self) -> bytes:
        """The manifest."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": self.artifact_type,
            "config": self._descriptor(CONFIG_TYPE, self.config),
            "layers": [self._descriptor(self.disk_type, self.disk)],
            "annotations": self.annotations,
        }
        return json.dumps(document).encode()

    @staticmethod
    def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}

    def archive(self) -> bytes:
        """A tar with an image layout of it."""
        manifest = self.manifest
        index = {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [self._descriptor(MANIFEST_TYPE, manifest)],
        }
        files = {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps(index).encode(),
            **{f"blobs/{_digest(data).replace(':', '/')}": data for data in (manifest, self.config, self.disk)},
        }
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(data), _MTIME
                tar.addfile(member, io.BytesIO(data))
        return buffer.getvalue()

    async def push(self, registry: str, repository: str, tag: str, *, auth: Auth | None = None) -> None:
        """Push it; see :func:`asyncctr.testing.distribution.push_blobs`."""
        manifest = self.manifest
        await push_blobs(
            registry,
            repository,
            tag,
            blobs={_digest(data): data for data in (self.config, self.disk)},
            manifests=[(_digest(manifest), MANIFEST_TYPE, manifest)],
            auth=auth,
        )
