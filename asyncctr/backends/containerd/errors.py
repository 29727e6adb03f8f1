"""What containerd's answers mean: gRPC status and message to the error tree, once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from grpclib.const import Status

from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    ConflictError,
    ConnectionLostError,
    ContainerNotFoundError,
    ImageNotFoundError,
    InvalidConfigError,
    InvalidStateError,
    NotFoundError,
    OperationTimeoutError,
    ResourceExhaustedError,
    StartError,
    UnsupportedError,
)
from asyncctr.transport import hostfiles

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import NoReturn

    from grpclib.exceptions import GRPCError

__all__ = ["BACKEND", "ShimGoneError", "host_files", "raise_for_start", "translate"]

BACKEND = "containerd"

_EXHAUSTED = re.compile(
    r"no space left on device|disk quota exceeded|cannot allocate memory|too many open files|resource temporarily unavailable",
    re.IGNORECASE,
)
# Of a task: its process has ended, or is not in the state that the call needs; both come as several statuses.
_STATE = re.compile(
    r"process already finished|not running|must be (?:stopped|deleted)|cannot (?:delete|start|kill|pause|resume)"
)
_NO_SHIM = re.compile(r'runtime "([^"]+)" binary not installed')
_SHIM_GONE = re.compile(
    r"ttrpc: closed|shim (?:exited|disconnected)|connection refused|transport is closing|no such process|^shutdown$",
    re.IGNORECASE,
)


class ShimGoneError(ConnectionLostError):
    """The shim of a task has ended, or is about to, and containerd does not know it yet."""


_KINDS: dict[str, type[NotFoundError]] = {"container": ContainerNotFoundError, "image": ImageNotFoundError}

_STATUSES: dict[Status, type[AsyncctrError]] = {
    Status.ALREADY_EXISTS: ConflictError,
    # Not by this side, which does not ask any more then: containerd ends.
    Status.CANCELLED: ConnectionLostError,
    Status.DEADLINE_EXCEEDED: OperationTimeoutError,
    Status.FAILED_PRECONDITION: InvalidStateError,
    Status.PERMISSION_DENIED: BackendUnavailableError,
    Status.UNAVAILABLE: BackendUnavailableError,
}


def translate(error: GRPCError, resource: str, kind: str) -> AsyncctrError:
    """The error for a status. ``kind`` says what was asked for: ``container``, ``image``, ``task`` or something else."""
    text = (error.message or "").strip() or f"containerd answered {error.status.name}"
    status = error.status.name

    def make(error_type: type[AsyncctrError]) -> AsyncctrError:
        return error_type(text, backend=BACKEND, resource=resource, status=status)

    if error.status is Status.RESOURCE_EXHAUSTED or _EXHAUSTED.search(text):
        return make(ResourceExhaustedError)
    if kind == "task" and _SHIM_GONE.search(text):
        return make(ShimGoneError)
    if error.status is Status.NOT_FOUND:
        return make(_KINDS.get(kind, NotFoundError))
    if kind == "task" and _STATE.search(text):
        return make(InvalidStateError)
    if error.status is Status.INVALID_ARGUMENT:
        # It names no field; what it says does.
        return InvalidConfigError(text, field="config", backend=BACKEND, resource=resource, status=status)
    if error.status is Status.UNIMPLEMENTED:
        return UnsupportedError(text, field=kind or "operation", backend=BACKEND, resource=resource, status=status)
    return make(_STATUSES.get(error.status, AsyncctrError))


def raise_for_start(error: AsyncctrError) -> NoReturn:
    """A task that could not be made or started: command, working directory, rootfs, cgroup, hook."""
    named = (ConflictError, ResourceExhaustedError, BackendUnavailableError, ConnectionLostError, OperationTimeoutError)
    if isinstance(error, named) or not isinstance(error.status, str):
        raise error
    # runc's own words come last; what the shim and containerd put in front says nothing more.
    text = re.sub(r"^failed to create shim task: |^failed to start task: ", "", error.message)
    if found := _NO_SHIM.search(text):
        message = f"runtime: containerd does not find the shim of {found[1]}: install it where containerd's PATH leads ({text})"
        raise UnsupportedError(
            message, field="runtime", backend=BACKEND, resource=error.resource, status=error.status
        ) from error
    raise StartError(text, backend=BACKEND, resource=error.resource, status=error.status) from error


def host_files(what: str, resource: str) -> AbstractContextManager[None]:
    """Failures of this host's own files, as errors of the tree; see :func:`asyncctr.transport.hostfiles.host_files`."""
    return hostfiles.host_files(what, resource, backend=BACKEND)
