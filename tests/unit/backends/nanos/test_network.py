"""Addresses and ports of machines, with a stand-in for the kernel and, where ``ASYNCCTR_TEST_NANOS_DIR`` names it, the real one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from asyncctr import connect
from asyncctr.backends.nanos.addresses import Addresses, card_changes, decide_addresses, network_of
from asyncctr.backends.nanos.ops_config import OpsConfig, RunConfig
from asyncctr.backends.nanos.own_files import HOSTNAMES, own_files
from asyncctr.core.backend_config import NanosConfig
from asyncctr.core.build import NanosBuildInput
from asyncctr.core.config import ContainerConfig
from asyncctr.core.errors import InvalidConfigError, UnsupportedError
from asyncctr.core.network import IPConfig, IPv4Config, IPv6Config, NetworkConfig, NetworkMode, PortMapping
from asyncctr.testing.guests import build_guests
from asyncctr.testing.programs import find, require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncctr.client import Client
    from asyncctr.client.container import Container

pytestmark = pytest.mark.anyio

VARIABLE = "ASYNCCTR_TEST_NANOS_DIR"
IMAGE = "test/guest:1"
BOUND = 30.0
STATIC = IPConfig(ipv4=IPv4Config(address="10.9.1.7", netmask="255.255.0.0", gateway="10.9.0.1"))
# Answers every connection with the first line that came, in capitals.
SERVER = r"""
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8)) { perror("listen"); return 1; }
    struct utsname name;
    uname(&name);
    printf("listening on %s\n", name.nodename);
    fflush(stdout);
    for (;;) {
        char text[256];
        int peer = accept(listener, NULL, NULL);
        long count = read(peer, text, sizeof text);
        for (long i = 0; i < count; i++) text[i] = toupper(text[i]);
        if (count > 0) write(peer, text, count);
        close(peer);
    }
}
"""


def ipv4(**values: Any) -> NetworkConfig:
    return NetworkConfig(ip_config=IPConfig(ipv4=IPv4Config(**values)))


def test_the_configuration_then_ops_then_the_image() -> None:
    run = RunConfig(ip_address="10.1.0.9", netmask="255.255.255.128", ipv6_address="fd00::1")
    image = {"ipaddr": "10.2.0.9", "gateway": "10.2.0.1", "ip6addr": "fd00::2"}
    given = NetworkConfig(ip_config=IPConfig(ipv4=IPv4Config(address="10.3.0.9"), ipv6=IPv6Config(address="fd00:0::3")))
    decided = decide_addresses(given, run, image)
    assert decided == Addresses(ipv4="10.3.0.9", prefix=24, gateway="10.3.0.2", ipv6="fd00::3")
    decided = decide_addresses(NetworkConfig(), run, image)
    assert decided == Addresses(ipv4="10.1.0.9", prefix=25, gateway="10.1.0.2", ipv6="fd00::1")
    decided = decide_addresses(NetworkConfig(), RunConfig(), image)
    assert decided == Addresses(ipv4="10.2.0.9", prefix=24, gateway="10.2.0.1", ipv6="fd00::2")
    assert decided.entries == image | {"netmask": "255.255.255.0"}
    assert decide_addresses(NetworkConfig(), RunConfig(), {}) == Addresses()
    assert decide_addresses(NetworkConfig(mode=NetworkMode.NONE), run, image) == Addresses()
    cards = OpsConfig.parse('{"RunConfig": {"IPAddress": "10.0.0.9", "Nics": [{"IPAddress": "10.4.0.9"}]}}').run
    assert decide_addresses(NetworkConfig(), cards, {}).ipv4 == "10.4.0.9"
    # The second address of the network is the gateway's, unless it is the guest's.
    assert decide_addresses(ipv4(address="10.0.0.2"), RunConfig(), {}).gateway == "10.0.0.3"
    assert decide_addresses(ipv4(address="10.0.0.2", netmask="255.255.255.252"), RunConfig(), {}).gateway == "10.0.0.1"


@pytest.mark.parametrize(
    ("config", "error", "field"),
    [
        (ipv4(netmask="255.255.255.0"), InvalidConfigError, "network.ip_config.ipv4"),
        (ipv4(address="10.0.0.9", netmask="255.0.255.0"), InvalidConfigError, "network.ip_config.ipv4"),
        (ipv4(address="10.0.0.9", gateway="10.0.1.1"), InvalidConfigError, "network.ip_config.ipv4"),
        (ipv4(address="10.0.0.9", gateway="10.0.0.9"), InvalidConfigError, "network.ip_config.ipv4"),
        (ipv4(address="10.0.0.255"), InvalidConfigError, "network.ip_config.ipv4"),
        (ipv4(address="10.0.0.9", netmask="255.255.255.254"), UnsupportedError, "network.ip_config.ipv4"),
        (NetworkConfig(mode=NetworkMode.NONE, ip_config=STATIC), InvalidConfigError, "network.ip_config"),
        (
            NetworkConfig(ip_config=IPConfig(ipv6=IPv6Config(address="fd00::1", gateway="fd00::2"))),
            UnsupportedError,
            "network.ip_config.ipv6.gateway",
        ),
        (ipv4(wait_for_dhcp_seconds=181), InvalidConfigError, "network.ip_config.ipv4.wait_for_dhcp_seconds"),
    ],
)
def test_what_cannot_be(config: NetworkConfig, error: type[Exception], field: str) -> None:
    with pytest.raises(error, match=re.escape(field)) as refused:
        card_changes(config, decide_addresses(config, RunConfig(), {}), {}, own=False)
    assert getattr(refused.value, "field", "") == field


def test_what_the_root_tuple_says_of_the_card() -> None:
    waiting = IPConfig(ipv4=IPv4Config(wait_for_dhcp_seconds=9), ipv6=IPv6Config(wait_for_dhcp_seconds=180))
    config = NetworkConfig(ip_config=waiting, mtu=1400)
    waits = {"exec_wait_for_ip4_secs": "9", "exec_wait_for_ip6_secs": "180"}
    assert card_changes(config, Addresses(), {}, own=False) == {"mtu": "1400", **waits}
    assert card_changes(config, Addresses(), {"mtu": "1", "default": "t"}, own=True) == {
        "en1": {"mtu": "1400", "default": "t", **waits}
    }
    addresses = Addresses(ipv4="10.9.1.7", prefix=16, gateway="10.9.0.1", ipv6="fd00::1")
    card = {"ipaddr": "10.9.1.7", "netmask": "255.255.0.0", "gateway": "10.9.0.1", "ip6addr": "fd00::1"}
    assert card_changes(NetworkConfig(), addresses, {}, own=False) == card
    assert card_changes(NetworkConfig(), addresses, card, own=False) == {}
    assert card_changes(NetworkConfig(), addresses, card, own=True) == {}
    assert card_changes(NetworkConfig(mode=NetworkMode.NONE), Addresses(), {}, own=False) == {}


def test_ports_of_ops_are_for_a_configuration_without_any() -> None:
    run = OpsConfig.parse('{"RunConfig": {"Ports": ["80-8080", "90"], "UDPPorts": ["53"]}}').run
    published = (
        PortMapping(host_port=80, container_port=8080),
        PortMapping(host_port=90, container_port=90),
        PortMapping(host_port=53, container_port=53, protocol="udp"),
    )
    assert network_of(NetworkConfig(), run).port_mappings == published
    own = NetworkConfig(port_mappings=[PortMapping(container_port=1)])
    assert network_of(own, run) is own
    none = NetworkConfig(mode=NetworkMode.NONE)
    assert network_of(none, run) is none


@attrs.frozen
class Site:
    client: Client
    directory: Path

    async def console(self, config: ContainerConfig) -> str:
        """What the whole console of a machine has that ends by itself, the kernel's lines too."""
        async with self.client.container(config) as container:
            await container.start()
            async with asyncio.timeout(BOUND):
                assert (await container.wait()).code == 0
            return self.record(container, "stdout")

    def record(self, container: Container, name: str) -> str:
        return Path(self.directory, "work", "containers", container.id, name).read_text()


