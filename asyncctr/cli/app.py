"""The ``asyncctr`` command: its options, and what every command's end has in common."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

import asyncctr
from asyncctr.cli import arguments, containers, doctor, logs, run
from asyncctr.cli.codes import BROKEN_PIPE, FAILURE, RUN_FAILURE, USAGE
from asyncctr.cli.interrupts import InterruptedBySignal, Interrupts
from asyncctr.cli.terminal import complain, discard_output
from asyncctr.core.errors import AsyncctrError

__all__ = ["main"]

Command = Callable[[argparse.Namespace, Interrupts], Awaitable[int]]

_DESCRIPTION = "Run containers from a shell, and look after those that programs made with the asyncctr SDK."
_RUN_NOTES = """\
exit codes:
  the container's own, 128+n when signal n ended it
  124  --timeout passed          126  the command cannot be executed
  125  asyncctr itself failed    127  the command was not found
  130  Ctrl-C (a second one kills at once)    143  SIGTERM
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with an exit code of the command's own."""

    usage_code = USAGE

    def parse_known_args(  # type: ignore[override]  # of its overloads, the one that argparse itself uses
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and refuse the rest here: argparse would have the parser above refuse it, with that one's exit code."""
        parsed, rest = super().parse_known_args(args, namespace or argparse.Namespace())
        if rest:
            self.error(f"unknown arguments: {' '.join(rest)}")
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see `{self.prog} --help`")
        sys.exit(self.usage_code)


def _common() -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    group = parser.add_argument_group("runtime")
    group.add_argument(
        "--backend", metavar="B", help="docker, containerd or nanos; without it the first of the first two that answers"
    )
    group.add_argument(
        "--host",
        metavar="H",
        help="of Docker or Podman: unix:///path, tcp://host:port, ssh://host; of containerd: unix:///path",
    )
    group.add_argument("--namespace", metavar="NS", help="of containerd; asyncctr where none is given")
    group.add_argument(
        "--kernel", metavar="PATH", help="of Nanos: its kernel.img; else the newest of those that OPS has"
    )
    group.add_argument("--ops-config", metavar="PATH", help="of Nanos: an OPS configuration, JSON")
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-e", "--env", metavar="K=V", type=arguments.env_entry, action="append", default=[],
        help="set a variable; K alone takes it from here")  # fmt: skip
    add("-v", "--volume", metavar="SRC:DST[:ro]", type=arguments.volume, action="append", default=[],
        help="mount a path of the runtime's host, or a named volume")  # fmt: skip
    add("-p", "--publish", metavar="[IP:]HOST:CTR[/PROTO]", type=arguments.port, action="append", default=[],
        help="publish a port, on 127.0.0.1 unless an address is given")  # fmt: skip
    add("-m", "--memory", metavar="SIZE", type=arguments.size, help="memory limit: 256m, 1g")
    add("--cpus", metavar="N", type=arguments.cpus, help="CPU limit: 1.5")
    add("--pids", metavar="N", type=arguments.pids, help="limit of processes and threads")
    add("--network", metavar="NET", default="bridge", help="none, bridge (default), host, or a network's name")
    add("--name", default="", help="a name for the container")
    add("-u", "--user", default="", help="name or id, with :group or :gid")
    add("-w", "--workdir", metavar="DIR", default="", help="working directory")
    add("--entrypoint", metavar="PROGRAM", help="in place of the image's; '' for none")
    add("--timeout", metavar="S", type=arguments.duration, help="kill it after so many seconds (also 5m, 1h30m)")
    add(
        "--pull", choices=["missing", "always", "never"], default="missing", help="when to pull the image (%(default)s)"
    )
    add("-i", "--interactive", action="store_true", help="pass standard input on")
    add("-d", "--detach", action="store_true", help="print the id, leave the container running")
    add("image", metavar="IMAGE")
    command = add(
        "command", metavar="CMD", nargs=argparse.REMAINDER, help="what to run in place of the image's command"
    )
    # It may be empty; else a missing IMAGE would be told of as "IMAGE, CMD".
    command.required = False


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="asyncctr", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"asyncctr {asyncctr.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    common = _common()

    def add(name: str, command: Command, summary: str, *, notes: str = "") -> _Parser:
        sub = commands.add_parser(
            name,
            parents=[common],
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=notes,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.set_defaults(run=command)
        return sub

    sub = add("doctor", doctor.doctor, "tell which runtimes answer here, and what is missing for the others")
    sub.add_argument("--json", action="store_true", help="for programs")

    sub = add("run", run.run, "run a container, stream its output, remove it, and exit with its code", notes=_RUN_NOTES)
    # Else a mistyped option would look like a container that exited with 2.
    sub.usage_code = RUN_FAILURE
    _add_run(sub)

    sub = add("ps", containers.ps, "list the containers made by asyncctr, in any state")
    sub.add_argument("-a", "--all", action="store_true", help="everybody's")
    sub.add_argument("--json", action="store_true", help="for programs")

    sub = add("logs", logs.logs, "print what a container has printed, from its first byte")
    sub.add_argument("-f", "--follow", action="store_true", help="go on until it exits")
    sub.add_argument("-n", "--tail", metavar="N", type=arguments.count, help="only the last N lines")
    sub.add_argument(
        "--since", metavar="T", type=arguments.moment, help="only what is newer: 10m, 2024-05-31T12:00:00Z"
    )
    sub.add_argument("-t", "--timestamps", action="store_true", help="the time in front of each line")
    sub.add_argument("container", metavar="ID", help="an id, the beginning of one, or a name")

    sub = add("reap", containers.reap, "remove the containers whose program died without removing them")
    sub.add_argument(
        "--older-than", metavar="S", type=arguments.duration, help="only those made so long ago (also 10m)"
    )
    sub.add_argument("--foreign", action="store_true", help="also those of other hosts, boots and pid namespaces")
    sub.add_argument("--dry-run", action="store_true", help="only tell which")
    return parser


def _open_standard_descriptors() -> None:
    """Have 0, 1 and 2 open: else the next socket would get such a number, and output would go into it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and tell the exit code.

    Args:
        argv: the arguments; ``None`` for the process's own.
    """
    _open_standard_descriptors()
    args = _parser().parse_args(argv)
    try:
        code = asyncio.run(_execute(args))
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        # Before the handlers were there.
        return 128 + 2
    except BrokenPipeError:
        discard_output()
        return BROKEN_PIPE
    return code


async def _execute(args: argparse.Namespace) -> int:
    command: Command = args.run
    with Interrupts() as interrupts:
        try:
            return await command(args, interrupts)
        except InterruptedBySignal as interruption:
            return interruption.exit_code
        except AsyncctrError as error:
            complain(str(error))
            return run.failure_code(error) if command is run.run else FAILURE
