"""What this host's own files fail with, as errors of the tree."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from asyncctr.core.errors import AsyncctrError, BackendUnavailableError, ResourceExhaustedError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["host_files"]

_EXHAUSTED: Final = frozenset({errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC})


@contextmanager
def host_files(what: str, resource: str, *, backend: str) -> Iterator[None]:
    """Failures of this host's own files, as errors of the tree.

    Args:
        what: they are, for the message.
        resource: whose.
        backend: for the error.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, AsyncctrError):
            raise
        hint = "; raise the limit of open files (ulimit -n)" if error.errno == errno.EMFILE else ""
        message = f"{what} cannot be used: {error.strerror or error}{hint}"
        kind = ResourceExhaustedError if error.errno in _EXHAUSTED else BackendUnavailableError
        raise kind(message, backend=backend, resource=resource, status=error.errno) from error
