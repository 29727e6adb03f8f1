"""Case 28: whatever a name or value contains, it arrives as it is or is refused by its field's name; no shell ever sees it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncctr.core.config import ContainerConfig, TmpfsMount, Ulimit, VolumeMount
from asyncctr.core.errors import AsyncctrError, ContainerNotFoundError, InvalidConfigError, StartError
from asyncctr.core.network import NetworkConfig, NetworkMode, PortMapping
from asyncctr.core.resources import ResourceLimits
from asyncctr.core.status import ContainerId
from asyncctr.testing.conformance.checks import equal, honoured, raises, refusal, scratch, supported, unique
from asyncctr.testing.conformance.suite import case
from asyncctr.testing.conformance.workloads import shell

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncctr.testing.conformance.suite import Context

__all__: list[str] = []

BIG = "x" * (1 << 20)
SURROGATE = b"caf\xe9".decode(errors="surrogateescape")
"""What Python makes of a file name that is not UTF-8."""


def _wrong_texts(*, empty: bool = True, **more: object) -> dict[str, Any]:
    texts: dict[str, Any] = {"NUL": "a\0b", "not UTF-8": SURROGATE, "no str": 5, "bytes": b"a", **more}
    return texts if empty else {"empty": "", **texts}


def _config(field: str, **common: Any) -> Callable[[Any], object]:
    return lambda value: ContainerConfig(**{"image": "image", **common, field: value})


# The field that the error names, what makes a value of it, and values that no runtime could be given.
REFUSED: list[tuple[str, Callable[[Any], object], dict[str, Any]]] = [
    ("image", ContainerConfig, _wrong_texts(empty=False, space="a b", newline="a\n", big=BIG)),
    ("command", _config("command"), {"a bare str": "ls -l", "a mapping": {"a": "b"}, "a number": 5}),
    ("command", lambda value: ContainerConfig("image", command=["echo", value]), _wrong_texts(big=BIG)),
    ("entrypoint", _config("entrypoint"), {"a bare str": "sh", "NUL": ["a\0"], "big": [BIG]}),
    ("shell", _config("shell", command=["true"]), {"a bare str": "sh", "NUL": ["a\0"]}),
    ("shell", _config("shell"), {"no command": ["sh", "-c"]}),
    ("env", lambda value: ContainerConfig("image", env={"NAME": value}), _wrong_texts(big=BIG)),
    ("env", lambda value: ContainerConfig("image", env={value: "x"}), _wrong_texts(empty=False, equals="A=B", big=BIG)),
    ("env", _config("env"), {"a bare str": "A=B", "no equals": ["A"], "empty name": ["=x"], "a number": [5]}),
    (
        "workdir",
        _config("workdir"),
        {"relative": "tmp", "dots": "/a/../etc", "NUL": "/a\0", "not UTF-8": "/" + SURROGATE},
    ),
    ("name", _config("name"), _wrong_texts(big=BIG)),
    ("user", _config("user"), _wrong_texts(big=BIG)),
    ("hostname", _config("hostname"), {"space": "a b", "newline": "a\nb", "NUL": "a\0", "big": "a" * 65}),
    ("labels", lambda value: ContainerConfig("image", labels={"key": value}), _wrong_texts(big=BIG)),
    (
        "labels",
        lambda value: ContainerConfig("image", labels={value: "x"}),
        _wrong_texts(empty=False, ours="dev.asyncctr.owner"),
    ),
    ("platform", _config("platform"), {"one part": "linux", "empty part": "linux/", "space": "linux/am d64"}),
    (
        "stop_signal",
        _config("stop_signal"),
        {"unknown": "SIGNONE", "zero": 0, "big": 65, "bool": True, "a command": "TERM; reboot"},
    ),
    ("seccomp", _config("seccomp"), {"no JSON": "profile.json", "no profile": "[]"}),
    ("volumes", _config("volumes"), {"a bare str": "/a:/b", "a str in it": ["/a:/b"]}),
    ("log_limit", _config("log_limit"), {"small": 1, "none": None, "text": "1g"}),
    (
        "source",
        lambda value: VolumeMount(source=value, destination="/mnt"),
        _wrong_texts(empty=False, relative="tmp", dots="/a/../etc", end_dots="/a/..", tilde="~/x", big="/" + BIG),
    ),
    (
        "source",
        lambda value: VolumeMount(source=value, destination="/mnt", is_volume_name=True),
        _wrong_texts(empty=False, path="/tmp", dots="..", slash="a/b", colon="a:b", option="-a", space="a b", big=BIG),  # noqa: S108  # refused
    ),
    (
        "destination",
        lambda value: VolumeMount(source="/tmp", destination=value),  # noqa: S108  # mounted nowhere
        _wrong_texts(empty=False, relative="tmp", dots="/a/../etc", big="/" + BIG),
    ),
    (
        "destination",
        lambda value: TmpfsMount(destination=value),
        _wrong_texts(empty=False, relative="tmp", dots="/a/../b"),
    ),
    ("name", lambda value: Ulimit(name=value, soft=1, hard=1), _wrong_texts(empty=False, space="no file")),
    (
        "container_port",
        lambda value: PortMapping(container_port=value),
        {"0": 0, "big": 65_536, "text": "80", "bool": True},
    ),
    (
        "host_port",
        lambda value: PortMapping(container_port=1, host_port=value),
        {"big": 65_536, "minus": -1, "text": "80"},
    ),
    ("protocol", lambda value: PortMapping(container_port=1, protocol=value), {"unknown": "icmp", "empty": ""}),
    (
        "host_ip",
        lambda value: PortMapping(container_port=1, host_ip=value),
        {"a name": "localhost", "NUL": "127.0.0.1\0"},
    ),
    ("memory", lambda value: ResourceLimits(memory=value), {"minus": -5, "text": "1g", "bool": True, "float": 1.5}),
    ("pids", lambda value: ResourceLimits(pids=value), {"text": "5", "bool": True}),
]


@case(28, "values that no runtime can be given")
async def refused(context: Context) -> None:  # noqa: ARG001  # they never reach one
    """Each is refused when the value is made, by its field's name, and the message does not repeat it at length."""
    problems: list[str] = []
    for field, make, values in REFUSED:
        for what, value in values.items():
            try:
                made = make(value)
            except InvalidConfigError as error:
                if error.field != field:
                    problems.append(f"{field}, {what}: the error's field is {error.field!r}: {error}")
                if len(str(error)) > 5_000:
                    problems.append(f"{field}, {what}: the error has {len(str(error))} characters")
            except Exception as error:  # noqa: BLE001  # whatever else comes out is the finding
                problems.append(f"{field}, {what}: {error!r:.200}")
            else:
                problems.append(f"{field}, {what}: taken, as {made!r:.200}")
    equal(problems, [], "what was not refused as it should")


