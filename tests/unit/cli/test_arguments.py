"""What the command line's words mean."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncctr import (
    ContainerConfig,
    ContainerdConfig,
    DockerConfig,
    InvalidConfigError,
    NanosConfig,
    NetworkConfig,
    NetworkMode,
    PortMapping,
    ResourceLimits,
    VolumeMount,
)
from asyncctr.cli import arguments
from asyncctr.cli.app import _parser
from asyncctr.cli.terminal import ago, one_line

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1024", 1024),
        ("256m", 256 << 20),
        ("256M", 256 << 20),
        ("1g", 1 << 30),
        ("1.5g", 3 << 29),
        ("512KiB", 512 << 10),
        ("7b", 7),
        ("2tb", 2 << 40),
    ],
)
def test_size(text: str, expected: int) -> None:
    assert arguments.size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("0.5s", 0.5),
        ("10m", 600),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1d1s", 86_401),
    ],
)
def test_duration(text: str, expected: float) -> None:
    assert arguments.duration(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", PortMapping(host_port=8080, container_port=80)),
        ("80", PortMapping(container_port=80)),
        (":80", PortMapping(container_port=80)),
        ("53:5353/udp", PortMapping(host_port=53, container_port=5353, protocol="udp")),
        ("0.0.0.0:80:81", PortMapping(host_port=80, container_port=81, host_ip="0.0.0.0")),
        ("127.0.0.1::81", PortMapping(container_port=81)),
        ("[::1]:80:81/sctp", PortMapping(host_port=80, container_port=81, host_ip="::1", protocol="sctp")),
    ],
)
def test_port(text: str, expected: PortMapping) -> None:
    assert arguments.port(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a:/b", VolumeMount(source="/a", destination="/b")),
        ("/a:/b:ro", VolumeMount(source="/a", destination="/b", read_only=True)),
        ("/a:/b:rw", VolumeMount(source="/a", destination="/b")),
        ("data:/b", VolumeMount(source="data", destination="/b", is_volume_name=True)),
        ("./x:/b", VolumeMount(source=str(Path.cwd() / "x"), destination="/b")),
        (".:/b", VolumeMount(source=str(Path.cwd()), destination="/b")),
        ("..:/b", VolumeMount(source=str(Path.cwd().parent), destination="/b")),
    ],
)
def test_volume(text: str, expected: VolumeMount) -> None:
    assert arguments.volume(text) == expected


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((arguments.size, text) for text in ("", "m", "-1", "1x", "1 2", "1e9", "1kk")),
        *((arguments.duration, text) for text in ("", "0", "-1", "s", "1m1h", "inf", "nan", "10x")),
        *((arguments.cpus, text) for text in ("", "0", "-1", "nan", "inf", "two")),
        *((arguments.pids, text) for text in ("", "0", "-1", "1.5", "²")),
        *((arguments.count, text) for text in ("", "-1", "all")),
        *((arguments.port, text) for text in ("", ":", "http", "1:2:3:4", "70000", "0", "1:70000", "1:2/", "1:2/icmp")),
        *((arguments.port, text) for text in ("999.1.1.1:1:2", "[::1:1:2", "1:2\n")),
        *(
            (arguments.volume, text)
            for text in ("", "/a", "/a:", "/a:b", "/a:/b:rx", "/a:/b:ro:z", "a b:/c", "/a/../b:/c")
        ),
        *((arguments.moment, text) for text in ("", "yesterday", "12:00", "2024-13-01")),
        *((arguments.env_entry, text) for text in ("", "=x")),
    ],
)
def test_refusals_are_for_argparse(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse(text)


def test_moment() -> None:
    assert arguments.moment("2024-05-31T12:00:00Z") == datetime(2024, 5, 31, 12, tzinfo=UTC)
    assert arguments.moment("2024-05-31T12:00:00+02:00") == datetime(2024, 5, 31, 10, tzinfo=UTC)
    assert arguments.moment("2024-05-31 12:00:00") == datetime(2024, 5, 31, 12).astimezone(UTC)
    assert abs(datetime.now(UTC) - arguments.moment("10m") - timedelta(minutes=10)) < timedelta(seconds=5)


def test_environment() -> None:
    environ = {"HERE": "from here", "EMPTY": ""}
    entries = ["A=1", "A=2", "B=x=y", "C=", "HERE", "EMPTY", "NOWHERE"]
    assert arguments.environment(entries, environ) == {"A": "2", "B": "x=y", "C": "", "HERE": "from here", "EMPTY": ""}


def test_network() -> None:
    assert arguments.network("none") == NetworkConfig(mode=NetworkMode.NONE)
    assert arguments.network("host") == NetworkConfig(mode=NetworkMode.HOST)
    assert arguments.network("backend") == NetworkConfig(mode=NetworkMode.CUSTOM, network_name="backend")
    # "custom" is the name of a mode in the API, but of a network here.
    assert arguments.network("custom") == NetworkConfig(mode=NetworkMode.CUSTOM, network_name="custom")


def parsed(*words: str) -> argparse.Namespace:
    return _parser().parse_args(["run", *words])


def test_only_an_image() -> None:
    args = parsed("busybox")
    assert arguments.container_config(args, {}) == ContainerConfig("busybox")
    assert (args.pull, args.timeout, args.detach) == ("missing", None, False)


def test_every_option() -> None:
    words = "-e A=1 --env B -v /a:/b:ro -p 8080:80 -m 256m --cpus 1.5 --pids 9 --network bridge --name n --user u:g -w /w -i"
    args = parsed(*words.split(), "--entrypoint", "/bin/x", "--timeout", "5", "--pull", "never", "img:1", "cmd")
    assert arguments.container_config(args, {"B": "2"}) == ContainerConfig(
        "img:1",
        command=["cmd"],
        entrypoint=["/bin/x"],
        env={"A": "1", "B": "2"},
        workdir="/w",
        volumes=[VolumeMount(source="/a", destination="/b", read_only=True)],
        network=NetworkConfig(port_mappings=(PortMapping(host_port=8080, container_port=80),)),
        resources=ResourceLimits.from_cpus(1.5, memory=256 << 20, pids=9),
        name="n",
        user="u:g",
        stdin=True,
    )
    assert (args.timeout, args.pull) == (5, "never")


@pytest.mark.parametrize(
    "command",
    [
        ["ls", "-l", "--all"],
        ["sh", "-c", "exit 3"],
        ["--env", "X=1"],
        ["prog", "--", "-x"],
        ["prog", "--timeout", "bad", "--bogus", "-1"],
        ["echo", "", "a b", "-"],
    ],
)
def test_what_follows_the_image_is_the_command(command: list[str]) -> None:
    args = parsed("--name", "n", "img", *command)
    assert args.image == "img"
    assert args.name == "n"
    assert args.command == command


def test_an_empty_entrypoint_is_none() -> None:
    assert arguments.container_config(parsed("--entrypoint", "", "img"), {}).entrypoint == ()
    assert arguments.container_config(parsed("img"), {}).entrypoint is None


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["run"], 125),
        (["run", "--bogus", "img"], 125),
        (["run", "--mem", "1g", "img"], 125),
        (["run", "--memory", "lots", "img"], 125),
        (["run", "--pull", "sometimes", "img"], 125),
        (["ps", "--bogus"], 2),
        (["ps", "extra"], 2),
        (["logs"], 2),
        (["logs", "--tail", "-1", "x"], 2),
        (["reap", "--older-than", "0"], 2),
        ([], 2),
        (["bogus"], 2),
    ],
)
def test_a_wrong_option_is_one_line(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        _parser().parse_args(words)
    assert caught.value.code == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("asyncctr: ")
    assert output.err.count("\n") == 1


def options(**values: Any) -> argparse.Namespace:
    unset = dict.fromkeys(("backend", "host", "namespace", "kernel", "ops_config"))
    return argparse.Namespace(**{**unset, **values})


def test_backend_config() -> None:
    assert arguments.backend_config(options()) is None
    assert arguments.backend_config(options(backend="docker")) == DockerConfig()
    host = "unix:///run/x.sock"
    assert arguments.backend_config(options(host=host)) == DockerConfig(host=host)
    assert arguments.backend_config(options(backend="docker", host=host)) == DockerConfig(host=host)
    assert arguments.backend_config(options(host=host), op_timeout=3) == DockerConfig(host=host, op_timeout=3)
    containerd = options(backend="containerd")
    assert arguments.backend_config(containerd, environ={}) == ContainerdConfig(auto_start=True)
    assert arguments.backend_config(containerd, environ={"ASYNCCTR_AUTO_START": "0"}) == ContainerdConfig()
    for address in (host, "/run/x.sock"):
        named = options(backend="containerd", host=address, namespace="other")
        expected = ContainerdConfig(socket_path="/run/x.sock", namespace="other", auto_start=True)
        assert arguments.backend_config(named, environ={}) == expected
    with pytest.raises(InvalidConfigError, match="unix socket"):
        arguments.backend_config(options(backend="containerd", host="tcp://h:1"))
    for backend in (None, "docker"):
        with pytest.raises(InvalidConfigError, match="--backend containerd"):
            arguments.backend_config(options(backend=backend, namespace="x"))
    with pytest.raises(InvalidConfigError, match="bogus"):
        arguments.backend_config(options(backend="bogus"))
    with pytest.raises(InvalidConfigError, match="nanos"):
        arguments.backend_config(options(backend="nanos", host=host))
    named = options(backend="nanos", kernel="/x/kernel.img", ops_config="/x/ops.json")
    assert arguments.backend_config(named) == NanosConfig(kernel_path="/x/kernel.img", config_path="/x/ops.json")
    for option in ("kernel", "ops_config"):
        with pytest.raises(InvalidConfigError, match="--backend nanos"):
            arguments.backend_config(options(backend="docker", **{option: "/x"}))


def test_messages_are_one_printable_line() -> None:
    assert (
        one_line("nothing answered:\n  - a: no\n  - b: no.\nInstall one")
        == "nothing answered: a: no; b: no. Install one"
    )
    assert one_line("\x1b[2Jbad\x07") == "\\x1b[2Jbad\\x07"
    assert one_line("größe 10 €") == "größe 10 €"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "a moment"), (1, "1 second"), (59, "59 seconds"), (60, "1 minute"), (7200, "2 hours"), (100_000, "1 day")],
)
def test_ago(seconds: float, text: str) -> None:
    assert ago(seconds) == text
