"""The error tree: one exception per meaning, the same on every backend.

A backend translates its library's exception once, at the edge of its transport, and raises the result ``from`` the original.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncctr.core.status import RunResult

__all__ = [
    "AsyncctrError",
    "BackendUnavailableError",
    "BuildError",
    "BuildNotSupportedError",
    "ClosedError",
    "ConflictError",
    "ConnectionLostError",
    "ContainerNotFoundError",
    "DigestMismatchError",
    "ExitError",
    "ImageNotFoundError",
    "ImagePullError",
    "InvalidConfigError",
    "InvalidStateError",
    "NotFoundError",
    "OperationTimeoutError",
    "RegistryAuthError",
    "ResourceExhaustedError",
    "RunTimeoutError",
    "StartError",
    "UnsupportedError",
]


class AsyncctrError(Exception):
    """The base of every error this package raises on purpose.

    Attributes:
        backend: the type of the backend that raised it, such as ``"docker"``; empty when no backend was involved.
        resource: the container id, image name or other thing concerned; empty when there is none.
        status: the runtime's own status, as it gave it: an HTTP status, a gRPC code, an errno; ``None`` when there is none.
    """

    def __init__(self, message: str, *, backend: str = "", resource: str = "", status: int | str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.backend = backend
        self.resource = resource
        self.status = status

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process pools; the default rebuilds from args alone and would lose the keywords.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(cls: type[AsyncctrError], args: tuple[object, ...], state: dict[str, object]) -> AsyncctrError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class BackendUnavailableError(AsyncctrError):
    """The runtime cannot be reached or started. The message says what was tried and what to do."""


class ConnectionLostError(AsyncctrError):
    """The runtime went away in the middle of an operation or stream; never mistaken for a normal end."""


class OperationTimeoutError(AsyncctrError, TimeoutError):
    """The runtime did not answer within ``op_timeout`` seconds."""


class NotFoundError(AsyncctrError):
    """The thing named does not exist."""


class ContainerNotFoundError(NotFoundError):
    """No such container: it was never created or has been removed."""


class ImageNotFoundError(NotFoundError):
    """No such image, here or in the registry that was asked."""


class ConflictError(AsyncctrError):
    """A name or host port is taken, or the image is in use."""


class InvalidStateError(AsyncctrError):
    """The state of the container does not allow the operation."""


class _FieldError(AsyncctrError):
    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        backend: str = "",
        resource: str = "",
        status: int | str | None = None,
    ) -> None:
        super().__init__(message, backend=backend, resource=resource, status=status)
        self.field = field


class InvalidConfigError(_FieldError, ValueError):
    """A value is wrong whatever the backend. ``field`` names it, dotted."""


class UnsupportedError(_FieldError):
    """This backend, here, cannot honour a field or an operation. ``field`` names it, dotted."""


class BuildNotSupportedError(UnsupportedError):
    """This backend cannot build from the given input."""


class StartError(AsyncctrError):
    """The container did not start: command not found, permission denied, boot failed.

    Attributes:
        console: the end of the console or runtime output, where there is one.
    """

    def __init__(
        self,
        message: str,
        *,
        console: str = "",
        backend: str = "",
        resource: str = "",
        status: int | str | None = None,
    ) -> None:
        super().__init__(message, backend=backend, resource=resource, status=status)
        self.console = console


class ResourceExhaustedError(AsyncctrError):
    """Disk, memory, descriptors or another resource ran out, here or in the runtime."""


class ClosedError(AsyncctrError):
    """The object was used after ``aclose``."""


class ImagePullError(AsyncctrError):
    """An image could not be pulled."""


class RegistryAuthError(ImagePullError):
    """The registry refused the credentials, or wants some."""


class DigestMismatchError(ImagePullError):
    """What the registry sent does not have the digest that was promised."""


class BuildError(AsyncctrError):
    """A build failed.

    Attributes:
        step: the failing step as the Dockerfile has it; empty when none was reached.
        line: its line in the Dockerfile, counted from 1; ``None`` when the builder does not tell.
        output: the end of the build's output, oldest first.
        exit_code: what the step's command exited with; ``None`` when no command was run.
    """

    def __init__(
        self,
        message: str,
        *,
        step: str = "",
        line: int | None = None,
        output: Sequence[str] = (),
        exit_code: int | None = None,
        backend: str = "",
        resource: str = "",
        status: int | str | None = None,
    ) -> None:
        super().__init__(message, backend=backend, resource=resource, status=status)
        self.step = step
        self.line = line
        self.output = tuple(output)
        self.exit_code = exit_code


class ExitError(AsyncctrError):
    """``run(check=True)`` and the exit code was not zero. ``result`` is the whole :class:`RunResult`."""

    def __init__(self, message: str, *, result: RunResult, backend: str = "", resource: str = "") -> None:
        super().__init__(message, backend=backend, resource=resource, status=result.exit_code)
        self.result = result


class RunTimeoutError(AsyncctrError, TimeoutError):
    """``run(timeout=…)`` passed. ``result`` carries what was printed until then."""

    def __init__(self, message: str, *, result: RunResult, backend: str = "", resource: str = "") -> None:
        super().__init__(message, backend=backend, resource=resource)
        self.result = result
