"""A build context that is not on this machine: which texts name one, and what of them may be shown."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit, urlunsplit

__all__ = ["is_remote", "without_credentials"]

_REMOTE = re.compile(r"(?:https?|git|ssh)://|git@|github\.com/")


def is_remote(path: str) -> bool:
    """Whether a context is a place that the builder fetches it from. Looks at the disk: ``github.com/x`` may be a directory."""
    remote = _REMOTE.match(path)
    return remote is not None and (remote[0].endswith("://") or not os.path.exists(path))  # noqa: PTH110  # it may be no valid path


def without_credentials(text: str, context: object) -> str:
    """A message without the user and password that a context's URL may have."""
    if not isinstance(context, str) or "@" not in context or "://" not in context:
        return text
    parts = urlsplit(context)
    return text.replace(context, urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))).replace(
        parts.netloc.rpartition("@")[0] + "@", ""
    )
