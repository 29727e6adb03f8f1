"""Where the result of a build goes on this machine: a file, or the files of a tar in a directory (BuildKit, ``FileSend``)."""
# ruff: noqa: PTH103, PTH105, PTH108 - a directory of the user's own, in threads

from __future__ import annotations

import os
import secrets
import tarfile
import tempfile
from typing import IO, TYPE_CHECKING

import anyio.to_thread
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from asyncctr.buildkit.proto.services import FileSend
from asyncctr.buildkit.session import handler
from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpclib.server import Stream

    from asyncctr.buildkit.proto.session_pb2 import BytesMessage
    from asyncctr.buildkit.session import Service

__all__ = ["Output"]


class Output:
    """The one place that a daemon's next result goes to.

    Args:
        failed: told what went wrong here.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._path = ""
        self._unpack = False

    def expect(self, path: str, *, unpack: bool) -> None:
        """The next result goes to that path: as a file, or unpacked as a directory."""
        self._path, self._unpack = path, unpack

    def service(self) -> Service:
        """To serve in the session."""
        return handler(FileSend.DiffCopy, Cardinality.STREAM_STREAM, self._receive)

    async def _receive(self, stream: Stream[BytesMessage, BytesMessage]) -> None:
        if not self._path:
            raise GRPCError(Status.NOT_FOUND, "this build has no output here")
        try:
            if self._unpack:
                with tempfile.TemporaryFile() as file:
                    await self._copy(stream, file)
                    await anyio.to_thread.run_sync(_unpack, file, self._path)
            else:
                await self._to_file(stream, self._path)
        except OSError as error:
            failure = fail("outputs", f"{self._path!r} cannot be written: {error.strerror}")
            failure.__cause__ = error
            self._failed(failure)
            raise GRPCError(Status.ABORTED, failure.message) from error

    async def _to_file(self, stream: Stream[BytesMessage, BytesMessage], path: str) -> None:
        """A file under another name until it is whole."""
        unfinished = f"{path}.{secrets.token_hex(4)}.part"
        file: IO[bytes] = await anyio.to_thread.run_sync(lambda: open(unfinished, "wb"))  # noqa: PTH123, SIM115  # closed below
        try:
            try:
                await self._copy(stream, file)
            finally:
                await anyio.to_thread.run_sync(file.close)
            os.replace(unfinished, path)
        except BaseException:  # a cancellation, too
            os.unlink(unfinished)
            raise

    @staticmethod
    async def _copy(stream: Stream[BytesMessage, BytesMessage], file: IO[bytes]) -> None:
        while (message := await stream.recv_message()) is not None:
            await anyio.to_thread.run_sync(file.write, message.data)


def _unpack(file: IO[bytes], directory: str) -> None:
    """The files of a tar: this user's, with their modes, none outside of the directory."""
    file.seek(0)
    os.makedirs(directory, exist_ok=True)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            archive.extractall(directory, filter=_own)  # noqa: S202  # the filter says what of it
    except tarfile.TarError as error:
        raise OSError(0, f"the result does not unpack: {error}") from error


def _own(member: tarfile.TarInfo, directory: str) -> tarfile.TarInfo | None:
    if member.isdev() and not member.isfifo():
        return None
    # It refuses what would be written outside of the directory, through a link as well.
    checked = tarfile.tar_filter(member, directory)
    return checked.replace(uid=os.getuid(), gid=os.getgid(), uname="", gname="", deep=False)
