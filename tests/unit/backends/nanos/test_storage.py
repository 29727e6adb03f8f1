"""``resources.storage``, as a guest of the real Nanos finds it where ``ASYNCCTR_TEST_NANOS_DIR`` names its directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import asyncctr
from asyncctr import ContainerConfig, NanosBuildInput, NanosConfig, NetworkConfig, NetworkMode, ResourceLimits
from asyncctr.core.errors import InvalidConfigError
from asyncctr.testing.programs import require, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

VARIABLE = "ASYNCCTR_TEST_NANOS_DIR"
IMAGE = "test/storage:1"
SOURCE = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static char block[1 << 20];
int main(void) {
    int file = open("/filled", O_WRONLY | O_CREAT, 0600), count = 0;
    memset(block, 'x', sizeof block);
    while (count < 256 && write(file, block, sizeof block) == sizeof block && !fsync(file)) count++;
    printf("%d %s\n", count, count == 256 ? "" : strerror(errno));
    return 0;
}
"""


async def test_a_guest_has_the_storage_and_no_more(directory: Path) -> None:
    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} names no directory with a Nanos kernel")
    require("guests")
    (directory / "fill.c").write_text(SOURCE)
    await run("gcc", "-static", "-O1", "-o", str(directory / "fill"), str(directory / "fill.c"))
    settings = NanosConfig(kernel_path=f"{os.environ[VARIABLE]}/kernel.img", work_dir=str(directory / "work"))
    async with asyncctr.connect(settings) as client:
        await client.image(IMAGE).build(NanosBuildInput(program=str(directory / "fill")))

        async def fill(mebibytes: int) -> tuple[int, bytes]:
            config = ContainerConfig(
                IMAGE,
                network=NetworkConfig(mode=NetworkMode.NONE),
                resources=ResourceLimits(storage=mebibytes << 20),
            )
            count, _, reason = (await client.run(config)).stdout.strip().partition(b" ")
            return int(count), reason

        for mebibytes in (32, 64):
            count, reason = await fill(mebibytes)
            assert reason == b"No space left on device"
            # The program and the log are in it, too.
            assert mebibytes - 6 <= count < mebibytes
        with pytest.raises(InvalidConfigError, match="storage: the image's own filesystem has"):
            await fill(1)