class Canary:
    """A file on the host that would be there if a shell of the host had seen the texts."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "canary"
        self.texts = ["", " ", "two  words ", "'", '"', "'\"'", "\\", "\\n\\0", "$HOME", "${IFS}", "*", "~", "!!", "#", "%s%n%d", "a=b=c",
                      "-e", "--help", "\n", "line\nline\n", "\t\r\x0b", "\x01\x1b[31m\x7f", "{{.Names}}", "é", "e\u0301", "🐳🏴", "\u202ertl",
                      "\u2028", "\ufeffbom", "日本語", "x" * 100_000]  # fmt: skip
        for form in (
            "$(touch {})",
            "`touch {}`",
            "; touch {}",
            "| touch {}",
            "&& touch {}",
            "\ntouch {}\n",
            "'; touch {}; '",
            "> {}",
        ):
            self.texts.append(form.format(self.path))

    def check(self) -> None:
        equal(self.path.exists(), False, "whether a shell on the host has run what it was given")


def _names(canary: Canary) -> list[str]:
    """Texts that can be the name of one file."""
    return [text for text in canary.texts if 0 < len(text.encode()) < 200 and "/" not in text] + [
        "..a",
        "a..",
        "a:b,c=d:ro",
        "$(true)",
    ]


@case(28, "arguments and environment as they are")
async def passed_through(context: Context) -> None:
    """What texts there may be reach the process byte for byte."""
    async with scratch() as directory, asyncio.timeout(120):
        canary = Canary(directory)
        texts = canary.texts
        network = NetworkConfig(mode=NetworkMode.NONE)
        config = ContainerConfig(context.image, command=["printf", "%s\\0", *texts], network=network)
        printed = (await context.client.run(config)).stdout.decode().split("\0")
        equal(
            [text for text, wanted in zip(printed, texts, strict=False) if text != wanted],
            [],
            "arguments that have changed",
        )
        equal(len(printed) - 1, len(texts), "the number of arguments")
        # A megabyte in all.
        config = ContainerConfig(
            context.image, command=["sh", "-c", 'echo "$#" "${#9}"', "sh", *["y" * 100_000] * 10], network=network
        )
        equal((await context.client.run(config)).stdout, b"10 100000\n", "ten long arguments")

        env = {f"V{number}": text for number, text in enumerate(texts)}
        env |= {"with.dot": "1", "with-dash": "2", "lower": "3", "ünï🐳": "4", "a b": "5", "EMPTY": "", "$(id)": "6"}
        config = ContainerConfig(context.image, command=["env", "-0"], env=env, network=network)
        lines = (await context.client.run(config)).stdout.decode().split("\0")
        seen = dict(line.split("=", 1) for line in lines if line)
        wrong = {name: seen.get(name, "(missing)")[:100] for name, text in env.items() if seen.get(name) != text}
        equal(wrong, {}, "variables that have changed")
        canary.check()


@case(28, "labels as they are")
async def labels(context: Context) -> None:
    """Labels come back as they were given, and can be asked for."""
    async with scratch() as directory, asyncio.timeout(60):
        canary = Canary(directory)
        given = {f"label {number}": text for number, text in enumerate(canary.texts) if len(text) < 5_000}
        given |= {text: "x" for text in canary.texts if 0 < len(text) < 5_000 and "=" not in text}
        async with context.client.container(shell(context, "true", labels=given)) as container:
            info = await container.inspect()
            wrong = {name: info.labels.get(name) for name, text in given.items() if info.labels.get(name) != text}
            equal(wrong, {}, "labels that have changed")
            for name in ("label 3", "label 5", "é"):
                found = await context.client.list(labels={name: given[name]})
                equal([one.id for one in found], [container.id], f"what is listed by {name}={given[name]!r}")
        try:
            async with context.client.container(shell(context, "true", labels={"a=b": "c=d"})) as container:
                equal((await container.inspect()).labels.get("a=b"), "c=d", "the label whose key has an equals sign")
        except InvalidConfigError as error:
            equal(error.field, "labels", f"the field of {error}")
        canary.check()


@case(28, "mount paths as they are")
async def mounts(context: Context) -> None:
    """Directories with all kinds of names, on both sides and as the working directory: as they are, or refused by name."""
    async with scratch() as directory, asyncio.timeout(240):
        if not supported(context, "volumes"):
            mount = VolumeMount(source=str(directory), destination="/mnt")
            await refusal(context, lambda: context.client.create(shell(context, "true", volumes=[mount])), "volumes")
            return
        canary = Canary(directory)
        mounts = {}
        for name in _names(canary):
            source = directory / "in" / name
            await asyncio.to_thread(_fill, source, name)
            mounts[name] = VolumeMount(source=str(source), destination=f"/mnt/{name}")
        try:
            await _mounted(context, mounts)
        except InvalidConfigError:
            # Refused for one of them: which, and what becomes of the others?
            for name, mount in mounts.items():
                try:
                    await _mounted(context, {name: mount})
                except InvalidConfigError as error:
                    equal(error.field, "volumes", f"the field of {error}")
        for name in ("two  words ", "$(true)", "'\"'", "🐳🏴"):
            config = shell(context, "pwd; cat name", volumes=[mounts[name]], workdir=mounts[name].destination)
            try:
                result = await context.client.run(config)
            except InvalidConfigError as error:
                equal(error.field in ("volumes", "workdir"), True, f"whether {error.field!r} is the field of {error}")
            else:
                equal(
                    result.stdout.decode(),
                    f"{mounts[name].destination}\n{name}",
                    "what is seen from a working directory",
                )
        canary.check()


async def _mounted(context: Context, mounts: dict[str, VolumeMount]) -> None:
    """Each is there under its name, has its content, and what is written to it arrives."""
    script = 'for path in "$@"; do cat "$path/name"; printf "\\0"; echo back > "$path/back"; done'
    config = ContainerConfig(
        context.image,
        command=["sh", "-c", script, "sh", *(mount.destination for mount in mounts.values())],
        volumes=mounts.values(),
        network=NetworkConfig(mode=NetworkMode.NONE),
    )
    result = await context.client.run(config)
    equal(
        result.stdout.decode().split("\0")[:-1], list(mounts), f"what is seen of mounts; complaints: {result.stderr!r}"
    )
    for name, mount in mounts.items():
        path = Path(mount.source) / "back"
        equal(await asyncio.to_thread(path.read_text), "back\n", f"what was written to the mount {name!r}")


def _fill(path: Path, text: str) -> None:
    path.mkdir(parents=True)
    path.chmod(0o777)
    (path / "name").write_bytes(text.encode())


# Never a reference: parsing refuses them before any runtime is asked.
BAD_REFERENCES = {
    "dots": "../x", "dots inside": "a/../b", "leading slash": "/a", "trailing slash": "a/", "upper case": "Repo/X", "two tags": "a:b:c",
    "a URL": "http://host/a", "a short digest": "a@sha256:12", "no digest": "a@", "an option": "-a", "a command": "a;reboot", "a query": "a?b=c",
    "a fragment": "a#b", "escaped": "a%2fb", "emoji": "🐳", "accents": "é/x", "NUL": "a\0b", "space": "a b", "newline": "a\n", "empty": "",
    "big": "a" * 5_000, "not UTF-8": SURROGATE, "a long tag": "a:" + "t" * 129,
}  # fmt: skip


@case(28, "references and ids")
async def references(context: Context) -> None:
    """What is no image reference or container id is refused, whatever is asked of it; none of it reaches another resource."""
    client = context.client
    problems: list[str] = []
    for what, text in BAD_REFERENCES.items():
        for operation in ("exists", "pull", "remove", "digest", "create"):
            try:
                async with asyncio.timeout(20):
                    if operation == "create":
                        await client.create(ContainerConfig(text), pull="never")
                    else:
                        await getattr(client.image(text), operation)()
            except InvalidConfigError as error:
                if not error.field:
                    problems.append(f"{operation} of {what}: no field in {error}")
            except Exception as error:  # noqa: BLE001  # whatever else comes out is the finding
                problems.append(f"{operation} of {what}: {error!r:.200}")
            else:
                problems.append(f"{operation} of {what}: no error")
    equal(problems, [], "references that were not refused as they should")
    for text in (
        "",
        "..",
        "../images",
        "a/b",
        "json",
        "a b",
        "a\nb",
        "a\0b",
        "é",
        "%2e%2e",
        "?all=1",
        "$(reboot)",
        BIG,
        SURROGATE,
        "0" * 63,
    ):
        for operation in ("inspect", "start", "kill", "wait", "remove"):
            with raises(AsyncctrError, f"{operation} of the id {text[:50]!r}") as caught:
                async with asyncio.timeout(20):
                    await getattr(client.backend, operation)(ContainerId(text))
            right = isinstance(caught.error, ContainerNotFoundError | InvalidConfigError)
            equal(right, True, f"whether {caught.error!r:.200} says what is wrong")


@case(28, "names and users that there are not")
async def names(context: Context) -> None:
    """Names that the runtime has rules for, and users that are not in the image: an error, and no container."""
    async with scratch() as directory, asyncio.timeout(120):
        canary = Canary(directory)
        bad = ("../x", "a/b", "a b", "-a", "é", "🐳", "a:b", f"$(touch {canary.path})", "x\n")
        for name in bad:
            config = shell(context, "true", name=name)
            if not supported(context, "name"):
                await refusal(context, lambda config=config: context.client.create(config), "name")  # type: ignore[misc]
                continue
            with raises(InvalidConfigError, f"creating one named {name!r}") as caught:
                await context.client.create(config)
            equal(caught.error.field, "name", f"the field of {caught.error}")
        for user in ("nobody-has-this", "root; id", f"$(touch {canary.path})", "root:nogroup-here", "🐳", "-1"):
            config = shell(context, "id", user=user)
            if not await honoured(context, config, "user"):
                continue
            with raises(AsyncctrError, f"running as {user!r}") as failed:
                await context.client.run(config)
            right = isinstance(failed.error, StartError | InvalidConfigError)
            equal(right, True, f"whether {failed.error!r:.300} says what is wrong with the user {user!r}")
        for hostname in ("plain", "with.dots", unique("h")):
            config = shell(context, "hostname", hostname=hostname)
            if not await honoured(context, config, "hostname"):
                continue
            result = await context.client.run(config)
            equal(result.stdout.decode().strip(), hostname, "the host name")
        canary.check()
