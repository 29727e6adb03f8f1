"""The challenges of ``WWW-Authenticate`` (RFC 9110, section 11.6.1), of which registries use Basic and Bearer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from asyncctr.core.validation import FrozenMap, texts

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Challenge", "parse_challenges"]

# RFC 9110, section 5.6.2 "token" and 5.6.4 "quoted-string".
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - the grammar's word for a word
_SCHEME = re.compile(rf"({_TOKEN})(?=[ \t,]|$)[ \t]*")
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))(?=[ \t,]|$)[ \t]*', re.DOTALL)
_TOKEN68 = re.compile(r"[0-9A-Za-z._~+/-]+=*(?=[ \t]*(?:,|$))[ \t]*")
_SEPARATOR = re.compile(r"[ \t,]*")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_MAX_HEADER = 16 << 10


@attrs.frozen
class Challenge:
    """What a server wants to see: the scheme in lower case, and its parameters with their names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = attrs.field(factory=FrozenMap, converter=texts)


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges in the values of ``WWW-Authenticate`` headers, in their order, as far as they can be understood.

    What follows something broken in a header is left out: a registry that sends nonsense is one that wants nothing known.
    """
    return tuple(challenge for header in headers for challenge in _parse(header[:_MAX_HEADER]))


def _parse(header: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    place = 0
    while True:
        match = _SEPARATOR.match(header, place)
        place = match.end() if match else place
        if found and (match := _PARAMETER.match(header, place)):
            name, quoted, plain = match.groups()
            # Of a parameter that is there twice the first: neither may be, and nothing after it can take it back.
            found[-1][1].setdefault(name.lower(), plain if quoted is None else _ESCAPED.sub(r"\1", quoted))
        elif match := _SCHEME.match(header, place):
            found.append((match[1].lower(), {}))
            place = match.end()
            # "Negotiate dG9rZW4=" has one word in place of parameters.
            if not _PARAMETER.match(header, place) and (word := _TOKEN68.match(header, place)):
                place = word.end()
            continue
        else:
            return [Challenge(scheme, parameters) for scheme, parameters in found]
        place = match.end()
