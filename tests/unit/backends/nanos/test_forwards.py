from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from asyncctr.backends.nanos import forwards
from asyncctr.backends.nanos.forwards import add_forwards, forward_conflict, forwards_of
from asyncctr.backends.nanos.machine import UserNetwork
from asyncctr.core.errors import AsyncctrError, ConflictError, InvalidConfigError, UnsupportedError
from asyncctr.core.network import PortMapping
from asyncctr.transport.ports import HeldPorts, pick_ports

pytestmark = pytest.mark.anyio
real = pytest.mark.require("qemu")


@pytest.fixture
def taken() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@real
async def test_fixed_ports_in_the_command_line(start: Any) -> None:
    mappings, held = pick_ports([PortMapping(container_port=80)])
    running = await start(network=UserNetwork(forwards=forwards_of(mappings)))
    async with running.monitor():
        socket.create_connection(("127.0.0.1", mappings[0].host_port), 5).close()
    held.release()


@real
async def test_a_fixed_port_that_is_taken_keeps_qemu_from_starting(start: Any, taken: int) -> None:
    fixed = forwards_of([PortMapping(container_port=80, host_port=taken)])
    running = await start(network=UserNetwork(forwards=fixed, guest_address="10.3.0.9"))
    assert await running.ended() == 1
    error = forward_conflict(await running.said(), resource="vm")
    assert isinstance(error, ConflictError)
    assert str(error).startswith(f"host port 127.0.0.1:{taken}/tcp cannot be published: Address already in use")
    assert error.resource == "vm"


@real
async def test_picked_ports_through_the_monitor(start: Any, taken: int) -> None:
    running = await start(network=UserNetwork(guest_address="10.3.0.9"))
    async with running.monitor() as monitor:
        wanted = [PortMapping(container_port=80), PortMapping(container_port=53, protocol="udp")]
        tcp, udp = await add_forwards(monitor, wanted, guest_address="10.3.0.9")
        socket.create_connection(("127.0.0.1", tcp.host_port), 5).close()
        known = await monitor.human("info usernet")
        for protocol, mapping in (("TCP", tcp), ("UDP", udp)):
            port, inside = mapping.host_port, mapping.container_port
            assert re.search(rf"{protocol}\[HOST_FORWARD\] +\d+ +127\.0\.0\.1 +{port} +10\.3\.0\.9 +{inside} ", known)
        with pytest.raises(ConflictError, match=f"127.0.0.1:{taken}/tcp"):
            await add_forwards(monitor, [PortMapping(container_port=80, host_port=taken)])
        with pytest.raises(InvalidConfigError, match=r"no address 192\.0\.2\.1"):
            await add_forwards(monitor, [PortMapping(container_port=80, host_port=8080, host_ip="192.0.2.1")])
        assert await monitor.status() == "running"


@real
async def test_a_picked_port_that_is_taken_after_all_is_picked_anew(
    start: Any, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    picked = HeldPorts.hold
    first = iter([taken])
    monkeypatch.setattr(HeldPorts, "hold", lambda self, *at: next(first, None) or picked(self, *at))
    running = await start(network=UserNetwork())
    async with running.monitor() as monitor:
        (mapping,) = await add_forwards(monitor, [PortMapping(container_port=80)])
        assert mapping.host_port != taken
        monkeypatch.setattr(HeldPorts, "hold", lambda *_: taken)
        with pytest.raises(ConflictError):
            await add_forwards(monitor, [PortMapping(container_port=80)])


@real
async def test_a_machine_without_a_network_publishes_nothing(start: Any) -> None:
    async with (await start()).monitor() as monitor:
        with pytest.raises(AsyncctrError, match="did not publish host port"):
            await add_forwards(monitor, [PortMapping(container_port=80)])


def test_what_the_network_cannot_forward_is_refused() -> None:
    for mapping in (
        PortMapping(container_port=1, protocol="sctp"),
        PortMapping(container_port=1, host_ip="::1"),
    ):
        with pytest.raises(UnsupportedError) as refused:
            forwards_of([mapping])
        assert refused.value.field == "network.port_mappings"


def test_other_failures_are_no_conflict() -> None:
    assert forward_conflict("qemu: could not open '/x': No such file or directory") is None


def test_a_port_that_takes_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "_listen_error", lambda *_: 13)
    error = forward_conflict("Could not set up host forwarding rule 'tcp:127.0.0.1:80-:80'")
    assert error is not None
    assert "needs rights" in str(error)
