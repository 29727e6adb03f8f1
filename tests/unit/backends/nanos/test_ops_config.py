from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncctr.backends.nanos.ops_config import Nic, OpsConfig, RunConfig, read_ops_config
from asyncctr.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from pathlib import Path

_WHOLE: dict[str, Any] = {
    "Program": "bin/app",
    "Args": ["-v", ""],
    "Env": {"KEY": "secret-value"},
    "Files": ["etc/a"],
    "Dirs": ["/srv"],
    "MapDirs": {"static/*": "/www"},
    "Mounts": {"data": "/data:ro"},
    "NameServers": ["192.0.2.1", "2001:db8::1"],
    "Boot": "boot.img",
    "Kernel": "/k/kernel.img",
    "KlibDir": "klibs",
    "Klibs": ["tls"],
    "BaseVolumeSz": "100m",
    "ManifestPassthrough": {"consoles": ["+net"], "deep": {"number": -3, "flag": True}},
    "Debugflags": ["trace"],
    "RebootOnExit": True,
    "TargetRoot": "root",
    "VolumesDir": "/volumes",
    "RunConfig": {
        "Memory": "2G",
        "CPUs": 2,
        "Accel": False,
        "Ports": ["8080", "9000-90,443"],
        "UDPPorts": ["53"],
        "IPAddress": "192.0.2.9",
        "IPv6Address": "2001:db8::9",
        "NetMask": "255.255.255.0",
        "Gateway": "192.0.2.254",
        "Nics": [{"IPAddress": "192.0.2.10", "BridgeName": "br1"}],
        "Bridged": True,
        "BridgeName": "br0",
        "TapName": "tap0",
        "Mounts": ["data:/data"],
    },
}


def test_every_key_is_read() -> None:
    config = OpsConfig.parse(json.dumps(_WHOLE), directory="/project")
    default = OpsConfig()
    for field in attrs.fields(OpsConfig):
        assert getattr(config, field.name) != getattr(default, field.name), field.name
    for field in attrs.fields(RunConfig):
        assert getattr(config.run, field.name) != getattr(default.run, field.name), field.name
    assert config.base_volume_size == 100 << 20
    assert config.run.memory == 2 << 30
    assert config.run.ports == ((8080, 8080), (9000, 90), (443, 443))
    assert config.run.nics == (Nic(ip_address="192.0.2.10", bridge_name="br1"),)
    assert config.passthrough == {"consoles": ("+net",), "deep": {"number": -3, "flag": "t"}}
    assert "secret-value" not in repr(config)


def test_keys_are_matched_as_go_matches_them_and_null_is_the_default() -> None:
    config = OpsConfig.parse('{"args": ["x"], "RUNCONFIG": {"cpus": 3, "memory": "512"}, "Files": null}')
    assert (config.args, config.run.cpus, config.run.memory, config.files) == (("x",), 3, 512 << 20, ())


def test_unknown_keys_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        OpsConfig.parse('{"CloudConfig": {}, "RunConfig": {"GPUs": 1}}')
    assert [record.getMessage() for record in caplog.records] == [
        "the OPS configuration has the key CloudConfig, which is not honoured",
        "the OPS configuration has the key RunConfig.GPUs, which is not honoured",
    ]


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], "config_path"),
        ({"Args": "x"}, "Args"),
        ({"Args": [1]}, "Args"),
        ({"Env": {"A=B": "x"}}, "Env"),
        ({"Env": {"A": 1}}, "Env"),
        ({"NameServers": ["dns.example"]}, "NameServers"),
        ({"BaseVolumeSz": "100x"}, "BaseVolumeSz"),
        ({"RebootOnExit": "true"}, "RebootOnExit"),
        ({"ManifestPassthrough": {"a": 1.5}}, "ManifestPassthrough.a"),
        ({"ManifestPassthrough": {"a": {"b": None}}}, "ManifestPassthrough.a.b"),
        ({"RunConfig": []}, "RunConfig"),
        ({"RunConfig": {"CPUs": True}}, "RunConfig.CPUs"),
        ({"RunConfig": {"CPUs": -1}}, "RunConfig.CPUs"),
        ({"RunConfig": {"Ports": ["0"]}}, "RunConfig.Ports"),
        ({"RunConfig": {"Ports": ["1-2-3"]}}, "RunConfig.Ports"),
        ({"RunConfig": {"IPAddress": "300.0.0.1"}}, "RunConfig.IPAddress"),
        ({"RunConfig": {"Nics": [{"Gateway": "x"}]}}, "RunConfig.Nics"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(document: object, field: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        OpsConfig.parse(json.dumps(document))
    assert caught.value.field == field


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from([*_WHOLE, "Other"]), _JSON),
    st.dictionaries(st.sampled_from([*_WHOLE["RunConfig"]]), _JSON),
)
def test_any_document_is_read_or_refused(document: dict[str, Any], run: dict[str, Any]) -> None:
    if run:
        document["RunConfig"] = run
    try:
        OpsConfig.parse(json.dumps(document))
    except InvalidConfigError as error:
        assert error.field


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        OpsConfig.parse(data)
    except InvalidConfigError as error:
        assert error.field


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/inside").touch()
    file = tmp_path / "config.json"
    file.write_text('{"TargetRoot": "root"}')
    config = read_ops_config(file)
    assert config.root == str(tmp_path / "root")
    assert config.host_path("a/b") == str(tmp_path / "a/b")
    assert config.host_path("/etc/inside") == str(tmp_path / "root/etc/inside")
    assert config.host_path("/etc/outside") == "/etc/outside"
    with pytest.raises(InvalidConfigError, match="cannot be read"):
        read_ops_config(tmp_path / "missing")
