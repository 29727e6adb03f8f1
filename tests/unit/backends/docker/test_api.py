"""What engines say, and what it means here: versions, errors, times, output frames."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr import (
    AsyncctrError,
    ConflictError,
    ConnectionLostError,
    ContainerConfig,
    ContainerNotFoundError,
    DigestMismatchError,
    ImageNotFoundError,
    ImagePullError,
    InvalidConfigError,
    InvalidStateError,
    NetworkConfig,
    NotFoundError,
    RegistryAuthError,
    ResourceExhaustedError,
    StartError,
    UnsupportedError,
    VolumeMount,
)
from asyncctr.backends.docker.api import message_of, negotiate
from asyncctr.backends.docker.create import container_body
from asyncctr.backends.docker.errors import raise_for_create, raise_for_pull, raise_for_start, translate
from asyncctr.backends.docker.inspect import parse_time
from asyncctr.backends.docker.multiplex import ChunkDemuxer, RecordDemuxer
from asyncctr.backends.docker.naming import Engine

DOCKER = Engine(is_podman=False, log_driver="local")


@pytest.mark.parametrize(
    ("offered", "minimum", "wanted", "spoken"),
    [
        ("1.41", "1.12", "", "1.41"),
        ("1.51", "1.24", "", "1.51"),
        ("1.53", "1.44", "", "1.51"),
        ("1.41", "", "", "1.41"),
        ("1.51", "1.24", "1.43", "1.43"),
    ],
)
def test_the_newest_version_that_both_speak(offered: str, minimum: str, wanted: str, spoken: str) -> None:
    assert negotiate(offered, minimum, wanted) == spoken


@pytest.mark.parametrize(
    ("offered", "minimum", "wanted"), [("1.40", "1.12", ""), ("1.60", "1.52", ""), ("1.41", "1.12", "1.43")]
)
def test_no_version_in_common(offered: str, minimum: str, wanted: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        negotiate(offered, minimum, wanted)
    assert caught.value.field == "api_version"


@pytest.mark.parametrize(
    ("status", "message", "kind", "expected"),
    [
        (404, "No such container: abc", "container", ContainerNotFoundError),
        (409, "Container abc is already paused", "container", InvalidStateError),
        (500, "docker.io/library/nope: image not known", "image", ImageNotFoundError),
        (404, "image with reference a was found but does not match the specified platform: x", "", ImageNotFoundError),
        (404, "No such image: abc:latest", "", ImageNotFoundError),
        (409, "You cannot remove a running container abc. Stop it or force remove", "container", InvalidStateError),
        (409, "cannot remove container: container is running: stop it first", "container", InvalidStateError),
        (409, "Container abc is not running", "container", InvalidStateError),
        (500, "can only kill running containers. abc is in state exited", "container", InvalidStateError),
        (409, 'Conflict. The container name "/x" is already in use', "", ConflictError),
        (500, "write /x: no space left on device", "container", ResourceExhaustedError),
        (500, "Bind for 127.0.0.1:80 failed: port is already allocated", "container", ConflictError),
        (400, "invalid reference format", "image", InvalidConfigError),
        (501, "not implemented", "", UnsupportedError),
        (500, "server error", "", AsyncctrError),
    ],
)
def test_what_an_answer_means(status: int, message: str, kind: str, expected: type[AsyncctrError]) -> None:
    error = translate(status, message, kind=kind, resource="abc")
    assert type(error) is expected
    assert (error.status, error.resource, error.backend) == (status, "abc", "docker")


def test_a_missing_command_is_not_a_missing_container() -> None:
    message = 'unable to start container process: exec: "nosuch": executable file not found in $PATH'
    with pytest.raises(StartError):
        raise_for_start(translate(404, message, kind="container"))
    with pytest.raises(ContainerNotFoundError):
        raise_for_start(translate(404, "No such container: abc", kind="container"))


_RESOLVE = (
    'failed to resolve reference "r/x:y": pull access denied, repository does not exist or may require authorization'
)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("manifest for x:y not found: manifest unknown: manifest unknown", ImageNotFoundError),
        ("Get https://r/v2/: unauthorized: authentication required", RegistryAuthError),
        ("Get https://r/v2/x/manifests/y: no basic auth credentials", RegistryAuthError),
        ("filesystem layer verification failed for digest sha256:00", DigestMismatchError),
        ("unexpected EOF", ImagePullError),
        ("An image does not exist locally with the tag: x", ImageNotFoundError),
        # The port of a registry, the check of a certificate and a file of the engine's are none of credentials or digests.
        ('Get "http://127.0.0.1:40199/v2/": dial tcp 127.0.0.1:40199: connect: connection refused', ImagePullError),
        ('Get "https://r/v2/": tls: failed to verify certificate: x509: unknown authority', ImagePullError),
        ("write /var/lib/docker/tmp/GetImageBlob1: permission denied", ImagePullError),
        ("unexpected commit digest sha256:00, expected sha256:11: failed precondition", DigestMismatchError),
        # Docker 29 says of a private registry in part what it says of Docker Hub, which does not tell.
        (f"{_RESOLVE}: authorization failed: no basic auth credentials", RegistryAuthError),
        (f"{_RESOLVE}: server message: insufficient_scope: authorization failed", ImageNotFoundError),
    ],
)
def test_what_a_failed_pull_means(message: str, expected: type[AsyncctrError]) -> None:
    with pytest.raises(AsyncctrError) as caught:
        raise_for_pull(message, name="x:y")
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("status", "message", "expected", "field"),
    [
        (
            400,
            'error looking up logging plugin bogus: plugin "bogus" not found',
            InvalidConfigError,
            "options.log_driver",
        ),
        (500, "container create: container-init binary not found on the host: stat /x", UnsupportedError, "init"),
        (500, "container create: stat /dev/nope: no such file or directory", InvalidConfigError, "devices"),
        (500, "fill out specgen: sysctl 'kernel.bogus' is not allowed", InvalidConfigError, "options.sysctls"),
        (400, 'invalid IP address in add-host: "nope"', InvalidConfigError, "extra_hosts"),
        (500, "unable to find network with name or ID nope: network not found", NotFoundError, None),
    ],
)
def test_what_a_refused_create_means(
    status: int, message: str, expected: type[AsyncctrError], field: str | None
) -> None:
    with pytest.raises(AsyncctrError) as caught:
        raise_for_create(translate(status, message, resource="abc"))
    assert type(caught.value) is expected
    assert getattr(caught.value, "field", None) == field


def test_a_missing_network_is_not_found_at_the_start_as_well() -> None:
    with pytest.raises(NotFoundError):
        raise_for_start(translate(404, "network nope not found", kind="container"))


@pytest.mark.parametrize("name", ["host", "none", "bridge", "container:abc"])
def test_a_network_name_gives_no_mode(name: str) -> None:
    config = ContainerConfig("i", network=NetworkConfig(mode="custom", network_name=name))
    with pytest.raises(InvalidConfigError) as caught:
        container_body(config, {}, DOCKER)
    assert caught.value.field == "network.network_name"


def test_messages() -> None:
    assert message_of(b'{"message":"no"}\n') == "no"
    assert message_of(b"client version 1.99 is too new") == "client version 1.99 is too new"
    assert message_of(b'{"cause":"busy","message":"cannot"}') == "cannot: busy"


def test_times_are_cut_to_microseconds_and_zero_is_none() -> None:
    assert parse_time("2026-01-02T03:04:05.123456789Z") == datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)
    assert parse_time("2026-01-02T05:04:05+02:00") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert parse_time("0001-01-01T00:00:00Z") is None
    assert parse_time("yesterday") is None


def frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BxxxL", kind, len(payload)) + payload


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40))), st.integers(min_value=1, max_value=50))
def test_frames_come_out_whole_however_they_are_cut(frames: list[tuple[int, bytes]], step: int) -> None:
    wire = b"".join(frame(kind, payload) for kind, payload in frames)
    demuxer, records = ChunkDemuxer(), RecordDemuxer()
    got: dict[str, bytes] = {"stdout": b"", "stderr": b""}
    each: list[tuple[int, bytes]] = []
    for start in range(0, len(wire), step):
        for name, chunk in demuxer.feed(wire[start : start + step]):
            got[name] += chunk
        each += records.records(wire[start : start + step])
    demuxer.finish()
    assert each == frames
    assert got["stdout"] == b"".join(payload for kind, payload in frames if kind == 1)
    assert got["stderr"] == b"".join(payload for kind, payload in frames if kind == 2)


def test_a_frame_that_is_cut_short_is_a_lost_connection() -> None:
    demuxer = ChunkDemuxer()
    assert demuxer.feed(frame(1, b"hello")[:-1]) == []
    with pytest.raises(ConnectionLostError):
        demuxer.finish()


@pytest.mark.parametrize("demuxer", [ChunkDemuxer().feed, RecordDemuxer().records])
def test_garbage_and_the_engines_own_errors_are_raised(demuxer: object) -> None:
    assert callable(demuxer)
    with pytest.raises(AsyncctrError, match="cannot read"):
        demuxer(frame(3, b"cannot read the log"))
    for kind in (1, 2):
        with pytest.raises(ConnectionLostError):
            ChunkDemuxer().feed(struct.pack(">BxxxL", kind, 1 << 31) + b"x")
    with pytest.raises(ConnectionLostError):
        RecordDemuxer().records(b"HTTP/1.1 200 OK")


def test_the_body_of_a_create() -> None:
    config = ContainerConfig(
        "alpine:3.20",
        command=["a", "b c"],
        shell=["sh", "-c"],
        env={"A": "1\n2"},
        volumes=[VolumeMount(source="/a:b", destination="/c")],
        entrypoint=(),
    )
    body = container_body(config, {"l": "1"}, DOCKER)
    assert (body["Entrypoint"], body["Cmd"]) == (["sh"], ["-c", "a b c"])
    assert body["Env"] == ["A=1\n2"]
    assert body["HostConfig"]["Mounts"] == [{"Type": "bind", "Source": "/a:b", "Target": "/c"}]
    assert container_body(ContainerConfig("alpine", entrypoint=()), {}, DOCKER)["Entrypoint"] == [""]
    assert "Entrypoint" not in container_body(ContainerConfig("alpine"), {}, DOCKER)
