"""The shared libraries of a program, found as its loader would find them, without running it.

The rules are those of ld.so(8) for glibc, and of musl's loader. In place of ``/etc/ld.so.cache``, which images do not have, stand
the directories it is made from. Of the environment, the image's ``LD_LIBRARY_PATH`` counts, and nothing of this process's.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from asyncctr.backends.nanos.elf import FIELD, ElfFile, read_elf
from asyncctr.core.errors import InvalidConfigError
from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Libraries", "find_libraries", "resolve", "resolve_any"]

_MULTIARCH: Final = "lib/x86_64-linux-gnu"
_DEFAULT: Final = (f"/{_MULTIARCH}", f"/usr/{_MULTIARCH}", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
_MUSL_DEFAULT: Final = ("/lib", "/usr/local/lib", "/usr/lib")
_MUSL_PATH: Final = "/etc/ld-musl-x86_64.path"
# What musl's loader is itself (ldso/dynlink.c, "reserved").
_MUSL_OWN: Final = re.compile(r"lib(?:c|pthread|rt|m|dl|util|xnet)\..*")
_CONFIG: Final = "/etc/ld.so.conf"
_TOKEN: Final = re.compile(r"\$(?:\{(ORIGIN|LIB|PLATFORM)\}|(ORIGIN|LIB|PLATFORM)(?![A-Za-z0-9_]))")
_MAX_LINKS: Final = 40
_MAX_CONFIG: Final = 1 << 20
_MAX_NESTED: Final = 8
_MAX_LIBRARIES: Final = 4_096


@attrs.frozen(kw_only=True)
class Libraries:
    """What a dynamic program needs beside itself.

    Attributes:
        files: the loader and all libraries, by the path in the image at which the loader looks for them; each is a regular file.
        links: symbolic links that the image needs as well, because its loader has no cache: path and target.
    """

    files: Mapping[str, Path] = attrs.field(factory=dict)
    links: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class _Place:
    """A directory, in the image and on this machine."""

    image: str
    host: Path


@attrs.frozen
class _Object:
    """A program or library on the way to be loaded, and what asked for it."""

    image: str
    elf: ElfFile
    origin: _Place
    loader: _Object | None


def find_libraries(
    program: str | os.PathLike[str],
    image_path: str,
    *,
    root: str | os.PathLike[str] = "/",
    library_path: str = "",
    optional: Iterable[str] = (),
) -> Libraries:
    """The loader and libraries of a program; empty for a static one. Blocks the thread.

    Args:
        program: the program on this machine.
        image_path: where the image has it, for what it looks for beside itself.
        root: where the libraries are taken from; the paths in the image are without it.
        library_path: what ``LD_LIBRARY_PATH`` is in the image.
        optional: libraries that glibc's loader may be asked for by name, taken where they are there.

    Raises:
        InvalidConfigError: the program, or something it needs, is no ELF file of 64-bit x86 or is missing; the field is
            ``"program"``.
    """
    elf = read_elf(program)
    if not elf.is_dynamic:
        return Libraries()
    if not elf.interpreter:
        raise fail(FIELD, f"{os.fspath(program)!r} is a shared library; a program is wanted")
    return _Search(Path(root), elf.interpreter, library_path).run(Path(program), image_path, elf, optional)


class _Search:
    def __init__(self, root: Path, interpreter: str, library_path: str) -> None:
        self._root = root
        self._library_path = tuple(part for part in re.split("[:;]", library_path) if part)
        self._interpreter = interpreter
        self._is_musl = "/ld-musl-" in interpreter
        self._files: dict[str, Path] = {}
        self._links: dict[str, str] = {}
        if self._is_musl:
            self._builtin = _musl_directories(root)
            self._configured: tuple[str, ...] = ()
        else:
            self._builtin = _DEFAULT
            self._configured = _configured(root, _CONFIG)

    def run(self, program: Path, image_path: str, elf: ElfFile, optional: Iterable[str]) -> Libraries:
        interpreter = resolve(self._root, self._interpreter)
        if interpreter is None:
            raise fail(FIELD, f"{str(program)!r} needs the loader {self._interpreter}, which is not in {self._root}")
        self._files[_normal(self._interpreter)] = interpreter
        # A loader is loaded already when a library asks for it by its name.
        loaded = {posixpath.basename(self._interpreter), interpreter.name}
        origin = _Place(posixpath.dirname(image_path), program.absolute().parent)
        first = _Object(image_path, elf, origin, None)
        pending = deque([first])
        missing: dict[str, str] = {}
        if not self._is_musl:
            asked = (self._find(name, first) for name in optional if name not in elf.needed)
            pending.extend(library for library in asked if library is not None)
        while pending:
            current = pending.popleft()
            for name in current.elf.needed:
                if name in loaded or (self._is_musl and _MUSL_OWN.fullmatch(name)):
                    continue
                loaded.add(name)
                if len(loaded) > _MAX_LIBRARIES:
                    raise fail(FIELD, f"{str(program)!r} needs more than {_MAX_LIBRARIES} libraries")
                found = self._find(name, current)
                if found is None:
                    missing[name] = current.image
                else:
                    pending.append(found)
        if missing:
            raise fail(
                FIELD, _missing(program, missing, self._root, tuple(dict.fromkeys(self._configured + self._builtin)))
            )
        return Libraries(files=self._files, links=self._links)

    def _find(self, name: str, current: _Object) -> _Object | None:
        if "/" in name:
            # As glibc has it, relative to the directory of whoever starts the program; that is the root in an image.
            path = _normal(f"/{_expand(name, current.origin.image)[0]}")
            return self._take(path, self._root / path[1:], current)
        for place in self._places(current):
            if (found := self._take(f"{place.image.rstrip('/')}/{name}", place.host / name, current)) is not None:
                return found
        return None

    def _places(self, current: _Object) -> Iterator[_Place]:
        """Where to look for what an object needs, in order."""
        asking: _Object | None = current
        if self._is_musl:
            yield from self._searched(self._library_path, current)
        if self._is_musl or not current.elf.runpath:
            while asking is not None:
                if self._is_musl or not asking.elf.runpath:
                    yield from self._searched(
                        (*asking.elf.rpath, *(asking.elf.runpath if self._is_musl else ())), asking
                    )
                asking = asking.loader
        if not self._is_musl:
            yield from self._searched((*self._library_path, *current.elf.runpath), current)
        # As in a cache, what is configured comes before what is built in.
        for path in (*self._configured, *self._builtin):
            yield _Place(path, self._root / path[1:])

    def _searched(self, paths: tuple[str, ...], asking: _Object) -> Iterator[_Place]:
        for path in paths:
            for image, host in zip(
                _expand(path, asking.origin.image), _expand(path, str(asking.origin.host)), strict=True
            ):
                if not image.startswith("/"):
                    continue
                beside = _TOKEN.match(path) is not None and image != host
                place = _normal(image)
                yield _Place(place, Path(_normal(host)) if beside else self._root / place[1:])

    def _take(self, image: str, host: Path, current: _Object) -> _Object | None:
        """The library at a path, where there is one that can be loaded; others are passed over, as loaders do."""
        inside = _below(self._root, host)
        path = resolve(self._root, inside) if inside is not None else _regular(host)
        if path is None:
            return None
        try:
            elf = read_elf(path)
        except InvalidConfigError:
            return None
        self._files[image] = path
        directory = posixpath.dirname(image)
        if directory in self._configured and directory not in self._builtin:
            # Only the cache would tell the loader of this directory.
            self._links[f"{self._standard}/{posixpath.basename(image)}"] = image
        return _Object(image, elf, _Place(posixpath.dirname(image), host.parent), current)

    @property
    def _standard(self) -> str:
        """A directory that the loader always searches: the one it is in itself, where that is one of those."""
        inside = _below(self._root, self._files[_normal(self._interpreter)])
        directory = posixpath.dirname(inside or "")
        return directory if directory in _DEFAULT else "/lib64"


def _normal(path: str) -> str:
    # POSIX leaves two slashes at the start as they are.
    return "/" + posixpath.normpath(path).lstrip("/")


def _expand(path: str, origin: str) -> tuple[str, ...]:
    """A path with its tokens replaced (ld.so(8), "Dynamic string tokens"); one for each directory that ``$LIB`` may be."""
    libraries = (_MULTIARCH, "lib64") if "LIB" in path else ("",)

    def replaced(library: str) -> str:
        values = {"ORIGIN": origin, "LIB": library, "PLATFORM": "x86_64"}
        return _TOKEN.sub(lambda token: values[token[1] or token[2]], path)

    return tuple(replaced(library) for library in libraries)


def resolve(root: Path, path: str) -> Path | None:
    """The regular file at an absolute path in a root directory, out of which no link leads; ``None`` where there is none."""
    found = resolve_any(root, path)
    return None if found is None else _regular(found)


def resolve_any(root: Path, path: str) -> Path | None:
    """Where the links in an absolute path in a root directory lead, which is nowhere out of it; ``None`` for a loop."""
    parts = deque(part for part in path.split("/") if part not in ("", "."))
    current: list[str] = []
    links = 0
    while parts:
        part = parts.popleft()
        if part == "..":
            del current[-1:]
            continue
        candidate = root.joinpath(*current, part)
        try:
            target = str(candidate.readlink())
        except OSError:
            # No link, or nothing at all, which the last look tells.
            current.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            return None
        if target.startswith("/"):
            current.clear()
        parts.extendleft(reversed([step for step in target.split("/") if step not in ("", ".")]))
    return root.joinpath(*current)


def _regular(path: Path) -> Path | None:
    try:
        return path if stat.S_ISREG(path.stat().st_mode) else None
    except (OSError, ValueError):
        return None


def _below(root: Path, path: Path) -> str | None:
    """A path as it is seen from within a root; ``None`` for one outside."""
    try:
        return f"/{path.relative_to(root)}"
    except ValueError:
        return None


def _read(root: Path, path: str) -> str:
    found = resolve(root, path)
    if found is None or found.stat().st_size > _MAX_CONFIG:
        return ""
    try:
        return found.read_text(errors="replace")
    except OSError:
        return ""


def _configured(root: Path, path: str, depth: int = 0) -> tuple[str, ...]:
    """The directories that a configuration of ldconfig(8) has, and those it includes."""
    found: dict[str, None] = {}
    for text in _read(root, path).splitlines():
        line = text.partition("#")[0].strip()
        keyword, _, rest = line.partition(" ")
        if keyword == "include" and depth < _MAX_NESTED:
            for pattern in rest.split():
                absolute = pattern if pattern.startswith("/") else f"{posixpath.dirname(path)}/{pattern}"
                for match in sorted(root.glob(_normal(absolute)[1:])):
                    found.update(dict.fromkeys(_configured(root, f"/{match.relative_to(root)}", depth + 1)))
        elif line.startswith("/"):
            found[_normal(line)] = None
    return tuple(found)


def _musl_directories(root: Path) -> tuple[str, ...]:
    text = _read(root, _MUSL_PATH)
    paths = tuple(_normal(part) for part in re.split(r"[:\n]", text) if part.startswith("/"))
    return paths or _MUSL_DEFAULT


def _missing(program: Path, missing: Mapping[str, str], root: Path, searched: tuple[str, ...]) -> str:
    names = ", ".join(f"{name} (for {by})" for name, by in missing.items())
    where = "" if root == Path("/") else f" in {root}"
    return (
        f"{str(program)!r} needs libraries that are not found{where}: {names}; searched were its own RPATH and RUNPATH and "
        f"{', '.join(searched)}. Install them there, or name another root by 'TargetRoot'"
    )
