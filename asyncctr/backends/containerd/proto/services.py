"""The services of the files here, method by method; generated, see ``nox -s protos``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncctr.backends.containerd.proto.schema import SCHEMA
from asyncctr.transport.grpc import Method

if TYPE_CHECKING:
    from asyncctr.backends.containerd.proto import containers_pb2
    from asyncctr.backends.containerd.proto import content_pb2
    from asyncctr.backends.containerd.proto import diff_pb2
    from asyncctr.backends.containerd.proto import images_pb2
    from asyncctr.backends.containerd.proto import introspection_pb2
    from asyncctr.backends.containerd.proto import leases_pb2
    from asyncctr.backends.containerd.proto import sandbox_pb2
    from asyncctr.backends.containerd.proto import snapshots_pb2
    from asyncctr.backends.containerd.proto import tasks_pb2
    from asyncctr.backends.containerd.proto import transfer_pb2
    from asyncctr.backends.containerd.proto import version_pb2
    from google.protobuf.any_pb2 import Any
    from google.protobuf.empty_pb2 import Empty


class Containers:
    """``containerd.services.containers.v1.Containers``."""

    Get: Final[Method[containers_pb2.GetContainerRequest, containers_pb2.GetContainerResponse]] = Method.of(
        "/containerd.services.containers.v1.Containers/Get",
        SCHEMA,
        "containerd.services.containers.v1.GetContainerRequest",
        "containerd.services.containers.v1.GetContainerResponse",
    )
    ListStream: Final[Method[containers_pb2.ListContainersRequest, containers_pb2.ListContainerMessage]] = Method.of(
        "/containerd.services.containers.v1.Containers/ListStream",
        SCHEMA,
        "containerd.services.containers.v1.ListContainersRequest",
        "containerd.services.containers.v1.ListContainerMessage",
    )
    Create: Final[Method[containers_pb2.CreateContainerRequest, containers_pb2.CreateContainerResponse]] = Method.of(
        "/containerd.services.containers.v1.Containers/Create",
        SCHEMA,
        "containerd.services.containers.v1.CreateContainerRequest",
        "containerd.services.containers.v1.CreateContainerResponse",
    )
    Delete: Final[Method[containers_pb2.DeleteContainerRequest, Empty]] = Method.of(
        "/containerd.services.containers.v1.Containers/Delete",
        SCHEMA,
        "containerd.services.containers.v1.DeleteContainerRequest",
        "google.protobuf.Empty",
    )


class Content:
    """``containerd.services.content.v1.Content``."""

    Info: Final[Method[content_pb2.InfoRequest, content_pb2.InfoResponse]] = Method.of(
        "/containerd.services.content.v1.Content/Info",
        SCHEMA,
        "containerd.services.content.v1.InfoRequest",
        "containerd.services.content.v1.InfoResponse",
    )
    Update: Final[Method[content_pb2.UpdateRequest, content_pb2.UpdateResponse]] = Method.of(
        "/containerd.services.content.v1.Content/Update",
        SCHEMA,
        "containerd.services.content.v1.UpdateRequest",
        "containerd.services.content.v1.UpdateResponse",
    )
    Read: Final[Method[content_pb2.ReadContentRequest, content_pb2.ReadContentResponse]] = Method.of(
        "/containerd.services.content.v1.Content/Read",
        SCHEMA,
        "containerd.services.content.v1.ReadContentRequest",
        "containerd.services.content.v1.ReadContentResponse",
    )
    Write: Final[Method[content_pb2.WriteContentRequest, content_pb2.WriteContentResponse]] = Method.of(
        "/containerd.services.content.v1.Content/Write",
        SCHEMA,
        "containerd.services.content.v1.WriteContentRequest",
        "containerd.services.content.v1.WriteContentResponse",
    )
    Abort: Final[Method[content_pb2.AbortRequest, Empty]] = Method.of(
        "/containerd.services.content.v1.Content/Abort",
        SCHEMA,
        "containerd.services.content.v1.AbortRequest",
        "google.protobuf.Empty",
    )


class Diff:
    """``containerd.services.diff.v1.Diff``."""

    Apply: Final[Method[diff_pb2.ApplyRequest, diff_pb2.ApplyResponse]] = Method.of(
        "/containerd.services.diff.v1.Diff/Apply",
        SCHEMA,
        "containerd.services.diff.v1.ApplyRequest",
        "containerd.services.diff.v1.ApplyResponse",
    )


class Images:
    """``containerd.services.images.v1.Images``."""

    Get: Final[Method[images_pb2.GetImageRequest, images_pb2.GetImageResponse]] = Method.of(
        "/containerd.services.images.v1.Images/Get",
        SCHEMA,
        "containerd.services.images.v1.GetImageRequest",
        "containerd.services.images.v1.GetImageResponse",
    )
    List: Final[Method[images_pb2.ListImagesRequest, images_pb2.ListImagesResponse]] = Method.of(
        "/containerd.services.images.v1.Images/List",
        SCHEMA,
        "containerd.services.images.v1.ListImagesRequest",
        "containerd.services.images.v1.ListImagesResponse",
    )
    Create: Final[Method[images_pb2.CreateImageRequest, images_pb2.CreateImageResponse]] = Method.of(
        "/containerd.services.images.v1.Images/Create",
        SCHEMA,
        "containerd.services.images.v1.CreateImageRequest",
        "containerd.services.images.v1.CreateImageResponse",
    )
    Update: Final[Method[images_pb2.UpdateImageRequest, images_pb2.UpdateImageResponse]] = Method.of(
        "/containerd.services.images.v1.Images/Update",
        SCHEMA,
        "containerd.services.images.v1.UpdateImageRequest",
        "containerd.services.images.v1.UpdateImageResponse",
    )
    Delete: Final[Method[images_pb2.DeleteImageRequest, Empty]] = Method.of(
        "/containerd.services.images.v1.Images/Delete",
        SCHEMA,
        "containerd.services.images.v1.DeleteImageRequest",
        "google.protobuf.Empty",
    )


class Introspection:
    """``containerd.services.introspection.v1.Introspection``."""

    Plugins: Final[Method[introspection_pb2.PluginsRequest, introspection_pb2.PluginsResponse]] = Method.of(
        "/containerd.services.introspection.v1.Introspection/Plugins",
        SCHEMA,
        "containerd.services.introspection.v1.PluginsRequest",
        "containerd.services.introspection.v1.PluginsResponse",
    )
    Server: Final[Method[Empty, introspection_pb2.ServerResponse]] = Method.of(
        "/containerd.services.introspection.v1.Introspection/Server",
        SCHEMA,
        "google.protobuf.Empty",
        "containerd.services.introspection.v1.ServerResponse",
    )


class Leases:
    """``containerd.services.leases.v1.Leases``."""

    Create: Final[Method[leases_pb2.CreateRequest, leases_pb2.CreateResponse]] = Method.of(
        "/containerd.services.leases.v1.Leases/Create",
        SCHEMA,
        "containerd.services.leases.v1.CreateRequest",
        "containerd.services.leases.v1.CreateResponse",
    )
    Delete: Final[Method[leases_pb2.DeleteRequest, Empty]] = Method.of(
        "/containerd.services.leases.v1.Leases/Delete",
        SCHEMA,
        "containerd.services.leases.v1.DeleteRequest",
        "google.protobuf.Empty",
    )
    List: Final[Method[leases_pb2.ListRequest, leases_pb2.ListResponse]] = Method.of(
        "/containerd.services.leases.v1.Leases/List",
        SCHEMA,
        "containerd.services.leases.v1.ListRequest",
        "containerd.services.leases.v1.ListResponse",
    )


class Store:
    """``containerd.services.sandbox.v1.Store``."""

    Create: Final[Method[sandbox_pb2.StoreCreateRequest, sandbox_pb2.StoreCreateResponse]] = Method.of(
        "/containerd.services.sandbox.v1.Store/Create",
        SCHEMA,
        "containerd.services.sandbox.v1.StoreCreateRequest",
        "containerd.services.sandbox.v1.StoreCreateResponse",
    )
    Delete: Final[Method[sandbox_pb2.StoreDeleteRequest, sandbox_pb2.StoreDeleteResponse]] = Method.of(
        "/containerd.services.sandbox.v1.Store/Delete",
        SCHEMA,
        "containerd.services.sandbox.v1.StoreDeleteRequest",
        "containerd.services.sandbox.v1.StoreDeleteResponse",
    )


class Snapshots:
    """``containerd.services.snapshots.v1.Snapshots``."""

    Prepare: Final[Method[snapshots_pb2.PrepareSnapshotRequest, snapshots_pb2.PrepareSnapshotResponse]] = Method.of(
        "/containerd.services.snapshots.v1.Snapshots/Prepare",
        SCHEMA,
        "containerd.services.snapshots.v1.PrepareSnapshotRequest",
        "containerd.services.snapshots.v1.PrepareSnapshotResponse",
    )
    View: Final[Method[snapshots_pb2.ViewSnapshotRequest, snapshots_pb2.ViewSnapshotResponse]] = Method.of(
        "/containerd.services.snapshots.v1.Snapshots/View",
        SCHEMA,
        "containerd.services.snapshots.v1.ViewSnapshotRequest",
        "containerd.services.snapshots.v1.ViewSnapshotResponse",
    )
    Mounts: Final[Method[snapshots_pb2.MountsRequest, snapshots_pb2.MountsResponse]] = Method.of(
        "/containerd.services.snapshots.v1.Snapshots/Mounts",
        SCHEMA,
        "containerd.services.snapshots.v1.MountsRequest",
        "containerd.services.snapshots.v1.MountsResponse",
    )
    Commit: Final[Method[snapshots_pb2.CommitSnapshotRequest, Empty]] = Method.of(
        "/containerd.services.snapshots.v1.Snapshots/Commit",
        SCHEMA,
        "containerd.services.snapshots.v1.CommitSnapshotRequest",
        "google.protobuf.Empty",
    )
    Remove: Final[Method[snapshots_pb2.RemoveSnapshotRequest, Empty]] = Method.of(
        "/containerd.services.snapshots.v1.Snapshots/Remove",
        SCHEMA,
        "containerd.services.snapshots.v1.RemoveSnapshotRequest",
        "google.protobuf.Empty",
    )
    Stat: Final[Method[snapshots_pb2.StatSnapshotRequest, snapshots_pb2.StatSnapshotResponse]] = Method.of(
        "/containerd.services.snapshots.v1.Snapshots/Stat",
        SCHEMA,
        "containerd.services.snapshots.v1.StatSnapshotRequest",
        "containerd.services.snapshots.v1.StatSnapshotResponse",
    )


class Streaming:
    """``containerd.services.streaming.v1.Streaming``."""

    Stream: Final[Method[Any, Any]] = Method.of(
        "/containerd.services.streaming.v1.Streaming/Stream", SCHEMA, "google.protobuf.Any", "google.protobuf.Any"
    )


class Tasks:
    """``containerd.services.tasks.v1.Tasks``."""

    Create: Final[Method[tasks_pb2.CreateTaskRequest, tasks_pb2.CreateTaskResponse]] = Method.of(
        "/containerd.services.tasks.v1.Tasks/Create",
        SCHEMA,
        "containerd.services.tasks.v1.CreateTaskRequest",
        "containerd.services.tasks.v1.CreateTaskResponse",
    )
    Start: Final[Method[tasks_pb2.StartRequest, tasks_pb2.StartResponse]] = Method.of(
        "/containerd.services.tasks.v1.Tasks/Start",
        SCHEMA,
        "containerd.services.tasks.v1.StartRequest",
        "containerd.services.tasks.v1.StartResponse",
    )
    Delete: Final[Method[tasks_pb2.DeleteTaskRequest, tasks_pb2.DeleteResponse]] = Method.of(
        "/containerd.services.tasks.v1.Tasks/Delete",
        SCHEMA,
        "containerd.services.tasks.v1.DeleteTaskRequest",
        "containerd.services.tasks.v1.DeleteResponse",
    )
    Get: Final[Method[tasks_pb2.GetRequest, tasks_pb2.GetResponse]] = Method.of(
        "/containerd.services.tasks.v1.Tasks/Get",
        SCHEMA,
        "containerd.services.tasks.v1.GetRequest",
        "containerd.services.tasks.v1.GetResponse",
    )
    List: Final[Method[tasks_pb2.ListTasksRequest, tasks_pb2.ListTasksResponse]] = Method.of(
        "/containerd.services.tasks.v1.Tasks/List",
        SCHEMA,
        "containerd.services.tasks.v1.ListTasksRequest",
        "containerd.services.tasks.v1.ListTasksResponse",
    )
    Kill: Final[Method[tasks_pb2.KillRequest, Empty]] = Method.of(
        "/containerd.services.tasks.v1.Tasks/Kill",
        SCHEMA,
        "containerd.services.tasks.v1.KillRequest",
        "google.protobuf.Empty",
    )
    CloseIO: Final[Method[tasks_pb2.CloseIORequest, Empty]] = Method.of(
        "/containerd.services.tasks.v1.Tasks/CloseIO",
        SCHEMA,
        "containerd.services.tasks.v1.CloseIORequest",
        "google.protobuf.Empty",
    )
    Pause: Final[Method[tasks_pb2.PauseTaskRequest, Empty]] = Method.of(
        "/containerd.services.tasks.v1.Tasks/Pause",
        SCHEMA,
        "containerd.services.tasks.v1.PauseTaskRequest",
        "google.protobuf.Empty",
    )
    Resume: Final[Method[tasks_pb2.ResumeTaskRequest, Empty]] = Method.of(
        "/containerd.services.tasks.v1.Tasks/Resume",
        SCHEMA,
        "containerd.services.tasks.v1.ResumeTaskRequest",
        "google.protobuf.Empty",
    )
    Wait: Final[Method[tasks_pb2.WaitRequest, tasks_pb2.WaitResponse]] = Method.of(
        "/containerd.services.tasks.v1.Tasks/Wait",
        SCHEMA,
        "containerd.services.tasks.v1.WaitRequest",
        "containerd.services.tasks.v1.WaitResponse",
    )


class Transfer:
    """``containerd.services.transfer.v1.Transfer``."""

    Transfer: Final[Method[transfer_pb2.TransferRequest, Empty]] = Method.of(
        "/containerd.services.transfer.v1.Transfer/Transfer",
        SCHEMA,
        "containerd.services.transfer.v1.TransferRequest",
        "google.protobuf.Empty",
    )


class Version:
    """``containerd.services.version.v1.Version``."""

    Version: Final[Method[Empty, version_pb2.VersionResponse]] = Method.of(
        "/containerd.services.version.v1.Version/Version",
        SCHEMA,
        "google.protobuf.Empty",
        "containerd.services.version.v1.VersionResponse",
    )
