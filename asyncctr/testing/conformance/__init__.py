"""The behaviours that every backend must show, on its real runtime.

Each case takes a :class:`Context`. A backend brings a :class:`Target` and runs them all::

    @pytest.mark.parametrize("case", conformance.CASES, ids=str)
    async def test_conformance(case, target):
        await conformance.run(case, target)

A capability that the backend lacks is no reason to skip: the case then asserts the refusal.
"""

from __future__ import annotations

from asyncctr.testing.conformance import (  # noqa: F401  # they register their cases
    basics,
    cancellation,
    faults,
    images,
    inputs,
    lifecycle,
    limits,
    machines,
    manners,
    network,
    pressure,
    sharing,
    streams,
)
from asyncctr.testing.conformance.running import run
from asyncctr.testing.conformance.suite import (
    CASES,
    FULL,
    QUICK,
    Case,
    Context,
    Profile,
    Target,
    profile_from_environment,
)

__all__ = ["CASES", "FULL", "QUICK", "Case", "Context", "Profile", "Target", "profile_from_environment", "run"]
