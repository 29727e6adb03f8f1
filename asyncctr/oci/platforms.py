"""What an image runs on, and which of the platforms an image is offered for serves one that is wanted."""

from __future__ import annotations

import platform as machine
import re

import attrs

from asyncctr.core.validation import fail

__all__ = ["Platform"]

_VERSION = re.compile(r"v[0-9]{1,3}")
_ARCHITECTURES = {
    "x86_64": "amd64",
    "AMD64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i386": "386",
    "i686": "386",
}


@attrs.frozen
class Platform:
    """What an image runs on, by Go's names (image-index.md, "platform"). ``str()`` joins them with ``/``."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """A platform from ``"os/architecture[/variant]"``.

        Raises:
            InvalidConfigError: it is none; the field is ``"platform"``.
        """
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise fail("platform", f"must be 'os/architecture' or 'os/architecture/variant', not {text!r}")
        return cls(*parts)

    @classmethod
    def host(cls) -> Platform:
        """Linux on this machine's architecture: what runs on it, in a virtual machine where it is no Linux itself."""
        name = machine.machine()
        return cls.parse(f"linux/{_ARCHITECTURES.get(name, name)}")

    def rank(self, offered: Platform) -> int | None:
        """How well an image for ``offered`` serves who wants this one: 0 best; ``None`` when it does not run."""
        if (self.os, self.architecture) != (offered.os, offered.architecture):
            return None
        if self.variant == offered.variant:
            return 0
        if not self.variant or not offered.variant:
            # arm64 is arm64/v8; and whoever names no variant takes any.
            return 1
        if _VERSION.fullmatch(self.variant) and _VERSION.fullmatch(offered.variant):
            # arm/v7 runs what was made for arm/v6, and amd64/v3 what was made for amd64/v2.
            newer = int(self.variant[1:]) - int(offered.variant[1:])
            return 1 + newer if newer > 0 else None
        return None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)
