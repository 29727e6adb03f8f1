"""What a case is, what it is given, and how often it repeats."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from asyncctr.client import Client
    from asyncctr.core.backend_config import BackendConfig
    from asyncctr.testing.base import Leftovers
    from asyncctr.testing.proxy import FaultProxy
    from asyncctr.testing.registry import Registry

__all__ = ["CASES", "FULL", "QUICK", "Case", "Context", "Profile", "Target", "case", "profile_from_environment"]


@attrs.frozen(kw_only=True)
class Profile:
    """How often the cases that count repeat.

    Attributes:
        name: ``"quick"`` or ``"full"``; printed with the results.
        tails: runs whose whole output must arrive (case 16).
        breaks: log streams left early (case 20).
        exits: runs whose exit code is raced by their removal (case 22).
        ports: parallel starts with picked ports (case 24).
        cycles: create-start-stop cycles of a VM (case 29).
        cancel_stride: every how many-th await point is cancelled (case 14).
        flood: bytes printed to a slow reader (case 21).
    """

    name: str
    tails: int
    breaks: int
    exits: int
    ports: int
    cycles: int
    cancel_stride: int = 1
    flood: int = 1 << 30


QUICK = Profile(name="quick", tails=20, breaks=100, exits=20, ports=16, cycles=5)
FULL = Profile(name="full", tails=300, breaks=500, exits=300, ports=50, cycles=50)

PROFILE_VARIABLE = "ASYNCCTR_CONFORMANCE"


def profile_from_environment() -> Profile:
    """The profile that ``ASYNCCTR_CONFORMANCE`` names; quick without it."""
    name = os.environ.get(PROFILE_VARIABLE, QUICK.name)
    profiles = {profile.name: profile for profile in (QUICK, FULL)}
    if name not in profiles:
        message = f"{PROFILE_VARIABLE} must be one of {', '.join(profiles)}, not {name!r}"
        raise ValueError(message)
    return profiles[name]


class Target(ABC):
    """What a backend brings to the suite: its real runtime, and that runtime's own tools.

    Attributes:
        name: for reports, such as ``"dockerd"``.
        image: a loaded image made by :func:`asyncctr.testing.images.build_archive` from a plain ``ImageSpec``.
        archive: the path of the archive it was loaded from.
        registries: running registries by kind: ``"plain"``, ``"htpasswd"`` and ``"token"``.
    """

    name: str
    image: str
    archive: str
    registries: dict[str, Registry]

    @property
    @abstractmethod
    def config(self) -> BackendConfig:
        """The configuration that reaches the runtime."""

    @abstractmethod
    def proxied(self) -> AbstractAsyncContextManager[tuple[FaultProxy, BackendConfig]]:
        """A fault proxy in front of the runtime, and the configuration that reaches the runtime through it."""

    @abstractmethod
    def unresponsive(self) -> AbstractAsyncContextManager[BackendConfig]:
        """A runtime that accepts connections and never answers."""

    @abstractmethod
    async def restart(self) -> None:
        """Kill the runtime's daemon and start it again; containers live on where the runtime can do that."""

    @abstractmethod
    async def leftovers(self) -> Leftovers:
        """Containers, networks and volumes with this SDK's labels, as the runtime's own tools list them."""

    @abstractmethod
    async def image_facts(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        """An image's digest and sorted names as the runtime's own tools give them; ``None`` when there is none."""

    @abstractmethod
    def open_files(self) -> int:
        """How many descriptors the daemon has open."""

    @property
    def ends_builds(self) -> bool:
        """Whether a build whose client goes away ends in the middle of a step; otherwise it does so after the step."""
        return True

    @property
    def logs_over_connection(self) -> bool:
        """Whether logs come through the connection to the runtime, so that cutting it cuts them; otherwise they are files here."""
        return True

    @property
    def enter_network(self) -> Sequence[str]:
        """The words in front of a program that run it where the bridges are; none where that is this machine."""
        return ()

    @property
    def has_daemon(self) -> bool:
        """Whether there is a daemon, whose connection can be cut and which can hang or die; otherwise that befalls a container's machine."""
        return True

    @property
    def is_linux(self) -> bool:
        """Whether what runs in a container is a Linux process, which can start others and sees ``/proc`` and ``/sys``."""
        return True

    @property
    def most_output(self) -> int:
        """Bytes that a container prints within some ten seconds; the console of a machine is a serial port."""
        return 1 << 30

    def machine(self, container_id: str) -> Sequence[int]:
        """The processes of a container's virtual machine: what watches over it, then the machine; none where it is no machine."""
        del container_id
        return ()

    def unbootable(self) -> AbstractAsyncContextManager[tuple[BackendConfig, str]] | None:
        """A configuration with which no guest boots, and what the console says then; ``None`` where nothing boots."""
        return None

    @property
    def survives_restart(self) -> bool:
        """Whether containers live on when the daemon is killed."""
        return True


@attrs.frozen(kw_only=True)
class Context:
    """What a case is given: an open client of the target, and how often to repeat."""

    target: Target
    client: Client
    profile: Profile

    @property
    def image(self) -> str:
        """The name of the loaded test image."""
        return self.target.image


@attrs.frozen
class Case:
    """One behaviour.

    Attributes:
        number: its number in the list of behaviours.
        title: in a few words.
        function: what shows it.
        uvloop: whether it also runs on uvloop.
    """

    number: int
    title: str
    function: Callable[[Context], Awaitable[None]]
    uvloop: bool = False

    def __str__(self) -> str:
        return f"{self.number:02d}-{self.title.replace(' ', '-')}"


CASES: list[Case] = []
"""All cases; a behaviour with many sides has more than one."""


def case(
    number: int, title: str, *, uvloop: bool = False
) -> Callable[[Callable[[Context], Awaitable[None]]], Callable[[Context], Awaitable[None]]]:
    """Register a case."""

    def register(function: Callable[[Context], Awaitable[None]]) -> Callable[[Context], Awaitable[None]]:
        CASES.append(Case(number, title, function, uvloop))
        return function

    return register
