"""Cases 1 to 4: output, exit codes, what a configuration sets, and what an image does."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from asyncctr.core.config import ContainerConfig
from asyncctr.core.network import NetworkConfig, NetworkMode
from asyncctr.testing.conformance.checks import equal, honoured, loaded_image
from asyncctr.testing.conformance.store import without_oci
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.conformance.workloads import shell

if TYPE_CHECKING:
    from typing import Any

    from asyncctr.core.logs import Output
    from asyncctr.core.status import RunResult
    from asyncctr.testing.conformance.suite import Context

__all__: list[str] = []

BOUND = 60.0
"""Seconds that one step of a case may take."""

_EVERY_BYTE = bytes(range(256))
_NO_NETWORK = NetworkConfig(mode=NetworkMode.NONE)


def _octal(data: bytes) -> str:
    return "".join(f"\\{value:03o}" for value in data)


# -- 1


def _outputs(context: Context, given: Output | RunResult, stdout: bytes, stderr: bytes) -> None:
    if context.client.capabilities.supports_separate_stderr:
        equal(given.stdout, stdout, "stdout")
        equal(given.stderr, stderr, "stderr")
    else:
        # One stream carries both; which comes first is the runtime's to say.
        equal(given.stderr, b"", "stderr")
        equal(sorted(given.stdout), sorted(stdout + stderr), "the bytes of the one stream")


@case(1, "stdout and stderr", uvloop=True)
async def streams_apart(context: Context) -> None:
    """Text and every byte value, each on its own stream, the last without a newline; by run and by logs."""
    reverse = _EVERY_BYTE[::-1]
    texts = (b"to stdout\n\xc3\xa9 \xf0\x9f\x8e\x89", b"to stderr\r\n\ttab")
    scripts = (
        (f"printf '{_octal(texts[0])}'; printf '{_octal(texts[1])}' >&2", *texts),
        (f"printf '{_octal(_EVERY_BYTE)}'; printf '{_octal(reverse)}' >&2", _EVERY_BYTE, reverse),
        ("printf only-err >&2", b"", b"only-err"),
        ("true", b"", b""),
    )
    for script, stdout, stderr in scripts:
        config = shell(context, script)
        async with asyncio.timeout(BOUND):
            result = await context.client.run(config)
        equal(result.exit_code, 0)
        equal(result.truncated, False, "truncated")
        _outputs(context, result, stdout, stderr)
        async with asyncio.timeout(BOUND), context.client.container(config) as container:
            await container.start()
            _outputs(context, await container.logs().read(), stdout, stderr)
            # It is kept, and can be read again.
            _outputs(context, await container.logs(follow=False).read(), stdout, stderr)


# -- 2


@case(2, "exit codes", uvloop=True)
async def exit_codes(context: Context) -> None:
    """A code is reported as it is; no code is an exception."""
    for code in (0, 7, 255):
        async with asyncio.timeout(BOUND):
            result = await context.client.run(shell(context, f"exit {code}"))
        equal((result.exit_code, result.status.code, result.status.ok), (code, code, code == 0), "the exit code")


@case(2, "exit by a signal", uvloop=True)
async def exit_by_signal(context: Context) -> None:
    """A killed process gives 128 + n and the signal; a code of 137 alone is no signal, where the runtime can tell."""
    async with asyncio.timeout(BOUND), context.client.container(shell(context, "exec sleep 300")) as container:
        await container.start()
        await container.kill("SIGKILL")
        status = await container.wait()
        equal((status.code, status.signal), (137, signal.SIGKILL), "code and signal of a killed process")
        equal((await container.inspect()).exit_code, 137, "the inspected exit code")
    if context.target.is_linux:
        # The shell gives its child's end the same way; the first process of a container ignores what it does not handle.
        async with asyncio.timeout(BOUND):
            result = await context.client.run(shell(context, "sh -c 'kill -TERM $$'; exit $?"))
        equal(result.exit_code, 128 + signal.SIGTERM, "the code of a shell whose child was terminated")
    async with asyncio.timeout(BOUND):
        result = await context.client.run(shell(context, "exit 137"))
    equal(result.exit_code, 137)
    equal(
        result.status.signal,
        None if context.client.capabilities.reports_signal else 9,
        "the signal of a plain exit 137",
    )


# -- 3

_PRINT = """
printf 'a=%s\\n' "$A"; printf 'b=%s\\n' "$B"; printf 'c=%s\\n' "$C"; printf 'path=%s\\n' "$PATH"
"""


async def _lines(context: Context, config: ContainerConfig) -> list[str]:
    """The lines that a run prints; it has to succeed."""
    async with asyncio.timeout(BOUND):
        result = await context.client.run(config)
    equal((result.exit_code, result.stderr), (0, b""), "exit code and stderr")
    return result.stdout.decode().splitlines()


@case(3, "env workdir user", uvloop=True)
async def env_workdir_user(context: Context) -> None:
    """What the configuration sets is seen from inside, exactly."""
    env = {"A": "plain", "B": "two words, 'quotes\" and $HOME; `id`", "C": "é 🎉=="}
    config = shell(context, _PRINT, env=env)
    if await honoured(context, config, "env"):
        a, b, c, path = await _lines(context, config)
        equal((a, b, c), (f"a={env['A']}", f"b={env['B']}", f"c={env['C']}"), "the environment")
        equal(path.startswith("path=/"), wanted=True, what="that the image's own PATH stays")
    config = shell(context, "pwd", workdir="/var/log")
    if await honoured(context, config, "workdir"):
        equal(await _lines(context, config), ["/var/log"], "the working directory")
    for user, ids in (
        ("app", ["1000", "1000"]),
        ("1000", ["1000", "1000"]),
        ("1000:2000", ["1000", "2000"]),
        ("app:extra", ["1000", "2000"]),
    ):
        config = shell(context, "id -u; id -g", user=user)
        if await honoured(context, config, "user"):
            equal(await _lines(context, config), ids, f"the ids of user {user!r}")


@case(3, "shell form labels hostname", uvloop=True)
async def shell_labels_hostname(context: Context) -> None:
    """The shell gets the command as one string; the host name is inside; labels come back, and find the container."""
    config = ContainerConfig(  # noqa: S604 - the field, not subprocess's
        context.image,
        shell=("/bin/sh", "-c"),
        command=("echo", "$((6 * 7))", "&&", "echo", "'two", "spaces'", ";", 'echo "$0"'),
        network=_NO_NETWORK,
    )
    if await honoured(context, config, "shell"):
        equal(await _lines(context, config), ["42", "two spaces", "/bin/sh"], "what the shell printed")
    config = shell(context, "hostname; cat /etc/hostname", hostname="conformance-3")
    if await honoured(context, config, "hostname"):
        equal(await _lines(context, config), ["conformance-3"] * 2, "the host name")
    labels = {"org.example.plain": "value", "with space & ünicode": 'a="b",c', "empty": ""}
    config = shell(context, "true", labels=labels)
    if await honoured(context, config, "labels"):
        async with asyncio.timeout(BOUND), context.client.container(config) as container:
            info = await container.inspect()
            equal({key: value for key, value in info.labels.items() if key in labels}, labels, "the labels")
            for wanted in ({"org.example.plain": "value"}, labels):
                found = await context.client.list(labels=wanted)
                equal([entry.id for entry in found], [container.id], f"the containers with {wanted}")
            equal(await context.client.list(labels={"org.example.plain": "other"}), (), "containers with another value")


# -- 4

_ENTRY = b"""#!/bin/sh
printf 'args=%s\\n' "$*"
printf 'from=%s given=%s\\n' "$FROM_IMAGE" "$GIVEN"
printf 'in=%s\\n' "$(pwd)"
printf 'as=%s\\n' "$(id -un)"
"""


@case(4, "image defaults")
async def image_defaults(context: Context) -> None:
    """Entrypoint, command, environment, working directory and user of the image apply; the configuration overrides each."""
    if await without_oci(context):
        return
    async with (
        asyncio.timeout(2 * BOUND),
        loaded_image(
            context,
            entrypoint=("/entry", "first"),
            cmd=("image", "command"),
            env={"PATH": "/bin:/usr/bin:/sbin", "FROM_IMAGE": "yes"},
            workdir="/work",
            user="app",
            files={"/entry": _ENTRY},
        ) as built,
    ):

        async def lines(**fields: Any) -> list[str]:
            return await _lines(context, ContainerConfig(built.reference, network=_NO_NETWORK, **fields))

        defaults = ["args=first image command", "from=yes given=", "in=/work", "as=app"]
        equal(await lines(), defaults, "what the image's defaults give")
        equal(await lines(command=("my", "own")), ["args=first my own", *defaults[1:]], "with a command")
        given = await lines(entrypoint=("/entry", "mine"), command=("own",))
        equal(given, ["args=mine own", *defaults[1:]], "with an entrypoint and a command")
        # Without a command of its own, a given entrypoint stands alone: the image's command was for the image's entrypoint.
        equal(await lines(entrypoint=("/entry", "alone")), ["args=alone", *defaults[1:]], "with an entrypoint alone")
        equal(await lines(entrypoint=(), command=("echo", "bare")), ["bare"], "without any entrypoint")
        equal(await lines(shell=("/bin/sh", "-c"), command=("echo", "$FROM_IMAGE")), ["yes"], "with the shell form")  # noqa: S604 - as above
        given = await lines(env={"GIVEN": "too", "FROM_IMAGE": "no"})
        equal(given, [defaults[0], "from=no given=too", *defaults[2:]], "with variables")
        equal(await lines(workdir="/tmp"), [*defaults[:2], "in=/tmp", defaults[3]], "with a working directory")  # noqa: S108 - the image's
        equal(await lines(user="root"), [*defaults[:3], "as=root"], "with a user")
