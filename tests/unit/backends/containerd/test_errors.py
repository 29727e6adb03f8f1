"""What containerd's answers mean."""

from __future__ import annotations

import errno

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from asyncctr.backends.containerd.errors import ShimGoneError, host_files, raise_for_start, translate
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

# As containerd 1.6 and 2.4 wrote them.
ANSWERS = [
    (Status.NOT_FOUND, 'container "x" in namespace "a": not found', "container", ContainerNotFoundError),
    (Status.NOT_FOUND, 'image "x": not found', "image", ImageNotFoundError),
    (Status.NOT_FOUND, "snapshot x does not exist: not found", "snapshot", NotFoundError),
    (Status.NOT_FOUND, "process already finished: not found", "task", NotFoundError),
    (Status.ALREADY_EXISTS, "snapshot x: already exists", "", ConflictError),
    (Status.FAILED_PRECONDITION, "task must be stopped before deletion: running", "task", InvalidStateError),
    (Status.UNKNOWN, "cannot delete a running process: unknown", "task", InvalidStateError),
    (Status.UNKNOWN, "ttrpc: closed: unknown", "task", ShimGoneError),
    (Status.UNKNOWN, "write /var/lib/x: no space left on device: unknown", "", ResourceExhaustedError),
    (Status.RESOURCE_EXHAUSTED, "grpc: received message larger than max", "", ResourceExhaustedError),
    (Status.INVALID_ARGUMENT, "label key and value length too long", "", InvalidConfigError),
    (Status.UNIMPLEMENTED, "unknown service", "", UnsupportedError),
    (Status.DEADLINE_EXCEEDED, "context deadline exceeded", "", OperationTimeoutError),
    (Status.UNAVAILABLE, "ref x locked", "", BackendUnavailableError),
    (Status.CANCELLED, "context canceled", "task", ConnectionLostError),
    (Status.PERMISSION_DENIED, "", "", BackendUnavailableError),
    (Status.INTERNAL, "whatever", "", AsyncctrError),
]


@pytest.mark.parametrize(("status", "text", "kind", "expected"), ANSWERS)
def test_an_answer_is_its_error(status: Status, text: str, kind: str, expected: type[AsyncctrError]) -> None:
    error = translate(GRPCError(status, text), "x", kind)
    assert type(error) is expected
    assert (error.backend, error.resource, error.status) == ("containerd", "x", status.name)
    assert str(error)


def test_a_start_that_fails_says_runcs_own_words() -> None:
    failed = AsyncctrError("failed to create shim task: OCI runtime create failed: no such file", status="UNKNOWN")
    with pytest.raises(StartError, match=r"^OCI runtime create failed"):
        raise_for_start(failed)


@pytest.mark.parametrize("kind", [ConflictError, ResourceExhaustedError, ConnectionLostError, OperationTimeoutError])
def test_what_is_no_matter_of_the_start_stays(kind: type[AsyncctrError]) -> None:
    with pytest.raises(kind):
        raise_for_start(kind("text", status="UNKNOWN"))


def test_a_shim_that_is_not_installed() -> None:
    text = 'failed to resolve runtime path: runtime "io.containerd.runsc.v1" binary not installed "containerd-shim-runsc-v1"'
    with pytest.raises(UnsupportedError, match=r"io\.containerd\.runsc\.v1: install it") as caught:
        raise_for_start(AsyncctrError(text, status="UNKNOWN"))
    assert caught.value.field == "runtime"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, ResourceExhaustedError),
        (errno.EMFILE, ResourceExhaustedError),
        (errno.EACCES, BackendUnavailableError),
    ],
)
def test_this_hosts_own_files(number: int, expected: type[AsyncctrError]) -> None:
    with pytest.raises(expected, match="the record cannot be used") as caught, host_files("the record", "x"):
        raise OSError(number, "no")
    assert (caught.value.status, caught.value.resource) == (number, "x")
    # Though it is an OSError as well.
    with pytest.raises(OperationTimeoutError), host_files("the record", "x"):
        raise OperationTimeoutError("late")
