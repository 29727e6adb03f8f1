"""What the engine's answers mean: HTTP status and message to the error tree, once, for Docker and Podman alike."""

from __future__ import annotations

import re
from typing import NoReturn

from asyncctr.core.errors import (
    AsyncctrError,
    BackendUnavailableError,
    ConflictError,
    ContainerNotFoundError,
    DigestMismatchError,
    ImageNotFoundError,
    ImagePullError,
    InvalidConfigError,
    InvalidStateError,
    NotFoundError,
    RegistryAuthError,
    ResourceExhaustedError,
    StartError,
    UnsupportedError,
)

__all__ = ["BACKEND", "is_exhausted", "raise_for_create", "raise_for_pull", "raise_for_start", "translate"]

BACKEND = "docker"

_EXHAUSTED = re.compile(
    r"no space left on device|disk quota exceeded|cannot allocate memory|too many open files|resource temporarily unavailable",
    re.IGNORECASE,
)
_PORT_TAKEN = re.compile(r"port is already allocated|address already in use|ports are not available", re.IGNORECASE)
_NO_NETWORK = re.compile(r"network \S+ not found|unable to find network|: network not found", re.IGNORECASE)
# Podman answers 500 for names that are taken and for what is in use, Docker 403 for a network in use.
_TAKEN = re.compile(
    r"network already exists|volume already exists|is being used by|has (?:active endpoints|associated containers)|is in use by",
    re.IGNORECASE,
)
# Podman has the OCI runtime create the container when it is attached to; what the command lacks then comes out there.
_PREPARING = re.compile(r"^preparing container \S+ for attach: ", re.IGNORECASE)
_NOT_RUNNING = re.compile(
    r"is not running|can only kill running|can only stop|not running|container state improper|can only pause|is not paused|is paused",
    re.IGNORECASE,
)
_RUNNING = re.compile(
    r"running container|is running or paused|as it is running|currently running|container is (?:running|paused)|already paused",
    re.IGNORECASE,
)
_NO_CONTAINER = re.compile(
    r"no such container|no container with (?:name or )?id|^container \S+ not found|does not exist in database",
    re.IGNORECASE,
)
_NO_IMAGE = re.compile(
    r"no such image|image not known|manifest (?:for \S+ )?(?:is )?(?:unknown|not found)|repository name not known|name unknown|repository does not exist|image does not exist locally"
    # A create that asks for a platform: the engine has the image for another one alone.
    r"|does not match the specified platform",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"unauthorized|(?<!permission )denied|no basic auth|authentication required|invalid username/password|incorrect username or password",
    re.IGNORECASE,
)
# Of those the ones that do not leave open whether there is such an image.
_CREDENTIALS = re.compile(r"no basic auth|invalid username/password|incorrect username or password", re.IGNORECASE)
_DIGEST = re.compile(
    # Not any verification: certificates are verified as well.
    r"digest (?:verification|mismatch|did not match|invalid)|(?:layer|manifest) verification failed|unexpected (?:commit )?digest"
    r"|does not match .*digest|error verifying (?:layer|manifest|blob|digest)",
    re.IGNORECASE,
)


def is_exhausted(message: str) -> bool:
    """Whether a message says that disk, memory or descriptors ran out."""
    return bool(_EXHAUSTED.search(message))


def translate(status: int, message: str, *, resource: str = "", kind: str = "") -> AsyncctrError:
    """The error for an answer of 400 or above. ``kind`` is ``container``, ``image``, ``volume`` or ``network``."""
    text = message.strip() or f"the engine answered {status}"
    common = {"backend": BACKEND, "resource": resource}
    if _EXHAUSTED.search(text):
        return ResourceExhaustedError(text, status=status, **common)
    if _PORT_TAKEN.search(text):
        return ConflictError(text, status=status, **common)
    if _NO_IMAGE.search(text) and (status == 404 or kind == "image"):
        return ImageNotFoundError(text, status=status, **common)
    if status == 404:
        kinds = {"container": ContainerNotFoundError, "image": ImageNotFoundError}
        return kinds.get(kind, NotFoundError)(text, status=status, **common)
    if kind == "container" and _PREPARING.search(text):
        return StartError(text, status=status, **common)
    if kind == "container" and _NO_CONTAINER.search(text):
        return ContainerNotFoundError(text, status=status, **common)
    if kind == "container" and status in (409, 500) and (_NOT_RUNNING.search(text) or _RUNNING.search(text)):
        return InvalidStateError(text, status=status, **common)
    if status == 409 or _TAKEN.search(text):
        return ConflictError(text, status=status, **common)
    if status == 400:
        return InvalidConfigError(text, status=status, **common)
    if status in (501, 405):
        return UnsupportedError(text, status=status, **common)
    if status == 503:
        return BackendUnavailableError(text, status=status, **common)
    return AsyncctrError(text, status=status, **common)


