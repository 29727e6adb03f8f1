"""Authentication at one registry: Basic, and Bearer tokens of its token service, kept until they expire."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from asyncctr.core.errors import RegistryAuthError
from asyncctr.oci.auth import find_credentials
from asyncctr.oci.registry_failures import AttemptError
from asyncctr.oci.registry_http import parse_address, problem, read_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from yarl import URL

    from asyncctr.core.images import RegistryAuth
    from asyncctr.oci.challenge import Challenge
    from asyncctr.oci.registry_http import RegistryHttp

__all__ = ["Authorizer"]

_CLIENT = "asyncctr"
_MAX_ANSWER = 1 << 20
_TOKEN = re.compile(r"[\x21-\x7e]{1,32768}")
_SENDABLE = re.compile(r"[\x20-\x7e]+")
# Token Authentication Specification: what a token without "expires_in" lives, and the least that it may.
_LIFETIME = 60.0
_LONGEST_LIFETIME = 86_400.0
# Of a token's life, so that one does not expire on its way.
_USED = 0.9


@attrs.frozen
class _Token:
    value: str = attrs.field(repr=False)
    expires: float


class Authorizer:
    """What a registry wants to see, and what there is to show it.

    Args:
        http: what asks the token service.
        registry: whose credentials to look for.
        auth: the credentials; ``None`` to look in the user's configuration, once, when the registry wants some.
    """

    def __init__(self, http: RegistryHttp, registry: str, auth: RegistryAuth | None) -> None:
        self._http = http
        self._registry = registry
        self._auth = auth
        self._looked = auth is not None
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, str, str], _Token] = {}
        self._lock = anyio.Lock()

    async def header(self, scope: str, *, encrypted: bool, resource: str) -> str | None:
        """The value of ``Authorization`` for a request; ``None`` as long as the registry has asked for none.

        Args:
            scope: what the request is about, ``"repository:name:pull"``.
            encrypted: whether the registry is spoken to by TLS.
            resource: the image, for messages.

        Raises:
            AttemptError: there is no token to be had.
        """
        if self._auth is not None and self._auth.registry_token:
            if not _SENDABLE.fullmatch(self._auth.registry_token):
                raise self._error(
                    resource, "wants a token, and the registry token has characters that no header may have"
                )
            return f"Bearer {self._auth.registry_token}"
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            return self._basic()
        realm, service = (self._challenge.parameters.get(name, "") for name in ("realm", "service"))
        async with self._lock:
            token = self._tokens.get((realm, service, scope))
            if token is None or token.expires <= time.monotonic():
                fresh = await self._fetch(realm, service, scope, encrypted=encrypted, resource=resource)
                now = time.monotonic()
                self._tokens = {key: kept for key, kept in self._tokens.items() if kept.expires > now}
                token = self._tokens[realm, service, scope] = fresh
        return f"Bearer {token.value}"

    async def answer(
        self, challenges: Sequence[Challenge], scope: str, *, refused: str | None, encrypted: bool, resource: str
    ) -> str:
        """The value of ``Authorization`` to answer a 401 with.

        Args:
            challenges: what came with it.
            scope: as for :meth:`header`.
            refused: the value that was sent.
            encrypted: as for :meth:`header`.
            resource: the image, for messages.

        Raises:
            AttemptError: there are no credentials, or they were refused; it holds a ``RegistryAuthError``.
            RegistryAuthError: the user's configuration is broken.
        """
        known = [challenge for challenge in challenges if challenge.scheme in ("bearer", "basic")]
        if not known:
            schemes = ", ".join(challenge.scheme for challenge in challenges) or "nothing"
            raise self._error(resource, f"wants authentication by {schemes[:80]}; Basic and Bearer are known")
        async with self._lock:
            if not self._looked:
                self._auth = await find_credentials(self._registry)
                self._looked = True
            self._tokens = {key: kept for key, kept in self._tokens.items() if f"Bearer {kept.value}" != refused}
        # A token says more than a password, where the registry takes both.
        self._challenge = max(known, key=lambda challenge: challenge.scheme == "bearer")
        value = await self.header(scope, encrypted=encrypted, resource=resource)
        if value is None:
            raise self._error(resource, f"wants credentials; {self._advice}")
        if value == refused:
            raise self._error(resource, f"refused the credentials{self._user}", status=401)
        return value

    @property
    def _user(self) -> str:
        return f" of the user {self._auth.username!r}" if self._auth is not None and self._auth.username else ""

    @property
    def _advice(self) -> str:
        return f"log in with 'docker login {self._registry}', or give some in 'auth'"

    @property
    def hint(self) -> str:
        """For the message of a refusal."""
        given = self._auth is not None
        return f"; it refused the credentials{self._user}" if given else f"; without credentials: {self._advice}"

    def _error(self, resource: str, message: str, *, status: int | None = None) -> AttemptError:
        return AttemptError(
            RegistryAuthError(f"{resource}: {self._registry} {message}", resource=resource, status=status)
        )

    def _basic(self) -> str | None:
        auth = self._auth
        if auth is None or not auth.username:
            return None
        return f"Basic {base64.b64encode(f'{auth.username}:{auth.password}'.encode()).decode('ascii')}"

    async def _fetch(self, realm: str, service: str, scope: str, *, encrypted: bool, resource: str) -> _Token:
        """A new token: by GET, or by OAuth 2.0 for an identity token ("Token Authentication", distribution project)."""
        url = self._service(realm, resource)
        if encrypted and url.scheme != "https":
            raise self._error(resource, f"has its tokens given out at {url.host} by plain http, which is not followed")
        parameters = {"service": service, "scope": scope} if service else {"scope": scope}
        accept = {"Accept": "application/json"}
        if self._auth is not None and self._auth.identity_token:
            form = parameters | {
                "grant_type": "refresh_token",
                "refresh_token": self._auth.identity_token,
                "client_id": _CLIENT,
            }
            response = await self._http.request("POST", url, resource=resource, headers=accept, form=form)
        else:
            response = await self._http.request(
                "GET", url.update_query(parameters), resource=resource, headers=accept, authorization=self._basic()
            )
        # OAuth 2.0 has 400 for a refresh token that is not valid (RFC 6749, section 5.2).
        if response.status in (400, 401, 403):
            raise await problem(self._http, response, resource=resource, kind=RegistryAuthError, hint=self.hint)
        if response.status != 200:
            raise await problem(self._http, response, resource=resource)
        began = time.monotonic()
        token = _parse(await read_body(self._http, response, _MAX_ANSWER, resource=resource), began)
        if token is None:
            raise self._error(resource, f"has a token service at {url.host} that gives no token")
        return token

    def _service(self, realm: str, resource: str) -> URL:
        url = parse_address(realm)
        if url is None:
            raise self._error(resource, "names a token service that is no address")
        return url


def _parse(body: bytes, began: float) -> _Token | None:
    # An answer in place of an exception: a decoding error carries the token.
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        return None
    told = document.get("expires_in")
    lifetime = float(min(told, _LONGEST_LIFETIME)) if isinstance(told, (int, float)) and told > 0 else _LIFETIME
    return _Token(value, began + lifetime * _USED)
