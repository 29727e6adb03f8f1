"""Seccomp profiles: Docker's format turned into the runtime specification's, and the profile of containers that name none.

Docker's format adds conditions to the runtime's: a rule may hold for some architectures, capabilities or kernels only
(https://docs.docker.com/engine/security/seccomp/). The default profile is a table of our own with the effect of Docker's: what
is listed is allowed, the rest fails with EPERM. Names that the runtime's libseccomp does not know are skipped by runc and crun.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import platform as machine
import re
from typing import TYPE_CHECKING, Any

from asyncctr.core.validation import fail
from asyncctr.oci.layout import Platform

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["seccomp_profile"]

FIELD = "seccomp"

_ALLOW = "SCMP_ACT_ALLOW"
_ERRNO = "SCMP_ACT_ERRNO"
_AF_VSOCK = 40
# CLONE_NEW* of NS, CGROUP, UTS, IPC, USER, PID and NET (sched.h).
_CLONE_NAMESPACES = 0x7E020000
# Linux, 32-bit Linux, each without and with UNAME26; and the value that only asks (personality(2)).
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

# Each by its kind. The numbered and suffixed forms are the same calls on 32-bit architectures.
_FILES = """
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr
flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents
getdents64 getxattr getxattrat ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr _llseek
lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64
preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename renameat
renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat sync
sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write
writev fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
"""
_WAITING = """
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 io_cancel
io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect pipe pipe2 poll ppoll ppoll_time64
pselect6 pselect6_time64 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
timerfd_settime64
"""
_MEMORY = """
brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect
mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages
"""
_SOCKETS = """
accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg send
sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair
"""
_IPC = """
ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl
msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
"""
_PROCESSES = """
alarm execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list
get_thread_area getcpu getitimer getpgid getpgrp getpid getppid getpriority getrlimit getrusage getsid gettid ioprio_get
ioprio_set kill pause pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq rt_sigaction rt_sigpending
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield set_robust_list set_thread_area set_tid_address setitimer setpgid setpriority setrlimit setsid sigaltstack
sigprocmask sigreturn tgkill times tkill ugetrlimit uretprobe vfork wait4 waitid waitpid
"""
_IDENTITY = """
capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid
getresuid32 getuid getuid32 landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp setfsgid setfsgid32
setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32
setreuid setreuid32 setuid setuid32
"""
# adjtimex and its kin only read the clock without CAP_SYS_TIME: the kernel checks.
_TIME_AND_SYSTEM = """
adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 getrandom gettimeofday nanosleep sysinfo time timer_create timer_delete timer_getoverrun timer_gettime
timer_gettime64 timer_settime timer_settime64 uname
"""

_NAMESPACES = """
bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie mount mount_setattr move_mount open_tree
perf_event_open quotactl quotactl_fd setdomainname sethostname setns statmount syslog umount umount2 unshare
"""
_BY_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": _NAMESPACES,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}
_BY_ARCHITECTURE = {
    ("amd64", "x32", "x86"): "arch_prctl modify_ldt",
    ("arm", "arm64"): "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ("ppc64le",): "swapcontext sync_file_range2",
    ("riscv64",): "riscv_flush_icache riscv_hwprobe",
    ("s390", "s390x"): "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
}
# Each is a filter of its own that is compiled at every start, in 5 ms. Docker has x32 as well, which distributions' kernels do
# not, or only with a boot parameter.
_ARCHITECTURES = {
    "SCMP_ARCH_X86_64": ("SCMP_ARCH_X86",),
    "SCMP_ARCH_AARCH64": ("SCMP_ARCH_ARM",),
    "SCMP_ARCH_S390X": ("SCMP_ARCH_S390",),
    "SCMP_ARCH_RISCV64": (),
}
# Docker's names of architectures, which are Go's but for one, and libseccomp's.
_NAMES = {
    "386": ("x86", "SCMP_ARCH_X86"),
    "amd64": ("amd64", "SCMP_ARCH_X86_64"),
    "arm": ("arm", "SCMP_ARCH_ARM"),
    "arm64": ("arm64", "SCMP_ARCH_AARCH64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}


def _rule(names: str, action: str = _ALLOW, **more: object) -> dict[str, Any]:
    return {"names": names.split(), "action": action, **more}


def _argument(index: int, value: int, comparison: str) -> list[dict[str, Any]]:
    # A masked comparison has its mask in "value"; what is left must be 0.
    return [{"index": index, "value": value, "op": f"SCMP_CMP_{comparison}"}]


def _default() -> dict[str, Any]:
    """The default profile in Docker's format.

    io_uring is left out, as in Docker since 25.0: too many ways out of containers were found in it.
    """
    s390 = ["s390", "s390x"]
    admin = ["CAP_SYS_ADMIN"]
    return {
        "defaultAction": _ERRNO,
        "defaultErrnoRet": errno.EPERM,
        "archMap": [{"architecture": arch, "subArchitectures": subs} for arch, subs in _ARCHITECTURES.items()],
        "syscalls": [
            _rule(f"{_FILES} {_WAITING} {_MEMORY} {_SOCKETS} {_IPC} {_PROCESSES} {_IDENTITY} {_TIME_AND_SYSTEM}"),
            # Before 4.8 a tracer could get around the filter.
            _rule("process_vm_readv process_vm_writev ptrace", includes={"minKernel": "4.8"}),
            # A virtual machine's host is not the container's to talk to.
            _rule("socket", args=_argument(0, _AF_VSOCK, "NE")),
            *(_rule("personality", args=_argument(0, value, "EQ")) for value in _PERSONALITIES),
            *(_rule(names, includes={"arches": arches}) for arches, names in _BY_ARCHITECTURE.items()),
            *(_rule(names, includes={"caps": [name]}) for name, names in _BY_CAPABILITY.items()),
            _rule(
                "clone",
                args=_argument(0, _CLONE_NAMESPACES, "MASKED_EQ"),
                excludes={"caps": admin, "arches": s390},
            ),
            # Its first two parameters are the other way round there.
            _rule(
                "clone",
                args=_argument(1, _CLONE_NAMESPACES, "MASKED_EQ"),
                includes={"arches": s390},
                excludes={"caps": admin},
            ),
            # Its flags are in memory, where no filter sees them: with ENOSYS a libc falls back to clone.
            _rule("clone3", _ERRNO, errnoRet=errno.ENOSYS, excludes={"caps": admin}),
        ],
    }


def seccomp_profile(text: str, capabilities: Collection[str]) -> dict[str, Any] | None:
    """``linux.seccomp`` of the runtime specification, shared by those that ask for the same: not to be changed.

    Args:
        text: empty for the default profile, ``"unconfined"``, or a profile as JSON in Docker's format, which includes the runtime's.
        capabilities: the container's bounding set.

    Returns:
        ``None`` where there is nothing to filter.

    Raises:
        InvalidConfigError: the profile is broken; the field is ``"seccomp"``.
    """
    if text == "unconfined":
        return None
    return _converted(text, frozenset(capabilities))


@functools.lru_cache(maxsize=64)
def _converted(text: str, capabilities: frozenset[str]) -> dict[str, Any] | None:
    return convert(
        _parse(text) if text else _default(),
        capabilities,
        Platform.host().architecture,
        _version(os.uname().release) if machine.system() == "Linux" else (0, 0),
    )


def convert(
    profile: Mapping[str, Any], capabilities: Collection[str], architecture: str, kernel: tuple[int, int]
) -> dict[str, Any] | None:
    """A profile in Docker's format as the runtime's, for one set of capabilities, one machine and one kernel.

    Args:
        profile: the parsed JSON.
        capabilities: the container's bounding set.
        architecture: by Go's name, such as ``"amd64"``.
        kernel: its version's first two numbers.

    Raises:
        InvalidConfigError: the profile is broken.
    """
    action = _text(profile.get("defaultAction"), "defaultAction")
    rules = _objects(profile, "syscalls")
    if not action and not rules:
        return None
    own, native = _NAMES.get(architecture, (architecture, ""))
    converted: dict[str, Any] = {"defaultAction": action}
    if architectures := _architectures(profile, native):
        converted["architectures"] = architectures
    for key in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if profile.get(key) is not None:
            converted[key] = profile[key]
    converted["syscalls"] = [_syscall(rule) for rule in rules if _holds(rule, capabilities, own, kernel)]
    return converted


def _architectures(profile: Mapping[str, Any], native: str) -> list[str]:
    named = _texts(profile.get("architectures"), "architectures")
    mapped = _objects(profile, "archMap")
    if named and mapped:
        raise fail(FIELD, "has 'architectures' and 'archMap'; use one of them")
    for entry in mapped:
        if native and entry.get("architecture") == native:
            return [native, *_texts(entry.get("subArchitectures"), "subArchitectures")]
    return named


def _holds(rule: Mapping[str, Any], capabilities: Collection[str], architecture: str, kernel: tuple[int, int]) -> bool:
    includes, excludes = _filter(rule, "includes"), _filter(rule, "excludes")
    if architecture in _texts(excludes.get("arches"), "excludes.arches"):
        return False
    if any(name in capabilities for name in _texts(excludes.get("caps"), "excludes.caps")):
        return False
    arches = _texts(includes.get("arches"), "includes.arches")
    if arches and architecture not in arches:
        return False
    if any(name not in capabilities for name in _texts(includes.get("caps"), "includes.caps")):
        return False
    newer, older = _minimum(includes), _minimum(excludes)
    return (newer is None or kernel >= newer) and (older is None or kernel < older)


def _syscall(rule: Mapping[str, Any]) -> dict[str, Any]:
    name, names = _text(rule.get("name"), "name"), _texts(rule.get("names"), "names")
    if bool(name) == bool(names):
        raise fail(FIELD, "a rule must have either 'name' or 'names'")
    action = _text(rule.get("action"), "action")
    if not action:
        raise fail(FIELD, f"the rule of {(names or [name])[0]!r} has no 'action'")
    converted: dict[str, Any] = {"names": names or [name], "action": action}
    if rule.get("errnoRet") is not None:
        converted["errnoRet"] = rule["errnoRet"]
    if arguments := _objects(rule, "args"):
        converted["args"] = [
            {key: argument[key] for key in ("index", "value", "valueTwo", "op") if argument.get(key) is not None}
            for argument in arguments
        ]
    return converted


def _parse(text: str) -> dict[str, Any]:
    try:
        profile = json.loads(text)
    except (ValueError, RecursionError):
        raise fail(FIELD, "is no JSON") from None
    if not isinstance(profile, dict):
        raise fail(FIELD, "must be a JSON object")
    return profile


def _version(release: str) -> tuple[int, int]:
    match = re.match(r"(\d{1,9})\.(\d{1,9})", release, re.ASCII)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _minimum(conditions: Mapping[str, Any]) -> tuple[int, int] | None:
    text = _text(conditions.get("minKernel"), "minKernel")
    if not text:
        return None
    if not re.fullmatch(r"\d{1,9}\.\d{1,9}(\.\d{1,9})?", text, re.ASCII):
        raise fail(FIELD, f"minKernel must be two numbers such as '4.8', not {text!r}")
    return _version(text)


def _filter(rule: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = {} if rule.get(key) is None else rule[key]
    if not isinstance(value, dict):
        raise fail(FIELD, f"{key} must be an object")
    return value


def _objects(value: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = [] if value.get(key) is None else value[key]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise fail(FIELD, f"{key} must be a list of objects")
    return entries


def _texts(value: object, key: str) -> list[str]:
    entries = [] if value is None else value
    if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, str) for entry in entries):
        raise fail(FIELD, f"{key} must be a list of names")
    return list(entries)


def _text(value: object, key: str) -> str:
    if value is not None and not isinstance(value, str):
        raise fail(FIELD, f"{key} must be a string")
    return value or ""
