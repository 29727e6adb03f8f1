"""The conformance suite on a real dockerd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncctr.testing import conformance

if TYPE_CHECKING:
    from asyncctr.testing.conformance import Case, Target

pytestmark = [pytest.mark.anyio]


async def test_conformance(case: Case, dockerd_target: Target) -> None:
    await conformance.run(case, dockerd_target)
