from __future__ import annotations

import asyncio
import ipaddress
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.core.errors import (
    BackendUnavailableError,
    InvalidConfigError,
    OperationTimeoutError,
    ResourceExhaustedError,
)
from asyncctr.core.network import NetworkConfig, NetworkMode, PortMapping
from asyncctr.netns.conflist import Conflist, bridge_conflist, conflists_in
from asyncctr.netns.files import write_atomic
from asyncctr.netns.names import hosts_file, name_servers, resolv_conf, rewrite
from asyncctr.netns.networks import Networks
from asyncctr.netns.records import Record
from asyncctr.netns.request import port_mappings
from asyncctr.netns.rules import Published, published_ports
from asyncctr.netns.runner import Runner
from asyncctr.netns.subnets import free_subnet
from asyncctr.transport.filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Host

pytestmark = pytest.mark.anyio

_HOST = "search example.org\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\noptions ndots:2\nnonsense"


def test_servers_on_the_hosts_loopback_are_left_out() -> None:
    assert name_servers(_HOST) == ("192.0.2.1",)
    written = resolv_conf(_HOST, ["198.51.100.1"]).decode()
    assert written == "search example.org\noptions ndots:2\nnameserver 198.51.100.1\n"


@given(st.text())
def test_any_resolv_conf_is_read(text: str) -> None:
    assert all(not ipaddress.ip_address(server).is_loopback for server in name_servers(text))


def test_a_hosts_file_has_the_extra_hosts_first_and_no_name_twice() -> None:
    def record(name: str, address: str, **fields: object) -> Record:
        result = {"ips": [{"address": f"{address}/24"}]}
        return Record(container_id=name, mode=NetworkMode.CUSTOM, result=result, names=[name], **fields)  # type: ignore[arg-type]

    one = record("one", "10.0.0.2", hostname="one", extra_hosts={"x": "192.0.2.9"})
    text = hosts_file(one, [one, record("two", "10.0.0.3")]).decode()
    assert text.splitlines()[2:] == ["192.0.2.9\tx", "10.0.0.2\tone", "10.0.0.3\ttwo"]


def test_a_rewritten_file_keeps_its_inode(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"a long line\n")
    inode = path.stat().st_ino
    for data in (b"short\n", b"longer than before\n", b""):
        rewrite(path, data)
        assert (path.read_bytes(), path.stat().st_ino) == (data, inode)


def test_a_record_survives_the_disk() -> None:
    conflist = bridge_conflist("n", bridge="b", subnet=ipaddress.IPv4Network("10.0.0.0/24"), leases=Path("/leases"))
    record = Record(
        container_id="c",
        mode=NetworkMode.BRIDGE,
        conflist=conflist,
        ports=(PortMapping(container_port=1),),
        names=["x"],
    )
    assert Record.decode(record.encode()) == record


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_is_no_record_or_conflist_is_refused(document: object) -> None:
    data = json.dumps(document).encode()
    with pytest.raises(ValueError):  # noqa: PT011 - decode has no other
        Record.decode(data)
    with pytest.raises(InvalidConfigError):
        Conflist.parse(data, "test")


def test_a_single_plugin_is_a_list_of_one(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text(
        '{"name": "old", "cniVersion": "0.3.1", "type": "ptp", "ipam": {"subnet": "10.1.0.0/24"}}'
    )
    (tmp_path / "b.txt").write_text("{}")
    (found,) = conflists_in(tmp_path)
    assert (found.name, found.version, found.plugins[0]["type"]) == ("old", "0.3.1", "ptp")
    assert [str(subnet) for subnet in found.subnets] == ["10.1.0.0/24"]
    assert found.gateway(found.subnets[0]) == "10.1.0.1"


def test_portmap_is_told_no_address_for_every_address() -> None:
    ports = [PortMapping(container_port=1, host_port=2), PortMapping(container_port=1, host_port=3, host_ip="0.0.0.0")]
    assert [entry.get("hostIP") for entry in port_mappings(ports)] == ["127.0.0.1", None]


def test_published_ports_meet_where_the_addresses_do() -> None:
    some, every = Published("tcp", "127.0.0.1", 80), Published("tcp", "", 80)
    for host_ip, meets in (("127.0.0.1", True), ("127.0.0.2", False), ("0.0.0.0", True)):
        mapping = PortMapping(container_port=1, host_port=80, host_ip=host_ip)
        assert some.meets(mapping) is meets
        assert every.meets(mapping)
    assert not every.meets(PortMapping(container_port=1, host_port=80, protocol="udp"))


@given(st.lists(st.integers(0, 255), max_size=255, unique=True))
def test_a_free_subnet_meets_none_that_is_used(used: list[int]) -> None:
    subnets = list(ipaddress.IPv4Network("10.160.0.0/12").subnets(new_prefix=20))
    found = free_subnet([subnets[index] for index in used])
    assert not any(found.overlaps(subnets[index]) for index in used)
    with pytest.raises(ResourceExhaustedError):
        free_subnet([ipaddress.IPv4Network("10.0.0.0/8")])


async def test_a_program_that_takes_too_long_goes_with_its_children(tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    lock = await FileLock.take(held)
    with pytest.raises(OperationTimeoutError):
        await Runner().run("sh", "-c", "sleep 60 & wait", timeout=0.2, pass_fds=[lock.fileno()])
    lock.release()
    # The child had the lock as well.
    async with asyncio.timeout(5):
        (await FileLock.take(held)).release()


async def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("asyncctr.netns.runner._SBIN", ())
    with pytest.raises(BackendUnavailableError, match="apt-get install iptables"):
        await published_ports(Runner())


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "no bytes")  # type: ignore[arg-type]
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def elsewhere(host: Host) -> Iterator[Runner]:
    """A process with network, mount and process namespaces of its own, as a rootless daemon has them."""
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    script = "ip link set lo up; echo ready; exec sleep 600"
    with subprocess.Popen([*argv, "sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            yield Runner(("-m", "-n", "-p"), lambda: int(children))
        finally:
            process.kill()


@pytest.mark.require("cni")
async def test_all_of_it_in_the_namespaces_of_a_daemon(elsewhere: Runner, host: Host, tmp_path: Path) -> None:
    networks = Networks(tmp_path / "state", runner=elsewhere, system=())
    assert await networks.probe() == ()
    one = await networks.attach("one", NetworkConfig(port_mappings=[PortMapping(container_port=80)]), hostname="h")
    assert host.links() == {"lo"}
    inside = await elsewhere.check("nsenter", f"--net={one.place.netns}", "ip", "-br", "address")
    assert one.ip_addresses[0] in inside.stdout.decode()
    assert {published.host_port for published in await published_ports(elsewhere)} == {one.ports[0].host_port}
    await networks.detach("one")
    await networks.remove_network("bridge")
    assert await published_ports(elsewhere) == frozenset()
    links = (await elsewhere.check("ip", "-json", "link")).stdout
    assert {link["ifname"] for link in json.loads(links)} == {"lo"}
    mounts = await elsewhere.check("cat", "/proc/self/mountinfo")
    assert str(tmp_path) not in mounts.stdout.decode()
