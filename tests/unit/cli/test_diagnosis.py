"""What the doctor advises about a Docker that was not even asked."""

from __future__ import annotations

from asyncctr.cli.diagnosis import docker_advice
from asyncctr.core.errors import BackendUnavailableError


def test_a_missing_package_is_no_reason_to_start_anything() -> None:
    error = BackendUnavailableError("the docker backend needs the 'aiodocker' package: pip install 'asyncctr[docker]'")
    error.__cause__ = ModuleNotFoundError("No module named 'aiodocker'")
    assert docker_advice(error, None, {}) == []
