from __future__ import annotations

import asyncio
import json
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncctr.core.errors import (
    BackendUnavailableError,
    ConflictError,
    InvalidConfigError,
    NotFoundError,
    ResourceExhaustedError,
    UnsupportedError,
)
from asyncctr.core.network import IPConfig, IPv4Config, IPv6Config, NetworkConfig, NetworkMode, PortMapping
from asyncctr.netns.networks import Networks
from asyncctr.transport import ports

if TYPE_CHECKING:
    from conftest import Host

pytestmark = [pytest.mark.anyio, pytest.mark.require("cni")]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def custom(name: str, **fields: object) -> NetworkConfig:
    return NetworkConfig(mode=NetworkMode.CUSTOM, network_name=name, **fields)  # type: ignore[arg-type]


def fixed(address: str, **fields: str) -> NetworkConfig:
    return custom("net", ip_config=IPConfig(ipv4=IPv4Config(address=address, **fields)))  # type: ignore[arg-type]


async def test_probe_finds_all_there(networks: Networks) -> None:
    assert await networks.probe() == ()


async def test_two_on_a_network_reach_each_other_by_name(networks: Networks, host: Host) -> None:
    network = await networks.create_network("net", labels={"a": "b"}, subnet="10.213.47.0/24", mtu=1400)
    assert (network.name, dict(network.labels), network.subnets) == ("net", {"a": "b"}, ("10.213.47.0/24",))
    one = await networks.attach("one", custom("net", aliases=["first"]), hostname="inside", names=["server"])
    inode = one.place.hosts.stat().st_ino
    two = await networks.attach("two", custom("net"), hostname="h", names=["peer"], extra_hosts={"other": "192.0.2.9"})
    assert one.ip_addresses[0] in two.place.hosts.read_text()
    assert f"{one.ip_addresses[0]}\tserver first\n" in two.place.hosts.read_text()
    assert "192.0.2.9\tother\n" in two.place.hosts.read_text()
    assert f"{one.ip_addresses[0]}\tinside server first\n" in one.place.hosts.read_text()
    assert f"{two.ip_addresses[0]}\tpeer\n" in one.place.hosts.read_text()
    assert one.place.hostname.read_text() == "inside\n"
    with host.serving(one.place.netns, "tcp", 8080, "hello"):
        assert host.ask("tcp", one.ip_addresses[0], 8080, netns=two.place.netns) == "hello"
    mtu = host.run("nsenter", f"--net={two.place.netns}", "ip", "-o", "link", "show", "eth0")
    assert " mtu 1400 " in mtu
    with pytest.raises(ConflictError, match="in use, by container one"):
        await networks.remove_network("net")
    await networks.detach("two")
    assert "peer" not in one.place.hosts.read_text()
    assert one.place.hosts.stat().st_ino == inode
    await networks.detach("one")
    await networks.remove_network("net")
    assert host.links() == {"lo"}


