"""The values: frozen, hashable, picklable, validated when constructed, and silent about secrets."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncctr
from asyncctr import (
    BackendCapabilities,
    ContainerConfig,
    DockerConfig,
    DockerfileBuildInput,
    DockerOptions,
    ExitStatus,
    InvalidConfigError,
    IPConfig,
    IPv4Config,
    NetworkConfig,
    NetworkMode,
    PortMapping,
    RegistryAuth,
    ResourceLimits,
    TLSConfig,
    TmpfsMount,
    Ulimit,
    UnsupportedError,
    VolumeMount,
)

CANARY = "canary-secret-value"

FULL = ContainerConfig(
    "registry.example:5000/team/app:1.2",
    command=["serve", "--all"],
    entrypoint=["/bin/init"],
    env={"TOKEN": CANARY, "EMPTY": ""},
    workdir="/srv",
    volumes=[VolumeMount(source="/data", destination="/data", read_only=True)],
    tmpfs=["/tmp", TmpfsMount(destination="/run", size=1 << 20)],
    network=NetworkConfig(port_mappings=[PortMapping(container_port=80)], dns=["192.0.2.1"]),
    resources=ResourceLimits.from_cpus(1.5, memory=256 << 20, pids=100),
    name="app",
    labels={"team": "a"},
    user="1000:1000",
    hostname="app",
    extra_hosts={"db": "192.0.2.7"},
    cap_add=["net_admin", "CAP_SYS_TIME"],
    devices=["/dev/fuse"],
    ulimits=[Ulimit(name="nofile", soft=1024, hard=-1)],
    stop_signal="term",
    options=DockerOptions(sysctls={"net.core.somaxconn": "1024"}),
)


def test_a_config_hashes_pickles_copies_and_evolves() -> None:
    assert pickle.loads(pickle.dumps(FULL)) == FULL
    assert hash(copy.deepcopy(FULL)) == hash(FULL)
    assert attrs.evolve(FULL, name="other").name == "other"
    assert attrs.evolve(FULL, name="app") == FULL
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        FULL.name = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        FULL.labels["x"] = "y"  # type: ignore[index]


def test_sequences_and_mappings_are_copied_and_frozen() -> None:
    command, env = ["a"], {"A": "1"}
    config = ContainerConfig("image", command=command, env=env)
    command.append("b")
    env["B"] = "2"
    assert config.command == ("a",)
    assert dict(config.env) == {"A": "1"}
    assert ContainerConfig("image", env=["A=1=2", "B="]).env == {"A": "1=2", "B": ""}


def test_normal_forms() -> None:
    assert FULL.cap_add == ("CAP_NET_ADMIN", "CAP_SYS_TIME")
    assert FULL.stop_signal == "SIGTERM"
    assert ContainerConfig("i", stop_signal=15).stop_signal == "SIGTERM"
    assert FULL.tmpfs[0] == TmpfsMount(destination="/tmp")
    assert NetworkConfig(mode="none").mode is NetworkMode.NONE
    assert DockerConfig(api_version="v1.41").api_version == "1.41"


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: ContainerConfig(""), "image"),
        (lambda: ContainerConfig("a b"), "image"),
        (lambda: ContainerConfig("a\n"), "image"),
        (lambda: ContainerConfig("a\0b"), "image"),
        (lambda: ContainerConfig(b"a"), "image"),  # type: ignore[arg-type]
        (lambda: ContainerConfig("i", command="ls"), "command"),
        (lambda: ContainerConfig("i", command=["a\0"]), "command"),
        (lambda: ContainerConfig("i", command=[1]), "command"),  # type: ignore[list-item]
        (lambda: ContainerConfig("i", command=["x" * 131_072]), "command"),
        (lambda: ContainerConfig("i", command={"a": "b"}), "command"),
        (lambda: ContainerConfig("i", env={"A=B": "c"}), "env"),
        (lambda: ContainerConfig("i", env={"": "c"}), "env"),
        (lambda: ContainerConfig("i", env={"A": "\udc80"}), "env"),
        (lambda: ContainerConfig("i", env=["A"]), "env"),
        (lambda: ContainerConfig("i", env="A=B"), "env"),
        (lambda: ContainerConfig("i", env={"A": "x" * 131_070}), "env"),
        (lambda: ContainerConfig("i", workdir="relative"), "workdir"),
        (lambda: ContainerConfig("i", labels={"dev.asyncctr.token": "x"}), "labels"),
        (lambda: ContainerConfig("i", shell=["sh", "-c"]), "shell"),
        (lambda: ContainerConfig("i", seccomp="{}"), "seccomp"),
        (lambda: ContainerConfig("i", seccomp="strict"), "seccomp"),
        (lambda: ContainerConfig("i", platform="linux"), "platform"),
        (lambda: ContainerConfig("i", stop_signal="SIGNOPE"), "stop_signal"),
        (lambda: ContainerConfig("i", stop_signal=0), "stop_signal"),
        (lambda: ContainerConfig("i", log_limit=1), "log_limit"),
        (lambda: ContainerConfig("i", tty=1), "tty"),  # type: ignore[arg-type]
        (lambda: ContainerConfig("i", hostname=None), "hostname"),  # type: ignore[arg-type]
        (lambda: ContainerConfig("i", extra_hosts={"db": "elsewhere"}), "extra_hosts"),
        (lambda: ContainerConfig("i", tmpfs=["relative"]), "tmpfs"),
        (lambda: DockerOptions(pid_mode="bogus"), "pid_mode"),
        (lambda: DockerOptions(ipc_mode="container:"), "ipc_mode"),
        (lambda: ContainerConfig("i", tmpfs=["/a"], volumes=[VolumeMount(source="/b", destination="/a/")]), "volumes"),
        (lambda: VolumeMount(source="relative", destination="/a"), "source"),
        (lambda: VolumeMount(source="/a/../b", destination="/a"), "source"),
        (lambda: VolumeMount(source="-x", destination="/a", is_volume_name=True), "source"),
        (lambda: VolumeMount(source="/a", destination="a"), "destination"),
        (lambda: Ulimit(name="nofile", soft=10, hard=5), "soft"),
        (lambda: PortMapping(container_port=0), "container_port"),
        (lambda: PortMapping(container_port=80, host_port=65_536), "host_port"),
        (lambda: PortMapping(container_port=80, protocol="icmp"), "protocol"),
        (lambda: PortMapping(container_port=80, host_ip="localhost"), "host_ip"),
        (lambda: NetworkConfig(mode="vlan"), "mode"),
        (lambda: NetworkConfig(mode="custom"), "network_name"),
        (lambda: NetworkConfig(network_name="x"), "network_name"),
        (lambda: NetworkConfig(mode="host", port_mappings=[PortMapping(container_port=1)]), "port_mappings"),
        (lambda: NetworkConfig(aliases=["x"]), "aliases"),
        (lambda: NetworkConfig(dns=["example"]), "dns"),
        (lambda: NetworkConfig(mtu=10), "mtu"),
        (lambda: NetworkConfig(backend_options={"a": []}), "backend_options"),
        (lambda: IPv4Config(address="::1"), "address"),
        (lambda: IPConfig(ipv4="10.0.0.1"), "ipv4"),  # type: ignore[arg-type]
        (lambda: ResourceLimits(memory=0), "memory"),
        (lambda: ResourceLimits(memory=True), "memory"),
        (lambda: ResourceLimits(memory_swap=-1), "memory_swap"),
        (lambda: ResourceLimits(memory=10, memory_swap=5), "memory_swap"),
        (lambda: ResourceLimits(cpu_quota=10), "cpu_quota"),
        (lambda: ResourceLimits(cpu_period=2_000_000), "cpu_period"),
        (lambda: ResourceLimits.from_cpus(0), "cpus"),
        (lambda: ResourceLimits.from_cpus(float("nan")), "cpus"),
        (lambda: DockerConfig(host="unix:///a", context="b"), "context"),
        (lambda: DockerConfig(op_timeout=0), "op_timeout"),
        (lambda: DockerConfig(api_version="latest"), "api_version"),
        (lambda: DockerfileBuildInput(context=""), "context"),
        (lambda: DockerfileBuildInput(context=b"", outputs={"zip": "/x"}), "outputs"),
    ],
)
def test_bad_values_name_their_field(make: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        make()
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)
    assert field in str(caught.value)


# The values, and what each cannot do without.
NEEDED: dict[type, dict[str, object]] = {
    ContainerConfig: {"image": "i"},
    VolumeMount: {"source": "/a", "destination": "/b"},
    TmpfsMount: {"destination": "/a"},
    asyncctr.DeviceMapping: {"host_path": "/dev/fuse"},
    Ulimit: {"name": "nofile", "soft": 1, "hard": 2},
    DockerOptions: {},
    asyncctr.FirecrackerOptions: {},
    asyncctr.NanosOptions: {},
    asyncctr.Ownership: {},
    PortMapping: {"container_port": 1},
    IPv4Config: {},
    asyncctr.IPv6Config: {},
    IPConfig: {},
    NetworkConfig: {},
    ResourceLimits: {},
    DockerConfig: {},
    asyncctr.ContainerdConfig: {},
    asyncctr.FirecrackerConfig: {},
    asyncctr.NanosConfig: {},
    TLSConfig: {},
    DockerfileBuildInput: {"context": "/x"},
    asyncctr.FirecrackerBuildInput: {"kernel": "/k", "rootfs": "/r"},
    asyncctr.NanosBuildInput: {"program": "/p"},
    RegistryAuth: {},
}
WRONG = (
    None,
    0,
    -1,
    1.5,
    True,
    b"b",
    "\0",
    "\ud800",
    [],
    ["x", None],
    {},
    {"k": None},
    [["x"]],
    {1: 2},
    object(),
    2**63,
)


@pytest.mark.parametrize("kind", NEEDED, ids=lambda kind: kind.__name__)
def test_no_field_takes_a_value_of_another_kind(kind: type) -> None:
    for field in attrs.fields(kind):
        for wrong in WRONG:
            try:
                value = kind(**{**NEEDED[kind], field.name: wrong})
            except InvalidConfigError as error:
                # Where two fields contradict each other, either is named.
                assert error.field in {entry.name for entry in attrs.fields(kind)}, (field.name, wrong, error)
                continue
            hash(value)
            kept = getattr(value, field.name)
            # Taken as they are: what the field's annotation has. Numbers may be of either kind where seconds are meant.
            allowed = str(field.type).replace("float", "float int").replace("BuildContext", "bytes")
            assert kept is not wrong or type(wrong).__name__ in allowed or (wrong is None and "None" in allowed), (
                field.name,
                wrong,
            )


@given(st.dictionaries(st.text(), st.text()))
def test_any_environment_is_taken_whole_or_refused(env: dict[str, str]) -> None:
    try:
        config = ContainerConfig("image", env=env)
    except InvalidConfigError as error:
        assert error.field == "env"
        assert any(not key or "=" in key or "\0" in key + value for key, value in env.items())
    else:
        assert dict(config.env) == env


def test_no_repr_shows_a_secret() -> None:
    secrets = [
        FULL,
        RegistryAuth(username="u", password=CANARY, identity_token=CANARY, registry_token=CANARY),
        DockerfileBuildInput(context=b"", build_args={"T": CANARY}, secrets={"t": CANARY.encode()}),
        asyncctr.NanosBuildInput(program="/bin/x", env={"T": CANARY}),
        DockerConfig(host=f"tcp://user:{CANARY}@192.0.2.1:2375"),
    ]
    for value in secrets:
        assert CANARY not in repr(value)
        assert CANARY not in str(value)
    assert "TOKEN" in repr(FULL)
    with pytest.raises(InvalidConfigError) as caught:
        ContainerConfig("i", env={"A": CANARY + "\0"})
    assert CANARY not in str(caught.value)


def test_resources() -> None:
    assert ResourceLimits.from_cpus(1.5).cpus == 1.5
    assert ResourceLimits(cpu_quota=50_000).cpus == 0.5
    assert ResourceLimits().cpus is None


def test_exit_status() -> None:
    assert ExitStatus.from_code(0).ok
    assert ExitStatus.from_code(137).signal == 9
    assert ExitStatus.from_code(255).signal is None
    assert ExitStatus.from_code(128).signal is None
    assert not ExitStatus.from_code(7, finished_at=datetime.now(UTC)).ok


def test_tls_paths_may_be_path_objects(tmp_path: object) -> None:
    assert TLSConfig(ca_file=tmp_path).ca_file == str(tmp_path)  # type: ignore[arg-type]


def test_refused_fields_are_refused_only_when_used() -> None:
    capabilities = BackendCapabilities(refused_fields={"network.mtu", "init", "resources.storage", "network.mode.host"})
    capabilities.refuse(FULL, backend="test")
    for config, field in (
        (attrs.evolve(FULL, network=NetworkConfig(mtu=1400)), "network.mtu"),
        (attrs.evolve(FULL, init=True), "init"),
        (attrs.evolve(FULL, network=NetworkConfig(mode=NetworkMode.HOST)), "network.mode.host"),
        (attrs.evolve(FULL, resources=ResourceLimits(storage=1)), "resources.storage"),
    ):
        with pytest.raises(UnsupportedError) as caught:
            capabilities.refuse(config, backend="test")
        assert caught.value.field == field
