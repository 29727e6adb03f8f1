"""The services of the files here, method by method; generated, see ``nox -s protos``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncctr.buildkit.proto.schema import SCHEMA
from asyncctr.transport.grpc import Method

if TYPE_CHECKING:
    from asyncctr.buildkit.proto import control_pb2
    from asyncctr.buildkit.proto import fsutil_pb2
    from asyncctr.buildkit.proto import health_pb2
    from asyncctr.buildkit.proto import secrets_pb2
    from asyncctr.buildkit.proto import session_pb2
    from asyncctr.buildkit.proto import ssh_pb2


class FileSync:
    """``moby.filesync.v1.FileSync``."""

    DiffCopy: Final[Method[fsutil_pb2.Packet, fsutil_pb2.Packet]] = Method.of(
        "/moby.filesync.v1.FileSync/DiffCopy", SCHEMA, "fsutil.types.Packet", "fsutil.types.Packet"
    )


class FileSend:
    """``moby.filesync.v1.FileSend``."""

    DiffCopy: Final[Method[session_pb2.BytesMessage, session_pb2.BytesMessage]] = Method.of(
        "/moby.filesync.v1.FileSend/DiffCopy", SCHEMA, "moby.filesync.v1.BytesMessage", "moby.filesync.v1.BytesMessage"
    )


class Auth:
    """``moby.filesync.v1.Auth``."""

    Credentials: Final[Method[session_pb2.CredentialsRequest, session_pb2.CredentialsResponse]] = Method.of(
        "/moby.filesync.v1.Auth/Credentials",
        SCHEMA,
        "moby.filesync.v1.CredentialsRequest",
        "moby.filesync.v1.CredentialsResponse",
    )
    GetTokenAuthority: Final[Method[session_pb2.GetTokenAuthorityRequest, session_pb2.GetTokenAuthorityResponse]] = (
        Method.of(
            "/moby.filesync.v1.Auth/GetTokenAuthority",
            SCHEMA,
            "moby.filesync.v1.GetTokenAuthorityRequest",
            "moby.filesync.v1.GetTokenAuthorityResponse",
        )
    )


class Control:
    """``moby.buildkit.v1.Control``."""

    Solve: Final[Method[control_pb2.SolveRequest, control_pb2.SolveResponse]] = Method.of(
        "/moby.buildkit.v1.Control/Solve", SCHEMA, "moby.buildkit.v1.SolveRequest", "moby.buildkit.v1.SolveResponse"
    )
    Status: Final[Method[control_pb2.StatusRequest, control_pb2.StatusResponse]] = Method.of(
        "/moby.buildkit.v1.Control/Status", SCHEMA, "moby.buildkit.v1.StatusRequest", "moby.buildkit.v1.StatusResponse"
    )
    Session: Final[Method[session_pb2.BytesMessage, session_pb2.BytesMessage]] = Method.of(
        "/moby.buildkit.v1.Control/Session", SCHEMA, "moby.filesync.v1.BytesMessage", "moby.filesync.v1.BytesMessage"
    )


class Health:
    """``grpc.health.v1.Health``."""

    Check: Final[Method[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]] = Method.of(
        "/grpc.health.v1.Health/Check",
        SCHEMA,
        "grpc.health.v1.HealthCheckRequest",
        "grpc.health.v1.HealthCheckResponse",
    )


class Secrets:
    """``moby.buildkit.secrets.v1.Secrets``."""

    GetSecret: Final[Method[secrets_pb2.GetSecretRequest, secrets_pb2.GetSecretResponse]] = Method.of(
        "/moby.buildkit.secrets.v1.Secrets/GetSecret",
        SCHEMA,
        "moby.buildkit.secrets.v1.GetSecretRequest",
        "moby.buildkit.secrets.v1.GetSecretResponse",
    )


class SSH:
    """``moby.sshforward.v1.SSH``."""

    CheckAgent: Final[Method[ssh_pb2.CheckAgentRequest, ssh_pb2.CheckAgentResponse]] = Method.of(
        "/moby.sshforward.v1.SSH/CheckAgent",
        SCHEMA,
        "moby.sshforward.v1.CheckAgentRequest",
        "moby.sshforward.v1.CheckAgentResponse",
    )
    ForwardAgent: Final[Method[session_pb2.BytesMessage, session_pb2.BytesMessage]] = Method.of(
        "/moby.sshforward.v1.SSH/ForwardAgent", SCHEMA, "moby.filesync.v1.BytesMessage", "moby.filesync.v1.BytesMessage"
    )