@pytest.fixture(params=["stand-in", "nanos"])
def kernel(request: pytest.FixtureRequest) -> Path:
    require("guests")
    if request.param == "stand-in":
        return build_guests().kernel
    return real_kernel()


def real_kernel() -> Path:
    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} names no directory with a Nanos kernel")
    return Path(os.environ[VARIABLE], "kernel.img")


@pytest.fixture
async def site(kernel: Path, tmp_path: Path) -> AsyncIterator[Site]:
    config = NanosConfig(kernel_path=str(kernel), work_dir=str(tmp_path / "work"))
    async with connect(config) as client:
        await client.image(IMAGE).build(NanosBuildInput(program=str(build_guests().shell)))
        yield Site(client, tmp_path)


async def test_addresses_are_those_of_the_guest(site: Site) -> None:
    script = ["-c", "echo ready; sleep 100"]
    for network, addresses in (
        (NetworkConfig(), ("10.0.2.15",)),
        (NetworkConfig(ip_config=STATIC), ("10.9.1.7",)),
        (
            NetworkConfig(ip_config=attrs.evolve(STATIC, ipv6=IPv6Config(address="fd12::7"))),
            ("10.9.1.7", "fd12::7"),
        ),
        (ipv4(address="192.168.7.6", netmask="255.255.255.252"), ("192.168.7.6",)),
        (NetworkConfig(mode=NetworkMode.NONE), ()),
    ):
        config = ContainerConfig(IMAGE, command=script, network=network)
        async with site.client.container(config) as container, asyncio.timeout(BOUND):
            assert (await container.inspect()).ip_addresses == ()
            await container.start()
            async for line in container.logs().lines():
                assert line.text == "ready"
                break
            assert (await container.inspect()).ip_addresses == addresses
            assigned = re.findall(r"assigned ([\d.]+)\n", site.record(container, "stdout"))
            assert assigned == [address for address in addresses if "." in address]
            await container.kill()


