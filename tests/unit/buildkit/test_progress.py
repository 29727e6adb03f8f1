"""What a daemon tells, as events; what is known of a failure; what is asked for each field."""

from __future__ import annotations

import base64

import pytest

from asyncctr.buildkit.channel import Detail
from asyncctr.buildkit.progress import BuildProgress
from asyncctr.buildkit.proto.control_pb2 import StatusResponse, Vertex, VertexLog, VertexWarning
from asyncctr.buildkit.request import Daemon, Result, caches_to_write, frontend, request
from asyncctr.core.build import BuildEvent, DockerfileBuildInput
from asyncctr.core.errors import AsyncctrError, BuildError, InvalidConfigError, ResourceExhaustedError, UnsupportedError
from asyncctr.oci.dockerfile import undeclared_arguments


def vertex(name: str, *, ended: bool = True, cached: bool = False, error: str = "") -> Vertex:
    made = Vertex(digest=name, name=name, cached=cached, error=error)
    made.started.seconds = 1
    if ended:
        made.completed.seconds = 2
    return made


def failure(progress: BuildProgress, message: str, *details: Detail) -> AsyncctrError:
    return progress.error(message, details, backend="docker", name="x:1", status="UNKNOWN")


def test_a_step_begins_says_something_and_ends() -> None:
    events: list[BuildEvent] = []
    progress = BuildProgress(events.append, "/context")
    step = "[2/2] RUN echo é"
    text = "é".encode()
    progress.feed(StatusResponse(vertexes=[vertex(step)], logs=[VertexLog(vertex=step, msg=text[:1])]))
    progress.feed(StatusResponse(vertexes=[vertex(step)], logs=[VertexLog(vertex=step, msg=text[1:] + b"\n")]))
    assert [(event.kind, event.message) for event in events] == [
        ("vertex", "started"),
        ("vertex", "completed"),
        ("log", "é\n"),
    ]


def test_steps_of_the_dockerfile_count_as_cached_once() -> None:
    events: list[BuildEvent] = []
    progress = BuildProgress(events.append, "/context")
    names = ("[1/3] FROM x", "[internal] load metadata", "[made 2/3] RUN a", "[made 3/3] COPY . /")
    for _ in range(2):
        progress.feed(StatusResponse(vertexes=[vertex(name, cached=True) for name in names]))
    assert progress.cached_steps == 2
    assert [event.step for event in events if event.cached] == list(names[2:])


def test_the_failing_step_is_not_one_that_was_stopped() -> None:
    progress = BuildProgress(None, "/context")
    progress.dockerfile = "FROM x\nRUN true\nRUN one && \\\n  two\n"
    failing = "[3/3] RUN one &&   two"
    logs = [VertexLog(vertex=failing, msg=b"line\n" * 60 + b"last")]
    progress.feed(StatusResponse(vertexes=[vertex(failing, error="exit code: 3")], logs=logs))
    progress.feed(StatusResponse(vertexes=[vertex("[2/3] RUN true", error="context canceled")]))
    error = failure(progress, "failed to solve: process did not complete successfully: exit code: 3")
    assert isinstance(error, BuildError)
    assert (error.step, error.line, error.exit_code) == ("RUN one &&   two", 3, 3)
    assert error.output == (*("line",) * 49, "last")
    assert error.message == "x:1: process did not complete successfully: exit code: 3"


def test_details_tell_what_a_message_does_not() -> None:
    info = {"data": base64.b64encode(b"FROM x\nNONSENSE y\n").decode()}
    source = Detail("github.com/moby/buildkit/errdefs.Source+json", {"info": info, "ranges": [{"start": {"line": 2}}]})
    code = Detail("github.com/moby/buildkit/gatewayapi.ExitMessage+json", {"Code": 137})
    error = failure(BuildProgress(None, ""), "something", source, code)
    assert isinstance(error, BuildError)
    assert (error.step, error.line, error.exit_code) == ("NONSENSE y", 2, 137)
    assert isinstance(failure(BuildProgress(None, ""), "write: no space left on device"), ResourceExhaustedError)


def test_passwords_of_a_context_are_not_shown() -> None:
    url = "https://user:canary@example.com/x.git"
    events: list[BuildEvent] = []
    progress = BuildProgress(events.append, url)
    progress.feed(StatusResponse(vertexes=[vertex(f"load {url}", error=f"cannot fetch {url}")]))
    assert "canary" not in repr(events)
    assert "canary" not in repr(failure(progress, f"cannot fetch {url}"))


def test_warnings_are_told_once_and_unused_arguments_where_the_daemon_does_not() -> None:
    progress = BuildProgress(None, "")
    progress.feed(StatusResponse(warnings=[VertexWarning(short=b"old form"), VertexWarning(short=b"old form")]))
    progress.dockerfile = "ARG A\nFROM x\nARG B=1 C\n"
    progress.finish({"A": "", "C": "", "D": "", "http_proxy": ""})
    assert progress.warnings == ["old form", "One or more build-args [D] were not consumed"]
    assert undeclared_arguments("arg \\\n  A\n", ["A", "b"]) == ["b"]


def test_fields_in_the_frontends_words() -> None:
    given = DockerfileBuildInput(
        context="/c",
        build_args={"A": "1"},
        labels={"l": "v"},
        target="t",
        platform="linux/arm64",
        no_cache=True,
        pull=True,
        network_mode="host",
        extra_hosts={"a": "192.0.2.1", "b": "192.0.2.2"},
        cache_from=["image", "type=registry,ref=r/x:1"],
        cache_to=["type=inline"],
    )
    attributes = frontend(given)
    assert attributes == {
        "image-resolve-mode": "pull",
        "target": "t",
        "platform": "linux/arm64",
        "force-network-mode": "host",
        "add-hosts": "a=192.0.2.1,b=192.0.2.2",
        "build-arg:A": "1",
        "label:l": "v",
        "no-cache": "",
    }
    asked = request("ref", "session", attributes, given, Result("moby", {"name": "x"}))
    assert list(asked.entitlements) == ["network.host"]
    assert [dict(entry.attrs) for entry in asked.cache.imports] == [
        {"ref": "docker.io/library/image:latest"},
        {"ref": "r/x:1"},
    ]
    assert [entry.type for entry in caches_to_write(given)] == ["inline"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"network_mode": "mine"}, "build.network_mode"),
        ({"outputs": {"oci": "/x"}}, "build.outputs.oci"),
        ({"cache_to": ["type=registry,ref=a"]}, "build.cache_to.registry"),
        ({"cache_from": ["type=local,src=/x"]}, "build.cache_from.local"),
        ({"extra_hosts": {"a": "host-gateway"}}, "build.extra_hosts.host-gateway"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(changes: dict[str, object], field: str) -> None:
    daemon = Daemon(backend="docker", outputs=frozenset({"tar"}), caches=frozenset({"inline"}))
    with pytest.raises(UnsupportedError) as caught:
        daemon.check(DockerfileBuildInput(context="/c", **changes))  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_malformed_cache() -> None:
    with pytest.raises(InvalidConfigError):
        Daemon(backend="docker", outputs=frozenset()).check(
            DockerfileBuildInput(context="/c", cache_from=["type=registry,nonsense"])
        )