async def test_published_ports_answer_on_loopback_and_are_free_again(networks: Networks, host: Host) -> None:
    wanted = [
        PortMapping(container_port=8080, host_port=18080),
        PortMapping(container_port=8080),
        PortMapping(container_port=5353, protocol="udp"),
        PortMapping(container_port=8080, host_port=18081, host_ip="127.0.0.2"),
        PortMapping(container_port=8080, host_port=18082, host_ip="0.0.0.0"),
    ]
    config = NetworkConfig(port_mappings=wanted)
    for round_ in range(2):
        one = await networks.attach(f"c{round_}", config, hostname="h")
        assert [port.host_port for port in one.ports if port.host_port < 20_000] == [18080, 18081, 18082]
        picked, udp = one.ports[1].host_port, one.ports[2].host_port
        assert one == await networks.load(f"c{round_}")
        with host.serving(one.place.netns, "tcp", 8080, "tcp"), host.serving(one.place.netns, "udp", 5353, "udp"):
            assert host.ask("tcp", "127.0.0.1", 18080) == "tcp"
            assert host.ask("tcp", "127.0.0.1", picked) == "tcp"
            assert host.ask("udp", "127.0.0.1", udp) == "udp"
            assert host.ask("tcp", "127.0.0.2", 18081) == "tcp"
            assert "refused" in host.ask("tcp", "127.0.0.1", 18081)
            assert host.ask("tcp", "127.0.0.1", 18082) == "tcp"
            assert host.ask("tcp", "127.0.0.2", 18082) == "tcp"
        with pytest.raises(ConflictError, match=r"tcp port 18080 on 127\.0\.0\.1 is taken"):
            await networks.attach("other", config, hostname="h")
        await networks.detach(f"c{round_}")
        await networks.detach(f"c{round_}")
        assert await networks.load(f"c{round_}") is None


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
async def test_a_port_that_a_program_has_is_a_conflict(networks: Networks, protocol: str) -> None:
    with socket.socket(type=socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            taken.listen()
        mapping = PortMapping(container_port=1, host_port=taken.getsockname()[1], protocol=protocol)
        with pytest.raises(ConflictError, match="is taken"):
            await networks.attach("c", NetworkConfig(port_mappings=[mapping]), hostname="h")


async def test_a_published_port_is_not_picked_again(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is bound to it.
    monkeypatch.setattr(ports, "_candidates", lambda: range(61_510, 61_512))
    monkeypatch.setattr(ports, "_TRIES", 2)
    config = NetworkConfig(port_mappings=[PortMapping(container_port=1)])
    made = [await networks.attach(name, config, hostname="h") for name in ("one", "two")]
    assert {one.ports[0].host_port for one in made} == {61_510, 61_511}
    with pytest.raises(ConflictError, match="no free tcp port"):
        await networks.attach("three", config, hostname="h")
    for name in ("one", "two"):
        await networks.detach(name)


@pytest.mark.parametrize("host_ip", ["::1", "::"])
async def test_ipv6_is_not_published(networks: Networks, host_ip: str) -> None:
    config = NetworkConfig(port_mappings=[PortMapping(container_port=1, host_ip=host_ip)])
    with pytest.raises(UnsupportedError) as caught:
        await networks.attach("c", config, hostname="h")
    assert caught.value.field == "network.port_mappings"


async def test_fixed_addresses(networks: Networks) -> None:
    await networks.create_network("net", subnet="10.213.47.0/24")
    one = await networks.attach(
        "one", fixed("10.213.47.77", gateway="10.213.47.1", netmask="255.255.255.0"), hostname="h"
    )
    assert [(address.interface, address.gateway) for address in one.addresses] == [("10.213.47.77/24", "10.213.47.1")]
    with pytest.raises(ConflictError, match="another container has it"):
        await networks.attach("two", fixed("10.213.47.77"), hostname="h")
    for address in ("10.213.48.1", "10.213.47.1", "10.213.47.0", "10.213.47.255"):
        with pytest.raises(InvalidConfigError) as wrong:
            await networks.attach("two", fixed(address), hostname="h")
        assert wrong.value.field == "network.ip_config.ipv4.address"
    for field, value in (("gateway", "10.213.47.2"), ("netmask", "255.255.0.0")):
        with pytest.raises(UnsupportedError) as refused:
            await networks.attach("two", fixed("10.213.47.78", **{field: value}), hostname="h")
        assert refused.value.field == f"network.ip_config.ipv4.{field}"
    with pytest.raises(UnsupportedError) as refused:
        config = custom("net", ip_config=IPConfig(ipv6=IPv6Config(address="fd00::1")))
        await networks.attach("two", config, hostname="h")
    assert refused.value.field == "network.ip_config.ipv6"
    await networks.detach("one")


async def test_a_container_has_the_mtu_it_asks_for(networks: Networks, host: Host) -> None:
    one = await networks.attach("one", NetworkConfig(mtu=1300), hostname="h")
    link = host.run("nsenter", f"--net={one.place.netns}", "ip", "-o", "link")
    assert " mtu 1300 " in next(line for line in link.splitlines() if "eth0" in line)
    assert "UP,LOWER_UP" in next(line for line in link.splitlines() if " lo:" in line)
    await networks.detach("one")


async def test_a_full_network_says_so(networks: Networks) -> None:
    await networks.create_network("net", subnet="10.213.47.0/30")
    await networks.attach("one", custom("net"), hostname="h")
    with pytest.raises(ResourceExhaustedError, match="no IP addresses available"):
        await networks.attach("two", custom("net"), hostname="h")
    await networks.detach("one")


async def test_an_internal_network_has_no_way_out(networks: Networks, host: Host) -> None:
    await networks.create_network("net", internal=True)
    one = await networks.attach("one", custom("net"), hostname="h")
    routes = host.run("nsenter", f"--net={one.place.netns}", "ip", "route")
    assert "default" not in routes
    with pytest.raises(UnsupportedError) as caught:
        await networks.attach("two", custom("net", port_mappings=[PortMapping(container_port=1)]), hostname="h")
    assert caught.value.field == "network.port_mappings"
    await networks.detach("one")


async def test_networks_are_made_listed_and_removed(networks: Networks, host: Host) -> None:
    host.run("ip", "link", "add", "dummy-a", "type", "bridge")
    host.run("ip", "address", "add", "10.213.0.1/24", "dev", "dummy-a")
    try:
        one = await networks.create_network("one", labels={"x": "1"})
        await networks.create_network("two")
        assert await networks.list_networks(labels={"x": "1"}) == (one,)
        assert {network.name for network in await networks.list_networks()} == {"one", "two"}
        with pytest.raises(ConflictError, match="already"):
            await networks.create_network("one")
        with pytest.raises(ConflictError, match="always there"):
            await networks.create_network("bridge")
        for subnet in ("10.213.0.0/16", one.subnets[0]):
            with pytest.raises(ConflictError, match="overlaps"):
                await networks.create_network("three", subnet=subnet)
        for subnet in ("10.0.0.0/31", "10.0.0.1/24", "x"):
            with pytest.raises(InvalidConfigError):
                await networks.create_network("three", subnet=subnet)
        with pytest.raises(UnsupportedError):
            await networks.create_network("three", subnet="fd00::/64")
        for name in ("one", "two"):
            await networks.remove_network(name)
            with pytest.raises(NotFoundError):
                await networks.remove_network(name)
        with pytest.raises(NotFoundError):
            await networks.attach("c", custom("one"), hostname="h")
    finally:
        host.run("ip", "link", "delete", "dummy-a")
    assert host.links() == {"lo"}


async def test_the_systems_networks_can_be_joined(state: Path, host: Host, tmp_path: Path) -> None:
    system = tmp_path / "net.d"
    system.mkdir()
    plugin = {
        "type": "bridge",
        "bridge": "theirs0",
        "isGateway": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(tmp_path / "theirs"),
            "ranges": [[{"subnet": "10.213.9.0/24"}], [{"subnet": "fd00:213::/64"}]],
        },
        "capabilities": {"ips": True},
    }
    document = {"cniVersion": "0.4.0", "name": "theirs", "plugins": [plugin]}
    # Not ours, though it has the name of ours.
    (system / "05-bridge.conflist").write_text(json.dumps({**document, "name": "bridge"}))
    (system / "10-theirs.conflist").write_text(json.dumps(document))
    (system / "20-broken.conflist").write_text("{")
    networks = Networks(state, system=[system])
    addresses = IPConfig(ipv4=IPv4Config(address="10.213.9.5"), ipv6=IPv6Config(address="fd00:213::5"))
    one = await networks.attach("one", custom("theirs", ip_config=addresses), hostname="h")
    assert one.ip_addresses == ("10.213.9.5", "fd00:213::5")
    with pytest.raises(UnsupportedError, match="portMappings"):
        await networks.attach("two", custom("theirs", port_mappings=[PortMapping(container_port=1)]), hostname="h")
    with pytest.raises(ConflictError, match="system's"):
        await networks.remove_network("theirs")
    with pytest.raises(ConflictError, match="already"):
        await networks.create_network("theirs")
    await networks.detach("one")
    two = await networks.attach("two", NetworkConfig(), hostname="h")
    assert not two.ip_addresses[0].startswith("10.213.9.")
    await networks.detach("two")
    assert all(name.startswith(("last", "lock")) for name in host.run("ls", tmp_path / "theirs" / "theirs").split())
    host.run("ip", "link", "delete", "theirs0")


@pytest.mark.parametrize("mode", [NetworkMode.NONE, NetworkMode.HOST])
async def test_without_a_network_there_are_files_alone(networks: Networks, host: Host, mode: NetworkMode) -> None:
    config = NetworkConfig(mode=mode, dns=["192.0.2.53"])
    one = await networks.attach("one", config, hostname="h", extra_hosts={"x": "192.0.2.1"})
    assert (one.place.netns, one.ip_addresses, one.name_servers) == (None, (), ("192.0.2.53",))
    assert one.place.resolv_conf.read_text().endswith("nameserver 192.0.2.53\n")
    assert "192.0.2.1\tx\n" in one.place.hosts.read_text()
    assert await networks.load("one") == one
    assert await networks.list() == ("one",)
    await networks.detach("one")
    assert host.links() == {"lo"}


async def test_state_is_private_and_the_bound_files_are_readable(networks: Networks, state: Path) -> None:
    one = await networks.attach("one", NetworkConfig(), hostname="h")
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in one.place.hosts.parent.iterdir()
        if path != one.place.netns
    }
    assert modes == {"record.json": 0o600, "hosts": 0o644, "hostname": 0o644, "resolv.conf": 0o644}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (state, one.place.hosts.parent, state / "networks")} == {
        0o700
    }
    with pytest.raises(ConflictError, match="detach it first"):
        await networks.attach("one", NetworkConfig(), hostname="h")
    assert await networks.load("one") == one
    await networks.detach("one")