async def test_ops_configuration(kernel: Path, tmp_path: Path) -> None:
    file = tmp_path / "ops.json"
    run = {"IPAddress": "10.8.0.5", "NetMask": "255.255.255.0", "Memory": "192m", "CPUs": 2}
    file.write_text(json.dumps({"RunConfig": run}))
    config = NanosConfig(kernel_path=str(kernel), work_dir=str(tmp_path / "work"), config_path=str(file))
    async with connect(config) as client:
        await client.image(IMAGE).build(NanosBuildInput(program=str(build_guests().shell)))
        site = Site(client, tmp_path)
        assert "assigned 10.8.0.5\n" in await site.console(ContainerConfig(IMAGE, command=["-c", "exit 0"]))
        own = ContainerConfig(IMAGE, command=["-c", "exit 0"], network=NetworkConfig(ip_config=STATIC))
        assert "assigned 10.9.1.7\n" in await site.console(own)
        async with client.container(ContainerConfig(IMAGE)) as container:
            await container.start()
            facts = json.loads(site.record(container, "machine.json"))
            assert (facts["memory"], facts["cpus"]) == (192 << 20, 2)


async def test_names(site: Site) -> None:
    script = "cat /proc/sys/kernel/hostname; echo; cat /etc/hosts; cat /etc/resolv.conf"
    asked = ContainerConfig(
        IMAGE,
        command=["-c", script],
        hostname="here",
        extra_hosts={"there": "192.0.2.9", "host": "host-gateway"},
        network=NetworkConfig(dns=["192.0.2.53", "2001:db8::53"]),
    )
    ended = await site.client.run(asked)
    assert ended.stdout.decode().splitlines() == [
        "here",
        *("127.0.0.1\tlocalhost", "::1\tlocalhost", "192.0.2.9\tthere", "10.0.2.2\thost", "10.0.2.15\there"),
        *("nameserver 192.0.2.53", "nameserver 2001:db8::53"),
    ]
    # The next one has none of them; the name server is where the network has it.
    asked = ContainerConfig(IMAGE, command=["-c", f"cat /etc/hosts; {script}"], network=NetworkConfig(ip_config=STATIC))
    lines = (await site.client.run(asked)).stdout.decode().splitlines()
    none = "/bin/sh: /etc/hosts: No such file or directory"
    assert [line.rpartition("sh: ")[2] for line in lines] == [
        none.rpartition("sh: ")[2],
        "uniboot",
        none.rpartition("sh: ")[2],
        "nameserver 10.9.0.2",
    ]


def test_files_for_names() -> None:
    image = {"/etc/hosts": b"127.0.0.1 own", "/etc/resolv.conf": b"nameserver 10.0.2.3\n"}
    static = Addresses(ipv4="10.9.1.7", prefix=16, gateway="10.9.0.1")
    nothing = ContainerConfig(IMAGE)
    assert own_files(nothing, Addresses(), image) == {}
    assert own_files(nothing, static, image) == {"/etc/resolv.conf": b"nameserver 10.9.0.2\n"}
    # One that somebody chose stays.
    assert own_files(nothing, static, {"/etc/resolv.conf": b"nameserver 192.0.2.1\n"}) == {}
    named = attrs.evolve(nothing, hostname="here", extra_hosts={"host": "host-gateway"})
    assert own_files(named, static, image) == {
        **dict.fromkeys(HOSTNAMES, b"here"),
        "/etc/hosts": b"127.0.0.1 own\n10.9.0.1\thost\n10.9.1.7\there\n",
        "/etc/resolv.conf": b"nameserver 10.9.0.2\n",
    }
    alone = attrs.evolve(nothing, hostname="here", network=NetworkConfig(mode=NetworkMode.NONE))
    assert own_files(alone, Addresses(), image) == dict.fromkeys(HOSTNAMES, b"here")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> str:
    require("guests")
    real_kernel()
    directory = tmp_path_factory.mktemp("server")
    (directory / "server.c").write_text(SERVER)
    subprocess.run([find("gcc"), "-static", "-O1", "-o", directory / "server", directory / "server.c"], check=True)
    return str(directory / "server")


async def ask(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"get\n")
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    "network",
    [
        NetworkConfig(),
        NetworkConfig(ip_config=STATIC),
        ipv4(address="192.168.7.6", netmask="255.255.255.252"),
        ipv4(wait_for_dhcp_seconds=5),
    ],
    ids=["dhcp", "static", "smallest", "wait"],
)
async def test_a_server_is_reached_by_its_published_ports(server: str, tmp_path: Path, network: NetworkConfig) -> None:
    work = str(tmp_path / "work")
    async with connect(NanosConfig(kernel_path=str(real_kernel()), work_dir=work)) as client:
        await client.image(IMAGE).build(NanosBuildInput(program=server))
        mappings = [PortMapping(container_port=8080)]
        config = ContainerConfig(IMAGE, hostname="here", network=attrs.evolve(network, port_mappings=mappings))
        async with client.container(config) as container, asyncio.timeout(BOUND):
            await container.start()
            async for line in container.logs().lines():
                assert line.text == "listening on here"
                break
            (published,) = (await container.inspect()).ports
            # The network may be a moment behind the program, unless that waited for it.
            assert await ask(published.host_port) == b"GET\n"
