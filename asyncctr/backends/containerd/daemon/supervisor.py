"""Starts one containerd, watches over it, and ends it when nobody uses it: a program of its own, run by its path.

It outlives those who start it, so it is kept small: it imports a few modules of the standard library and nothing of this package.

    supervisor.py PRIVATE RUN IDLE CONTAINERD COMMAND…        config.toml on stdin

It ends with 0 when a supervisor listens at ``RUN/supervisor.sock``: this one, which goes on in the background, or another. Each
connection to that socket is a lease: while one is open, the daemon stays. A lease is told one line, ``ready PID CONTAINERD`` or
``failed REASON``, and ``ended REASON`` later, fields separated by tabs. It may send ``replace``, which ends the daemon if nobody
else uses it; ``busy`` is the answer if somebody does.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
import time

# As typing's, whose import would cost more than it tells.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

START_TIMEOUT = 60.0
"""Seconds that the daemon has to get ready."""
STOP_TIMEOUT = 10.0
"""Seconds from SIGTERM to SIGKILL, and that the deletion of an ended task may take."""
_LOG_LIMIT = 1 << 20
_TASKS = "state/io.containerd.runtime.v2.task"


def main(arguments: list[str]) -> int:
    """Start the daemon, unless it runs."""
    private, run, idle, containerd, *command = arguments
    config = sys.stdin.buffer.read()
    os.umask(0o077)
    starting = _lock(f"{private}/starting.lock")
    if _answers(_read(f"{private}/run").strip()) or _answers(run):
        return 0
    # Held for life; a predecessor that is ending releases it when it has cleaned up.
    _lock(f"{private}/daemon.lock")
    listener = _bind(f"{run}/supervisor.sock", socket.SOCK_STREAM)
    listener.listen(512)
    _write(f"{run}/config.toml", config)
    _write(f"{private}/run", os.fsencode(run))
    # To the system's init goes what is left of us: whoever asked for this may end at any time.
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    os.close(starting)
    _redirect(f"{private}/containerd.log")
    Supervisor(private, run, float(idle), containerd, command, listener).serve()
    return 0


class Supervisor:
    """Watches over one daemon."""

    def __init__(
        self, private: str, run: str, idle: float, containerd: str, command: list[str], listener: socket.socket
    ) -> None:
        self._private = private
        self._run = run
        self._idle = idle
        self._containerd = containerd
        self._command = command
        # rootlesskit's: all that it runs ends with it.
        self._rootless = "--pidns" in command
        self._pid = 0
        self._ready = False
        self._done = False
        # When the time is up: for the start, later for a daemon that nobody uses.
        self._deadline = time.monotonic() + START_TIMEOUT
        self._leases: dict[int, socket.socket] = {}
        self._handlers: dict[int, Callable[[], None]] = {}
        self._task = -1
        self._daemon = -1
        self._poll = select.poll()
        self._listener = listener
        self._listener.setblocking(False)
        self._notify: socket.socket | None = None

    def serve(self) -> None:
        """Start the daemon, or take over the one that a killed supervisor left, and return after its end."""
        self._watch(self._listener.fileno(), self._accept)
        self._watch_signals()
        if not self._adopt():
            self._start()
        while not self._done:
            in_use = self._ready and (self._leases or self._task >= 0)
            timeout = None if in_use else max(0.0, self._deadline - time.monotonic()) * 1000
            events = self._poll.poll(timeout)
            for descriptor, _ in events:
                # One handler may have closed what another is for.
                if not self._done and descriptor in self._handlers:
                    self._handlers[descriptor]()
            if not events and not in_use and time.monotonic() >= self._deadline:
                self._time_is_up()

    def _watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.POLLIN)

    def _forget(self, descriptor: int) -> None:
        del self._handlers[descriptor]
        self._poll.unregister(descriptor)

    def _watch_signals(self) -> None:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._watch(reader, lambda: self._stop("the supervisor was asked to stop"))

    # -- the daemon

    def _adopt(self) -> bool:
        fields = _read(f"{self._run}/daemon").split("\t")
        if len(fields) != 4 or not fields[0].isdecimal() or _start_time(int(fields[0])) != fields[1]:
            return False
        self._pid = int(fields[0])
        try:
            self._daemon = os.pidfd_open(self._pid)
        except ProcessLookupError:
            return False
        if fields[2] != "ready":
            # Nobody heard it say that it is; that may never come.
            self._end_daemon()
            os.close(self._daemon)
            return False
        self._log(f"took over the daemon that runs, pid {self._pid}")
        self._containerd = fields[3]
        self._watch(self._daemon, self._daemon_ended)
        self._set_ready()
        return True

    def _start(self) -> None:
        if self._rootless:
            # A pid namespace's end was that of all tasks, and their mounts went with the mount namespace.
            for name in ("rk", "state"):
                _remove(f"{self._run}/{name}")
        _unlink(f"{self._run}/containerd.sock", f"{self._run}/containerd.sock.ttrpc")
        self._notify = _bind(f"{self._run}/notify.sock", socket.SOCK_DGRAM)
        self._notify.setblocking(False)
        self._watch(self._notify.fileno(), self._notified)
        # It waits until it has been written down: else one of a supervisor that is killed right here would never be found.
        gate, opener = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(opener)
            self._run_daemon(gate)
        os.close(gate)
        self._daemon = os.pidfd_open(self._pid)
        self._watch(self._daemon, self._daemon_ended)
        self._record("starting")
        os.write(opener, b"1")
        os.close(opener)

    def _run_daemon(self, gate: int) -> NoReturn:
        try:
            if os.read(gate, 1):
                # Python ignores it, and an ignored signal stays so.
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                # The directories that it makes are roots of containers, whose users are not this one.
                os.umask(0o022)
                os.execv(self._command[0], self._command)  # noqa: S606 - no shell is the point
        except OSError as error:
            self._log(f"cannot run {self._command[0]}: {error.strerror}")
        finally:
            os._exit(127)

    def _record(self, state: str) -> None:
        record = f"{self._pid}\t{_start_time(self._pid)}\t{state}\t{self._containerd}"
        _write(f"{self._run}/daemon.new", os.fsencode(record))
        os.rename(f"{self._run}/daemon.new", f"{self._run}/daemon")  # noqa: PTH104 - pathlib costs memory

    def _notified(self) -> None:
        """sd_notify(3): lines of ``NAME=value``."""
        assert self._notify is not None  # noqa: S101 - it is what calls
        if b"READY=1" in self._notify.recv(4096).split(b"\n") and not self._ready:
            self._record("ready")
            self._set_ready()

    def _set_ready(self) -> None:
        self._ready = True
        self._deadline = time.monotonic() + self._idle
        for lease in self._leases.values():
            self._tell(lease, self._greeting())

    def _greeting(self) -> str:
        return f"ready\t{self._pid}\t{self._containerd}"

    def _daemon_ended(self) -> None:
        how = self._reap()
        if self._ready:
            self._finish("ended", f"the daemon (pid {self._pid}) {how}")
        else:
            self._finish("failed", f"it {how} while it started")

    def _reap(self) -> str:
        try:
            _, status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:
            return "ended"
        code = os.waitstatus_to_exitcode(status)
        return f"ended with {code}" if code >= 0 else f"was killed by signal {-code}"

    def _end_daemon(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                signal.pidfd_send_signal(self._daemon, number)
            except ProcessLookupError:
                return
            if _wait(self._daemon, STOP_TIMEOUT):
                return
        self._log(f"pid {self._pid} did not end after SIGKILL")

    # -- who uses it

    def _accept(self) -> None:
        try:
            lease, _ = self._listener.accept()
        except OSError:
            # It has gone again, or there are no more descriptors; the latter is the next one's trouble too.
            return
        lease.setblocking(False)
        self._leases[lease.fileno()] = lease
        self._watch(lease.fileno(), lambda: self._hear(lease))
        if self._ready:
            self._tell(lease, self._greeting())

    def _hear(self, lease: socket.socket) -> None:
        try:
            words = lease.recv(64)
        except BlockingIOError:
            return
        except OSError:
            words = b""
        if words.strip() == b"replace":
            self._replace(lease)
        elif not words:
            self._drop(lease)

    def _drop(self, lease: socket.socket) -> None:
        self._forget(lease.fileno())
        del self._leases[lease.fileno()]
        lease.close()
        if self._ready and not self._leases:
            self._look_for_tasks()

    def _tell(self, lease: socket.socket, text: str) -> None:
        try:
            lease.send(os.fsencode(text + "\n"))
        except OSError:
            # It has gone; its end will be heard.
            return

    def _replace(self, lease: socket.socket) -> None:
        # Others may have closed just before, and are heard only after this one.
        others = [other for other in self._leases.values() if other is not lease and not _closed(other)]
        if self._ready and not others and not self._running_tasks():
            self._stop("it makes room for another containerd")
        else:
            self._tell(lease, "busy")

    def _look_for_tasks(self) -> None:
        """Watch one task of those that run; without any, the time begins that the daemon has left."""
        self._deadline = time.monotonic() + self._idle
        if self._task >= 0:
            self._forget(self._task)
            os.close(self._task)
            self._task = -1
        for pid in self._running_tasks():
            try:
                self._task = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            self._watch(self._task, self._look_for_tasks)
            return

    def _running_tasks(self) -> list[int]:
        """The processes whose parents are shims of this daemon. Ended tasks have shims, too, but those have no children."""
        address = os.fsencode(f"{self._run}/containerd.sock")
        parents: dict[int, int] = {}
        shims: set[int] = set()
        for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib costs memory
            if not name.isdecimal():
                continue
            command, _, rest = _read(f"/proc/{name}/stat").rpartition(")")
            fields = rest.split()
            if not fields or fields[0] in "ZX":
                continue
            parents[int(name)] = int(fields[1])
            if "(containerd-shim" in command and address in _read_bytes(f"/proc/{name}/cmdline").split(b"\0"):
                shims.add(int(name))
        return [pid for pid, parent in parents.items() if parent in shims and pid not in shims]

    # -- the end

    def _time_is_up(self) -> None:
        if not self._ready:
            self._end_daemon()
            self._finish("failed", f"it was not ready within {START_TIMEOUT:g} s")
            return
        # Somebody may have started one without a lease.
        self._look_for_tasks()
        if self._task < 0:
            self._stop(f"nobody used it for {self._idle:g} s")

    def _stop(self, reason: str) -> None:
        # From here on nobody gets a lease; who comes now starts another when this one has cleaned up.
        self._close_listener()
        self._delete_ended_tasks()
        self._end_daemon()
        self._finish("ended", reason)

    def _close_listener(self) -> None:
        if self._listener.fileno() >= 0:
            self._forget(self._listener.fileno())
            _unlink(f"{self._run}/supervisor.sock")
            self._listener.close()

    def _delete_ended_tasks(self) -> None:
        """Their shims would stay, without a use but to tell exit codes: those are kept in files."""
        if not self._ready or self._running_tasks():
            return
        for namespace in _list(f"{self._run}/{_TASKS}"):
            for name in _list(f"{self._run}/{_TASKS}/{namespace}"):
                said = self._delete_task(namespace, name)
                if _exists(f"{self._run}/{_TASKS}/{namespace}/{name}"):
                    self._log(f"the ended task {namespace}/{name} could not be deleted: {said}")
                    continue
                # All that ctr tells of the code, in 1.6 as in 2.4, and only where it is not 0.
                code = (
                    said.rpartition("non-zero exit code ")[2].partition('"')[0]
                    if "non-zero exit code " in said
                    else "0"
                )
                os.makedirs(f"{self._private}/exits/{namespace}", exist_ok=True)  # noqa: PTH103
                _write(f"{self._private}/exits/{namespace}/{name}", code.encode())

    def _delete_task(self, namespace: str, name: str) -> str:
        """Delete a task by ctr; what that printed."""
        words = ["ctr", "--address", f"{self._run}/containerd.sock", "--namespace", namespace, "tasks", "delete", name]
        reader, writer = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
        try:
            pid = os.posix_spawnp(words[0], words, os.environ, file_actions=actions)
        except OSError as error:
            os.close(reader)
            return f"cannot run ctr: {error.strerror}"
        finally:
            os.close(writer)
        descriptor = os.pidfd_open(pid)
        if not _wait(descriptor, STOP_TIMEOUT):
            os.kill(pid, signal.SIGKILL)
        os.close(descriptor)
        os.waitpid(pid, 0)
        # A few lines: less than a pipe holds.
        said = os.read(reader, 65536) if _wait(reader, 0) else b""
        os.close(reader)
        return said.decode(errors="replace").strip()

    def _finish(self, word: str, reason: str) -> None:
        """Clean up, then tell the leases, so that what they start next finds nothing of this one."""
        self._log(reason)
        self._close_listener()
        names = ("containerd.sock", "containerd.sock.ttrpc", "notify.sock", "daemon", "config.toml")
        _unlink(*(f"{self._run}/{name}" for name in names))
        # A shim that still runs needs its directory, and finds it under the next daemon.
        if self._rootless or not any(_list(f"{self._run}/{_TASKS}/{name}") for name in _list(f"{self._run}/{_TASKS}")):
            for name in ("rk", "state"):
                _remove(f"{self._run}/{name}")
        for lease in self._leases.values():
            self._tell(lease, f"{word}\t{reason}")
        self._done = True

    def _log(self, text: str) -> None:
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} supervisor: {text}\n")
        sys.stderr.flush()


# -- files and processes; pathlib, subprocess and shutil would double the memory that this takes


def _lock(path: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _answers(run: str) -> bool:
    if not run:
        return False
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(f"{run}/supervisor.sock")
        except OSError:
            return False
    return True


def _bind(path: str, kind: socket.SocketKind) -> socket.socket:
    _unlink(path)
    bound = socket.socket(socket.AF_UNIX, kind)
    bound.bind(path)
    return bound


def _closed(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _redirect(log: str) -> None:
    try:
        if os.stat(log).st_size > _LOG_LIMIT:  # noqa: PTH116
            os.rename(log, f"{log}.1")  # noqa: PTH104
    except FileNotFoundError:
        pass
    for target, path, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)):
        descriptor = os.open(path, flags, 0o600)
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.dup2(1, 2)


def _wait(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _start_time(pid: int) -> str:
    """proc(5), ``/proc/pid/stat`` field 22; empty for a process that has ended."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if fields and fields[0] != "Z" else ""


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return b""


def _read(path: str) -> str:
    return os.fsdecode(_read_bytes(path))


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(data)


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)  # noqa: PTH208
    except OSError:
        return []


def _exists(path: str) -> bool:
    return os.access(path, os.F_OK)


def _unlink(*paths: str) -> None:
    for path in paths:
        try:
            os.unlink(path)  # noqa: PTH108
        except FileNotFoundError:
            continue


def _remove(directory: str) -> None:
    """Remove a tree as far as that goes: what is in use (mounted) stays."""
    for path, directories, files in os.walk(directory, topdown=False):
        for name in [*files, *directories, ""]:
            target = os.path.join(path, name).rstrip("/")  # noqa: PTH118
            try:
                if name in files or os.path.islink(target):  # noqa: PTH114
                    os.unlink(target)  # noqa: PTH108
                else:
                    os.rmdir(target)  # noqa: PTH106
            except OSError:
                continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
