from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.core.config import ContainerConfig, DeviceMapping, TmpfsMount, Ulimit, VolumeMount
from asyncctr.core.errors import InvalidConfigError, UnsupportedError
from asyncctr.core.resources import ResourceLimits
from asyncctr.oci.host import CAPABILITIES, DEFAULT_CAPABILITIES, Host, bounding_set
from asyncctr.oci.image_config import ImageConfig
from asyncctr.oci.runtime_spec import DEFAULT_PATH, INIT_PATH, process_args, runtime_spec
from asyncctr.oci.users import resolve_user

PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"
GROUP = b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n"
HOST = Host(cgroup_parent="/p")


def spec(
    config: ContainerConfig | None = None,
    *,
    image: ImageConfig | None = None,
    host: Host = HOST,
    user: str = "",
    **more: Any,
) -> dict[str, Any]:
    config = config or ContainerConfig("x")
    return runtime_spec(
        config,
        image or ImageConfig(),
        container_id="id",
        args=("true",),
        user=resolve_user(user, PASSWD, GROUP),
        host=host,
        hostname="name",
        **more,
    )


def destinations(document: dict[str, Any]) -> list[str]:
    return [mount["destination"] for mount in document["mounts"]]


def options(document: dict[str, Any], destination: str) -> list[str]:
    [mount] = [mount for mount in document["mounts"] if mount["destination"] == destination]
    return list(mount["options"])


# What is run


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ("e", "c")),
        ({"command": ("x", "y")}, ("e", "x", "y")),
        ({"entrypoint": ("n",)}, ("n",)),
        ({"entrypoint": ("n",), "command": ("x",)}, ("n", "x")),
        ({"entrypoint": (), "command": ("x",)}, ("x",)),
        ({"entrypoint": ("",), "command": ("x",)}, ("x",)),
        ({"shell": ("sh", "-c"), "command": ("a", "b")}, ("sh", "-c", "a b")),
        ({"shell": ("sh", "-c"), "command": ("a",), "entrypoint": ("n",)}, ("sh", "-c", "a")),
    ],
)
def test_process_args(config: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert process_args(ContainerConfig("x", **config), ImageConfig(entrypoint=("e",), cmd=("c",))) == expected


@pytest.mark.parametrize("config", [{"entrypoint": ()}, {"entrypoint": ("",)}])
def test_nothing_to_run(config: dict[str, Any]) -> None:
    for image in (ImageConfig(), ImageConfig(cmd=("c",))):
        with pytest.raises(InvalidConfigError) as caught:
            process_args(ContainerConfig("x", **config), image)
        assert caught.value.field == "command"


def test_environment() -> None:
    image = ImageConfig(env={"A": "image", "B": "image", "HOSTNAME": "image"})
    env = spec(ContainerConfig("x", env={"B": "own", "C": "1=2"}), image=image)["process"]["env"]
    assert env == [f"PATH={DEFAULT_PATH}", "HOSTNAME=image", "A=image", "B=own", "C=1=2", "HOME=/root"]
    env = spec(ContainerConfig("x", env={"PATH": "/p", "HOME": "/h"}, tty=True), user="app")["process"]["env"]
    assert env == ["PATH=/p", "HOSTNAME=name", "TERM=xterm", "HOME=/h"]
    assert "HOME=/home/app" in spec(user="app")["process"]["env"]


VARIABLES = st.dictionaries(st.sampled_from(["PATH", "HOME", "HOSTNAME", "TERM", "A", "B"]), st.text("=x ", max_size=3))


@given(image=VARIABLES, own=VARIABLES, tty=st.booleans())
def test_environments_merge(image: dict[str, str], own: dict[str, str], tty: bool) -> None:
    env = spec(ContainerConfig("x", env=own, tty=tty), image=ImageConfig(env=image))["process"]["env"]
    pairs = [entry.partition("=")[::2] for entry in env]
    assert len(dict(pairs)) == len(pairs)
    defaults = {"PATH": DEFAULT_PATH, "HOSTNAME": "name", "HOME": "/root", **({"TERM": "xterm"} if tty else {})}
    assert dict(pairs) == defaults | image | own


def test_working_directory() -> None:
    assert spec()["process"]["cwd"] == "/"
    assert spec(image=ImageConfig(workdir="/i"))["process"]["cwd"] == "/i"
    assert spec(ContainerConfig("x", workdir="/c"), image=ImageConfig(workdir="/i"))["process"]["cwd"] == "/c"


# Capabilities


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), set(DEFAULT_CAPABILITIES)),
        (("CAP_NET_ADMIN",), ("CAP_KILL",), {*DEFAULT_CAPABILITIES, "CAP_NET_ADMIN"} - {"CAP_KILL"}),
        (("CAP_KILL",), ("CAP_KILL",), set(DEFAULT_CAPABILITIES)),
        ((), ("ALL",), set()),
        (("CAP_BPF",), ("ALL",), {"CAP_BPF"}),
        (("ALL",), ("CAP_KILL",), set(CAPABILITIES) - {"CAP_KILL"}),
        (("ALL",), ("ALL",), set(CAPABILITIES)),
    ],
)
def test_capabilities(add: tuple[str, ...], drop: tuple[str, ...], expected: set[str]) -> None:
    chosen = bounding_set(add, drop, HOST)
    assert set(chosen) == expected
    assert len(chosen) == len(expected)


