"""What is said of a disk image beside its bytes: a small JSON document, whose digest is the image's.

It is the configuration of the image where it is published as an OCI artifact, and it holds the digest of the disk as it is
unpacked: so an image has the same digest however its disk was packed on the way.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Final

import attrs

from asyncctr.core.errors import InvalidConfigError
from asyncctr.core.validation import fail
from asyncctr.oci.reference import parse_digest

if TYPE_CHECKING:
    from typing import Self

__all__ = ["MAX_DISK", "MAX_DOCUMENT", "ImageDocument"]

MAX_DISK: Final = 1 << 40
"""Bytes of a disk."""

MAX_DOCUMENT: Final = 1 << 20
"""Bytes of a document."""

_FIELD: Final = "image"
_SECTOR: Final = 512
_MAX_TEXT: Final = 4_096
_PLATFORM: Final = {"architecture": "amd64", "os": "nanos"}
_DISK_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@attrs.frozen(kw_only=True)
class ImageDocument:
    """The document of an image.

    Attributes:
        data: the document as it came; its digest is the image's.
        disk_digest: of the disk's bytes.
        disk_size: bytes of the disk.
        program: the path of the program in the image.
        kernel: the version of the kernel it was built for; empty where that is not known.
    """

    data: bytes = attrs.field(repr=False)
    disk_digest: str
    disk_size: int
    program: str = ""
    kernel: str = ""

    @property
    def digest(self) -> str:
        """The image's digest."""
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"

    @classmethod
    def make(cls, *, disk_digest: str, disk_size: int, program: str, kernel: str = "") -> Self:
        """The document of a disk.

        Raises:
            InvalidConfigError: something in it is not as it should be.
        """
        document = {
            **_PLATFORM,
            "disk": {"digest": disk_digest, "size": disk_size},
            "kernel": kernel,
            "program": program,
        }
        return cls.parse(json.dumps(document, separators=(",", ":"), sort_keys=True).encode())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """A document as it was made, here or by someone else.

        Raises:
            InvalidConfigError: it is none; the field is ``"image"``.
        """
        if len(data) > MAX_DOCUMENT:
            raise fail(_FIELD, f"the configuration has {len(data)} bytes; at most {MAX_DOCUMENT} are read")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise fail(_FIELD, "the configuration is no JSON") from error
        disk = document.get("disk") if isinstance(document, dict) else None
        if not isinstance(disk, dict):
            raise fail(_FIELD, "the configuration does not say which disk it is of")
        platform = {key: document.get(key) for key in _PLATFORM}
        if platform != _PLATFORM:
            shown = "/".join(str(part)[:40] for part in platform.values())
            raise fail(_FIELD, f"the image is for {shown}, not for amd64/nanos")
        return cls(
            data=data,
            disk_digest=_digest(disk.get("digest")),
            disk_size=_size(disk.get("size")),
            program=_text(document, "program"),
            kernel=_text(document, "kernel"),
        )


def _digest(value: object) -> str:
    try:
        digest = parse_digest(value, field=_FIELD) if isinstance(value, str) else None
    except InvalidConfigError as error:
        raise fail(_FIELD, "the configuration has no digest of its disk") from error
    if digest is None or not _DISK_DIGEST.fullmatch(str(digest)):
        raise fail(_FIELD, "the configuration has no digest of its disk by sha256")
    return str(digest)


def _size(value: object) -> int:
    if type(value) is not int or not 0 < value <= MAX_DISK or value % _SECTOR:
        raise fail(
            _FIELD, f"the disk must have whole sectors of {_SECTOR} bytes, up to {MAX_DISK} bytes, not {value!r:.40}"
        )
    return value


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key, "")
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
        raise fail(_FIELD, f"the configuration has a {key} that is no text")
    return value
