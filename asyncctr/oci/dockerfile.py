"""Dockerfiles: read from this machine; their instructions, the lines that these are on, and the arguments that they declare."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TEXT_LIMIT", "line_of", "read_text_file", "undeclared_arguments"]

TEXT_LIMIT: Final = 16 << 20
"""Bytes that a Dockerfile or a ``.dockerignore`` may have."""

# Those that need no ARG (Dockerfile reference, "Predefined ARGs").
_PREDEFINED = re.compile(r"(?:HTTPS?|FTP|NO|ALL)_PROXY|BUILDKIT_\w+|SOURCE_DATE_EPOCH", re.IGNORECASE)
_ARGUMENT = re.compile(r"(?:\s|^)([A-Za-z_]\w*)(?:=|\s|$)")


def read_text_file(path: str, field: str) -> bytes:
    """A Dockerfile or a ``.dockerignore`` of this machine's. Blocks.

    Raises:
        InvalidConfigError: it cannot be read, or is too large; for that field.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # a path need not be valid Unicode
            data = file.read(TEXT_LIMIT + 1)
    except OSError as error:
        raise fail(field, f"{path!r} cannot be read: {error.strerror}") from error
    if len(data) > TEXT_LIMIT:
        raise fail(field, f"{path!r} is larger than {TEXT_LIMIT} bytes")
    return data


def line_of(dockerfile: str, step: str, number: int = 0) -> int | None:
    """The line that a step's instruction begins on: the ``number``-th instruction if it is that one, else the only one like it."""
    found = _instructions(dockerfile)
    wanted = " ".join(step.split())
    if 0 < number <= len(found) and found[number - 1][1] == wanted:
        return found[number - 1][0]
    alike = [line for line, text in found if text == wanted]
    return alike[0] if len(alike) == 1 else None


def undeclared_arguments(dockerfile: str, given: Iterable[str]) -> list[str]:
    """The build arguments that no ``ARG`` of a Dockerfile takes, sorted."""
    declared: set[str] = set()
    for _, text in _instructions(dockerfile):
        word, _, rest = text.partition(" ")
        if word.upper() == "ARG":
            declared.update(_ARGUMENT.findall(rest))
    return sorted(name for name in given if name not in declared and not _PREDEFINED.fullmatch(name))


def _instructions(dockerfile: str) -> list[tuple[int, str]]:
    """The instructions with the lines they begin on, white space made even."""
    escape = "`" if re.match(r"(?:#.*\n)*#\s*escape\s*=\s*`", dockerfile, re.IGNORECASE) else "\\"
    found: list[tuple[int, str]] = []
    begun: tuple[int, list[str]] | None = None
    for number, raw in enumerate(dockerfile.removeprefix("\ufeff").splitlines(), 1):
        line = raw.rstrip()
        if line.lstrip().startswith("#") or not line.strip():
            # Comments and empty lines are passed over, inside a continued instruction as well.
            continue
        continued = line.endswith(escape)
        start, parts = begun or (number, [])
        parts.append(line.removesuffix(escape) if continued else line)
        if continued:
            begun = (start, parts)
        else:
            found.append((start, " ".join("".join(parts).split())))
            begun = None
    if begun is not None:
        found.append((begun[0], " ".join("".join(begun[1]).split())))
    return found
