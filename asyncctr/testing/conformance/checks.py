"""What cases assert with: comparisons that say what differed, errors that must come, refusals in place of what is lacking."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asyncctr.core.errors import ImageNotFoundError, UnsupportedError
from asyncctr.testing.images import ImageSpec, build_archive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from asyncctr.core.config import ContainerConfig
    from asyncctr.testing.conformance.suite import Context
    from asyncctr.testing.images import BuiltImage

__all__ = ["Caught", "equal", "honoured", "loaded_image", "raises", "refusal", "scratch", "supported", "unique"]

E = TypeVar("E", bound=BaseException)


def equal(actual: object, wanted: object, what: str = "") -> None:
    """Fail, showing both, unless they are equal."""
    if actual != wanted:
        message = f"{what or 'it'} is {actual!r}, not {wanted!r}"
        raise AssertionError(message)


class Caught(Generic[E]):
    """The error that a ``raises`` block ended with; there once the block is left."""

    error: E


@contextmanager
def raises(kind: type[E] | tuple[type[E], ...], what: str = "") -> Iterator[Caught[E]]:
    """Fail unless the block raises ``kind``; other errors pass through."""
    caught: Caught[E] = Caught()
    try:
        yield caught
    except kind as error:
        caught.error = error
        return
    kinds = kind if isinstance(kind, tuple) else (kind,)
    message = f"{what or 'the block'} raised no {' or '.join(one.__name__ for one in kinds)}"
    raise AssertionError(message)


def unique(name: str) -> str:
    """A name that nobody else has."""
    return f"{name}-{secrets.token_hex(4)}"


def supported(context: Context, *fields: str) -> bool:
    """Whether the backend refuses none of the fields."""
    return context.client.capabilities.refused_fields.isdisjoint(fields)


async def refusal(context: Context, attempt: Callable[[], Awaitable[object]], *fields: str) -> None:
    """Fail unless the attempt raises ``UnsupportedError`` for one of the fields."""
    with raises(UnsupportedError, f"using {', '.join(fields)} on a backend that refuses it") as caught:
        await attempt()
    refused = set(fields) & context.client.capabilities.refused_fields or set(fields)
    if caught.error.field not in refused:
        message = f"the error's field is {caught.error.field!r}, not one of {sorted(refused)}: {caught.error}"
        raise AssertionError(message)


async def honoured(context: Context, config: ContainerConfig, *fields: str) -> bool:
    """Whether the backend honours the fields; when it refuses one of them, that ``create`` says so by name.

    For a value of a field, such as one network mode, the value's name follows the field's: ``"network.mode.host"``.
    """
    if supported(context, *fields):
        return True

    async def attempt() -> None:
        async with context.client.container(config):
            pass

    await refusal(context, attempt, *fields)
    return False


def _scratch() -> Path:
    # mkdtemp's own mode is 0700, and the users of containers come this way.
    directory = Path(tempfile.mkdtemp(prefix="asyncctr-conformance-"))
    directory.chmod(0o755)
    return directory


@asynccontextmanager
async def scratch() -> AsyncIterator[Path]:
    """A directory of one's own, that containers' users may enter."""
    directory = await asyncio.to_thread(_scratch)
    try:
        yield directory
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


@asynccontextmanager
async def loaded_image(context: Context, **fields: Any) -> AsyncIterator[BuiltImage]:
    """An image of one's own, made from an ``ImageSpec`` with these fields and loaded; removed again, unless it is gone."""
    spec = ImageSpec(reference=f"asyncctr.test/{unique('conformance')}:1", **fields)
    image = context.client.image(spec.reference)
    async with scratch() as directory:
        built = await asyncio.to_thread(build_archive, spec, directory / "image.tar")
        await image.load(directory / "image.tar")
    try:
        yield built
    finally:
        try:
            await image.remove(force=True)
        except ImageNotFoundError:
            # The case removed it.
            pass
