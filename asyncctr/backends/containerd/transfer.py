"""Pulling by containerd's Transfer service (2.0 and newer): the daemon fetches and unpacks, and no byte of an image comes here."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, StreamTerminatedError

from asyncctr.backends.containerd.api import any_message
from asyncctr.backends.containerd.proto import streaming_pb2, transfer_pb2, transfer_types_pb2, types_pb2
from asyncctr.backends.containerd.proto.services import Streaming, Transfer
from asyncctr.core.errors import AsyncctrError, ClosedError, ConnectionLostError, ResourceExhaustedError
from asyncctr.core.images import Progress
from asyncctr.oci.auth import find_credentials, server_address
from asyncctr.oci.platforms import Platform
from asyncctr.oci.registry_http import is_loopback, parse_address
from asyncctr.transport.progress import ProgressThrottle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.message import Message
    from grpclib.client import Stream

    from asyncctr.backends.containerd.api import ContainerdApi
    from asyncctr.core.images import ProgressCallback, RegistryAuth
    from asyncctr.oci.reference import Reference

__all__ = ["TransferFailedError", "transfer"]

# What the service tells of a layer, and what Docker calls that.
_ACTIONS: Final = {
    "waiting": "Waiting",
    "downloading": "Downloading",
    "complete": "Download complete",
    "already exists": "Already exists",
    "extracting": "Extracting",
    "extracted": "Pull complete",
}
_COUNTED: Final = frozenset({"downloading", "extracting"})
_LAYER: Final = "layer-"
_SHORT: Final = 12


class TransferFailedError(Exception):
    """The service could not do it. Why, it tells in words of many programs: whoever wants to know asks the registry itself."""


async def transfer(
    api: ContainerdApi,
    reference: Reference,
    *,
    snapshotter: str,
    auth: RegistryAuth | None,
    on_progress: ProgressCallback | None,
) -> None:
    """Pull an image for this machine's platform.

    Args:
        api: the containerd, with a lease.
        reference: the image.
        snapshotter: to unpack it for.
        auth: credentials; ``None`` for the user's, should the registry ask.
        on_progress: is told of the layers; what it raises comes out.

    Raises:
        TransferFailedError: it was not pulled.
        AsyncctrError: containerd went away, or has no room.
    """
    clock = asyncio.get_running_loop().time
    silence = asyncio.timeout(api.op_timeout)
    teller = _Teller(ProgressThrottle(on_progress), lambda: silence.reschedule(clock() + api.op_timeout))
    address = parse_address(f"http://{reference.registry}")
    host = Platform.host()
    platform = types_pb2.Platform(os=host.os, architecture=host.architecture, variant=host.variant)
    async with (
        _stream(api, "auth") as (auth_id, questions),
        _stream(api, "progress") as (progress_id, events),
    ):
        source = transfer_types_pb2.OCIRegistry(
            reference=str(reference),
            resolver=transfer_types_pb2.RegistryResolver(
                auth_stream=auth_id, default_scheme="http" if address is not None and is_loopback(address) else ""
            ),
        )
        unpack = transfer_types_pb2.UnpackConfiguration(platform=platform, snapshotter=snapshotter)
        store = transfer_types_pb2.ImageStore(name=str(reference), platforms=[platform], unpacks=[unpack])
        request = transfer_pb2.TransferRequest(
            source=any_message(source),
            destination=any_message(store),
            options=transfer_pb2.TransferOptions(progress_stream=progress_id),
        )
        answering = asyncio.create_task(_answer(questions, reference, auth))
        telling = asyncio.create_task(teller.run(events))
        pulling = asyncio.create_task(api.call(Transfer.Transfer, request, resource=str(reference), timeout=None))
        try:
            async with silence:
                # A callback that raises ends it; credentials that cannot be had make the registry refuse.
                await asyncio.wait({pulling, telling}, return_when=asyncio.FIRST_COMPLETED)
                if telling.done():
                    telling.result()
                await pulling
        except TimeoutError as error:
            if not silence.expired():
                raise
            message = f"no progress for {api.op_timeout:g} s"
            raise TransferFailedError(message) from error
        except (ClosedError, ConnectionLostError, ResourceExhaustedError):
            raise
        except AsyncctrError as error:
            raise TransferFailedError(error.message) from error
        finally:
            tasks: list[asyncio.Task[Any]] = [answering, telling, pulling]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    teller.finish()


@asynccontextmanager
async def _stream(api: ContainerdApi, kind: str) -> AsyncIterator[tuple[str, Stream[AnyMessage, AnyMessage]]]:
    """A stream of the Streaming service, and the name under which requests refer to it."""
    name = f"asyncctr-{kind}-{secrets.token_hex(8)}"
    try:
        async with api.stream(Streaming.Stream, Cardinality.STREAM_STREAM) as stream:
            await stream.send_message(any_message(streaming_pb2.StreamInit(id=name)))
            async with asyncio.timeout(api.op_timeout):
                # It says so when the name is known.
                await stream.recv_message()
            yield name, stream
            # Not to its end, which it has only when the daemon likes.
            raise _LeftError  # noqa: TRY301  # what the stream's own exit is to see
    except _LeftError:
        pass


class _LeftError(Exception):
    """A stream is left in the middle."""


async def _answer(stream: Stream[AnyMessage, AnyMessage], reference: Reference, auth: RegistryAuth | None) -> None:
    """Give credentials when the daemon asks for some, and only to the registry that they are for."""
    while (question := await _next(stream)) is not None:
        asked = transfer_types_pb2.AuthRequest.FromString(question.value)
        answer = transfer_types_pb2.AuthResponse(authType=transfer_types_pb2.NONE)
        if server_address(asked.host) == server_address(reference.registry):
            found = auth or await find_credentials(reference.registry)
            if found is not None and found.identity_token:
                answer.authType = transfer_types_pb2.REFRESH
                answer.secret = found.identity_token
            elif found is not None and found.username:
                answer.authType = transfer_types_pb2.CREDENTIALS
                answer.username, answer.secret = found.username, found.password
        await stream.send_message(any_message(cast("Message", answer)))


async def _next(stream: Stream[AnyMessage, AnyMessage]) -> AnyMessage | None:
    """The next message; ``None`` at the end, however it comes: the answer of the transfer itself tells what that means.

    A cancellation may look like an end, for grpclib makes one of it when the stream breaks at the same time.
    """
    try:
        return await stream.recv_message()
    except (StreamTerminatedError, GRPCError):
        return None


class _Teller:
    """Hands on what the service tells of layers.

    Args:
        throttle: to whom.
        heard: called at each event.
    """

    def __init__(self, throttle: ProgressThrottle, heard: Callable[[], None]) -> None:
        self._throttle = throttle
        self._heard = heard
        # Bytes of the layers whose end was not told yet.
        self._open: dict[str, int] = {}

    async def run(self, stream: Stream[AnyMessage, AnyMessage]) -> None:
        """Until the daemon ends the stream: its answer is on its way then."""
        while (event := await _next(stream)) is not None:
            self._heard()
            told = transfer_types_pb2.Progress.FromString(event.value)
            action = _ACTIONS.get(told.event, "")
            if not action or not told.name.startswith(_LAYER):
                continue
            layer = told.name.rpartition(":")[2][:_SHORT]
            if told.event == "complete":
                self._complete(layer, told.total)
            elif told.event in _COUNTED:
                if told.event == "downloading":
                    self._open[layer] = told.total
                self._feed(action, layer, told.progress, told.total)
            else:
                self._feed(action, layer)

    def finish(self) -> None:
        """All is there, whatever was told: the daemon looks three times a second, and not at the end."""
        for layer, total in list(self._open.items()):
            self._complete(layer, total)
        self._throttle.finish()

    def _complete(self, layer: str, total: int) -> None:
        self._open.pop(layer, None)
        self._feed(_ACTIONS["downloading"], layer, total, total)
        self._feed(_ACTIONS["complete"], layer)

    def _feed(self, action: str, layer: str, current: int | None = None, total: int | None = None) -> None:
        counted = total or None
        self._throttle.feed(
            Progress(action=action, id=layer, current=current if counted else None, total=counted, message=action)
        )
