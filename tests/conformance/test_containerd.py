"""The conformance suite on real containerds: Debian's 1.6, and 2.x."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncctr.testing import conformance

if TYPE_CHECKING:
    from asyncctr.testing.conformance import Case, Target

pytestmark = [pytest.mark.anyio]


async def test_conformance(case: Case, containerd_target: Target) -> None:
    await conformance.run(case, containerd_target)
