"""What pulling and pushing an image takes and tells: credentials, policy, progress."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

import attrs

from asyncctr.core.validation import check_text, checked, hidden

__all__ = ["Progress", "ProgressCallback", "PullPolicy", "RegistryAuth"]


class PullPolicy(StrEnum):
    """When a run asks the registry for its image.

    ``MISSING``: when the runtime does not have it. ``ALWAYS``: every time, so that a moved tag is followed.
    ``NEVER``: not at all; a missing image is an ``ImageNotFoundError``.
    """

    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


@attrs.frozen(kw_only=True)
class RegistryAuth:
    """Credentials for one registry: a user name and password, or a token. The repr shows no secret.

    Attributes:
        username: the account's name.
        password: its password or access token. Not in the repr.
        identity_token: an OAuth2 refresh token, given in place of the password. Not in the repr.
        registry_token: a bearer token, sent to the registry as it is. Not in the repr.
        server: the registry they are for, as a host name with an optional port, or
            ``"https://index.docker.io/v1/"`` for Docker Hub; empty for the registry of the image they are used with.
    """

    username: str = attrs.field(default="", validator=checked(check_text))
    password: str = attrs.field(default="", validator=checked(check_text), repr=hidden)
    identity_token: str = attrs.field(default="", validator=checked(check_text), repr=hidden)
    registry_token: str = attrs.field(default="", validator=checked(check_text), repr=hidden)
    server: str = attrs.field(default="", validator=checked(check_text))


@attrs.frozen(kw_only=True)
class Progress:
    """One step of a pull, push or load.

    Attributes:
        action: what is being done, in the runtime's words, such as ``"Downloading"``.
        id: the layer or other part it is done to; empty when it concerns the whole.
        current: bytes done; ``None`` when they are not counted.
        total: bytes to do; ``None`` when that is not known.
        message: a line for people; empty when ``action`` says it all.
    """

    action: str
    id: str = ""
    current: int | None = None
    total: int | None = None
    message: str = ""


ProgressCallback: TypeAlias = Callable[[Progress], None]
"""Called on the event loop, at most ten times a second per id plus the last; what it raises aborts the call."""
