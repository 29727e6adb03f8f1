"""Docstrings as the site shows them: the roles that editors understand, such as ``:class:`Name```, become links or code."""

# ruff: noqa: INP001 - a plug-in, loaded by its path

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|meth|func|mod|data|attr):`~?([^`]+)`")


def _shown(match: re.Match[str]) -> str:
    return f"`{match[1].removeprefix('asyncctr.')}`"


class Roles(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_shown, obj.docstring.value)
