"""What is left when an attachment is cancelled, or its process killed, at each of its plugins."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from asyncctr.core.network import NetworkConfig, PortMapping
from asyncctr.netns.networks import Networks

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Host

pytestmark = [pytest.mark.anyio, pytest.mark.require("cni")]

_CONFIG = NetworkConfig(port_mappings=[PortMapping(container_port=80, host_port=18080)])

# A plugin that says that it has begun, and goes on when it is told to: both by opening a FIFO.
_HELD = """#!/bin/sh
if [ "$CNI_COMMAND" = ADD ]; then
    : > {begun}
    : < {go}
fi
exec /usr/lib/cni/{kind}
"""
# The same, when its work is done.
_LATE = """#!/bin/sh
if [ "$CNI_COMMAND" = ADD ]; then
    answer=$(/usr/lib/cni/{kind}) || exit 1
    : > {begun}
    : < {go}
    printf %s "$answer"
    exit 0
fi
exec /usr/lib/cni/{kind}
"""

_ATTACH = """
import asyncio, sys
from pathlib import Path
from asyncctr.core.network import NetworkConfig, PortMapping
from asyncctr.netns.networks import Networks
config = NetworkConfig(port_mappings=[PortMapping(container_port=80, host_port=18080)])
networks = Networks(Path(sys.argv[1]), plugins=[sys.argv[2]], system=())
asyncio.run(networks.attach("one", config, hostname="h"))
"""


class Held:
    """A plugin that stops before or after its ADD."""

    def __init__(self, directory: Path, kind: str, script: str) -> None:
        self.directory = directory
        self._begun = directory / "begun"
        self._go = directory / "go"
        directory.mkdir()
        os.mkfifo(self._begun)
        os.mkfifo(self._go)
        plugin = directory / kind
        plugin.write_text(script.format(kind=kind, begun=self._begun, go=self._go))
        plugin.chmod(0o755)

    async def begun(self) -> None:
        async with asyncio.timeout(30):
            await asyncio.to_thread(lambda: self._begun.open().close())

    async def go(self) -> None:
        async with asyncio.timeout(30):
            await asyncio.to_thread(lambda: self._go.open("w").close())


def is_locked(path: Path, operation: int = fcntl.LOCK_EX) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@pytest.fixture(params=[(kind, when) for kind in ("bridge", "portmap", "firewall") for when in ("before", "after")])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Held:
    kind, when = request.param
    return Held(tmp_path / "held", kind, _HELD if when == "before" else _LATE)


async def test_a_cancelled_attach_leaves_nothing(state: Path, held: Held, host: Host) -> None:
    networks = Networks(state, plugins=[str(held.directory)], system=())
    task = asyncio.create_task(networks.attach("one", _CONFIG, hostname="h"))
    await held.begun()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await networks.list() == ()
    assert host.rules() == set()
    # And the port is free again at once.
    networks = Networks(state, system=())
    await networks.attach("one", _CONFIG, hostname="h")
    assert host.rules() != set()
    await networks.detach("one")


async def test_another_process_undoes_what_a_killed_one_began(state: Path, held: Held, host: Host) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _ATTACH, str(state), str(held.directory))
    await held.begun()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    networks = Networks(state, system=())
    assert await networks.list() == ("one",)
    assert await networks.load("one") is None
    # The plugin outlives its caller: what it has yet to do must be done before it can be undone.
    assert is_locked(state / "containers" / "one")
    detaching = asyncio.create_task(networks.detach("one"))
    await held.go()
    async with asyncio.timeout(30):
        await detaching
    assert await networks.list() == ()
    assert host.rules() == set()


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_a_cancellation_early_on_leaves_nothing(networks: Networks, turns: int) -> None:
    task = asyncio.create_task(networks.attach("one", _CONFIG, hostname="h"))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await networks.list() == ()


async def test_the_first_attachment_makes_the_shared_rules_alone(state: Path, tmp_path: Path) -> None:
    held = Held(tmp_path / "held", "bridge", _HELD)
    networks = Networks(state, plugins=[str(held.directory)], system=())
    for name, alone in (("one", True), ("two", False)):
        task = asyncio.create_task(networks.attach(name, NetworkConfig(), hostname="h"))
        await held.begun()
        assert is_locked(state / "plugins.lock", fcntl.LOCK_SH) is alone
        await held.go()
        await task
    for name in ("one", "two"):
        await networks.detach(name)


async def test_two_detach_at_once(networks: Networks) -> None:
    await networks.attach("one", _CONFIG, hostname="h")
    await asyncio.gather(*(networks.detach("one") for _ in range(3)))


async def test_a_cancelled_wait_for_a_lock_lets_it_go(networks: Networks, state: Path) -> None:
    await networks.attach("one", _CONFIG, hostname="h")
    detaching = [asyncio.create_task(networks.detach("one")) for _ in range(3)]
    await asyncio.sleep(0)
    for task in detaching[1:]:
        task.cancel()
    await asyncio.wait(detaching)
    assert detaching[0].exception() is None
    assert await networks.list() == ()
