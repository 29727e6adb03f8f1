"""Reading a small file of a root filesystem that is not mounted: from its overlay layers, or from a plain directory.

The content is a stranger's, and may change meanwhile. Every path component is opened by itself, without following links, below
the descriptor of the one before; symbolic links are resolved here, inside the root: nothing leads out of it. All of it blocks
on the disk, shortly.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Self

from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["mount_layers", "read_file"]

FIELD = "image"

# Components walked, those of links included: each is looked for from the root on, in every layer.
_MAX_STEPS = 64
# What is opened so is only looked at: no device or FIFO notices.
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# Of the kernel as root and in a user namespace, and of fuse-overlayfs.
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque")


def mount_layers(kind: str, source: str, options: Iterable[str]) -> tuple[str, ...]:
    """The layers of a mount as snapshotters describe it, top first; empty for a kind that cannot be read unmounted.

    Args:
        kind: the filesystem, such as ``"overlay"`` or ``"bind"``.
        source: what is mounted.
        options: as for ``mount(8)``.
    """
    if kind in ("bind", "rbind"):
        return (source,)
    if kind not in ("overlay", "fuse3.fuse-overlayfs"):
        return ()
    named = {name: value for name, _, value in (option.partition("=") for option in options)}
    upper = [named["upperdir"]] if "upperdir" in named else []
    return (*upper, *(layer for layer in named.get("lowerdir", "").split(":") if layer))


def read_file(layers: Sequence[str], path: str, *, limit: int = 1 << 20) -> bytes | None:
    """The content of a regular file.

    Args:
        layers: directories on the host, the top one first; a single one for a plain directory.
        path: the file's, inside.
        limit: bytes that it may have.

    Returns:
        ``None`` where there is no such file.

    Raises:
        InvalidConfigError: it is no regular file, too large, or too far behind links; the field is ``"image"``.
        OSError: a layer cannot be read.
    """
    with _walk(layers, path) as entry:
        if stat.S_ISDIR(entry.mode):
            raise fail(FIELD, f"{path} is a directory, not a file")
        return _content(entry, path, limit) if entry.mode else None


def _walk(layers: Sequence[str], path: str) -> _Entry:
    """What a path leads to, over links."""
    resolved: list[str] = []
    pending = path.split("/")[::-1]
    steps = 0
    while pending:
        name = pending.pop()
        steps += name not in ("", ".")
        if steps > _MAX_STEPS:
            raise fail(FIELD, f"{path} is more than {_MAX_STEPS} steps away, over symbolic links")
        if name == "..":
            # What is resolved are directories and no links.
            del resolved[-1:]
        elif name not in ("", "."):
            with _Entry.find(layers, [*resolved, name]) as entry:
                if stat.S_ISDIR(entry.mode):
                    resolved.append(name)
                elif stat.S_ISLNK(entry.mode):
                    target = os.readlink("", dir_fd=entry.fd)
                    if target.startswith("/"):
                        resolved.clear()
                    pending += target.split("/")[::-1]
                elif not entry.mode or pending:
                    return _Entry()
                else:
                    return entry.detach()
    if resolved or not layers:
        return _Entry.find(layers, resolved)
    return _Entry(os.open(layers[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


class _Entry:
    """What a path without links leads to, open for looking at it alone; its mode is 0 where there is nothing."""

    def __init__(self, fd: int = -1) -> None:
        self.fd = fd
        self.mode = os.fstat(fd).st_mode if fd >= 0 else 0

    @classmethod
    def find(cls, layers: Sequence[str], parts: Sequence[str]) -> _Entry:
        """The topmost of what the layers have at ``parts``, of which all but the last are directories."""
        for layer in layers:
            # The way to a layer is the host's own, and may lead over links.
            fd = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                entry, hides = cls._in_layer(fd, parts)
            finally:
                os.close(fd)
            if entry is not None:
                return entry
            if hides:
                break
        return cls()

    @classmethod
    def _in_layer(cls, root: int, parts: Sequence[str]) -> tuple[_Entry | None, bool]:
        """What one layer has, and, where that is nothing, whether it hides what lower layers have."""
        hides = False
        with contextlib.ExitStack() as stack:
            fd = root
            for depth, name in enumerate(parts, 1):
                below = _open(fd, name)
                if below is None:
                    # fuse-overlayfs writes whiteouts as the layer's archive has them where it may make no devices.
                    return None, hides or _exists(fd, f".wh.{name}")
                entry = cls(below)
                whiteout = stat.S_ISCHR(entry.mode) and not os.fstat(below).st_rdev
                if depth == len(parts) and not whiteout:
                    return entry, True
                stack.enter_context(entry)
                if whiteout or not stat.S_ISDIR(entry.mode):
                    # What is no directory has one of a layer above in its place: nothing below it shows either way.
                    return None, True
                hides = hides or _is_opaque(below)
                fd = below
        return None, hides

    def detach(self) -> _Entry:
        """The same, for somebody else to close."""
        other = _Entry()
        other.fd, other.mode, self.fd = self.fd, self.mode, -1
        return other

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def _open(directory: int, name: str) -> int | None:
    try:
        return os.open(name, _LOOK, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        raise


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True


def _is_opaque(fd: int) -> bool:
    for name in _OPAQUE:
        try:
            if os.getxattr(f"/proc/self/fd/{fd}", name) == b"y":
                return True
        except OSError:
            # Not there, not to be seen by this user, or not known to the filesystem.
            continue
    return _exists(fd, ".wh..wh..opq")


def _content(entry: _Entry, path: str, limit: int) -> bytes:
    if not stat.S_ISREG(entry.mode):
        raise fail(FIELD, f"{path} is no regular file")
    with open(f"/proc/self/fd/{entry.fd}", "rb") as file:  # noqa: PTH123 - a descriptor that is already open
        data = file.read(limit + 1)
    if len(data) > limit:
        raise fail(FIELD, f"{path} has more than {limit} bytes")
    return data