def test_capabilities_of_the_host() -> None:
    poor = Host(capabilities=frozenset({"CAP_KILL", "CAP_BPF"}))
    assert bounding_set((), (), poor) == ("CAP_KILL",)
    assert set(bounding_set(("ALL",), (), poor)) == {"CAP_KILL", "CAP_BPF"}
    with pytest.raises(UnsupportedError) as caught:
        bounding_set(("CAP_SYS_ADMIN",), (), poor)
    assert caught.value.field == "cap_add"
    for field in ("cap_add", "cap_drop"):
        with pytest.raises(InvalidConfigError) as wrong:
            spec(ContainerConfig("x", **{field: ["FLY"]}))
        assert wrong.value.field == field


def test_other_users_start_without_capabilities() -> None:
    assert set(spec()["process"]["capabilities"]) == {"bounding", "effective", "permitted"}
    assert set(spec(user="app")["process"]["capabilities"]) == {"bounding"}


# Mounts


def test_mounts_are_docker_s_and_parents_come_first() -> None:
    document = spec(
        ContainerConfig("x", tmpfs=["/a/b/c", TmpfsMount(destination="/t", size=4096, mode=0o1770)]),
        mounts=[
            VolumeMount(source="/etc/hosts", destination="/etc/hosts"),
            VolumeMount(source="/v", destination="/a/b"),
            VolumeMount(source="/w", destination="/a", read_only=True),
        ],
    )
    assert destinations(document) == [
        *("/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"),
        *("/a", "/t", "/etc/hosts", "/a/b", "/a/b/c"),
    ]
    assert options(document, "/a") == ["rbind", "ro", "rprivate"]
    assert options(document, "/a/b") == ["rbind", "rw", "rprivate"]
    assert options(document, "/t") == ["noexec", "nosuid", "nodev", "rprivate", "size=4096", "mode=1770"]
    assert "size=67108864" in options(document, "/dev/shm")
    assert "size=4096" in options(spec(ContainerConfig("x", shm_size=4096)), "/dev/shm")


def test_mounts_of_one_s_own_replace_the_others() -> None:
    mounts = [
        VolumeMount(source="/first", destination="/etc/hosts"),
        VolumeMount(source="/second", destination="/etc/hosts/"),
    ]
    document = spec(ContainerConfig("x", tmpfs=["/dev/shm/"]), mounts=mounts)
    assert "/dev/shm" not in destinations(document)
    assert [mount["source"] for mount in document["mounts"] if "hosts" in mount["destination"]] == ["/second"]
    document = spec(mounts=[VolumeMount(source="/dev", destination="/dev")])
    assert destinations(document) == ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]
    with pytest.raises(InvalidConfigError):
        spec(mounts=[VolumeMount(source="/v", destination="/.")])


def test_rootless_mounts() -> None:
    rootless = Host(rootless=True)
    document = spec(host=rootless, netns=None, mounts=[VolumeMount(source="/proc", destination="/p")])
    names = {os.ST_NOSUID: "nosuid", os.ST_NODEV: "nodev", os.ST_NOEXEC: "noexec"}
    locked = {name for flag, name in names.items() if os.statvfs("/proc").f_flag & flag}
    assert set(options(document, "/p")) == {"rbind", "rw", "rprivate", *locked}
    [sysfs] = [mount for mount in document["mounts"] if mount["destination"] == "/sys"]
    assert (sysfs["type"], sysfs["source"], "rbind" in sysfs["options"]) == ("none", "/sys", True)
    assert "oomScoreAdj" not in document["process"]
    document = spec(host=rootless)
    assert options(document, "/sys") == ["nosuid", "noexec", "nodev", "ro"]
    assert document["linux"]["sysctl"] == {"net.ipv4.ip_unprivileged_port_start": "0"}
    # What is made later will be on the file system that its directory is on.
    document = spec(host=rootless, mounts=[VolumeMount(source="/proc/made/later", destination="/p")])
    assert set(options(document, "/p")) == {"rbind", "rw", "rprivate", *locked}