async def test_a_missing_plugin_is_named_with_its_package(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncctr.netns.cni.DIRECTORIES", (str(state / "nothing"),))
    networks = Networks(state, system=())
    with pytest.raises(BackendUnavailableError, match="apt-get install containernetworking-plugins"):
        await networks.attach("one", NetworkConfig(), hostname="h")
    assert len([problem for problem in await networks.probe() if "CNI plugin" in problem]) == 4


async def test_a_namespace_that_was_lost_is_no_hindrance(networks: Networks, host: Host) -> None:
    one = await networks.attach("one", NetworkConfig(port_mappings=[PortMapping(container_port=1)]), hostname="h")
    assert one.place.netns is not None
    host.run("umount", one.place.netns)
    assert host.rules() != set()
    await networks.detach("one")


async def test_fifty_at_once(networks: Networks, host: Host) -> None:
    config = NetworkConfig(port_mappings=[PortMapping(container_port=80)])
    before = descriptors()
    made = await asyncio.gather(*(networks.attach(f"c{n}", config, hostname="h") for n in range(50)))
    assert len({one.ports[0].host_port for one in made}) == 50
    assert len({one.ip_addresses for one in made}) == 50
    made_rules = [line for line in host.run("iptables-save").splitlines() if line.startswith("-A")]
    assert len(made_rules) == len(set(made_rules))
    await asyncio.gather(*(networks.detach(f"c{n}") for n in range(50)))
    assert descriptors() <= before + 4
