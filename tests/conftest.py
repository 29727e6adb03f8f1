"""What every test has: asyncio through anyio's plugin, and the rule for runtimes that are missing."""

from __future__ import annotations

import pytest

from asyncctr.testing.programs import require


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail where ``ASYNCCTR_REQUIRE`` says so, what needs a runtime that is not here."""
    for marker in item.iter_markers("require"):
        require(marker.args[0])
