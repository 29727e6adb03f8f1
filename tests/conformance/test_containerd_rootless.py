"""The conformance suite on a containerd without root, as an ordinary user: Debian's 1.6, and 2.x in the full profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncctr.testing import conformance

if TYPE_CHECKING:
    from asyncctr.testing.conformance import Case

# The first one of root's waits for all of the user's.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800)]


async def test_conformance(case: Case, rootless_target: object, request: pytest.FixtureRequest) -> None:
    if isinstance(rootless_target, conformance.Target):
        await conformance.run(case, rootless_target)
    else:
        rootless_target.tell(request.node.name)
