"""Where a registry's content is to be had, at mirrors and at the registry itself, and authenticated requests for it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

import attrs
from yarl import URL

from asyncctr.core.errors import ImageNotFoundError, ImagePullError, RegistryAuthError
from asyncctr.core.validation import fail
from asyncctr.oci.auth import server_address
from asyncctr.oci.challenge import parse_challenges
from asyncctr.oci.reference import DOCKER_HUB
from asyncctr.oci.registry_auth import Authorizer
from asyncctr.oci.registry_failures import AttemptError, Patience
from asyncctr.oci.registry_http import parse_address, problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import aiohttp

    from asyncctr.core.images import RegistryAuth
    from asyncctr.oci.reference import Reference
    from asyncctr.oci.registry_http import RegistryHttp

__all__ = ["Endpoint", "Endpoints"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_HUB_HOST = "registry-1.docker.io"
# How long a mirror that cannot be reached is left alone.
_REST_SECONDS = 60.0


@attrs.frozen
class Endpoint:
    """A registry, or a mirror of one, whose ``base`` is known beforehand."""

    name: str
    authorizer: Authorizer
    base: URL | None = None

    @property
    def is_mirror(self) -> bool:
        """Whether it only stands in for the registry."""
        return self.base is not None


class Endpoints:
    """The registries that are asked, with their mirrors.

    Args:
        http: what asks them.
        auth: credentials for the registry of the references, or for ``auth.server`` alone.
        mirrors: by registry, the addresses to try first.
        attempts: how often a registry is tried; a mirror is tried once.

    Raises:
        InvalidConfigError: a mirror is no address.
    """

    def __init__(
        self,
        http: RegistryHttp,
        *,
        auth: RegistryAuth | None,
        mirrors: Mapping[str, Sequence[str]],
        attempts: int,
    ) -> None:
        self._http = http
        self._auth = auth
        self._attempts = attempts
        self._mirrors = {registry: tuple(map(_mirror, urls)) for registry, urls in mirrors.items()}
        self._resting: dict[str, float] = {}
        self._authorizers: dict[str, Authorizer] = {}

    def patience(self, endpoint: Endpoint) -> Patience:
        """How often to try one of them again."""
        return Patience(1 if endpoint.is_mirror else self._attempts, self._http.timeout)

    def of(self, reference: Reference) -> list[Endpoint]:
        """Where to ask, in this order: the mirrors that are not resting, and the registry itself."""
        now = time.monotonic()
        found = [
            Endpoint(str(base), self._authorizer(base.authority, None), base)
            for base in self._mirrors.get(reference.registry, ())
            if self._resting.get(str(base), now) <= now
        ]
        auth = self._auth
        if auth is not None and auth.server and server_address(auth.server) != server_address(reference.registry):
            auth = None
        return [*found, Endpoint(reference.registry, self._authorizer(reference.registry, auth))]

    def _authorizer(self, registry: str, auth: RegistryAuth | None) -> Authorizer:
        # A mirror may be a registry of its own, for which credentials were given.
        key = f"{registry} {auth is not None}"
        if key not in self._authorizers:
            self._authorizers[key] = Authorizer(self._http, registry, auth)
        return self._authorizers[key]

    async def first(self, reference: Reference, call: Callable[[Endpoint], Awaitable[T]]) -> T:
        """The result of a call of the first endpoint that has one; of the last one, what it fails with."""
        *mirrors, registry = self.of(reference)
        for mirror in mirrors:
            try:
                return await call(mirror)
            except AttemptError as failure:
                self.give_way(mirror, failure)
        patience = self.patience(registry)
        while True:
            try:
                return await call(registry)
            except AttemptError as failure:
                await patience.pause(failure)

    def give_way(self, mirror: Endpoint, failure: AttemptError) -> None:
        """A mirror has failed, and the next one is asked. It rests, unless it answered after all."""
        if failure.error.status is None:
            self._resting[mirror.name] = time.monotonic() + _REST_SECONDS
        logger.info("the mirror %s gives way: %s", mirror.name, failure, extra={"mirror": mirror.name})

    async def request(
        self,
        method: str,
        endpoint: Endpoint,
        reference: Reference,
        path: str,
        headers: Mapping[str, str],
        *,
        missing: type[ImagePullError | ImageNotFoundError] = ImagePullError,
    ) -> aiohttp.ClientResponse:
        """An authenticated request; the open response with status 200 or 206. Everything else is an ``AttemptError``."""
        resource = str(reference)
        base = endpoint.base
        if base is None:
            host = _HUB_HOST if reference.registry == DOCKER_HUB else reference.registry
            base = await self._http.base(host, resource=resource)
        url = URL(f"{str(base).rstrip('/')}/v2/{reference.repository}/{path}", encoded=True)
        scope = f"repository:{reference.repository}:pull"
        encrypted = url.scheme == "https"
        authorizer = endpoint.authorizer
        authorization = await authorizer.header(scope, encrypted=encrypted, resource=resource)
        answered = False
        while True:
            response = await self._http.request(
                method, url, resource=resource, headers=headers, authorization=authorization
            )
            # What the registry redirects to is not asked for its opinion of the credentials.
            redirected = response.url.origin() != url.origin()
            if response.status != 401 or redirected or answered:
                break
            response.close()
            challenges = parse_challenges(response.headers.getall("WWW-Authenticate", ()))
            authorization = await authorizer.answer(
                challenges, scope, refused=authorization, encrypted=encrypted, resource=resource
            )
            answered = True
        if response.status in (200, 206):
            return response
        kind: type[ImagePullError | ImageNotFoundError] = ImagePullError
        hint = ""
        if response.status == 404 and not redirected:
            kind = missing
        elif response.status in (401, 403) and not redirected:
            kind, hint = RegistryAuthError, authorizer.hint
            if reference.registry == DOCKER_HUB and not endpoint.is_mirror:
                # Docker Hub gives out a token for what does not exist, and then refuses it.
                kind, hint = ImageNotFoundError, "; there is no such repository, or only for those who are logged in"
        raise await problem(self._http, response, resource=resource, kind=kind, hint=hint)


def _mirror(text: str) -> URL:
    url = parse_address(text)
    if url is None or url.query_string:
        # Not shown: it may hold a password.
        raise fail("mirrors", "must be addresses such as 'https://mirror.example:5000', without credentials")
    return url
