"""What the pages state is so: the error tree, the capability tables, the command line's options, the reference's names."""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

import asyncctr
from asyncctr import BackendCapabilities, ContainerdConfig, DockerConfig
from asyncctr.backends.containerd import finding
from asyncctr.backends.containerd.daemon.lease import IDLE_VARIABLE, ensure_private
from asyncctr.backends.nanos import backend, creating
from asyncctr.backends.nanos.artifact import ARTIFACT_TYPE
from asyncctr.backends.nanos.kernels import RELEASES_VARIABLE
from asyncctr.cli import app
from asyncctr.client.selection import AUTO_START_VARIABLE
from asyncctr.core import errors
from asyncctr.testing.daemons import Containerd, Dockerd, Podman, require
from asyncctr.testing.programs import run
from asyncctr.transport.places import DATA_VARIABLE, RUN_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import World

DOCS = Path(__file__).parents[2] / "docs"


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its own heading."""
    _, _, below = f"\n{text_of(page)}".partition(f"\n{heading}\n")
    assert below, f"{page} has no {heading!r}"
    table = re.search(r"(?:^\|.*\|\n)+", below, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def test_the_error_tree_is_the_real_one() -> None:
    drawn: dict[str, str] = {}
    path = ["AsyncctrError"]
    for line in re.findall(r"^[│ ]*[├└]── .*$", text_of("errors.md"), re.MULTILINE):
        depth = line.index("─") // 4 + 1
        name, _, note = line.partition("── ")[2].partition(" ")
        path = [*path[:depth], name]
        bases = [path[-2], *re.findall(r"also an? (\w+)", note)]
        drawn[name] = ", ".join(bases)
    real = {
        kind.__name__: ", ".join(base.__name__.replace("_FieldError", "AsyncctrError") for base in kind.__bases__)
        for name in errors.__all__
        if (kind := getattr(errors, name)) is not errors.AsyncctrError
    }
    assert drawn == real
    assert [name.strip("`") for name, *_ in rows("errors.md", "# Errors")] == list(drawn)


@pytest.mark.anyio
@pytest.mark.parametrize(("kind", "column"), [(Dockerd, 1), (Podman, 2), (Containerd, 3)])
async def test_the_capability_tables_are_what_runtimes_say(
    kind: type[Dockerd | Podman | Containerd], column: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(kind.kind)
    async with kind() as daemon:
        if isinstance(daemon, Containerd):
            monkeypatch.setenv("ASYNCCTR_DATA_DIR", str(daemon.dir / "sdk"))
            config: asyncctr.BackendConfig = ContainerdConfig(socket_path=daemon.socket)
        else:
            config = DockerConfig(host=daemon.host)
        async with asyncctr.connect(config) as client:
            found = client.capabilities
    table = {row[0].strip("`"): row[column] for row in rows("backends.md", "## Capabilities")}
    real = attrs.asdict(found, filter=lambda field, _: field.name != "refused_fields")
    assert list(table) == [field.name for field in attrs.fields(BackendCapabilities) if field.name != "refused_fields"]
    assert {name: cell for name, cell in table.items() if cell != "host"} == {
        name: "yes" if value else "no" for name, value in real.items() if table[name] != "host"
    }
    refused = {row[0].strip("`"): row[column] for row in rows("backends.md", "## Refused fields")}
    assert set(refused.values()) <= {"refused", "host", ""}
    assert {name for name, cell in refused.items() if cell == "refused"} <= found.refused_fields
    assert found.refused_fields <= {name for name, cell in refused.items() if cell}


@pytest.mark.anyio
async def test_the_tables_have_what_nanos_says(nanos: None) -> None:
    async with asyncctr.connect(asyncctr.NanosConfig()) as client:
        found = client.capabilities
    real = attrs.asdict(found, filter=lambda field, _: field.name != "refused_fields")
    table = {row[0].strip("`"): row[4] for row in rows("backends.md", "## Capabilities")}
    assert table == {name: "yes" if value else "no" for name, value in real.items()}
    refused = {row[0].strip("`"): row[4] for row in rows("backends.md", "## Refused fields")}
    # Nothing depends on the host.
    assert {name for name, cell in refused.items() if cell} == found.refused_fields
    assert set(refused.values()) == {"refused", ""}


@pytest.mark.anyio
@pytest.mark.timeout(60)
async def test_nanos(nanos: None, run_page: Callable[..., Awaitable[int]]) -> None:
    assert await run_page(DOCS / "nanos.md", {}) == 2
    async with asyncctr.connect(asyncctr.NanosConfig()) as client:
        assert not await client.list()
        assert not await client.image("greeter:1").exists()


def test_the_numbers_of_nanos_are_the_real_ones() -> None:
    page = " ".join(text_of("nanos.md").split())
    memory, least, networked, cpus = (
        creating._MEMORY,
        creating._LEAST_MEMORY,
        creating._LEAST_NETWORKED,
        creating._MOST_CPUS,
    )
    assert f"{memory >> 20} MiB unless given, {least >> 20} at least, {networked >> 20} with a network" in page
    assert f"Whole ones, 1 to {cpus}; 1 unless given" in page
    assert f"`{ARTIFACT_TYPE}`" in page
    assert f"`${RELEASES_VARIABLE}`" in page
    assert set(re.findall(r"`(SIG[A-Z]+)`", page)) == set(backend._SIGNALS)
    for name in re.findall(r"`NanosConfig\.(\w+)`", page):
        assert name in attrs.fields_dict(asyncctr.NanosConfig), name


def test_the_variables_are_the_real_ones() -> None:
    written = {row[0].strip("`") for row in rows("containerd.md", "## The private one")}
    assert written == {DATA_VARIABLE, RUN_VARIABLE, IDLE_VARIABLE, AUTO_START_VARIABLE}


def test_the_command_line_has_these_options() -> None:
    parser = app._parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    page = text_of("cli.md")
    written = re.findall(r"^## asyncctr (\w+)$", page, re.MULTILINE)
    assert sorted(written) == sorted(commands.choices)
    common = set(re.findall(r"`(-[-\w]+)", page.partition("\n## ")[0]))
    for name, sub in commands.choices.items():
        section = page.partition(f"\n## asyncctr {name}\n")[2].partition("\n## ")[0]
        # Only what stands as an option's own code, not what examples and prose mention.
        told = set(re.findall(r"`(-[-\w]+)", section))
        real = {option for action in sub._actions for option in action.option_strings} - {"-h", "--help"}
        assert real - told <= common, name
        assert told <= real, name


def test_the_reference_has_each_public_name_once() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted((DOCS / "reference").glob("*.md")))
    named = re.findall(r"^::: asyncctr\.(\w+)$", pages, re.MULTILINE)
    assert sorted([*asyncctr.__all__, "testing"]) == sorted(named)


def test_pages_do_not_lead_elsewhere_and_are_all_in_the_menu() -> None:
    menu = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        assert f": {page.relative_to(DOCS)}\n" in menu


@pytest.mark.anyio
@pytest.mark.timeout(120)
async def test_backends(world: World) -> None:
    assert await world.run("backends.md") == 1


@pytest.mark.anyio
@pytest.mark.timeout(60)
async def test_containerd(run_page: Callable[..., Awaitable[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    require("containerd")
    # A short path, for sockets.
    with tempfile.TemporaryDirectory(prefix="asyncctr-docs-", dir="/tmp") as directory:
        for name, value in ((DATA_VARIABLE, "data"), (RUN_VARIABLE, "run")):
            monkeypatch.setenv(name, f"{directory}/{value}")
        async with await ensure_private(ContainerdConfig()) as lease:
            # The system's, where there is one, would be found before it.
            monkeypatch.setattr(finding, "SYSTEM_SOCKET", f"{directory}/none.sock")
            try:
                assert await run_page(DOCS / "containerd.md", {}) == 1
            finally:
                assert await lease.replace()
        # Its supervisor has this lock until it has ended.
        await run("flock", f"{directory}/data/containerd/private/daemon.lock", "true", timeout=20)
