"""The files of an image, gathered one after another into a tree that the disk is written from."""

from __future__ import annotations

import fnmatch
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from asyncctr.backends.nanos.tfs.tree import Directory, HostFile, Node, Symlink
from asyncctr.core.validation import check_path, fail

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["add_matching", "make_directory", "put"]

logger = logging.getLogger(__name__)

_MAX_ENTRIES: Final = 4_000_000
_MAX_DEPTH: Final = 256


def make_directory(tree: Directory, path: str, *, field: str) -> Directory:
    """The directory at an absolute path in the image, made where it is not there.

    Raises:
        InvalidConfigError: something else is there.
    """
    return _make(tree, _steps(field, path), field)


def put(tree: Directory, path: str, node: Node, *, field: str) -> None:
    """A file or link at an absolute path in the image; what was there before is replaced.

    Raises:
        InvalidConfigError: a directory is there, or a file in place of a directory on the way.
    """
    steps = _steps(field, path)
    if not steps:
        raise fail(field, "must name a file of the image, not its root")
    _put(_make(tree, steps[:-1], field), steps[-1], node, field)


def add_matching(tree: Directory, path: str, source: str, pattern: str = "", *, field: str) -> None:
    """What is in a directory of this machine, at any depth, below a path in the image. Links stay links.

    With a pattern, that which has such a name; as OPS has it, a directory with one is made, and what is in it is looked at for
    itself. Blocks the thread.

    Raises:
        InvalidConfigError: it cannot be read, or does not fit to what is there.
    """
    top = _make(tree, _steps(field, path), field)
    pending: list[tuple[tuple[str, ...], str]] = [((), source)]
    count = 0
    while pending:
        steps, host = pending.pop()
        if len(steps) > _MAX_DEPTH:
            raise fail(field, f"{source!r} has directories nested more than {_MAX_DEPTH} deep")
        # With a pattern, a directory is made when something in it is taken.
        directory = None if pattern else _make(top, steps, field)
        try:
            with os.scandir(host) as entries:
                for entry in entries:
                    count += 1
                    if count > _MAX_ENTRIES:
                        raise fail(field, f"{source!r} has more than {_MAX_ENTRIES} entries")
                    matches = not pattern or fnmatch.fnmatchcase(entry.name, pattern)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(((*steps, entry.name), entry.path))
                        if matches:
                            _make(top, (*steps, entry.name), field)
                    elif matches and (node := _node(entry)) is not None:
                        _put(directory or _make(top, steps, field), entry.name, node, field)
        except OSError as error:
            raise fail(field, f"{host!r} cannot be read: {error.strerror}") from error


def _steps(field: str, path: str) -> list[str]:
    return [part for part in check_path(field, path).split("/") if part not in ("", ".")]


def _children(directory: Directory) -> dict[str, Node]:
    # All directories of a tree that grows are made here.
    return cast("dict[str, Node]", directory.children)


def _make(directory: Directory, steps: Sequence[str], field: str) -> Directory:
    for step in steps:
        below = _children(directory).get(step)
        if below is None:
            below = _children(directory)[step] = Directory({})
        if not isinstance(below, Directory):
            raise fail(field, f"{'/'.join(steps)!r} cannot be a directory of the image: {step!r} in it is a file")
        directory = below
    return directory


def _put(directory: Directory, name: str, node: Node, field: str) -> None:
    children = _children(directory)
    if isinstance(children.get(name), Directory):
        raise fail(field, f"{name!r} is a directory of the image already, and cannot be a file")
    children[name] = node


def _node(entry: os.DirEntry[str]) -> Node | None:
    if entry.is_symlink():
        return Symlink(str(Path(entry.path).readlink()))
    if entry.is_file(follow_symlinks=False):
        return HostFile(entry.path)
    logger.warning("%s is no file, directory or link, and left out of the image", entry.path)
    return None
