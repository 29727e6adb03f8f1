"""What a contender does for each question, the way its users would write it."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

__all__ = ["Contender", "Job", "Marks", "Output", "Ran", "UnsupportedQuestionError", "in_parallel", "in_threads"]

T = TypeVar("T")
U = TypeVar("U")

Output = list[bytes] | list[str]
"""Output as the library gives it, piece by piece; it is checked after the clock has stopped."""


class UnsupportedQuestionError(Exception):
    """The contender has no way to do this."""


@attrs.frozen
class Job:
    """A container to run to its end: what it is to print, and its exit code.

    Attributes:
        command: the arguments.
        network: ``"none"`` or ``"bridge"``.
    """

    command: tuple[str, ...]
    network: str


@attrs.frozen
class Ran:
    """What a contender says of a finished run. Those that give both streams as one leave ``stderr`` at ``None``.

    ``seconds`` are those from the call until the result was there, where they are measured.
    """

    code: int
    stdout: bytes
    stderr: bytes | None = None
    seconds: float | None = None


class Marks:
    """When each of many streams was open, and when its first data came; safe from any thread.

    Attributes:
        opened: times of ``time.perf_counter``, by index; empty where the library does not tell.
        data: likewise, of the first data.
    """

    def __init__(self) -> None:
        self.opened: dict[int, float] = {}
        self.data: dict[int, float] = {}

    def is_open(self, index: int) -> None:
        """The stream is open."""
        self.opened[index] = time.perf_counter()

    def has_data(self, index: int) -> None:
        """Data came; only the first time counts."""
        if index not in self.data:
            self.data[index] = time.perf_counter()


class Contender(ABC):
    """One library or program, used the way its documentation says.

    Args:
        host: the daemon, as ``DOCKER_HOST`` has it.
        image: the image that all containers are made from.
        width: the most things it will be asked to do at once.
    """

    uses_loop = True
    """Whether its work is done on the event loop, and not in threads or processes."""

    def __init__(self, host: str, image: str, width: int) -> None:
        self.host = host
        self.image = image
        self.width = width

    @abstractmethod
    async def open(self) -> None:
        """Connect."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of everything."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @abstractmethod
    async def run_all(self, jobs: Sequence[Job]) -> list[Ran]:
        """Run containers to their end and remove them, ``width`` at a time."""

    @abstractmethod
    async def run_printing(self, job: Job) -> tuple[int, Output]:
        """Run one container that prints much, and remove it; its exit code and standard output."""

    @abstractmethod
    async def read_log(self, handle: Any) -> Output:
        """The whole log of a container that has ended."""

    @abstractmethod
    async def handles(self, ids: Sequence[str]) -> list[Any]:
        """What this library wants in the place of ids. Not timed."""

    async def follow_all(self, handles: Sequence[Any], marks: Marks) -> list[Output]:  # noqa: ARG002  # for those that can
        """Follow logs, all at once, to their ends; what each gave."""
        raise UnsupportedQuestionError("takes a process for each")

    async def pull(self, reference: str) -> None:  # noqa: ARG002  # likewise
        """Pull an image and unpack it."""
        raise UnsupportedQuestionError("is not asked to")

    async def wait_all(self, handles: Sequence[Any]) -> list[int]:  # noqa: ARG002  # likewise
        """Wait for the ends of containers, all at once; their exit codes."""
        raise UnsupportedQuestionError("takes a process for each")


async def in_parallel(work: Callable[[T], Awaitable[U]], items: Sequence[T], width: int) -> list[U]:
    """``work`` for each item, ``width`` at a time, on the event loop."""
    results: dict[int, U] = {}
    pending = iter(enumerate(items))

    async def drain() -> None:
        for index, item in pending:
            results[index] = await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(width, len(items))):
            group.create_task(drain())
    return [results[index] for index in range(len(items))]


async def in_threads(work: Callable[[T], U], items: Sequence[T], width: int) -> list[U]:
    """``work`` for each item, ``width`` at a time, in threads; the event loop is only told of the end."""

    def all_of_them() -> list[U]:
        with ThreadPoolExecutor(width) as pool:
            return list(pool.map(work, items))

    return await asyncio.to_thread(all_of_them)
