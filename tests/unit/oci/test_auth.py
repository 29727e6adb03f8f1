"""Registry credentials: configuration files, credential helpers, headers; and no secret in what is shown."""

# ruff: noqa: ASYNC110 - other processes set no event; either outcome of garbage is right

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncctr.core.errors import InvalidConfigError, RegistryAuthError
from asyncctr.core.images import Progress, PullPolicy, RegistryAuth
from asyncctr.oci.auth import (
    DOCKER_HUB_SERVER,
    _load,
    all_credentials,
    docker_config_header,
    docker_header,
    find_credentials,
    server_address,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

CANARY = "canary-7f3d1c"

# A real credential helper: its behaviour for each server is in answers.json, and what it was asked in calls.
HELPER = f"""#!{sys.executable}
import json, os, sys, time
here = os.path.dirname(os.path.abspath(__file__))
verb, server = sys.argv[1], sys.stdin.read()
with open(os.path.join(here, "calls"), "a") as calls:
    calls.write(json.dumps([os.path.basename(__file__), verb, server, os.getpid()]) + "\\n")
with open(os.path.join(here, "answers.json")) as file:
    answers = json.load(file)
answer = answers.get(verb if verb == "list" else server, {{}})
if "child" in answer:
    child = os.fork()
    if child == 0:
        time.sleep(answer["child"])
        os._exit(0)
    with open(os.path.join(here, "children"), "w") as children:
        children.write(str(child))
time.sleep(answer.get("sleep", 0))
print(answer.get("err", ""), file=sys.stderr)
default, code = ("{{}}", 0) if verb == "list" else ("credentials not found in native keychain", 1)
print(answer.get("out", default))
sys.exit(answer.get("code", 0 if "out" in answer else code))
"""


def pair(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


def decoded(header: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(header))


class Setup:
    """A home directory with a Docker configuration, and a directory of helpers that is all of PATH."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.config = self.home / ".docker" / "config.json"
        self.config.parent.mkdir(parents=True)
        self.bin = root / "bin"
        self.bin.mkdir()

    def write(self, document: object, path: Path | None = None) -> Path:
        path = path or self.config
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    def helper(self, name: str, answers: dict[str, dict[str, object]] | None = None) -> None:
        path = self.bin / f"docker-credential-{name}"
        path.write_text(HELPER)
        path.chmod(0o755)
        (self.bin / "answers.json").write_text(json.dumps(answers or {}))

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        return [(name, verb, server) for name, verb, server, _ in self._records]

    @property
    def pids(self) -> list[int]:
        return [pid for *_, pid in self._records]

    @property
    def _records(self) -> list[list[Any]]:
        path = self.bin / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def found(username: str, secret: str) -> dict[str, object]:
    return {"out": json.dumps({"ServerURL": "", "Username": username, "Secret": secret})}


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    setup = Setup(tmp_path)
    monkeypatch.setenv("HOME", str(setup.home))
    monkeypatch.setenv("PATH", str(setup.bin))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    return setup


async def test_nothing_configured(setup: Setup) -> None:
    assert await find_credentials("r.io") is None
    assert await all_credentials() == {}


@pytest.mark.parametrize("text", ["", " \n", "{}", '{"auths": null, "credHelpers": null, "credsStore": null}'])
async def test_empty_files(setup: Setup, text: str) -> None:
    setup.write(text)
    assert await find_credentials("r.io") is None
    assert await all_credentials() == {}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": pair("me", "pass:word")}, {"username": "me", "password": "pass:word"}),
        ({"auth": pair("me", "p") + "\n"}, {"username": "me", "password": "p"}),
        ({"auth": pair("me", "p\0\0")}, {"username": "me", "password": "p"}),
        ({"auth": pair("me", "")}, {"username": "me", "password": ""}),
        ({"auth": pair("mé", "pä")}, {"username": "mé", "password": "pä"}),
        ({"auth": pair("me", "p"), "username": "other", "password": "q"}, {"username": "me", "password": "p"}),
        ({"username": "me", "password": "p", "email": "x"}, {"username": "me", "password": "p"}),
        ({"identitytoken": "t"}, {"identity_token": "t"}),
        (
            {"auth": pair("0000", ""), "identitytoken": "t"},
            {"username": "0000", "identity_token": "t"},
        ),
        ({"registrytoken": "t"}, {"registry_token": "t"}),
    ],
)
async def test_entries(setup: Setup, entry: dict[str, str], expected: dict[str, str]) -> None:
    setup.write({"auths": {"r.io": entry}})
    assert await find_credentials("r.io") == RegistryAuth(server="r.io", **expected)
    assert await find_credentials("r.io.evil") is None
    assert await find_credentials("io") is None


@pytest.mark.parametrize("entry", [{}, None, {"email": "x"}, {"auth": ""}])
async def test_entries_without_credentials(setup: Setup, entry: object) -> None:
    setup.write({"auths": {"r.io": entry}})
    assert await find_credentials("r.io") is None
    assert await all_credentials() == {}


@pytest.mark.parametrize(
    ("registry", "key"),
    [
        ("docker.io", "https://index.docker.io/v1/"),
        ("index.docker.io", "https://index.docker.io/v1/"),
        ("registry-1.docker.io", "https://index.docker.io/v1/"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "index.docker.io/v1/"),
        ("r.io", "https://r.io"),
        ("r.io", "http://r.io/v1/"),
        ("r.io", "r.io/v2/"),
        ("https://r.io/v2/", "r.io"),
        ("R.io", "r.io"),
        ("localhost:5000", "http://localhost:5000"),
        ("[::1]:5000", "https://[::1]:5000/v2/"),
    ],
)
async def test_hosts_match_with_and_without_scheme_and_path(setup: Setup, registry: str, key: str) -> None:
    setup.write({"auths": {key: {"auth": pair("me", "p")}}})
    auth = await find_credentials(registry)
    assert auth == RegistryAuth(username="me", password="p", server=server_address(registry))
    assert set(await all_credentials()) == {server_address(registry)}


async def test_ports_are_part_of_the_host(setup: Setup) -> None:
    setup.write({"auths": {"r.io:5000": {"auth": pair("me", "p")}}})
    assert await find_credentials("r.io") is None
    assert await find_credentials("r.io:5001") is None


async def test_the_closest_key_wins(setup: Setup) -> None:
    entries = {key: {"auth": pair(key.replace(":", ""), "p")} for key in ("r.io/team", "https://r.io/v1/", "r.io")}
    for expected in ("r.io", "https//r.io/v1/", "r.io/team"):
        setup.write({"auths": entries})
        auth = await find_credentials("r.io")
        assert auth is not None
        assert auth.username == expected
        entries.popitem()


async def test_where_files_are_looked_for(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(name: str) -> dict[str, object]:
        return {"auths": {"r.io": {"auth": pair(name, "p")}, name: {"auth": pair(name, "p")}}}

    async def user(registry: str = "r.io", path: Path | None = None) -> str | None:
        auth = await find_credentials(registry, config_path=path)
        return None if auth is None else auth.username

    setup.write(entry("home"))
    assert await user() == "home"
    setup.write(entry("docker"), tmp_path / "elsewhere" / "config.json")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "elsewhere"))
    assert await user() == "docker"
    assert await user("home") is None
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    assert await user() == "docker"
    setup.write(entry("podman"), tmp_path / "auth.json")
    assert await user() == "podman"
    assert await user("docker") == "docker"
    assert {server: auth.username for server, auth in (await all_credentials()).items()} == {
        "r.io": "podman",
        "podman": "podman",
        "docker": "docker",
    }
    assert await user(path=setup.config) == "home"
    assert await user("podman", setup.config) is None
    monkeypatch.delenv("REGISTRY_AUTH_FILE")
    monkeypatch.setenv("DOCKER_CONFIG", os.devnull)
    assert await user() is None


async def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(RegistryAuthError, match=r"absent\.json; correct config_path"):
        await find_credentials("r.io", config_path=tmp_path / "absent.json")
    with pytest.raises(RegistryAuthError, match="cannot be read"):
        await find_credentials("r.io", config_path=tmp_path)


@pytest.mark.parametrize("registry", ["", " ", "r.io\nother", "https:///x", "\0", "\udc80"])
async def test_registries_that_are_no_host(setup: Setup, registry: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        await find_credentials(registry)
    assert caught.value.field == "registry"


async def test_helper_of_the_store(setup: Setup) -> None:
    setup.helper("store", {DOCKER_HUB_SERVER: found("me", "p"), "r.io": found("<token>", "t")})
    setup.write({"credsStore": "store", "auths": {DOCKER_HUB_SERVER: {}, "file.io": {"auth": pair("f", "p")}}})
    assert await find_credentials("docker.io") == RegistryAuth(username="me", password="p", server=DOCKER_HUB_SERVER)
    assert await find_credentials("r.io") == RegistryAuth(identity_token="t", server="r.io")
    assert await find_credentials("none.io") is None
    assert await find_credentials("file.io") == RegistryAuth(username="f", password="p", server="file.io")
    assert setup.calls == [
        ("docker-credential-store", "get", server) for server in (DOCKER_HUB_SERVER, "r.io", "none.io", "file.io")
    ]


async def test_helper_of_one_registry_goes_before_the_store(setup: Setup) -> None:
    setup.helper("store", {"r.io": found("helped", "p"), "docker.io": found("hub", "p")})
    setup.helper("one", {"r.io": found("helped", "p"), "docker.io": found("hub", "p")})
    setup.write(
        {
            "credsStore": "store",
            "credHelpers": {"r.io": "one", "off.io": "", "docker.io": "one"},
            "auths": {"off.io": {"auth": pair("file", "p")}},
        }
    )
    auth = await find_credentials("r.io")
    assert auth is not None
    assert auth.username == "helped"
    assert setup.calls == [("docker-credential-one", "get", "r.io")]
    auth = await find_credentials("off.io")
    assert auth is not None
    assert auth.username == "file"
    assert len(setup.calls) == 1
    auth = await find_credentials("docker.io")
    assert auth == RegistryAuth(username="hub", password="p", server=DOCKER_HUB_SERVER)
    assert [server for *_, server in setup.calls[1:]] == [DOCKER_HUB_SERVER, "docker.io"]


async def test_all_credentials(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    listed = {DOCKER_HUB_SERVER: "me", "https://old.io/v1/": "me", f"{DOCKER_HUB_SERVER}access-token": "me"}
    setup.helper(
        "store",
        {
            "list": {"out": json.dumps(listed)},
            DOCKER_HUB_SERVER: found("hub", "p"),
            "https://old.io/v1/": found("old", "p"),
            f"{DOCKER_HUB_SERVER}access-token": found("wrong", "p"),
            "bad.io": {"out": CANARY, "code": 1, "err": CANARY},
        },
    )
    setup.write(
        {
            "credsStore": "store",
            "credHelpers": {"bad.io": "store", "gone.io": "absent"},
            "auths": {"file.io": {"auth": pair("file", "p")}},
        }
    )
    with caplog.at_level(logging.DEBUG):
        auths = await all_credentials()
    assert {server: auth.username for server, auth in auths.items()} == {
        DOCKER_HUB_SERVER: "hub",
        "old.io": "old",
        "file.io": "file",
    }
    warnings = sorted(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert [text.partition(":")[0] for text in warnings] == ["no credentials for bad.io", "no credentials for gone.io"]
    assert CANARY not in caplog.text


async def test_docker_desktops_own_tokens_are_no_credentials(setup: Setup) -> None:
    token = f"{DOCKER_HUB_SERVER}access-token"
    setup.helper("store", {"list": {"out": json.dumps({token: "me"})}, token: found("wrong", "p")})
    setup.write({"credsStore": "store"})
    assert await all_credentials() == {}
    assert token not in [server for *_, server in setup.calls]


async def test_all_credentials_without_a_list(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    setup.helper("store", {"list": {"out": "unknown command", "code": 1}, "r.io": found("me", "p")})
    setup.write({"credsStore": "store", "auths": {"r.io": {}}})
    assert set(await all_credentials()) == {"r.io"}
    assert "cannot be listed" in caplog.text
    setup.write({"credsStore": "absent", "auths": {"r.io": {"auth": pair("me", "p")}}})
    assert set(await all_credentials()) == {"r.io"}


BROKEN_FILES = [
    pytest.param("{", "not JSON, from line 1, column 2", id="cut"),
    pytest.param('{"auths": {"r.io": {"auth": "' + CANARY, "not JSON", id="cut-secret"),
    pytest.param('["' + CANARY + '"]', "JSON object", id="array"),
    pytest.param("[" * 100_000, "not JSON", id="deep"),
    pytest.param('{"x": ' + "9" * 5_000 + "}", "not JSON", id="huge-number"),
    pytest.param({"auths": CANARY}, "'auths' must be an object", id="auths"),
    pytest.param({"auths": {"r.io": CANARY}}, "an object for r.io", id="entry"),
    pytest.param({"auths": {"r.io": {"auth": [CANARY]}}}, "'auth' must be a string", id="auth-type"),
    pytest.param({"auths": {"r.io": {"auth": CANARY}}}, "base64", id="auth-base64"),
    pytest.param({"auths": {"r.io": {"auth": "Ω" + CANARY}}}, "base64", id="auth-ascii"),
    pytest.param({"auths": {"r.io": {"auth": base64.b64encode(CANARY.encode()).decode()}}}, "base64", id="no-colon"),
    pytest.param({"auths": {"r.io": {"auth": pair("", CANARY)}}}, "base64", id="no-user"),
    pytest.param(
        {"auths": {"r.io": {"auth": base64.b64encode(b"me:\xff" + CANARY.encode()).decode()}}}, "base64", id="not-utf-8"
    ),
    pytest.param({"auths": {"r.io": {"auth": pair("me", f"x\0{CANARY}")}}}, "NUL", id="nul"),
    pytest.param({"auths": {"r.io": {"identitytoken": f"\udc80{CANARY}"}}}, "valid Unicode", id="surrogate"),
    pytest.param({"auths": {"r.io": {"password": 5, "username": CANARY}}}, "'password' must be", id="password-type"),
    pytest.param({"auths": {"r.io": {}, "\ud800": {}}}, "valid Unicode", id="server-surrogate"),
    pytest.param({"credsStore": [CANARY]}, "'credsStore' must be a string", id="store"),
    pytest.param({"credHelpers": {"r.io": {"x": CANARY}}}, "a string for r.io", id="helper"),
    pytest.param({"credHelpers": [CANARY]}, "'credHelpers' must be an object", id="helpers"),
]


def assert_hides(error: RegistryAuthError) -> None:
    shown = [str(error), repr(error), repr(error.__dict__), *traceback.format_exception(error)]
    chain: BaseException | None = error
    while chain is not None:
        shown.append(repr(chain.args) + repr(vars(chain)))
        chain = chain.__cause__
    text = "".join(shown)
    for secret in (CANARY, base64.b64encode(CANARY.encode()).decode()[:-4], pair("", CANARY)):
        assert secret not in text
    assert CANARY.encode() not in pickle.dumps(error)


@pytest.mark.parametrize(("document", "reason"), BROKEN_FILES)
@pytest.mark.parametrize("call", [lambda: find_credentials("r.io"), all_credentials], ids=["find", "all"])
async def test_broken_files(setup: Setup, call: Callable[[], Any], document: object, reason: str) -> None:
    setup.write(document)
    with pytest.raises(RegistryAuthError) as caught:
        await call()
    assert reason in str(caught.value)
    assert str(setup.config) in str(caught.value)
    assert "in again" in str(caught.value)
    assert_hides(caught.value)


async def test_another_registrys_broken_entry_is_no_hindrance(setup: Setup) -> None:
    setup.write({"auths": {"r.io": {"auth": pair("me", "p")}, "bad.io": {"auth": "?"}}})
    assert await find_credentials("r.io") is not None


BROKEN_HELPERS = [
    pytest.param({"out": CANARY, "err": CANARY, "code": 1}, "failed with exit status 1", id="exit"),
    pytest.param({"out": f'{{"Secret": "{CANARY}", '}, "no JSON object (it is not JSON", id="cut"),
    pytest.param({"out": f'["{CANARY}"]'}, "no JSON object;", id="array"),
    pytest.param({"out": f'{{"Username": "me", "Secret": ["{CANARY}"]}}'}, "not a string", id="type"),
    pytest.param({"out": json.dumps({"Username": "me", "Secret": f"\0{CANARY}"})}, "cannot be sent", id="nul"),
    pytest.param({"out": CANARY * 200_000}, "more than 1048576 bytes", id="endless"),
]


@pytest.mark.parametrize(("answer", "reason"), BROKEN_HELPERS)
async def test_broken_helpers(setup: Setup, answer: dict[str, object], reason: str) -> None:
    setup.helper("bad", {"r.io": answer})
    setup.write({"credsStore": "bad"})
    with pytest.raises(RegistryAuthError) as caught:
        await find_credentials("r.io")
    assert reason in str(caught.value)
    assert "docker-credential-bad" in str(caught.value)
    assert "take it out of 'credsStore'" in str(caught.value)
    assert caught.value.resource == "r.io"
    assert_hides(caught.value)


async def test_missing_helper(setup: Setup) -> None:
    setup.write({"credHelpers": {"r.io": "absent"}})
    with pytest.raises(RegistryAuthError, match=r"'docker-credential-absent'.* is not on PATH.*install it"):
        await find_credentials("r.io")
    setup.helper("absent")
    (setup.bin / "docker-credential-absent").chmod(0o644)
    with pytest.raises(RegistryAuthError, match="make it executable"):
        await find_credentials("r.io")


@pytest.mark.parametrize("name", ["../evil", "/bin/evil", "a b", "a;b", "-x", "\ud800", "a\n"])
async def test_a_helpers_name_is_no_path(setup: Setup, name: str) -> None:
    setup.write({"credsStore": name})
    with pytest.raises(RegistryAuthError, match="has a name with"):
        await find_credentials("r.io")


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # An orphan stays a zombie where nothing adopts it, as in a container without an init.
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


async def test_a_helper_that_does_not_answer_is_ended(setup: Setup) -> None:
    setup.helper("slow", {"r.io": {"sleep": 60}})
    setup.write({"credsStore": "slow"})
    began = time.monotonic()
    with pytest.raises(RegistryAuthError, match=r"did not answer within 1\.5 s"):
        await find_credentials("r.io", timeout=1.5)
    assert time.monotonic() - began < 10
    assert [gone(pid) for pid in setup.pids] == [True]


async def test_what_an_unanswering_helper_started_is_ended_with_it(setup: Setup) -> None:
    setup.helper("slow", {"r.io": {"sleep": 30, "child": 30}})
    setup.write({"credsStore": "slow"})
    with pytest.raises(RegistryAuthError, match="did not answer"):
        await find_credentials("r.io", timeout=1.5)
    child = int((setup.bin / "children").read_text())
    with anyio.fail_after(5):
        while not gone(child):
            await anyio.sleep(0.02)


async def test_a_file_that_blocks_can_be_cancelled(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # Opening the other end lets the reading thread go, and bounds this test where the cancellation does not.
    release = threading.Timer(5, lambda: os.close(os.open(fifo, os.O_WRONLY)))
    release.start()
    began = time.monotonic()
    with anyio.move_on_after(0.3) as scope:
        await find_credentials("r.io", config_path=fifo)
    took = time.monotonic() - began
    release.cancel()
    if scope.cancelled_caught:
        os.close(os.open(fifo, os.O_WRONLY))
    assert scope.cancelled_caught
    assert took < 3


async def test_a_helpers_child_does_not_hold_the_call_up(setup: Setup) -> None:
    setup.helper("fork", {"r.io": {**found("me", "p"), "child": 8}})
    setup.write({"credsStore": "fork"})
    began = time.monotonic()
    with pytest.raises(RegistryAuthError, match=r"did not answer within 1\.5 s"):
        await find_credentials("r.io", timeout=1.5)
    assert time.monotonic() - began < 7


async def test_cancelling_ends_the_helper(setup: Setup) -> None:
    setup.helper("slow", {"r.io": {"sleep": 60}})
    setup.write({"credsStore": "slow"})
    with anyio.move_on_after(30) as bound:
        async with anyio.create_task_group() as group:
            group.start_soon(find_credentials, "r.io")
            while not setup.pids:
                await anyio.sleep(0.02)
            group.cancel_scope.cancel()
    assert not bound.cancelled_caught
    assert [gone(pid) for pid in setup.pids] == [True]


async def test_the_loop_runs_on_while_helpers_do(setup: Setup) -> None:
    setup.helper("slow", {f"r{n}.io": {**found("me", "p"), "sleep": 0.5} for n in range(4)})
    setup.write({"credHelpers": {f"r{n}.io": "slow" for n in range(4)}})
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(0.02)
            ticks += 1

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        assert len(await all_credentials()) == 4
        group.cancel_scope.cancel()
    assert ticks > 10


def test_no_secret_in_a_repr() -> None:
    auth = RegistryAuth(username="me", password=CANARY, identity_token=CANARY, registry_token=CANARY, server="r.io")
    assert repr(auth) == (
        "RegistryAuth(username='me', password=***, identity_token=***, registry_token=***, server='r.io')"
    )
    assert pickle.loads(pickle.dumps(auth)) == auth
    for field in ("password", "identity_token", "registry_token"):
        for value in (f"\0{CANARY}", f"\udc80{CANARY}", [CANARY], CANARY.encode()):
            with pytest.raises(InvalidConfigError) as caught:
                RegistryAuth(**{field: value})  # type: ignore[arg-type]
            assert caught.value.field == field
            assert CANARY not in "".join(traceback.format_exception_only(caught.value))


async def test_no_secret_in_a_repr_of_all(setup: Setup) -> None:
    setup.write({"auths": {"r.io": {"auth": pair("me", CANARY)}}})
    auths = await all_credentials()
    assert CANARY in auths["r.io"].password
    assert CANARY not in repr(auths)
    assert pair("me", CANARY) not in repr(_load(setup.config, required=True))


def test_headers() -> None:
    auth = RegistryAuth(username="me", password="ÿ?>~" * 8, server="r.io")
    header = docker_header(auth)
    assert decoded(header) == {"username": "me", "password": "ÿ?>~" * 8, "serveraddress": "r.io"}
    assert len(header) % 4 == 0
    assert header.isascii()
    assert not set(header) & set("+/\n")
    assert decoded(docker_header(RegistryAuth(identity_token="t"))) == {"identitytoken": "t"}
    assert decoded(docker_header(RegistryAuth(registry_token="t"))) == {"registrytoken": "t"}
    assert decoded(docker_header(RegistryAuth())) == {}
    assert decoded(docker_config_header({"docker.io": auth})) == {
        DOCKER_HUB_SERVER: {"username": "me", "password": "ÿ?>~" * 8, "serveraddress": "r.io"}
    }
    assert decoded(docker_config_header({})) == {}


def test_values() -> None:
    assert [str(policy) for policy in PullPolicy] == ["missing", "always", "never"]
    assert PullPolicy("missing") is PullPolicy.MISSING
    progress = Progress(action="Downloading", id="0123", current=1, total=2)
    assert (progress.message, Progress(action="Done").total) == ("", None)


_secret = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(username=_secret, password=_secret, token=_secret, server=st.sampled_from(["", "r.io", DOCKER_HUB_SERVER]))
def test_headers_carry_any_text(username: str, password: str, token: str, server: str) -> None:
    auth = RegistryAuth(username=username, password=password, identity_token=token, server=server)
    names = {"username": username, "password": password, "identitytoken": token, "serveraddress": server}
    assert decoded(docker_header(auth)) == {name: value for name, value in names.items() if value}


@given(st.text())
def test_server_address_is_stable(text: str) -> None:
    address = server_address(text)
    assert server_address(address) == address


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_entry = st.dictionaries(st.sampled_from(["auth", "username", "password", "identitytoken"]), _json, max_size=3) | _json
_document = st.fixed_dictionaries(
    {},
    optional={
        "auths": st.dictionaries(st.sampled_from(["r.io", "https://r.io/v1/", "x"]), _entry, max_size=3) | _json,
        "credHelpers": st.dictionaries(st.sampled_from(["r.io", "y"]), _json, max_size=2) | _json,
        "credsStore": _json,
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(_document.map(json.dumps), _json.map(json.dumps), st.text(st.characters(exclude_categories=["Cs"]))))
async def test_garbage_is_read_or_refused(setup: Setup, text: str) -> None:
    setup.config.write_text(text, encoding="utf-8")
    try:
        await find_credentials("r.io")
        await all_credentials()
    except RegistryAuthError as error:
        assert str(setup.config) in str(error)
