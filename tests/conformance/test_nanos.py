"""The conformance suite on unikernels in QEMU: with the tests' own stand-in for Nanos' kernel, and with the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncctr.testing import conformance

if TYPE_CHECKING:
    from asyncctr.testing.conformance import Case, Target

pytestmark = [pytest.mark.anyio]


async def test_conformance(case: Case, nanos_target: Target) -> None:
    if case.title == "bind mounts" and "stand-in" in nanos_target.name:
        pytest.skip("the stand-in for Nanos' kernel has neither PCI nor 9P, which directories of the host take")
    await conformance.run(case, nanos_target)
