"""What a daemon asks a client for beside files: credentials, secrets, the ssh agent, and whether it is still there."""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from asyncctr.buildkit.proto.health_pb2 import HealthCheckResponse
from asyncctr.buildkit.proto.secrets_pb2 import GetSecretResponse
from asyncctr.buildkit.proto.services import SSH, Auth, Health, Secrets
from asyncctr.buildkit.proto.session_pb2 import BytesMessage, CredentialsResponse
from asyncctr.buildkit.proto.ssh_pb2 import CheckAgentResponse
from asyncctr.buildkit.session import handler
from asyncctr.core.errors import AsyncctrError, UnsupportedError
from asyncctr.core.validation import fail
from asyncctr.oci.auth import find_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from grpclib.server import Stream

    from asyncctr.buildkit.session import Service

__all__ = ["agents_of", "auth", "health", "secrets", "ssh"]

_SECRET_LIMIT = 500 << 10
"""What BuildKit takes, in bytes."""
_BLOCK = 1 << 16


def health() -> Service:
    """That the client is there: a daemon that is not told so drops the session after some seconds."""

    async def check(stream: Stream[Any, HealthCheckResponse]) -> None:
        await stream.recv_message()
        await stream.send_message(HealthCheckResponse(status=HealthCheckResponse.SERVING))

    return handler(Health.Check, Cardinality.UNARY_UNARY, check)


def auth(failed: Callable[[Exception], None]) -> Service:
    """The user's credentials for registries, asked for by host."""

    async def credentials(stream: Stream[Any, CredentialsResponse]) -> None:
        request: Any = await stream.recv_message()
        try:
            found = await find_credentials(request.host)
        except AsyncctrError as error:
            failed(error)
            raise GRPCError(Status.FAILED_PRECONDITION, error.message) from error
        answer = CredentialsResponse()
        if found is not None:
            answer.username = "" if found.identity_token else found.username
            answer.secret = found.identity_token or found.password
        await stream.send_message(answer)

    async def token_authority(stream: Stream[Any, Any]) -> None:
        # Said so here: what grpclib says of a method that is not served has no content type, and a daemon that meets that
        # gives up on the registry.
        await stream.recv_message()
        raise GRPCError(Status.UNIMPLEMENTED, "tokens are fetched by the daemon")

    return {
        **handler(Auth.Credentials, Cardinality.UNARY_UNARY, credentials),
        **handler(Auth.GetTokenAuthority, Cardinality.UNARY_UNARY, token_authority),
    }


def secrets(values: Mapping[str, bytes | str]) -> Service:
    """Secrets by their names: bytes, or paths that are read when they are asked for."""

    async def get(stream: Stream[Any, GetSecretResponse]) -> None:
        request: Any = await stream.recv_message()
        value = values.get(request.id)
        if value is None:
            raise GRPCError(Status.NOT_FOUND, f"secret {request.id} is not given to this build")
        if isinstance(value, str):
            try:
                value = await anyio.Path(value).read_bytes()
            except OSError as error:
                message = f"secret {request.id} cannot be read: {error.strerror}"
                raise GRPCError(Status.FAILED_PRECONDITION, message) from error
        if len(value) > _SECRET_LIMIT:
            message = f"secret {request.id} has {len(value)} bytes, and BuildKit takes {_SECRET_LIMIT}"
            raise GRPCError(Status.FAILED_PRECONDITION, message)
        await stream.send_message(GetSecretResponse(data=value))

    return handler(Secrets.GetSecret, Cardinality.UNARY_UNARY, get)


async def agents_of(given: Iterable[str], *, backend: str) -> dict[str, str]:
    """The sockets of ssh agents by their names.

    Args:
        given: ``"id=path"``, or ``"default"`` for the agent of this process's environment.
        backend: for errors.

    Raises:
        InvalidConfigError: there is no such agent.
        UnsupportedError: a path is one of a key.
    """
    found: dict[str, str] = {}
    for text in given:
        name, _, path = text.partition("=")
        path = path or os.environ.get("SSH_AUTH_SOCK", "")
        if not path:
            raise fail("ssh", f"{name!r} has no path, and there is no running agent: SSH_AUTH_SOCK is not set")
        try:
            mode = (await anyio.Path(path).stat()).st_mode
        except OSError as error:
            raise fail("ssh", f"{name!r} is at {path!r}, where there is no agent: {error.strerror}") from error
        if not stat.S_ISSOCK(mode):
            message = f"build.ssh: {path!r} is no agent's socket; add the key to an agent (ssh-add) and give that one's"
            raise UnsupportedError(message, field="build.ssh.key", backend=backend)
        found[name or "default"] = path
    return found


def ssh(agents: Mapping[str, str]) -> Service:
    """The sockets of agents, by their names."""

    def path_of(name: str) -> str:
        path = agents.get(name or "default")
        if path is None:
            raise GRPCError(Status.NOT_FOUND, f"ssh agent {name or 'default'} is not given to this build")
        return path

    async def check(stream: Stream[Any, CheckAgentResponse]) -> None:
        request: Any = await stream.recv_message()
        path_of(request.id)
        await stream.send_message(CheckAgentResponse())

    async def forward(stream: Stream[BytesMessage, BytesMessage]) -> None:
        metadata: Any = stream.metadata
        name = str(metadata.get("buildkit.ssh.id", ""))
        try:
            reader, writer = await asyncio.open_unix_connection(path_of(name))
        except OSError as error:
            raise GRPCError(Status.UNAVAILABLE, f"the ssh agent does not answer: {error.strerror}") from error
        try:
            await _joined(stream, reader, writer)
        finally:
            writer.close()

    return {
        **handler(SSH.CheckAgent, Cardinality.UNARY_UNARY, check),
        **handler(SSH.ForwardAgent, Cardinality.STREAM_STREAM, forward),
    }


async def _joined(
    stream: Stream[BytesMessage, BytesMessage], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry both directions, until either side has ended."""

    async def to_agent() -> None:
        while (message := await stream.recv_message()) is not None:
            writer.write(message.data)
            await writer.drain()

    async def from_agent() -> None:
        while data := await reader.read(_BLOCK):
            await stream.send_message(BytesMessage(data=data))

    tasks = [asyncio.create_task(direction, name="asyncctr ssh agent") for direction in (to_agent(), from_agent())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except OSError as error:
        raise GRPCError(Status.UNAVAILABLE, f"the ssh agent broke off: {error.strerror}") from error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
