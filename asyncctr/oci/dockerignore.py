"""What a ``.dockerignore`` file leaves out of a build context.

The rules are those of Docker's documentation ("Build context", ".dockerignore files"): one pattern per line, ``#`` comments, Go's
``filepath.Match`` with ``**`` for any number of directories, ``!`` for exceptions; the last line that matches decides, and a
directory's line is its contents' as well. An exception below a directory that is left out counts, as BuildKit has it.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from asyncctr.core.errors import InvalidConfigError

__all__ = ["IGNORE_FILE", "IgnoreRules"]

IGNORE_FILE = ".dockerignore"

_MAGIC = re.compile(r"[*?\[\\]")


class IgnoreRules:
    """The rules of one file.

    Args:
        text: the file's content; empty for no rules.

    Raises:
        InvalidConfigError: a pattern is malformed; ``field`` is ``"context"``.
    """

    def __init__(self, text: str) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        # What can be said of an exception's place without matching: the directories before its first wildcard.
        self._exceptions: list[str] = []
        self._plain: list[str] = []
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
            if line.startswith("#") or not line.strip():
                continue
            pattern = line.strip()
            exception = pattern.startswith("!")
            if exception:
                pattern = pattern[1:].strip()
                if not pattern:
                    raise fail("context", f"{IGNORE_FILE}, line {number}: '!' has no pattern after it")
            pattern = posixpath.normpath(pattern).lstrip("/")
            if pattern in ("", "."):
                continue
            self._rules.append((exception, _compiled(pattern, number)))
            (self._exceptions if exception else self._plain).append(_literal_prefix(pattern))

    def excludes(self, path: str) -> bool:
        """Whether the file or directory at this path in the context, relative and with ``/``, is left out."""
        excluded = False
        for exception, pattern in self._rules:
            if exception == excluded and pattern.match(path):
                excluded = not exception
        return excluded

    def may_hold(self, directory: str) -> bool:
        """Whether a directory that is left out may hold exceptions."""
        return _any_below(directory, self._exceptions)

    def may_match_below(self, directory: str) -> bool:
        """Whether a directory may hold something that a pattern, which is no exception, matches."""
        return _any_below(directory, self._plain)


def _any_below(directory: str, prefixes: list[str]) -> bool:
    place = f"{directory}/"
    return any(prefix.startswith(place) or place.startswith(prefix) for prefix in prefixes)


def _literal_prefix(pattern: str) -> str:
    """The leading directories without wildcards, each with its ``/``; of a pattern without any, all of it."""
    parts = pattern.split("/")
    plain = next((index for index, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    return "".join(f"{part}/" for part in parts[:plain])


def _compiled(pattern: str, number: int) -> re.Pattern[str]:
    """The pattern for a path or anything below it (moby/patternmatcher, ``compile``)."""
    regex: list[str] = []
    index = 0
    while index < len(pattern):
        character = pattern[index]
        index += 1
        if character == "*":
            if pattern.startswith("*", index):
                index += 1
                if pattern.startswith("/", index):
                    index += 1
                regex.append(".*" if index >= len(pattern) else "(?:.*/)?")
            else:
                regex.append("[^/]*")
        elif character == "?":
            regex.append("[^/]")
        elif character == "[":
            group, index = _group(pattern, index, number)
            regex.append(group)
        elif character == "\\":
            if index >= len(pattern):
                raise fail(
                    "context", f"{IGNORE_FILE}, line {number}: nothing follows the last backslash of {pattern!r}"
                )
            regex.append(re.escape(pattern[index]))
            index += 1
        else:
            regex.append(re.escape(character))
    return re.compile(f"(?s:{''.join(regex)})(?:/|\\Z)")


def _group(pattern: str, index: int, number: int) -> tuple[str, int]:
    """A character class as Go's ``filepath.Match`` has it, and where the pattern goes on after it."""

    def bad() -> InvalidConfigError:
        return fail("context", f"{IGNORE_FILE}, line {number}: {pattern!r} has a malformed character class")

    def bound(at: int) -> tuple[str, int]:
        escaped = pattern.startswith("\\", at)
        at += escaped
        if at >= len(pattern) or (not escaped and pattern[at] in "-]"):
            raise bad()
        return pattern[at], at + 1

    negated = pattern.startswith("^", index)
    index += negated
    ranges: list[str] = []
    while not ranges or not pattern.startswith("]", index):
        low, index = bound(index)
        high = low
        if pattern.startswith("-", index):
            high, index = bound(index + 1)
        if low > high:
            raise bad()
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    # A class never matches the separator.
    return f"(?!/)[{'^' if negated else ''}{''.join(ranges)}]", index + 1
