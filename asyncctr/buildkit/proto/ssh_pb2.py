"""Messages of ``ssh.proto``; generated, see ``nox -s protos``."""

from asyncctr.buildkit.proto.schema import SCHEMA

globals().update(SCHEMA.names("asyncctr/buildkit/proto/ssh.proto"))
