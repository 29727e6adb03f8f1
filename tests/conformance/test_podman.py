"""The conformance suite on a real podman, through its Docker-compatible service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncctr.testing import conformance

if TYPE_CHECKING:
    from asyncctr.testing.conformance import Case, Target

pytestmark = [pytest.mark.anyio]


async def test_conformance(case: Case, podman_target: Target) -> None:
    await conformance.run(case, podman_target)