_CREATE_FIELDS = (
    # What the engine says, and the field it speaks of.
    (
        re.compile(
            r"bind source path does not exist|invalid mount|mount path|mount config|duplicate mount|statfs",
            re.IGNORECASE,
        ),
        "volumes",
    ),
    (re.compile(r"container-init|docker-init|catatonit", re.IGNORECASE), "init"),
    (re.compile(r"custom device|/dev/\S+: no such file", re.IGNORECASE), "devices"),
    (re.compile(r"add-host|extra host", re.IGNORECASE), "extra_hosts"),
    (re.compile(r"sysctl", re.IGNORECASE), "options.sysctls"),
    (re.compile(r"invalid container name|name .* is invalid|names must match", re.IGNORECASE), "name"),
    (re.compile(r"invalid hostname", re.IGNORECASE), "hostname"),
    (
        re.compile(
            r"unknown (?:or invalid )?runtime|runtime .* not found|default OCI runtime|invalid runtime", re.IGNORECASE
        ),
        "runtime",
    ),
    (re.compile(r"\bcap_?(?:add|drop)|capabilit", re.IGNORECASE), "cap_add"),
    (re.compile(r"minimum memory|memory limit|memoryswap", re.IGNORECASE), "resources.memory"),
    (re.compile(r"cpu cfs|cpu-(?:quota|period)|cpus", re.IGNORECASE), "resources.cpu_quota"),
    (re.compile(r"storage[- ]?opt|--storage-opt", re.IGNORECASE), "resources.storage"),
    (re.compile(r"log(?:ging)? (?:driver|plugin|opt)", re.IGNORECASE), "options.log_driver"),
    (re.compile(r"seccomp", re.IGNORECASE), "seccomp"),
    (re.compile(r"ulimit|rlimit", re.IGNORECASE), "ulimits"),
    (re.compile(r"shm", re.IGNORECASE), "shm_size"),
    (re.compile(r"stop signal|invalid signal", re.IGNORECASE), "stop_signal"),
    (re.compile(r"platform|exec format", re.IGNORECASE), "platform"),
    (re.compile(r"user specified IP|static ip|ip address|subnet", re.IGNORECASE), "network.ip_config"),
    (re.compile(r"network", re.IGNORECASE), "network"),
)


def raise_for_create(error: AsyncctrError) -> NoReturn:
    """Name the field in a refused create, as far as the engine's words tell it."""
    if type(error) in (InvalidConfigError, AsyncctrError, ConflictError, NotFoundError):
        conflict = isinstance(error, ConflictError) or re.search(r"is already in use", error.message)
        if conflict:
            raise ConflictError(error.message, backend=BACKEND, resource=error.resource, status=error.status) from error
        if _NO_NETWORK.search(error.message):
            raise NotFoundError(error.message, backend=BACKEND, resource=error.resource, status=error.status) from error
        for pattern, field in _CREATE_FIELDS:
            if pattern.search(error.message):
                kind = UnsupportedError if field in ("resources.storage", "runtime", "init") else InvalidConfigError
                raise kind(
                    f"{field}: {error.message}",
                    field=field,
                    backend=BACKEND,
                    resource=error.resource,
                    status=error.status,
                ) from error
    raise error


def raise_for_start(error: AsyncctrError) -> NoReturn:
    """A failed start, whatever the status the engine chose for it: command, rootfs, cgroup, hook."""
    named = (ConflictError, ResourceExhaustedError, BackendUnavailableError)
    # The engine answers 404 for a missing command as it does for a missing container.
    gone = isinstance(error, ContainerNotFoundError) and _NO_CONTAINER.search(error.message)
    if gone or isinstance(error, named) or not isinstance(error.status, int):
        raise error
    if _NO_NETWORK.search(error.message):
        raise NotFoundError(error.message, backend=BACKEND, resource=error.resource, status=error.status) from error
    raise StartError(error.message, backend=BACKEND, resource=error.resource, status=error.status) from error


def raise_for_pull(message: str, *, name: str, status: int | None = None) -> NoReturn:
    """A failed pull, whether it failed with a status or inside a stream that had begun with 200."""
    kind: type[AsyncctrError] = ImagePullError
    if _EXHAUSTED.search(message):
        kind = ResourceExhaustedError
    elif _DIGEST.search(message):
        kind = DigestMismatchError
    elif status == 404 or _NO_IMAGE.search(message):
        # Docker Hub answers for a private repository as for one that does not exist, and says so.
        denied = "denied" in message and "repository does not exist" not in message
        kind = RegistryAuthError if denied or _CREDENTIALS.search(message) else ImageNotFoundError
    elif _DENIED.search(message):
        kind = RegistryAuthError
    raise kind(f"{name}: {message.strip()}", backend=BACKEND, resource=name, status=status)
