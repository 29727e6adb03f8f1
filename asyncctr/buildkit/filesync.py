"""Sending a daemon the files that it asks for (BuildKit, ``FileSync``; fsutil's protocol of differences)."""

from __future__ import annotations

import asyncio
import os
import stat
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import anyio.to_thread
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from asyncctr.buildkit.proto.fsutil_pb2 import Packet, Stat
from asyncctr.buildkit.proto.services import FileSync
from asyncctr.buildkit.selecting import Selection, followed
from asyncctr.buildkit.session import handler
from asyncctr.core.errors import AsyncctrError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import IO

    from grpclib.server import Stream

    from asyncctr.buildkit.session import Service
    from asyncctr.buildkit.trees import Entry, Tree

__all__ = ["file_sync"]

# How much is made ready in a thread at a time: enough that changing threads costs little, and little enough to be held in memory.
_ENTRIES = 500
_BYTES = 1 << 20
_PIECE = 1 << 19

# Go's os.FileMode, which is not st_mode beyond the permissions.
_KINDS = {stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFIFO: 1 << 25}
_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


def file_sync(trees: Mapping[str, Tree], failed: Callable[[Exception], None]) -> Service:
    """Serve trees by the names that a Dockerfile's frontend has for them.

    Args:
        trees: by name.
        failed: told why a tree could not be read; the daemon's own error says less.
    """

    async def diff_copy(stream: Stream[Packet, Packet]) -> None:
        options = _options(stream.metadata)
        name = "".join(options.get("dir-name", ()))
        tree = trees.get(name)
        if tree is None:
            raise GRPCError(Status.NOT_FOUND, f"there are no files {name!r} in this build")
        try:
            await _Sender(stream, tree, options).run()
        except AsyncctrError as error:
            failed(error)
            raise GRPCError(Status.ABORTED, error.message) from error

    return handler(FileSync.DiffCopy, Cardinality.STREAM_STREAM, diff_copy)


def _options(metadata: Any) -> dict[str, list[str]]:
    """The daemon's wishes, which are encoded where they are not ASCII."""
    found: dict[str, list[str]] = {}
    for key in ("dir-name", "include-patterns", "exclude-patterns", "followpaths"):
        values = [str(value) for value in metadata.getall(key, ())]
        if "".join(metadata.getall(f"{key}-encoded", ())) == "1":
            values = [unquote_plus(value, errors="surrogateescape") for value in values]
        if values:
            found[key] = values
    return found


class _Sender:
    """One transfer: what there is, and the content of what is asked for."""

    def __init__(self, stream: Stream[Packet, Packet], tree: Tree, options: Mapping[str, list[str]]) -> None:
        self._stream = stream
        self._tree = tree
        self._options = options
        # By their numbers, which are those of their entries' order.
        self._files: dict[int, str] = {}
        self._asked: deque[int] = deque()
        self._more = asyncio.Event()
        # One message at a time: each may take several frames.
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        listing = asyncio.create_task(self._list(), name="asyncctr build context: entries")
        answering = asyncio.create_task(self._answer(), name="asyncctr build context: contents")
        receiving = asyncio.create_task(self._receive(), name="asyncctr build context: requests")
        tasks = (listing, answering, receiving)
        pending = set(tasks)
        try:
            while not receiving.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _send(self, packet: Packet) -> None:
        async with self._sending:
            await self._stream.send_message(packet)

    # -- what there is

    async def _list(self) -> None:
        packets = await anyio.to_thread.run_sync(self._stats)
        while batch := await anyio.to_thread.run_sync(_next, packets):
            for packet in batch:
                await self._send(packet)
        await self._send(Packet(type=Packet.PACKET_STAT))

    def _stats(self) -> Iterator[Packet]:
        includes = self._options.get("include-patterns")
        follow = self._options.get("followpaths")
        if follow is not None:
            targets = followed(self._tree, follow)
            includes = None if targets is None else [*(includes or ()), *targets]
        return self._packets(Selection(self._tree, self._options.get("exclude-patterns", ()), includes))

    def _packets(self, selection: Selection) -> Iterator[Packet]:
        first: dict[object, str] = {}
        for number, (path, entry) in enumerate(selection.walk()):
            linked = "" if entry.same is None else first.setdefault(entry.same, path)
            if linked == path:
                linked = ""
            if stat.S_ISREG(entry.mode):
                self._files[number] = path
            yield Packet(type=Packet.PACKET_STAT, stat=_stat(path, entry, linked))

    # -- the content of what is asked for

    async def _receive(self) -> None:
        while (packet := await self._stream.recv_message()) is not None:
            if packet.type == Packet.PACKET_REQ:
                self._asked.append(packet.id)
                self._more.set()
            elif packet.type == Packet.PACKET_FIN:
                await self._send(Packet(type=Packet.PACKET_FIN))
                return
            elif packet.type == Packet.PACKET_ERR:
                raise GRPCError(Status.ABORTED, packet.data.decode(errors="replace"))

    async def _answer(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            contents = self._contents()
            while batch := await anyio.to_thread.run_sync(_next_contents, contents):
                for packet in batch:
                    await self._send(packet)

    def _contents(self) -> Iterator[Packet]:
        """The contents of what was asked for, and of what is asked for meanwhile."""
        while self._asked:
            number = self._asked.popleft()
            path = self._files.pop(number, None)
            if path is None:
                raise GRPCError(Status.INVALID_ARGUMENT, f"there is no file {number}")
            try:
                with self._tree.open(path) as file:
                    yield from _pieces(number, file)
            except FileNotFoundError:
                # Gone since it was listed; BuildKit's own client sends nothing then, too.
                pass
            yield Packet(type=Packet.PACKET_DATA, id=number)


def _pieces(number: int, file: IO[bytes]) -> Iterator[Packet]:
    while data := file.read(_PIECE):
        yield Packet(type=Packet.PACKET_DATA, id=number, data=data)


def _next(packets: Iterator[Packet]) -> list[Packet]:
    return list(islice(packets, _ENTRIES))


def _next_contents(packets: Iterator[Packet]) -> list[Packet]:
    batch: list[Packet] = []
    size = 0
    for packet in packets:
        batch.append(packet)
        size += len(packet.data)
        if size >= _BYTES or len(batch) >= _ENTRIES:
            break
    return batch


def _stat(path: str, entry: Entry, linked: str) -> Stat:
    """An entry as it goes over the wire: root's, whoever's it is here."""
    mode = _KINDS.get(stat.S_IFMT(entry.mode), 0) | entry.mode & 0o777
    for bit, go_bit in _BITS.items():
        if entry.mode & bit:
            mode |= go_bit
    return Stat(
        path=os.fsencode(path),
        mode=mode,
        size=0 if linked else entry.size,
        mod_time=entry.changed,
        linkname=os.fsencode(linked or entry.target),
    )
