"""What containers were made with, as it is kept with them."""

from __future__ import annotations

import json

import pytest

from asyncctr.backends.containerd.facts import EXTENSION, Facts
from asyncctr.backends.containerd.proto import containers_pb2
from asyncctr.core.network import IPConfig, IPv4Config, NetworkConfig, PortMapping
from asyncctr.core.resources import ResourceLimits

FACTS = Facts(
    name="web",
    image="alpine:3",
    hostname="host",
    tty=True,
    stdin=True,
    stop_signal=2,
    log_limit=1 << 20,
    resources=ResourceLimits(memory=64 << 20, pids=10),
    network=NetworkConfig(
        mode="custom",
        network_name="net",
        port_mappings=[PortMapping(container_port=80, host_port=8080)],
        ip_config=IPConfig(ipv4=IPv4Config(address="10.0.0.2")),
        dns=["1.1.1.1"],
        aliases=["w"],
    ),
    extra_hosts={"db": "10.0.0.3"},
    volumes=["data"],
    labels={"empty": "", "long": "x" * 5000},
)


def container(facts: Facts = FACTS) -> containers_pb2.Container:
    made = containers_pb2.Container(id="a" * 64, image="alpine:3", labels={"kept": "by containerd"})
    made.extensions[EXTENSION].CopyFrom(facts.to_any())
    return made


@pytest.mark.parametrize("facts", [FACTS, Facts()])
def test_they_come_back_as_they_went(facts: Facts) -> None:
    assert Facts.of(container(facts)) == facts


def test_somebody_elses_container_has_what_containerd_knows() -> None:
    found = Facts.of(containers_pb2.Container(id="theirs", image="alpine:3", labels={"a": "b"}))
    assert found == Facts(image="alpine:3", labels={"a": "b"})


def test_what_a_newer_version_wrote_is_passed_over() -> None:
    made = container()
    document = json.loads(made.extensions[EXTENSION].value)
    document["later"] = 1
    document["resources"]["later"] = 1
    document["network"]["later"] = 1
    document["network"]["port_mappings"][0]["later"] = 1
    made.extensions[EXTENSION].value = json.dumps(document).encode()
    assert Facts.of(made) == FACTS


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"{}", b"\xff", b'{"resources": 1, "network": {}}', b"null"])
def test_garbage_is_nobodys(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    made = container()
    made.extensions[EXTENSION].value = garbage
    assert Facts.of(made) == Facts(image="alpine:3", labels={"kept": "by containerd"})
    assert "cannot be read" in caplog.text
