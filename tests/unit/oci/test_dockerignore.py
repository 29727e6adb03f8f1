"""What a .dockerignore leaves out; the expectations are what Docker 20.10's own client does with the same files."""

from __future__ import annotations

import pytest

from asyncctr.core.errors import InvalidConfigError
from asyncctr.oci.dockerignore import IgnoreRules

CASES = [
    ("", "a", False),
    ("a", "a", True),
    ("a", "a/b", True),
    ("a", "ab", False),
    ("a", "b/a", False),
    ("/a", "a", True),
    ("a/", "a/b", True),
    ("./a//b/../c", "a/c", True),
    ("  a  ", "a", True),
    ("# a", "# a", False),
    ("\ufeffa", "a", True),
    ("*.x", "a.x", True),
    ("*.x", "b/a.x", False),
    ("*/a", "b/a", True),
    ("*/a", "a", False),
    ("?", "ab", False),
    ("a?c", "a/c", False),
    ("**/a", "a", True),
    ("**/a", "b/c/a", True),
    ("**/a", "b/ca", False),
    ("a/**", "a/b/c", True),
    ("a/**", "a", False),
    ("**", "anything/at/all", True),
    ("a**b", "ab", True),
    ("a**b", "ax/yb", False),
    ("a**b", "ax/b", True),
    ("[a-c]x", "bx", True),
    ("[a-c]x", "dx", False),
    ("[^a-c]x", "dx", True),
    ("[^a]b", "/b", False),
    ("x\\[1\\]", "x[1]", True),
    ("a.b", "axb", False),
    ("a+(b)", "a+(b)", True),
    ("*\n!a", "a", False),
    ("*\n!a", "b", True),
    ("!a\n*", "a", True),
    ("docs\n!docs/keep.md", "docs/keep.md", False),
    ("docs\n!docs/keep.md", "docs/drop.md", True),
    ("a\n!a/b\na/b/c", "a/b/c", True),
    (".", "a", False),
]


@pytest.mark.parametrize(("rules", "path", "excluded"), CASES)
def test_rules(rules: str, path: str, excluded: bool) -> None:
    assert IgnoreRules(rules).excludes(path) is excluded


@pytest.mark.parametrize("rules", ["[", "a[b", "[]a]", "[a-]", "[-a]", "[b-a]", "a\\", "!", "! "])
def test_malformed(rules: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        IgnoreRules(f"fine\n{rules}\n")
    assert caught.value.field == "context"
    assert "line 2" in str(caught.value)


def test_where_exceptions_may_be() -> None:
    rules = IgnoreRules("*\n!a/b/c\n!d/*/e\n")
    assert [name for name in ("a", "a/b", "a/b/c", "a/x", "d", "d/any", "x") if rules.may_hold(name)] == [
        "a",
        "a/b",
        "a/b/c",
        "d",
        "d/any",
    ]
    assert IgnoreRules("a\n!**/b").may_hold("a")
    assert not IgnoreRules("a").may_hold("a")
