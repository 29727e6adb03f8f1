from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.core.errors import InvalidConfigError
from asyncctr.oci.host import CAPABILITIES, DEFAULT_CAPABILITIES
from asyncctr.oci.seccomp import _default, convert, seccomp_profile

KERNEL = (5, 10)


def allowed(profile: dict[str, Any] | None) -> set[str]:
    """What a profile allows whatever the arguments."""
    assert profile is not None
    rules = [rule for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")]
    return {name for rule in rules for name in rule["names"]}


def rules(profile: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    assert profile is not None
    return [rule for rule in profile["syscalls"] if name in rule["names"]]


def default(
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES, architecture: str = "amd64", kernel: tuple[int, int] = KERNEL
) -> dict[str, Any]:
    profile = convert(_default(), capabilities, architecture, kernel)
    assert profile is not None
    return profile


def test_the_default_profile() -> None:
    profile = default()
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    assert profile["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    names = allowed(profile)
    assert {"read", "execve", "futex", "chroot", "ptrace", "arch_prctl", "statx", "rseq"} <= names
    refused = """mount umount2 unshare setns bpf keyctl add_key request_key io_uring_setup userfaultfd kexec_load init_module reboot
        swapon pivot_root open_by_handle_at perf_event_open clone clone3 socket personality iopl settimeofday acct"""
    assert not names & set(refused.split())
    assert rules(profile, "clone3") == [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]
    [clone] = rules(profile, "clone")
    assert clone["args"] == [{"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ"}]
    [socket] = rules(profile, "socket")
    assert socket["args"] == [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]
    every = [name for rule in profile["syscalls"] if not rule.get("args") for name in rule["names"]]
    assert len(every) == len(set(every))


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "clone3"),
        ("CAP_SYS_MODULE", "init_module"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_BPF", "bpf"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ],
)
def test_capabilities_open_the_calls_that_need_them(capability: str, name: str) -> None:
    assert name in allowed(default((capability,)))
    assert name not in allowed(default(tuple(set(CAPABILITIES) - {capability, "CAP_SYS_ADMIN"})))
    assert name in allowed(default(CAPABILITIES))


def test_architectures_and_kernels() -> None:
    arm = default(architecture="arm64")
    assert arm["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert "cacheflush" in allowed(arm)
    assert "arch_prctl" not in allowed(arm)
    assert "architectures" not in default(architecture="ppc64le")
    [clone] = rules(default(architecture="s390x"), "clone")
    assert clone["args"][0]["index"] == 1
    assert "ptrace" in allowed(default(kernel=(4, 8)))
    assert "ptrace" not in allowed(default(kernel=(4, 7)))
    assert "ptrace" not in allowed(default(kernel=(3, 19)))


def test_profiles_are_converted_once() -> None:
    assert seccomp_profile("", DEFAULT_CAPABILITIES) is seccomp_profile("", list(reversed(DEFAULT_CAPABILITIES)))
    assert seccomp_profile("unconfined", ()) is None
    assert seccomp_profile('{"defaultAction": ""}', ()) is None


def test_what_is_converted() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "defaultErrnoRet": 5,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "",
        "syscalls": [
            {
                "name": "mkdir",
                "action": "SCMP_ACT_ERRNO",
                "args": None,
                "comment": "left out",
                "includes": {},
                "excludes": {},
            },
            {
                "names": ["kill"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 38,
                "args": [{"index": 1, "value": 9, "valueTwo": 0, "op": "SCMP_CMP_EQ", "more": 1}],
            },
            {"names": ["a"], "action": "A", "includes": {"caps": ["CAP_KILL", "CAP_BPF"]}},
            {
                "names": ["b"],
                "action": "A",
                "includes": {"caps": ["CAP_KILL"], "arches": ["amd64"], "minKernel": "5.10"},
            },
            {"names": ["c"], "action": "A", "excludes": {"caps": ["CAP_KILL", "CAP_BPF"]}},
            {"names": ["d"], "action": "A", "excludes": {"arches": ["amd64"]}},
            {"names": ["e"], "action": "A", "excludes": {"minKernel": "5.10.1"}},
            {"names": ["f"], "action": "A", "excludes": {"minKernel": "5.11"}},
        ],
    }
    assert convert(profile, {"CAP_KILL"}, "amd64", KERNEL) == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "defaultErrnoRet": 5,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "",
        "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"},
            {
                "names": ["kill"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 38,
                "args": [{"index": 1, "value": 9, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
            },
            {"names": ["b"], "action": "A"},
            {"names": ["f"], "action": "A"},
        ],
    }


@pytest.mark.parametrize(
    "profile",
    [
        "nothing",
        "[]",
        "[" * 100_000,
        '{"defaultAction": 1}',
        '{"defaultAction": "A", "syscalls": {}}',
        '{"defaultAction": "A", "syscalls": ["read"]}',
        '{"defaultAction": "A", "syscalls": [{"action": "A"}]}',
        '{"defaultAction": "A", "syscalls": [{"names": ["x"]}]}',
        '{"defaultAction": "A", "syscalls": [{"names": "x", "action": "A"}]}',
        '{"defaultAction": "A", "syscalls": [{"name": "x", "names": ["x"], "action": "A"}]}',
        '{"defaultAction": "A", "syscalls": [{"names": ["x"], "action": "A", "includes": []  , "excludes": [1]}]}',
        '{"defaultAction": "A", "syscalls": [{"names": ["x"], "action": "A", "includes": {"minKernel": "new"}}]}',
        '{"defaultAction": "A", "architectures": ["x"], "archMap": [{"architecture": "x"}]}',
    ],
)
def test_broken_profiles(profile: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        seccomp_profile(profile, ())
    assert caught.value.field == "seccomp"


KEYS = (
    "defaultAction",
    "architectures",
    "archMap",
    "syscalls",
    "names",
    "name",
    "action",
    "args",
    "includes",
    "caps",
    "minKernel",
)
WORDS = st.sampled_from(["", "x", "CAP_KILL", "5.10"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_any_json_is_converted_or_refused(profile: dict[str, Any]) -> None:
    try:
        converted = convert(profile, {"CAP_KILL"}, "amd64", KERNEL)
    except InvalidConfigError as error:
        assert error.field == "seccomp"
    else:
        json.dumps(converted)
