"""Case 7: networks, published ports and names."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from asyncctr.core.backend import SupportsNetworks
from asyncctr.core.errors import ConflictError, NotFoundError
from asyncctr.core.network import IPConfig, IPv4Config, NetworkConfig, NetworkMode, PortMapping
from asyncctr.testing.conformance.checks import equal, honoured, raises, supported, unique
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.conformance.workloads import shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncctr.core.backend import Network
    from asyncctr.core.status import RunResult
    from asyncctr.testing.conformance.suite import Context

__all__: list[str] = []

BOUND = 60.0
"""Seconds that one step of a case may take."""

_LABELS = {"asyncctr-test": "1"}
# Prints a line that names the container to whoever connects, any number of times.
_SERVE = "echo ready; exec nc -ll -p 8080 -e sh -c 'echo served by $(hostname)'"


async def _run(context: Context, script: str, network: NetworkConfig) -> RunResult:
    async with asyncio.timeout(BOUND):
        return await context.client.run(shell(context, script, network=network))


def _interfaces(text: bytes) -> set[str]:
    """The names in /proc/net/dev (proc(5))."""
    return {line.partition(":")[0].strip() for line in text.decode().splitlines() if ":" in line}


@case(7, "network none")
async def network_none(context: Context) -> None:
    """Loopback alone, and that works."""
    network = NetworkConfig(mode=NetworkMode.NONE)
    if not await honoured(context, shell(context, "true", network=network), "network.mode.none"):
        return
    if context.target.is_linux:
        await _loopback_alone(context, network)
    async with (
        asyncio.timeout(BOUND),
        context.client.container(shell(context, "sleep 60", network=network)) as container,
    ):
        await container.start()
        equal((await container.inspect()).ip_addresses, (), "the addresses")


async def _loopback_alone(context: Context, network: NetworkConfig) -> None:
    result = await _run(context, "cat /proc/net/dev", network)
    # Tunnels of the kernel's own making (tunl0, sit0 …) are in every namespace of a machine that has the modules.
    kernel = _interfaces(Path("/proc/net/dev").read_bytes()) - {"eth0"}  # noqa: ASYNC240 - of /proc
    equal(_interfaces(result.stdout) - kernel, set(), "the interfaces beside the loopback")
    result = await _run(
        context, "cat /proc/net/route | tail -n +2; ping -c 1 -W 2 127.0.0.1 > /dev/null && echo loopback", network
    )
    equal((result.exit_code, result.stdout), (0, b"loopback\n"), "the routes, and whether the loopback answers")


_GREET = """
import socket, sys
server = socket.create_server((sys.argv[1], 0))
print(server.getsockname()[1], flush=True)
while True:
    with server.accept()[0] as connection:
        connection.sendall(b"hello from the host\\n")
"""


@asynccontextmanager
async def _greeter(host: str, enter: Sequence[str] = ()) -> AsyncIterator[int]:
    """A server on this machine, or in the namespaces that ``enter`` enters, that says ``hello``; its port."""
    words = [*enter, sys.executable, "-c", _GREET, host]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, start_new_session=True)
    try:
        yield int(await cast("asyncio.StreamReader", process.stdout).readline())
    finally:
        # What enters a pid namespace waits for its child there.
        os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


@case(7, "network bridge")
async def network_bridge(context: Context) -> None:
    """An address of its own, which inspect tells, and a way to this machine's end of the bridge."""
    network = NetworkConfig(mode=NetworkMode.BRIDGE)
    if not await honoured(context, shell(context, "true", network=network), "network.mode.bridge"):
        return
    script = "ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'; ip -4 -o addr show; exec sleep 60"
    async with asyncio.timeout(BOUND), context.client.container(shell(context, script, network=network)) as container:
        await container.start()
        addresses = (await container.inspect()).ip_addresses
        equal(len(addresses) > 0, wanted=True, what="that there is an address")
        if not context.target.is_linux:
            # That it is the one inside is shown by what answers at published ports.
            ipaddress.ip_address(addresses[0])
            return
        lines: list[str] = []
        async for line in container.logs().lines():
            lines.append(line.text)
            if f" {addresses[0]}/" in line.text:
                break
        else:
            message = f"{addresses[0]} is not among the addresses inside: {lines}"
            raise AssertionError(message)
        gateway = lines[0]
    ipaddress.ip_address(gateway)
    async with _greeter(gateway, context.target.enter_network) as port:
        result = await _run(context, f"nc -w 10 {gateway} {port} < /dev/null", network)
    equal((result.exit_code, result.stdout), (0, b"hello from the host\n"), "what the host's end of the bridge says")


