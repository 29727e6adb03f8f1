"""What the package brings along is free to use where the package is: the licences of its dependencies, and of theirs."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

PERMISSIVE = re.compile(r"apache|\bmit\b|\bbsd\b|\bpsf\b|python software foundation|\bisc\b|0bsd", re.IGNORECASE)
COPYLEFT = re.compile(r"gpl|mozilla|\bmpl\b|eupl|cddl", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def direct() -> list[str]:
    """The requirements that users get, of every extra."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(entry for extra in extras for entry in extra)]


def licence(of: metadata.Distribution) -> str:
    """In the words of the distribution: an expression, the old field, or classifiers."""
    named = of.metadata.get("License-Expression") or of.metadata.get("License") or ""
    classifiers = [entry for entry in of.metadata.get_all("Classifier") or () if entry.startswith("License ::")]
    # Some have the whole text in the old field: its first line names it.
    return " ".join([named.strip().partition("\n")[0], *classifiers])


def test_every_dependency_is_permissive() -> None:
    seen: dict[str, str] = {}
    wanted = direct()
    while wanted:
        found = _NAME.match(wanted.pop())
        assert found is not None
        name = found[0].lower()
        if name in seen or name == "asyncctr":
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            # For another platform or version of Python.
            continue
        seen[name] = licence(distribution)
        wanted += [entry for entry in distribution.requires or () if "extra ==" not in entry]
    assert {"attrs", "anyio", "aiohttp", "aiodocker", "rich"} <= seen.keys()
    wrong = {name: text for name, text in seen.items() if not PERMISSIVE.search(text) or COPYLEFT.search(text)}
    assert not wrong
