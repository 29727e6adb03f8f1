"""Pulls that are cancelled wherever they wait and at any moment: nothing is left of them, and what is there is not moved again."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING

import attrs
import pytest

import asyncctr
from asyncctr import ContainerConfig, Image, NetworkConfig, Progress
from asyncctr.testing.conformance.cancellation import Stepped
from asyncctr.testing.daemons import Registry
from asyncctr.testing.images import ImageSpec, push

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncctr.testing.containerd_site import ContainerdSite

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(280), pytest.mark.require("registry")]

ROUNDS = int(os.environ.get("ASYNCCTR_TEST_CANCELLATIONS", "20"))
PADDING = 6 << 20


async def stepped(work: Callable[[], object], when: Callable[[int], bool], *, late: bool) -> tuple[bool, int]:
    """Pull, and be cancelled where it is said; whether that came out, and how often it waited."""

    async def pulling() -> tuple[bool, int]:
        task = asyncio.current_task()
        assert task is not None
        steps = Stepped(work(), when, task.cancel, late=late)  # type: ignore[arg-type]
        try:
            await steps
        except asyncio.CancelledError:
            return True, steps.waits
        return False, steps.waits

    # In a task of its own, so that a cancellation that is left over hits nothing else.
    return await asyncio.create_task(pulling())


async def cancel_everywhere(image: Image, check: Callable[[str], Awaitable[None]]) -> int:
    """Cancel pulls where they wait, then after some time; how often that came out."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    waits = came_out = 0
    for _ in range(3):
        began = loop.time()
        cancelled, waits = await stepped(image.pull, lambda _: False, late=False)
        times.append(loop.time() - began)
        assert not cancelled
        await check("all of it")
    for point in range(0, waits, max(1, waits // (2 * ROUNDS))):
        # As the wait begins, or when what is waited for is there; and once more in the clean-up.
        again = point % 3 if point % 2 else 0
        cancelled, _ = await stepped(image.pull, {point, point + again}.__contains__, late=point % 2 == 0)
        came_out += cancelled
        await check(f"point {point} of {waits}")
    chance = random.Random(5)  # no secret
    for _ in range(ROUNDS):
        pulling = asyncio.create_task(image.pull())
        delay = chance.uniform(0, min(times))
        await asyncio.wait({pulling}, timeout=delay)
        pulling.cancel()
        await asyncio.wait({pulling})
        came_out += pulling.cancelled()
        assert pulling.cancelled() or pulling.exception() is None
        await check(f"{delay:.3f} of {min(times):.3f} s")
    return came_out


@pytest.mark.parametrize("way", ["transfer", "own"])
async def test_nothing_is_left_of_a_cancelled_pull(site: ContainerdSite, way: str) -> None:
    if way == "transfer" and site.daemon.release == "debian":
        pytest.skip("containerd 1.6 has no Transfer service")
    async with Registry() as registry:
        await push(ImageSpec(), registry.host, "app", "base")
        built = await push(ImageSpec(padding=PADDING), registry.host, "app", "more")
        base, name = registry.reference("app", "base"), registry.reference("app", "more")
        # Registries of one's own are not for the service.
        insecure = () if way == "transfer" else (registry.host,)
        async with asyncctr.connect(attrs.evolve(site.config, insecure_registries=insecure)) as client:
            await client.image(base).pull()
            more = client.image(name)
            tasks = asyncio.all_tasks()

            async def check(what: str) -> None:
                assert not await site.leftovers(), what
                assert not [task for task in asyncio.all_tasks() - tasks if not task.done()], what
                if await more.exists():
                    # The cancellation came when all was done, or not at all.
                    await more.remove()

            assert await cancel_everywhere(more, check) > ROUNDS // 2
            told: dict[str, set[str]] = {}

            def tell(progress: Progress) -> None:
                told.setdefault(progress.id, set()).add(progress.action)

            await more.pull(on_progress=tell)
            layers = {layer.removeprefix("sha256:")[:12] for layer in built.layers}
            moved = {layer for layer in layers if layer in told and "Already exists" not in told[layer]}
            assert moved == {built.layers[-1].removeprefix("sha256:")[:12]}
            config = ContainerConfig(name, command=["wc", "-c", "/padding"], network=NetworkConfig(mode="none"))
            assert (await client.run(config, pull="never")).stdout == b"%d /padding\n" % PADDING
            await more.remove()
            plain = attrs.evolve(config, image=base, command=["echo", "whole"])
            assert (await client.run(plain, pull="never")).stdout == b"whole\n"
            await client.image(base).remove()
        assert not await site.leftovers()
