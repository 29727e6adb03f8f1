"""Runs the Python of a documentation page, block by block, in one namespace and on one event loop.

The convention, which renders as nothing special:

* a ``python`` block is run; it may ``await`` at the top level, as in ``python -m asyncio``;
* a ``text`` block after it is what it prints, where ``…`` stands for anything;
* an HTML comment that begins with ``setup`` is run as well, and not shown to readers.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

import asyncctr
from asyncctr.testing.daemons import Dockerd, Registry, require
from asyncctr.testing.guests import build_guests
from asyncctr.testing.images import ImageSpec, push
from asyncctr.transport.places import DATA_VARIABLE, RUN_VARIABLE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

DOCS = Path(__file__).parents[2] / "docs"

_BLOCK = re.compile(r"^(?:```(python|text)\n(.*?)^```$|<!-- (setup)\n(.*?)^-->$)", re.MULTILINE | re.DOTALL)


@attrs.frozen
class Block:
    """A piece of a page's code, the line it begins at, and what it should print."""

    line: int
    source: str
    output: str | None = None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        kind = match[1] or match[3]
        source = match[2] or match[4] or ""
        if kind == "text":
            assert found, f"{page.name}: output before any code"
            assert found[-1].output is None, f"{page.name}: output without code"
            found[-1] = attrs.evolve(found[-1], output=source)
        else:
            found.append(Block(text.count("\n", 0, match.start()) + 2, source))
    # A block that is indented or fenced differently would not be run.
    assert text.count("```python") + text.count("<!-- setup") == len(found)
    return found


def _says(expected: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


async def run_page(page: Path, namespace: dict[str, Any]) -> int:
    """Run a page; how many blocks that were."""
    namespace |= {"__name__": "__docs__"}
    found = blocks(page)
    for block in found:
        # The empty lines in front make tracebacks tell the page's own line.
        source = "\n" * (block.line - 1) + block.source
        code = compile(source, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with contextlib.redirect_stdout(printed):
            result = eval(code, namespace)
            if code.co_flags & inspect.CO_COROUTINE:
                await result
        text = printed.buffer.getvalue().decode()  # type: ignore[attr-defined]
        if block.output is not None:
            assert _says(block.output, text), f"{page.name}:{block.line} printed\n{text}\nand not\n{block.output}"
    return len(found)


@attrs.frozen
class World:
    """What the pages find around them: a private Docker in the environment, whose Docker Hub is a private registry."""

    docker: Dockerd
    registry: Registry

    async def run(self, page: str, **namespace: Any) -> int:
        given: dict[str, Any] = {"os": os, "Path": Path, "sys": sys, **namespace}
        try:
            return await run_page(DOCS / page, given)
        finally:
            # A page that fails half-way leaves its client open.
            if isinstance(client := given.get("client"), asyncctr.Client):
                await client.aclose()


@pytest.fixture(name="run_page")
def page_runner() -> Callable[..., Awaitable[int]]:
    """For a page that needs no world around it."""
    return run_page


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    for name in ("docker", "registry", "image"):
        require(name)
    async with Registry() as hub, Registry(auth="htpasswd", users={"ci": "a secret"}) as registry:
        await push(ImageSpec(padding=1_000_000), hub.host, "library/busybox", "1.36")
        await push(ImageSpec(), registry.host, "team/app", "1.0", registry.credentials)
        async with Dockerd(config={"registry-mirrors": [hub.url]}) as docker:
            monkeypatch.setenv("DOCKER_HOST", docker.host)
            monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-configuration"))
            for name in ("DOCKER_CONTEXT", "ASYNCCTR_BACKEND"):
                monkeypatch.delenv(name, raising=False)
            monkeypatch.setenv("REGISTRY_PASSWORD", "a secret")
            monkeypatch.chdir(tmp_path)
            yield World(docker, registry)


@pytest.fixture
def nanos(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A kernel where OPS has it, and a shell in the current directory: the tests' own guests."""
    require("guests")
    guests = build_guests()
    # A short path, for sockets.
    with tempfile.TemporaryDirectory(prefix="asyncctr-docs-", dir="/tmp") as directory:
        kernels = Path(directory, ".ops", "0.1.54")
        kernels.mkdir(parents=True)
        (kernels / "kernel.img").symlink_to(guests.kernel)
        shutil.copy(guests.shell, Path(directory, "sh"))
        for name, value in (("OPS_HOME", ""), (DATA_VARIABLE, "/data"), (RUN_VARIABLE, "/run")):
            monkeypatch.setenv(name, f"{directory}{value}")
        monkeypatch.chdir(directory)
        yield
        monkeypatch.undo()
