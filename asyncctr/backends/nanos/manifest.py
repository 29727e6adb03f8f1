"""What goes into a disk image: the program with what it needs, and the root tuple that the kernel reads.

As OPS does by default, an image has ``/etc/resolv.conf``, ``/etc/passwd`` with root in it, ``/proc/sys/kernel/hostname``, this
machine's certificate authorities, and ``USER`` and ``PWD`` in the environment. Whatever the input has in these places is taken
instead. Unlike OPS, which names a public server on the internet, the name server is by default that of QEMU's user network.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncctr.backends.nanos.libraries import find_libraries, resolve, resolve_any
from asyncctr.backends.nanos.ops_config import OpsConfig
from asyncctr.backends.nanos.tfs.disk import Disk
from asyncctr.backends.nanos.tfs.log import Identity
from asyncctr.backends.nanos.tfs.tree import Content, Directory, HostFile, Root, Symlink
from asyncctr.backends.nanos.tree import add_matching, make_directory, put
from asyncctr.core.validation import FrozenMap, check_path, fail

if TYPE_CHECKING:
    from asyncctr.backends.nanos.tfs.values import Value
    from asyncctr.core.build import NanosBuildInput

__all__ = ["HOSTNAME", "NAME_SERVER", "build_manifest", "resolv_conf"]

NAME_SERVER: Final = "10.0.2.3"
"""The name server of QEMU's user network, which asks those of the host (QEMU, "Network emulation")."""

HOSTNAME: Final = "uniboot"
"""What OPS calls a guest."""

