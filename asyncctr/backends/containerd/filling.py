"""Fills a new volume with what an image has where it is mounted: a program of its own, run by its path.

It runs where the image's layers can be mounted and their owners are known: as root, or in the namespaces of a rootless daemon. So it
imports a few modules of the standard library, and nothing of this package.

    filling.py TARGET MOUNTPOINT PATH KIND SOURCE [OPTION…]

``TARGET`` and ``MOUNTPOINT`` are empty directories that nobody else knows; the rest is a path in the image, and how that is mounted.
The content is a stranger's, but nobody changes it meanwhile. Where there is no directory at the path, the target stays as it is. What
fails is told by its number and words on stderr.
"""

# ruff: noqa: PTH101, PTH102, PTH115, PTH211 - strings throughout, relative to the directory that is copied

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys

_NEW_MOUNTS = 0x20000  # CLONE_NEWNS
_PRIVATE = 0x4000 | 1 << 18  # MS_REC | MS_PRIVATE
_LOOK = 1 | 2 | 4  # MS_RDONLY | MS_NOSUID | MS_NODEV
_DETACH = 2  # MNT_DETACH
# mount(2) takes a page of options.
_OPTIONS_LIMIT = 4095
_PIECE = 1 << 30
# What overlay file systems write into a layer for themselves.
_LAYERS_OWN = ("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.")


def main(arguments: list[str]) -> int:
    """Fill the target."""
    target, mountpoint, path, kind, source, *options = arguments
    try:
        found = _find(mountpoint, path, kind, source, options)
        if found >= 0:
            os.fchdir(found)
            _Copy(target).run()
    except OSError as error:
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        sys.stderr.write(f"{error.errno} {error.strerror}{where}\n")
        return 1
    return 0


def _find(mountpoint: str, path: str, kind: str, source: str, options: list[str]) -> int:
    """The directory at a path of the image; -1 where there is none."""
    mounted = kind not in ("bind", "rbind")
    if mounted:
        # Seen by this process alone, and gone with it.
        _call("unshare", _NEW_MOUNTS)
        _call("mount", None, b"/", None, _PRIVATE, None)
        _mount(mountpoint, kind, source, options)
    outside = os.open("/", os.O_PATH | os.O_DIRECTORY)
    # Whatever links the path leads over, none leads out.
    os.chroot(mountpoint if mounted else source)
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            return -1
        raise
    finally:
        os.fchdir(outside)
        os.chroot(".")
        if mounted:
            # It lasts for as long as the descriptor does, and so does a program that mounts in the kernel's place.
            _call("umount2", os.fsencode(mountpoint), _DETACH)


def _mount(mountpoint: str, kind: str, source: str, options: list[str]) -> None:
    data = ",".join(option for option in options if option not in ("ro", "rw"))
    if kind.startswith("fuse3."):
        import subprocess  # noqa: PLC0415  # seldom

        words = ["mount.fuse3", source, mountpoint, "-o", f"ro,{data}", "-t", kind.removeprefix("fuse3.")]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603 - no shell
        if done.returncode:
            raise OSError(errno.EIO, done.stderr.decode(errors="replace").strip() or "mount.fuse3 fails")
        return
    if len(os.fsencode(data)) > _OPTIONS_LIMIT:
        # The many directories of an image lie beside each other.
        lower = next(option.removeprefix("lowerdir=") for option in options if option.startswith("lowerdir="))
        common = os.path.commonpath(lower.split(":"))
        os.chdir(common)
        data = data.replace(f"{common}/", "")
    _call("mount", os.fsencode(source), os.fsencode(mountpoint), os.fsencode(kind), _LOOK, os.fsencode(data))


_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: bytes | int | None) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


class _Copy:
    """Copies the working directory, with owners, modes, times and extended attributes."""

    def __init__(self, target: str) -> None:
        self._target = target
        # What has more than one name, and its first.
        self._first: dict[tuple[int, int], str] = {}

    def run(self) -> None:
        """Copy all of it."""
        directories = ["."]
        # It grows meanwhile.
        for directory in directories:
            with os.scandir(directory) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        os.mkdir(self._to(entry.path), 0o700)
                        directories.append(entry.path)
                    else:
                        self._one(entry.path, status)
        # The innermost first: what is made in a directory changes its time.
        for directory in reversed(directories):
            self._attributes(directory, os.lstat(directory))

    def _to(self, path: str) -> str:
        return f"{self._target}/{path}"

    def _one(self, path: str, status: os.stat_result) -> None:
        kind, to = stat.S_IFMT(status.st_mode), self._to(path)
        if status.st_nlink > 1:
            first = self._first.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                try:
                    os.link(self._to(first), to, follow_symlinks=False)
                except FileNotFoundError:
                    # A device, as below.
                    pass
                return
        if kind == stat.S_IFREG:
            _content(path, to, status.st_size)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(path), to)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK) and not status.st_rdev:
            # No device, but how a layer says that there is nothing.
            return
        else:
            try:
                os.mknod(to, kind | 0o600, status.st_rdev)
            except PermissionError:
                # A device, in a user namespace: nobody could open it there.
                return
        self._attributes(path, status)

    def _attributes(self, path: str, status: os.stat_result) -> None:
        to = self._to(path)
        # The owner first, which takes bits of the mode and capabilities away.
        os.chown(to, status.st_uid, status.st_gid, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(to, stat.S_IMODE(status.st_mode))
        for name in _names(path):
            if not name.startswith(_LAYERS_OWN):
                _attribute(path, to, name)
        os.utime(to, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _names(path: str) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return []


def _attribute(path: str, to: str, name: str) -> None:
    try:
        os.setxattr(to, name, os.getxattr(path, name, follow_symlinks=False), follow_symlinks=False)
    except OSError as error:
        # The volumes' file system has none of this kind, or they are not for this user namespace to give.
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise


def _content(path: str, to: str, size: int) -> None:
    """Copy a file in the kernel, holes as holes."""
    source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    target = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(target, size)
        place = 0
        while place < size:
            try:
                place = os.lseek(source, place, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    # A hole up to the end.
                    return
                raise
            hole = os.lseek(source, place, os.SEEK_HOLE)
            os.lseek(target, place, os.SEEK_SET)
            while place < hole:
                copied = os.sendfile(target, source, place, min(hole - place, _PIECE))
                if not copied:
                    raise OSError(errno.EIO, "a file is shorter than it says")
                place += copied
    finally:
        os.close(source)
        os.close(target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