@case(7, "network host")
async def network_host(context: Context) -> None:
    """The host's own interfaces, and its loopback."""
    network = NetworkConfig(mode=NetworkMode.HOST)
    if not await honoured(context, shell(context, "true", network=network), "network.mode.host"):
        return
    result = await _run(context, "readlink /proc/self/ns/net", network)
    equal(result.stdout.decode().strip(), str(Path("/proc/self/ns/net").readlink()), "the network namespace")  # noqa: ASYNC240 - of /proc
    async with _greeter("127.0.0.1") as port:
        result = await _run(context, f"nc -w 10 127.0.0.1 {port} < /dev/null", network)
    equal(result.stdout, b"hello from the host\n", "what the host's loopback says")


async def _ask(host: str, port: int, deadline: float = 15.0) -> bytes:
    """What the server in a container says; it may have to start first, and nothing tells when it has."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    while True:
        said = b""
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    said = await reader.read(1000)
                finally:
                    writer.close()
        except (ConnectionError, TimeoutError):
            # Not there yet; the loop has a deadline.
            pass
        if said or loop.time() > end:
            return said
        await asyncio.sleep(0.05)


def _free_port() -> socket.socket:
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    return holder


@case(7, "published ports")
async def published_ports(context: Context) -> None:
    """A fixed and a picked port answer on 127.0.0.1 and nowhere else, and inspect has both when start returns."""
    with _free_port() as holder:
        fixed = holder.getsockname()[1]
    network = NetworkConfig(
        port_mappings=[PortMapping(container_port=8080, host_port=fixed), PortMapping(container_port=8080, host_port=0)]
    )
    config = shell(context, _SERVE, network=network, hostname="portly" if supported(context, "hostname") else "")
    if not await honoured(context, config, "network.port_mappings"):
        return
    async with asyncio.timeout(BOUND), context.client.container(config) as container:
        await container.start()
        ports = (await container.inspect()).ports
        equal(len(ports), 2, "the number of ports")
        equal({port.host_ip for port in ports}, {"127.0.0.1"}, "where they are")
        equal({(port.container_port, port.protocol) for port in ports}, {(8080, "tcp")}, "what they lead to")
        numbers = {port.host_port for port in ports}
        equal(
            (fixed in numbers, 0 in numbers, len(numbers)), (True, False, 2), f"fixed, unknown and distinct in {ports}"
        )
        for number in numbers:
            said = await _ask("127.0.0.1", number)
            equal(
                said.startswith(b"served by "), wanted=True, what=f"that {said!r} from port {number} is the container's"
            )
        # 127.0.0.2 is this machine too: a port on all interfaces would answer there.
        equal(await _ask("127.0.0.2", fixed, deadline=0.0), b"", "what another address of this machine says")


@case(7, "ports taken and udp")
async def ports_taken(context: Context) -> None:
    """A host port that is taken is a conflict when the container starts; UDP ports are published as well."""
    with _free_port() as holder:
        holder.listen()
        taken = holder.getsockname()[1]
        network = NetworkConfig(port_mappings=[PortMapping(container_port=8080, host_port=taken)])
        config = shell(context, _SERVE, network=network)
        if not await honoured(context, config, "network.port_mappings"):
            return
        async with asyncio.timeout(BOUND), context.client.container(config) as container:
            with raises(ConflictError, "starting with a taken port"):
                await container.start()
        async with asyncio.timeout(BOUND):
            with raises(ConflictError, "running with a taken port"):
                await context.client.run(config)
    mapping = PortMapping(container_port=5353, protocol="udp", host_ip="0.0.0.0")  # noqa: S104 - what is tested
    config = shell(context, "sleep 60", network=NetworkConfig(port_mappings=[mapping]))
    if not await honoured(context, config, "network.port_mappings.protocol.udp"):
        return
    async with asyncio.timeout(BOUND), context.client.container(config) as container:
        await container.start()
        (port,) = (await container.inspect()).ports
        equal((port.container_port, port.protocol, port.host_ip), (5353, "udp", "0.0.0.0"), "the port")  # noqa: S104 - likewise


@case(7, "dns and mtu")
async def dns_and_mtu(context: Context) -> None:
    """Both are seen from inside, or refused by name."""
    network = NetworkConfig(dns=["192.0.2.53", "192.0.2.54"])
    if await honoured(context, shell(context, "true", network=network), "network.dns"):
        result = await _run(context, "cat /etc/resolv.conf", network)
        found = [line.split()[1] for line in result.stdout.splitlines() if line.startswith(b"nameserver")]
        equal(found, [b"192.0.2.53", b"192.0.2.54"], "the name servers")
    network = NetworkConfig(mtu=1400)
    if await honoured(context, shell(context, "true", network=network), "network.mtu"):
        if not context.target.is_linux:
            equal((await _run(context, "exit 0", network)).exit_code, 0, "the code of a run with an MTU")
            return
        result = await _run(context, "cat /sys/class/net/eth0/mtu", network)
        equal(result.stdout, b"1400\n", "the MTU")


@asynccontextmanager
async def _network(context: Context, **fields: object) -> AsyncIterator[Network]:
    """A network that is gone afterwards."""
    backend = context.client.backend
    assert isinstance(backend, SupportsNetworks), "supports_networking is set, but the methods are not there"  # noqa: S101 - for the type
    name = unique("asyncctr-conformance")
    async with asyncio.timeout(BOUND):
        network = await backend.create_network(name, labels=_LABELS, **fields)  # type: ignore[arg-type]
    try:
        equal((network.name, dict(network.labels)), (name, _LABELS), "the network")
        with raises(ConflictError, "making a network of the same name"):
            await backend.create_network(name)
        equal(
            [found.name for found in await backend.list_networks(labels=_LABELS)], [name], "the networks with our label"
        )
        yield network
    finally:
        async with asyncio.timeout(BOUND):
            await backend.remove_network(name)
    with raises(NotFoundError, "removing a removed network"):
        await backend.remove_network(name)


@case(7, "custom network")
async def custom_network(context: Context) -> None:
    """Two containers on a network reach each other, and find each other by name and alias."""
    config = shell(context, "true", network=NetworkConfig(mode=NetworkMode.CUSTOM, network_name="asyncctr-none"))
    if not await honoured(context, config, "network.mode.custom", "network.network_name"):
        return
    async with _network(context) as network:
        joined = NetworkConfig(mode=NetworkMode.CUSTOM, network_name=network.name)
        named = NetworkConfig(mode=NetworkMode.CUSTOM, network_name=network.name, aliases=["aliased"])
        names = await honoured(context, shell(context, "true", network=named), "network.aliases")
        server = shell(
            context, _SERVE, network=named if names else joined, name=unique("server"), hostname="server-inside"
        )
        async with asyncio.timeout(2 * BOUND), context.client.container(server) as container:
            await container.start()
            info = await container.inspect()
            (address,) = info.ip_addresses
            equal(
                [ipaddress.ip_address(address) in ipaddress.ip_network(subnet) for subnet in network.subnets],
                [True],
                "that it is in the subnet",
            )
            for host in (address, *((info.name, "aliased") if names else ())):
                script = f"for _ in 1 2 3 4 5 6 7 8 9 10; do nc -w 2 {host} 8080 < /dev/null && exit; sleep 0.2; done; exit 1"
                result = await _run(context, script, joined)
                equal(
                    (result.exit_code, result.stdout),
                    (0, b"served by server-inside\n"),
                    f"what {host} says; {result.stderr!r}",
                )
            backend = context.client.backend
            assert isinstance(backend, SupportsNetworks)  # noqa: S101 - as in _network
            with raises(ConflictError, "removing a network with a container on it"):
                await backend.remove_network(network.name)


@case(7, "fixed address and network options")
async def fixed_address(context: Context) -> None:
    """A container gets the address asked for; a network its subnet and MTU."""
    config = shell(context, "true", network=NetworkConfig(mode=NetworkMode.CUSTOM, network_name="asyncctr-none"))
    if not await honoured(context, config, "network.mode.custom", "network.network_name"):
        return
    async with _network(context, mtu=1400) as network:
        joined = NetworkConfig(mode=NetworkMode.CUSTOM, network_name=network.name)
        result = await _run(context, "cat /sys/class/net/eth0/mtu", joined)
        equal(result.stdout, b"1400\n", "the network's MTU")
    async with _network(context, subnet="10.213.47.0/24", internal=True) as network:
        equal(network.subnets, ("10.213.47.0/24",), "the subnets")
        wanted = "10.213.47.77"
        fixed = NetworkConfig(
            mode=NetworkMode.CUSTOM, network_name=network.name, ip_config=IPConfig(ipv4=IPv4Config(address=wanted))
        )
        config = shell(context, "ip -4 -o addr show dev eth0; exec sleep 60", network=fixed)
        if not await honoured(
            context, config, "network.ip_config", "network.ip_config.ipv4", "network.ip_config.ipv4.address"
        ):
            return
        async with asyncio.timeout(BOUND), context.client.container(config) as container:
            await container.start()
            equal((await container.inspect()).ip_addresses, (wanted,), "the addresses")
            async for line in container.logs().lines():
                equal(f" {wanted}/24 " in line.text, wanted=True, what=f"that {line.text!r} has the address")
                break
