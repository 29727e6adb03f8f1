"""Token services of every kind, and how long what they give is used."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from asyncctr.core.errors import ImageNotFoundError, ImagePullError, RegistryAuthError
from asyncctr.core.images import RegistryAuth
from asyncctr.oci.distribution import Distribution
from asyncctr.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

CANARY = "canary-7f3d1c"
USER = RegistryAuth(username="me", password=CANARY)
BASIC = f"Basic {base64.b64encode(f'me:{CANARY}'.encode()).decode()}"
IDENTITY = RegistryAuth(identity_token=CANARY)


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)


class Service:
    """A token service beside a registry that wants its last token.

    Attributes:
        answer: what it gives in place of a token.
        asked: each request: method, ``Authorization``, and its query or form.
        challenge: what the registry asks with.
    """

    def __init__(self, registry: Any, service: Any) -> None:
        registry.image(tag="1")
        registry.first, service.first = self.guard, self.give
        self.challenge = f'Basic realm="x", Bearer realm="{service.url}/token?a=b",service="the service"'
        self.answer: Callable[[], web.Response] | dict[str, Any] | None = None
        self.asked: list[tuple[str, str | None, dict[str, str]]] = []
        self.token = ""
        self.shown: list[str | None] = []

    async def guard(self, request: web.Request) -> web.StreamResponse | None:
        authorization = request.headers.get("Authorization")
        self.shown.append(authorization)
        if self.token and authorization == f"Bearer {self.token}":
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": self.challenge})

    async def give(self, request: web.Request) -> web.StreamResponse:
        sent = {name: str(text) for name, text in (await request.post() or request.query).items()}
        self.asked.append((request.method, request.headers.get("Authorization"), sent))
        if callable(self.answer):
            return self.answer()
        self.token = f"token-{len(self.asked)}"
        if self.answer is None:
            return web.json_response({"token": self.token})
        return web.json_response({key: self.token if value == "…" else value for key, value in self.answer.items()})


@pytest.fixture
async def service(fake: Any, other: Any) -> Service:
    return Service(fake, other)


@pytest.fixture
async def reference(fake: Any) -> Reference:
    found: Reference = fake.reference()
    return found


@pytest.fixture
async def clients(fake: Any) -> AsyncIterator[Any]:
    opened: list[Distribution] = []

    def make(auth: RegistryAuth | None = None, **options: Any) -> Distribution:
        opened.append(Distribution(auth=auth, plain_http=[fake.host], timeout=5, attempts=2, **options))
        return opened[-1]

    yield make
    for client in opened:
        await client.aclose()


@pytest.mark.parametrize(("auth", "header"), [(USER, BASIC), (None, None)])
async def test_by_get(
    service: Service, reference: Reference, clients: Any, auth: RegistryAuth | None, header: str | None
) -> None:
    await clients(auth).image(reference)
    assert service.asked == [
        ("GET", header, {"a": "b", "service": "the service", "scope": "repository:app:pull"}),
    ]
    # Without a challenge at first, and from then on with the token.
    assert service.shown == [None, "Bearer token-1", "Bearer token-1"]


@pytest.mark.parametrize("answer", [{"access_token": "…"}, {"token": "…", "expires_in": 3600}, {"token": "…", "x": []}])
async def test_an_identity_token_by_post(
    service: Service, reference: Reference, clients: Any, answer: dict[str, Any]
) -> None:
    service.answer = answer
    await clients(IDENTITY).image(reference)
    form = {
        "grant_type": "refresh_token",
        "refresh_token": CANARY,
        "client_id": "asyncctr",
        "service": "the service",
        "scope": "repository:app:pull",
    }
    assert service.asked == [("POST", None, form)]


async def test_a_registry_token_is_sent_as_it_is(service: Service, reference: Reference, clients: Any) -> None:
    service.token = "its own"
    await clients(RegistryAuth(registry_token="its own")).image(reference)
    assert service.asked == []
    assert set(service.shown) == {"Bearer its own"}
    with pytest.raises(RegistryAuthError, match="no header may have"):
        await clients(RegistryAuth(registry_token="a\nb")).image(reference)


@pytest.mark.parametrize(
    ("expires", "count"), [(55, 2), (300, 1), (None, 1), (-1, 1), ("soon", 1), (1e400, 1), (True, 2)]
)
async def test_tokens_are_kept_as_long_as_they_live(
    service: Service,
    reference: Reference,
    clients: Any,
    monkeypatch: pytest.MonkeyPatch,
    expires: Any,
    count: int,
) -> None:
    now = 1_000.0
    monkeypatch.setattr("asyncctr.oci.registry_auth.time", SimpleNamespace(monotonic=lambda: now))
    service.answer = {"token": "…", "expires_in": expires} if expires is not None else {"token": "…"}
    client = clients(USER)
    await client.image(reference)
    await client.resolve(reference)
    assert len(service.asked) == 1
    now += 50
    await client.image(reference)
    assert len(service.asked) == count
    assert service.shown.count(None) == 1


async def test_a_token_that_is_refused_is_replaced_once(service: Service, reference: Reference, clients: Any) -> None:
    client = clients(USER)
    await client.image(reference)
    service.token = "revoked"
    await client.image(reference)
    assert len(service.asked) == 2
    service.answer = {"token": "never-right"}
    service.token = "revoked"
    with pytest.raises(
        RegistryAuthError, match="answers 401: Unauthorized; it refused the credentials of the user 'me'"
    ):
        await client.image(reference)
    assert len(service.asked) == 3


@pytest.mark.parametrize("auth", [USER, IDENTITY, None])
@pytest.mark.parametrize("status", [400, 401, 403])
async def test_credentials_that_the_service_refuses(
    service: Service, reference: Reference, clients: Any, auth: RegistryAuth | None, status: int
) -> None:
    service.answer = lambda: web.json_response(
        {"error": "invalid_grant", "error_description": "not you"}, status=status
    )
    with pytest.raises(RegistryAuthError, match=f"answers {status}: invalid_grant: not you; ") as caught:
        await clients(auth).image(reference)
    assert (caught.value.status, caught.value.resource) == (status, str(reference))
    assert CANARY not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert ("docker login" in caught.value.message) == (auth is None)


@pytest.mark.parametrize(
    "answer",
    [
        web.json_response({}),
        web.json_response([]),
        web.json_response({"token": ""}),
        web.json_response({"token": 7}),
        web.json_response({"token": "a\r\nX-Injected: b"}),
        web.json_response({"token": "é"}),
        web.json_response({"token": "x" * 40_000}),
        web.Response(body=b"[" * 100_000),
        web.Response(body=b'{"token": "' + CANARY.encode()),
    ],
)
async def test_services_that_give_no_token(
    service: Service, reference: Reference, clients: Any, answer: web.Response
) -> None:
    service.answer = lambda: answer
    with pytest.raises(RegistryAuthError, match=r"a token service at 127\.0\.0\.1 that gives no token") as caught:
        await clients(USER).image(reference)
    assert CANARY not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_a_service_in_trouble_is_asked_again(service: Service, reference: Reference, clients: Any) -> None:
    service.answer = lambda: web.json_response({"errors": [{"code": "UNKNOWN", "message": "later"}]}, status=500)
    with pytest.raises(ImagePullError, match="answers 500: UNKNOWN: later") as caught:
        await clients(USER).image(reference)
    assert type(caught.value) is ImagePullError
    assert len(service.asked) == 2
    service.answer = lambda: web.Response(body=b" " * (2 << 20))
    with pytest.raises(ImagePullError, match="sends more than"):
        await clients(USER).image(reference)


@pytest.mark.parametrize(
    ("challenge", "message"),
    [
        ("", "wants authentication by nothing"),
        ("Negotiate abc", "wants authentication by negotiate; Basic and Bearer are known"),
        ("Bearer", "names a token service that is no address"),
        ('Bearer realm="file:///etc/passwd"', "no address"),
        ('Bearer realm="http://user:pass@127.0.0.1/"', "no address"),
        ('Bearer realm="http://[::1/"', "no address"),
        ('Bearer realm="/token"', "no address"),
    ],
)
async def test_challenges_that_cannot_be_met(
    service: Service, reference: Reference, clients: Any, challenge: str, message: str
) -> None:
    service.challenge = challenge
    with pytest.raises(RegistryAuthError, match=message):
        await clients(USER).image(reference)
    assert service.asked == []


async def test_basic(fake: Any, service: Service, reference: Reference, clients: Any) -> None:
    service.challenge = 'Basic realm="x"'
    for auth, message in ((None, "wants credentials; log in with 'docker login"), (IDENTITY, "wants credentials")):
        with pytest.raises(RegistryAuthError, match=message):
            await clients(auth).image(reference)
    client = clients(USER)
    with pytest.raises(RegistryAuthError, match=r"answers 401: .*refused the credentials of the user 'me'"):
        await client.image(reference)
    service.shown.clear()
    with pytest.raises(RegistryAuthError, match="refused the credentials of the user 'me'"):
        await client.image(reference)
    assert service.shown == [BASIC]

    async def knows(request: web.Request) -> web.StreamResponse | None:
        if request.headers.get("Authorization") == BASIC:
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": service.challenge})

    fake.first = knows
    assert (await clients(USER).image(reference)).manifest


async def test_a_token_service_may_move_but_takes_no_form_along(
    service: Service, fake: Any, other: Any, reference: Reference, clients: Any
) -> None:
    guard = service.guard

    async def moved(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/old":
            return web.Response(status=307, headers={"Location": f"{other.url}/token"})
        return await guard(request)

    fake.first = moved
    service.challenge = f'Bearer realm="{fake.url}/old"'
    await clients(USER).image(reference)
    assert [entry[:2] for entry in service.asked] == [("GET", None)]
    with pytest.raises(ImagePullError, match="redirects a request with credentials"):
        await clients(IDENTITY).image(reference)


async def test_docker_hub_gives_tokens_for_what_does_not_exist(
    service: Service, fake: Any, clients: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncctr.oci.registry_endpoints._HUB_HOST", fake.host)
    service.answer = {"token": "of-no-use"}
    with pytest.raises(ImageNotFoundError, match=r"docker\.io/library/none:1: .*no such repository, or only for"):
        await clients().image(Reference.parse("none:1"))
    service.answer = lambda: web.json_response({"details": "incorrect username or password"}, status=401)
    with pytest.raises(RegistryAuthError, match="incorrect username or password"):
        await clients(USER).image(Reference.parse("none:1"))
