"""Just enough of the registry's push protocol (distribution-spec 1.1) to fill a test registry without a daemon."""

from __future__ import annotations

import base64
import io
import re
import urllib.parse
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Auth", "PushError", "push_blobs"]

Auth = tuple[str, str]
"""A user's name and password."""

_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class PushError(Exception):
    """The registry refused a request. ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return f"{self.args[0]} (HTTP {self.status})"


class _Registry:
    def __init__(self, session: aiohttp.ClientSession, auth: Auth | None) -> None:
        self._session = session
        self._auth = f"Basic {base64.b64encode(':'.join(auth).encode()).decode()}" if auth else None
        self._authorization: str | None = None

    async def request(
        self, method: str, url: str, *, expect: Sequence[int], data: bytes | None = None, media_type: str | None = None
    ) -> aiohttp.ClientResponse:
        """One request, authenticated on the registry's challenge, its body read; the response."""
        challenged = False
        while True:
            headers = {"Content-Type": media_type} if media_type else {}
            if self._authorization:
                headers["Authorization"] = self._authorization
            # A file, because aiohttp warns of large bytes.
            sent = None if data is None else io.BytesIO(data)
            async with self._session.request(method, url, data=sent, headers=headers) as response:
                body = await response.read()
            if response.status in expect:
                return response
            challenge = response.headers.get("WWW-Authenticate", "")
            if response.status != HTTPStatus.UNAUTHORIZED or challenged or not challenge:
                message = f"{method} {url}: {body[:500].decode(errors='replace').strip()}"
                raise PushError(message, response.status)
            challenged = True
            await self._answer(challenge)

    async def _answer(self, challenge: str) -> None:
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            self._authorization = self._auth
            return
        parameters = dict(_PARAMETER.findall(rest))
        realm = parameters.pop("realm")
        headers = {"Authorization": self._auth} if self._auth else {}
        async with self._session.get(realm, params=parameters, headers=headers) as response:
            if response.status != HTTPStatus.OK:
                message = f"GET {realm}: no token"
                raise PushError(message, response.status)
            answer = await response.json()
        self._authorization = f"Bearer {answer.get('token') or answer['access_token']}"


async def push_blobs(
    registry: str,
    repository: str,
    tag: str,
    *,
    blobs: Mapping[str, bytes],
    manifests: Sequence[tuple[str, str, bytes]],
    auth: Auth | None = None,
) -> None:
    """Upload blobs, then manifests by their digests, then the last manifest by ``tag``.

    Args:
        registry: ``host:port``, or a URL without a path.
        repository: the name in the registry.
        tag: what the last manifest is called.
        blobs: contents by digest; those that the registry has are not sent again.
        manifests: digest, media type and content of each.
        auth: user and password.

    Raises:
        PushError: the registry refused something.
        aiohttp.ClientError: it cannot be reached.
    """
    root = registry if "://" in registry else f"http://{registry}"
    base = f"{root}/v2/{repository}"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        client = _Registry(session, auth)
        for digest, data in blobs.items():
            if (await client.request("HEAD", f"{base}/blobs/{digest}", expect=(200, 404))).status == HTTPStatus.OK:
                continue
            opened = await client.request("POST", f"{base}/blobs/uploads/", expect=(202,))
            # The registry's state is in the location's query; only the digest is added.
            location = urllib.parse.urljoin(str(opened.url), opened.headers["Location"])
            location += f"{'&' if '?' in location else '?'}digest={urllib.parse.quote(digest)}"
            await client.request("PUT", location, expect=(201,), data=data, media_type="application/octet-stream")
        for digest, media_type, data in manifests:
            await client.request("PUT", f"{base}/manifests/{digest}", expect=(201,), data=data, media_type=media_type)
        _, media_type, data = manifests[-1]
        await client.request("PUT", f"{base}/manifests/{tag}", expect=(201,), data=data, media_type=media_type)
