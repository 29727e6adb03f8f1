"""Which files of a tree a daemon asks for, in the order that it wants them."""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING

from asyncctr.oci.dockerignore import IgnoreRules

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncctr.buildkit.trees import Entry, Tree

__all__ = ["Selection", "followed"]


class Selection:
    """The files of a tree that match.

    Args:
        tree: where they are.
        excludes: patterns as those of a ``.dockerignore``.
        includes: patterns of what is wanted, with all that is below; ``None`` for everything.
    """

    def __init__(self, tree: Tree, excludes: Sequence[str], includes: Sequence[str] | None) -> None:
        self._tree = tree
        self._excludes = IgnoreRules("\n".join(excludes)) if excludes else None
        self._includes = IgnoreRules("\n".join(includes)) if includes is not None else None

    def _has(self, path: str) -> bool:
        if self._includes is not None and not self._includes.excludes(path):
            return False
        return self._excludes is None or not self._excludes.excludes(path)

    def _may_hold(self, directory: str) -> bool:
        """Whether something below a directory that is not wanted itself may be."""
        if self._excludes is not None and self._excludes.excludes(directory) and not self._excludes.may_hold(directory):
            return False
        return self._includes is None or self._includes.excludes(directory) or self._includes.may_match_below(directory)

    def walk(self) -> Iterator[tuple[str, Entry]]:
        """Paths and entries: names in byte order, a directory before what is in it, also where only that is wanted."""
        return self._below("", [])

    def _below(self, directory: str, unsent: list[tuple[str, Entry]]) -> Iterator[tuple[str, Entry]]:
        for entry in sorted(self._tree.entries(directory), key=lambda entry: os.fsencode(entry.name)):
            path = f"{directory}/{entry.name}" if directory else entry.name
            if self._has(path):
                yield from unsent
                unsent.clear()
                yield path, entry
                if entry.is_directory:
                    yield from self._below(path, unsent)
            elif entry.is_directory and self._may_hold(path):
                unsent.append((path, entry))
                yield from self._below(path, unsent)
                if unsent:
                    unsent.pop()


def followed(tree: Tree, paths: Sequence[str]) -> list[str] | None:
    """Paths, which may have wildcards, as patterns, with those of the symbolic links that lie on the way and of their targets.

    ``None`` where that is everything. What is a link to outside of the tree is one to nothing (fsutil, ``FollowLinks``).
    """
    resolved: set[str] = set()

    def add(path: str) -> None:
        rest = posixpath.normpath(path.lstrip("/") or ".")
        current = ""
        while True:
            first, _, rest = rest.partition("/")
            current = posixpath.normpath(posixpath.join(current, first))
            targets = _targets(tree, current)
            if (not rest or targets) and current in resolved:
                return
            if targets:
                resolved.add(current)
                for target in targets:
                    add(posixpath.join(target, rest))
                return
            if not rest:
                resolved.add(current)
                return

    for path in paths:
        add(path)
    return None if "." in resolved else sorted(resolved)


def _targets(tree: Tree, path: str) -> list[str]:
    """Where the symbolic links of that path lead."""
    if path == "." or path.startswith(".."):
        return []
    directory, _, name = path.rpartition("/")
    if any(character in name for character in "*?["):
        rules = IgnoreRules(name)
        links = [entry for entry in tree.entries(directory) if rules.excludes(entry.name)]
    else:
        entry = tree.entry(path)
        links = [] if entry is None else [entry]
    return [
        # An absolute one is taken from the tree's own root.
        entry.target.lstrip("/") if entry.target.startswith("/") else posixpath.join(directory, entry.target)
        for entry in links
        if stat.S_ISLNK(entry.mode)
    ]
