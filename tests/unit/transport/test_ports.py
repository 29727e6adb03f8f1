from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from asyncctr.core.errors import ConflictError
from asyncctr.core.network import PortMapping
from asyncctr.transport import ports
from asyncctr.transport.ports import HeldPorts, pick_ports

if TYPE_CHECKING:
    from pathlib import Path

OTHER = """
import sys
from asyncctr.transport import ports
ports._candidates = lambda: range(61_500, 61_504)
ports._TRIES = 4
held = ports.HeldPorts()
print(held.hold("tcp", "127.0.0.1"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> range:
    """Four ports to pick from, which no other test uses."""
    monkeypatch.setattr(ports, "_candidates", lambda: range(61_500, 61_504))
    monkeypatch.setattr(ports, "_TRIES", 4)
    return range(61_500, 61_504)


def test_fixed_ports_stay_and_picked_ones_differ() -> None:
    wanted = [PortMapping(container_port=1, host_port=80), *[PortMapping(container_port=1)] * 50]
    mappings, held = pick_ports(wanted)
    try:
        assert mappings[0] is wanted[0]
        numbers = {mapping.host_port for mapping in mappings[1:]}
        assert len(numbers) == 50
        assert all(1024 <= number <= 65_535 for number in numbers)
    finally:
        held.release()


def test_the_runtime_can_bind_what_is_held() -> None:
    (mapping,), held = pick_ports([PortMapping(container_port=1)])
    with socket.create_server(("127.0.0.1", mapping.host_port)):
        held.release()


def test_tcp_and_udp_have_ports_of_their_own(few: range) -> None:
    held = HeldPorts()
    try:
        assert {held.hold("tcp", "127.0.0.1") for _ in few} == set(few)
        assert {held.hold("udp", "127.0.0.1") for _ in few} == set(few)
        with pytest.raises(ConflictError, match="no free tcp port on"):
            held.hold("tcp", "127.0.0.1")
    finally:
        held.release()
    again = HeldPorts()
    assert again.hold("tcp", "127.0.0.1") in few
    again.release()


@pytest.mark.parametrize(("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
def test_a_port_that_somebody_has_is_not_picked(few: range, protocol: str, kind: int) -> None:
    held = HeldPorts()
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", few[1]))
        if protocol == "tcp":
            taken.listen()
        found = {held.hold(protocol, "127.0.0.1") for _ in range(3)}
        with pytest.raises(ConflictError):
            held.hold(protocol, "127.0.0.1")
    held.release()
    assert found == {few[0], few[2], few[3]}


def test_what_another_process_holds_is_not_picked_until_it_ends(few: range) -> None:
    with subprocess.Popen([sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        theirs = int(process.stdout.readline())
        held = HeldPorts()
        ours = {held.hold("tcp", "127.0.0.1") for _ in range(3)}
        assert ours == set(few) - {theirs}
        process.kill()
    assert held.hold("tcp", "127.0.0.1") == theirs
    held.release()


def test_what_this_machine_cannot_tell_is_left_to_the_runtime() -> None:
    held = HeldPorts()
    # Of TEST-NET-1 (RFC 5737), so that no machine has it.
    assert held.hold("tcp", "192.0.2.1") is None
    assert held.hold("sctp", "127.0.0.1") is None
    mappings, none = pick_ports([PortMapping(container_port=1, protocol="sctp")])
    assert mappings[0].host_port == 0
    none.release()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("32768\t60999\n", range(61_000, 65_536)),
        ("32768\t65535\n", range(20_000, 32_768)),
        ("1024\t65535\n", range(20_000, 65_536)),
        ("garbage", range(61_000, 65_536)),
    ],
)
def test_candidates_are_outside_of_the_ephemeral_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, wanted: range
) -> None:
    path = tmp_path / "range"
    path.write_text(text)
    monkeypatch.setattr(ports, "_RANGE_FILE", path)
    assert ports._candidates() == wanted