_PASSWD: Final = b"root:x:0:0:root:/root:/bin/nobash\n"
_CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
_BUNDLES: Final = (_CERTIFICATES, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem")
# glibc opens these by name when a host name is looked up, so that no header tells of them.
_NAME_SERVICE: Final = ("libnss_dns.so.2", "libnss_files.so.2")
_PATTERN: Final = re.compile(r"[*?\[]")
_MAX_LABEL: Final = 31
# A klib that another one needs, and the entry of the root tuple that is of no use without its klib, as OPS has it.
_WITH_KLIB: Final = {"cloud_init": "tls"}
_KEY_KLIBS: Final = {"firewall": "firewall"}


def build_manifest(
    build: NanosBuildInput,
    ops: OpsConfig | None = None,
    *,
    klib_dir: str | os.PathLike[str] | None = None,
    kernel: str = "",
    boot_image: str = "",
) -> Disk:
    """The disk of an image, to be written. What the input says goes before what the OPS configuration says. Blocks the thread.

    Args:
        build: what to build.
        ops: the configuration, if any.
        klib_dir: where the kernel's libraries are, unless the configuration names another directory.
        kernel: the kernel, which is in a disk that boots by itself or has klibs.
        boot_image: the boot loader of a disk that boots by itself; empty for one of a machine that is given its kernel.

    Raises:
        InvalidConfigError: the program or something else cannot be read, is missing, or does not fit; the field is the
            input's, or the configuration's key.
    """
    building = _Building(build, ops or OpsConfig(), klib_dir)
    root, klibs = building.run()
    return Disk(
        tree=building.tree,
        root=root,
        identity=Identity(uuid=os.urandom(16)),
        klibs=klibs,
        kernel=kernel if klibs or boot_image else "",
        boot_image=boot_image,
        length=building.ops.base_volume_size or 0,
    )


def resolv_conf(servers: tuple[str, ...]) -> bytes:
    """``/etc/resolv.conf`` (resolv.conf(5))."""
    return "".join(f"nameserver {server}\n" for server in servers).encode()


class _Building:
    def __init__(self, build: NanosBuildInput, ops: OpsConfig, klib_dir: str | os.PathLike[str] | None) -> None:
        self.build = build
        self.ops = ops
        self.klib_dir = ops.host_path(ops.klib_dir) if ops.klib_dir else klib_dir
        self.tree = Directory({})

    def run(self) -> tuple[Root, dict[str, str]]:
        """Gather all files; the root tuple and the kernel libraries."""
        ops, build = self.ops, self.build
        host, program = self._program()
        environment = {"USER": "root", "PWD": "/"} | dict(ops.env) | dict(build.env)
        self._defaults()
        self._libraries(host, program, environment.get("LD_LIBRARY_PATH", ""))
        # In the order of who has the last word.
        for name in ops.files:
            self._add_file(_inside("Files", name), self._source("Files", name), "Files")
        for name in ops.dirs:
            self._add_directory(_inside("Dirs", name), self._source("Dirs", name), "Dirs")
        for pattern, path in ops.map_dirs.items():
            directory, slash, last = pattern.rpartition("/")
            if _PATTERN.search(last):
                source = str(Path(self._source("MapDirs", directory + slash), last))
            else:
                source = self._source("MapDirs", pattern)
            self._map(_inside("MapDirs", path), source, "MapDirs")
        for path, source in build.dirs.items():
            self._add_directory(path, source, "dirs")
        for path, source in build.map_dirs.items():
            self._map(path, source, "map_dirs")
        for path, source in build.files.items():
            self._add_file(path, source, "files")
        self._add_file(program, host, "program")
        klibs = self._klibs()
        settings: dict[str, Value] = dict.fromkeys(ops.debug_flags, "t")
        if ops.reboot_on_exit:
            settings["reboot_on_exit"] = "t"
        if klibs:
            settings["klibs"] = "bootfs"
        # What is passed through comes at last, for it is there to say what nothing else does.
        settings |= self._network() | dict(ops.passthrough)
        if "children" in settings:
            raise fail("ManifestPassthrough.children", "the files of an image come by Files, Dirs and MapDirs alone")
        root = Root(
            program=program,
            arguments=(program, *(build.args or ops.args)),
            environment=FrozenMap(environment),
            mounts=FrozenMap(self._mounts()),
            settings=FrozenMap(settings),
        )
        return root, klibs

    def _program(self) -> tuple[str, str]:
        """The program on this machine and in the image."""
        if self.build.program:
            return self.build.program, _program_path(self.build.program)
        if not self.ops.program:
            raise fail("program", "must not be empty where there is no OPS configuration that names one by 'Program'")
        return self._source("Program", self.ops.program), _inside("Program", self.ops.program)

    def _source(self, field: str, path: str) -> str:
        """What the configuration names, on this machine; the links in its root lead nowhere else."""
        root = Path(self.ops.root)
        inside = bool(self.ops.target_root) and path.startswith("/")
        if inside and (found := resolve_any(root, path)) is not None and found.exists():
            return str(found)
        host = path if inside else self.ops.host_path(path)
        if not Path(host).exists():
            where = f", nor is it in {root}" if inside else ""
            raise fail(field, f"{host!r} does not exist{where}")
        return host

    def _defaults(self) -> None:
        servers = self.ops.name_servers or (NAME_SERVER,)
        for path, data in (
            ("/etc/resolv.conf", resolv_conf(servers)),
            ("/etc/passwd", _PASSWD),
            ("/proc/sys/kernel/hostname", HOSTNAME.encode()),
        ):
            put(self.tree, path, Content(data), field="files")
        bundles = (resolve(Path(self.ops.root), path) for path in _BUNDLES)
        bundle = next((found for found in bundles if found is not None), None)
        if bundle is not None:
            put(self.tree, _CERTIFICATES, HostFile(str(bundle)), field="files")

    def _libraries(self, host: str, program: str, library_path: str) -> None:
        libraries = find_libraries(host, program, root=self.ops.root, library_path=library_path, optional=_NAME_SERVICE)
        for path, source in libraries.files.items():
            put(self.tree, path, HostFile(str(source)), field="program")
        for path, target in libraries.links.items():
            put(self.tree, path, Symlink(target), field="program")

    def _add_file(self, path: str, source: str, field: str) -> None:
        try:
            mode = Path(source).stat().st_mode
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise fail(field, f"{source!r} cannot be read: {reason}") from error
        if not stat.S_ISREG(mode):
            hint = "a directory, which goes in by 'dirs'" if stat.S_ISDIR(mode) else "no regular file"
            raise fail(field, f"{source!r} is {hint}")
        put(self.tree, path, HostFile(source), field=field)

    def _add_directory(self, path: str, source: str, field: str) -> None:
        if not Path(source).is_dir():
            raise fail(field, f"{source!r} is no directory")
        add_matching(self.tree, path, source, field=field)

    def _map(self, path: str, source: str, field: str) -> None:
        directory, pattern = Path(source).parent, Path(source).name
        if _PATTERN.search(pattern):
            if not directory.is_dir():
                raise fail(field, f"{str(directory)!r} is no directory")
            # A set is negated by '^' in patterns of OPS, and by '!' in those of Python.
            add_matching(self.tree, path, str(directory), pattern.replace("[^", "[!"), field=field)
        else:
            self._add_directory(path, source, field)

    def _mounts(self) -> dict[str, str]:
        """Volumes by label and where they are mounted, which is a directory that there must be."""
        mounts: dict[str, str] = dict(self.ops.mounts)
        for entry in self.ops.run.mounts:
            label, colon, path = entry.partition(":")
            if not label or not colon:
                raise fail("RunConfig.Mounts", f"must be 'volume:/path', not {entry!r}")
            mounts[label] = path
        for path in mounts.values():
            check_path("Mounts", path.removesuffix(":ro"))
        mounts |= self.build.mounts
        for label, path in mounts.items():
            if len(label.encode()) > _MAX_LABEL:
                raise fail("mounts", f"the volume {label!r} has a name of more than {_MAX_LABEL} bytes")
            make_directory(self.tree, path.removesuffix(":ro"), field="mounts")
        return mounts

    def _klibs(self) -> dict[str, str]:
        wanted = dict.fromkeys((*self.ops.klibs, *self.build.klibs))
        wanted |= dict.fromkeys(klib for key, klib in _KEY_KLIBS.items() if key in self.ops.passthrough)
        wanted |= dict.fromkeys(needed for klib, needed in _WITH_KLIB.items() if klib in wanted)
        found: dict[str, str] = {}
        for klib in wanted:
            if "/" in klib or klib in (".", ".."):
                raise fail("klibs", f"{klib!r} is no name of a kernel library")
            path = Path(self.klib_dir, klib) if self.klib_dir is not None else None
            if path is None or not path.is_file():
                where = f"in {str(path.parent)!r}" if path is not None else "beside the kernel"
                raise fail("klibs", f"there is no kernel library {klib!r} {where}; 'KlibDir' names another directory")
            found[klib] = str(path)
        return found

    def _network(self) -> dict[str, Value]:
        """The addresses of the cards; none of one that asks by DHCP."""
        run = self.ops.run
        if not run.nics:
            return _card(run.ip_address, run.ipv6_address, run.netmask, run.gateway)
        first, *others = (_card(nic.ip_address, nic.ipv6_address, nic.netmask, nic.gateway) for nic in run.nics)
        return first | {f"en{number}": FrozenMap(card) for number, card in enumerate(others, start=2) if card}


def _card(address: str, address6: str, netmask: str, gateway: str) -> dict[str, Value]:
    entries = {"ipaddr": address, "netmask": netmask, "gateway": gateway} if address else {}
    if address6:
        entries["ip6addr"] = address6
    return {key: value for key, value in entries.items() if value}


def _program_path(path: str) -> str:
    """Where the image has a program: at its own path, and at what a relative one is from the root on."""
    inside = posixpath.normpath(path)
    if inside.startswith("../"):
        inside = posixpath.basename(inside)
    return check_path("program", f"/{inside.lstrip('/')}")


def _inside(field: str, path: str) -> str:
    """Where the image has what the configuration names by a path."""
    return check_path(field, f"/{path.removeprefix('./').lstrip('/')}")