def test_an_init() -> None:
    config = ContainerConfig("x", init=True)
    document = spec(config, init="/usr/bin/tini")
    assert document["process"]["args"] == [INIT_PATH, "--", "true"]
    assert options(document, INIT_PATH) == ["rbind", "ro", "rprivate"]
    with pytest.raises(UnsupportedError):
        spec(config)


# Namespaces, limits, devices


def test_namespaces() -> None:
    def kinds(document: dict[str, Any]) -> dict[str, str | None]:
        return {entry["type"]: entry.get("path") for entry in document["linux"]["namespaces"]}

    every: dict[str, str | None] = dict.fromkeys(("mount", "uts", "pid", "ipc", "cgroup", "network"))
    assert kinds(spec()) == every
    assert kinds(spec(netns="/run/netns/x")) == {**every, "network": "/run/netns/x"}
    shared = spec(netns=None, host=Host(cgroup_version=1))
    assert set(kinds(shared)) == {"mount", "uts", "pid", "ipc"}
    assert "sysctl" not in shared["linux"]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, {}),
        ({"memory": 64}, {"memory": {"limit": 64, "swap": 128}}),
        ({"memory": 64, "memory_swap": 64}, {"memory": {"limit": 64, "swap": 64}}),
        ({"memory": 64, "memory_swap": -1}, {"memory": {"limit": 64}}),
        ({"cpu_quota": 5000}, {"cpu": {"quota": 5000}}),
        ({"cpu_quota": 5000, "cpu_period": 9000}, {"cpu": {"quota": 5000, "period": 9000}}),
        ({"pids": 7}, {"pids": {"limit": 7}}),
    ],
)
def test_limits(limits: dict[str, int], expected: dict[str, Any]) -> None:
    config = ContainerConfig("x", resources=ResourceLimits(**limits))
    linux = spec(config)["linux"]
    assert {key: value for key, value in linux["resources"].items() if key != "devices"} == expected
    assert linux["cgroupsPath"] == "/p/id"
    if limits:
        with pytest.raises(UnsupportedError, match=r"resources\."):
            spec(config, host=Host())
    assert not {"cgroupsPath", "resources"} & set(spec(host=Host())["linux"])


def test_swap_that_is_not_counted() -> None:
    host = Host(cgroup_parent="/p", swap_limit=False)
    unlimited = ContainerConfig("x", resources=ResourceLimits(memory=64))
    assert spec(unlimited, host=host)["linux"]["resources"]["memory"] == {"limit": 64}
    with pytest.raises(UnsupportedError) as caught:
        spec(ContainerConfig("x", resources=ResourceLimits(memory=64, memory_swap=64)), host=host)
    assert caught.value.field == "resources.memory_swap"


def test_devices() -> None:
    device = DeviceMapping(host_path="/dev/null", container_path="/dev/hole", permissions="r")
    linux = spec(ContainerConfig("x", devices=[device]))["linux"]
    [node] = linux["devices"]
    assert {key: node[key] for key in ("path", "type", "major", "minor")} == {
        "path": "/dev/hole",
        "type": "c",
        "major": 1,
        "minor": 3,
    }
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert linux["resources"]["devices"][-1] == {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}
    for path in ("/dev/there-is-none", "/etc/passwd"):
        with pytest.raises(InvalidConfigError) as caught:
            spec(ContainerConfig("x", devices=[path]))
        assert caught.value.field == "devices"


def test_ulimits() -> None:
    limits = [
        Ulimit(name="nofile", soft=1, hard=2),
        Ulimit(name="core", soft=-1, hard=-1),
        Ulimit(name="nofile", soft=3, hard=4),
    ]
    assert spec(ContainerConfig("x", ulimits=limits))["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "hard": 4, "soft": 3},
        {"type": "RLIMIT_CORE", "hard": 2**64 - 1, "soft": 2**64 - 1},
    ]
    with pytest.raises(InvalidConfigError, match="getrlimit"):
        spec(ContainerConfig("x", ulimits=[Ulimit(name="luck", soft=1, hard=1)]))


def test_seccomp_where_the_kernel_has_none() -> None:
    host = Host(seccomp=False)
    assert "seccomp" not in spec(host=host)["linux"]
    assert "seccomp" in spec()["linux"]
    with pytest.raises(UnsupportedError):
        spec(ContainerConfig("x", seccomp='{"defaultAction": "SCMP_ACT_ALLOW"}'), host=host)


def test_a_host_is_detected() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("no Linux")
    host = Host.detect(os.getpid(), cgroup_parent="/x")
    assert host.cgroup_parent == "/x"
    assert host.capabilities <= set(CAPABILITIES)
    assert host.seccomp is ("Seccomp:" in Path("/proc/self/status").read_text())
    assert host.cgroup_version == (2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1)
