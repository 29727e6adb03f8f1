"""Messages of ``version.proto``; generated, see ``nox -s protos``."""

from asyncctr.backends.containerd.proto.schema import SCHEMA

globals().update(SCHEMA.names("asyncctr/backends/containerd/proto/version.proto"))
