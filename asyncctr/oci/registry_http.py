"""HTTP as registries speak it: one session, redirects, proxies, what failed and whether to try again."""

from __future__ import annotations

import ipaddress
import ssl
import urllib.request
import weakref
from typing import TYPE_CHECKING

import aiohttp
import anyio
from yarl import URL

from asyncctr.core.errors import AsyncctrError, ClosedError, ImagePullError
from asyncctr.oci.registry_failures import AttemptError, refused, reported, retry_after, unreachable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["RegistryHttp", "is_loopback", "parse_address", "problem", "read_body"]

_READ = 256 << 10
# Signed addresses of object stores, with a session's token in them, have some thousands of characters.
_MAX_HEADER = 16 << 10
_MAX_ERROR = 64 << 10
_MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_PROBE_SECONDS = 5.0


class RegistryHttp:
    """Requests to registries, to what they redirect to, and to their token services.

    What fails is an ``AttemptError``, and ``ClosedError`` after ``aclose``.

    Args:
        timeout: seconds of silence, while connecting, waiting for an answer or between two reads.
        plain_http: registries, as references name them, that are spoken to without TLS.
        tls: what to trust; by default what Python does, so also ``SSL_CERT_FILE``.
    """

    def __init__(self, *, timeout: float, plain_http: Collection[str], tls: ssl.SSLContext | None) -> None:
        self.timeout = timeout
        self._plain_http = frozenset(plain_http)
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._responses: weakref.WeakSet[aiohttp.ClientResponse] = weakref.WeakSet()
        self._schemes: dict[str, str] = {}
        self._probing = anyio.Lock()

    async def aclose(self) -> None:
        """Close all connections; what is still being read ends with ``ClosedError``."""
        self._closed = True
        # The session would close their connections, and leave those who wait for a read to wait.
        for response in tuple(self._responses):
            response.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @staticmethod
    def _ended() -> ClosedError:
        return ClosedError("the registry client is closed")

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise self._ended()
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # How many at once is for the caller to say: a stream that waits for another's end might wait for ever.
                connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.timeout, sock_read=self.timeout),
                # Blobs have digests of the bytes as they are stored: nothing on the way may pack or unpack them.
                headers={"User-Agent": "asyncctr", "Accept-Encoding": "identity"},
                auto_decompress=False,
                read_bufsize=_READ,
                max_line_size=_MAX_HEADER,
                max_field_size=_MAX_HEADER,
            )
        return self._session

    async def base(self, registry: str, *, resource: str) -> URL:
        """The address of a registry. One on this machine is asked by TLS and, where it does not know that, without."""
        scheme = "http" if registry in self._plain_http else self._schemes.get(registry)
        if scheme is None:
            scheme = "https"
            url = parse_address(f"https://{registry}")
            if url is not None and is_loopback(url):
                async with self._probing:
                    scheme = self._schemes.get(registry) or await self._probe(registry, resource)
        url = parse_address(f"{scheme}://{registry}")
        if url is None:
            raise refused(resource, "the registry is no host that can be asked, or its port is none")
        return url

    async def _probe(self, registry: str, resource: str) -> str:
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=min(self.timeout, _PROBE_SECONDS), sock_read=self.timeout
        )
        try:
            async with self._open().head(f"https://{registry}/v2/", timeout=timeout, allow_redirects=False):
                scheme = "https"
        except aiohttp.ClientConnectorCertificateError:
            # It does speak TLS; the request itself will tell what is wrong with it.
            scheme = "https"
        except aiohttp.ClientConnectorSSLError:
            scheme = "http"
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)):
                # Perhaps because of the TLS, perhaps not: nothing to be remembered.
                return "http"
            raise unreachable(error, registry, self.timeout, resource) from error
        except aiohttp.ConnectionTimeoutError:
            return "http"
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(error, registry, self.timeout, resource) from error
        self._schemes[registry] = scheme
        return scheme

    async def request(
        self,
        method: str,
        url: URL,
        *,
        resource: str,
        headers: Mapping[str, str],
        authorization: str | None = None,
        form: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """One request, its redirects followed; the open response, whatever its status.

        The credentials go to the scheme, host and port of ``url``, and nowhere once another one had its say.
        """
        origin = url.origin()
        for _ in range(_MAX_REDIRECTS):
            sent = dict(headers)
            if url.origin() != origin:
                authorization = None
            if authorization is not None:
                sent["Authorization"] = authorization
            response = await self._send(method, url, resource, sent, form)
            if response.status not in _REDIRECTS:
                return response
            location = response.headers.get("Location", "")
            response.release()
            if form is not None:
                raise refused(resource, f"{url.host} redirects a request with credentials, which is not followed")
            url = _target(url, location, resource)
        raise refused(resource, f"{origin.host} redirects more than {_MAX_REDIRECTS} times")

    async def _send(
        self, method: str, url: URL, resource: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> aiohttp.ClientResponse:
        try:
            response = await self._open().request(
                method, url, headers=headers, data=form, allow_redirects=False, proxy=_proxy(url, resource)
            )
        except aiohttp.ClientHttpProxyError as error:
            # No cause, as below.
            raise refused(resource, f"the proxy for {url.host} answers {error.status}: {error.message}") from None
        except aiohttp.ClientResponseError as error:
            # No cause: its repr shows the request's headers, and so the credentials.
            raise refused(resource, f"{url.host} answers what is no HTTP: {error.message}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._lost(error, str(url.host), resource) from error
        except UnicodeError as error:
            # From the resolver, of a name whose parts are too long for one.
            raise refused(resource, f"there can be no host {url.host}") from error
        self._responses.add(response)
        return response

    def _lost(self, error: aiohttp.ClientError | OSError, host: str, resource: str) -> AttemptError | ClosedError:
        return self._ended() if self._closed else unreachable(error, host, self.timeout, resource)

    async def read(self, response: aiohttp.ClientResponse, *, resource: str) -> bytes:
        """What has come of a response's body, at least one byte; nothing at its end."""
        try:
            return await response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise self._lost(error, str(response.url.host), resource) from error


async def read_body(http: RegistryHttp, response: aiohttp.ClientResponse, limit: int, *, resource: str) -> bytes:
    """A response's whole body, of at most ``limit`` bytes. The response is closed."""
    async with response:
        parts: list[bytes] = []
        size = 0
        while data := await http.read(response, resource=resource):
            size += len(data)
            if size > limit:
                raise refused(resource, f"{response.url.host} sends more than {limit} bytes of JSON")
            parts.append(data)
    return b"".join(parts)


async def problem(
    http: RegistryHttp,
    response: aiohttp.ClientResponse,
    *,
    resource: str,
    kind: type[AsyncctrError] = ImagePullError,
    hint: str = "",
) -> AttemptError:
    """What a response with an error's status means, with the registry's own code and message. The response is closed."""
    status = response.status
    try:
        body = await read_body(http, response, _MAX_ERROR, resource=resource)
    except AttemptError:
        # The status tells enough.
        body = b""
    text = reported(status, body)
    after = retry_after(response.headers.get("Retry-After", ""))
    host = response.url.host
    wait = f"; it asks to wait {after:.0f} s" if after else ""
    message = f"{resource}: {host} answers {status}: {text}{wait}{hint}"
    return AttemptError(kind(message, resource=resource, status=status), again=status in _AGAIN, after=after)


def parse_address(text: str, *, base: URL | None = None) -> URL | None:
    """An ``http`` or ``https`` address without credentials in it, perhaps relative to another; ``None`` for all else."""
    if not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        # Not quoted again: a signature is of the text as it is. So it is in the request's first line, too.
        url = URL(text, encoded=True)
        url = url if base is None else base.join(url)
        # Parts are decoded when they are asked for, and that may fail as well.
        valid = url.scheme in ("http", "https") and bool(url.host) and url.port is not None and url.user is None
    except ValueError:
        return None
    return url if valid else None


def is_loopback(url: URL) -> bool:
    """Whether a URL's host is this machine by its name: ``localhost``, 127.0.0.0/8 or ``::1``."""
    host = url.host or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _proxy(url: URL, resource: str) -> URL | None:
    """The proxy that the environment (``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY``) has for a URL; none for this machine."""
    if is_loopback(url) or urllib.request.proxy_bypass(f"{url.host}:{url.port}"):
        return None
    proxies = urllib.request.getproxies()
    text = proxies.get(url.scheme) or proxies.get("all")
    if not text:
        return None
    proxy: URL | None = None
    try:
        proxy = URL(text if "://" in text else f"http://{text}")
        valid = proxy.scheme in ("http", "https") and bool(proxy.host)
    except ValueError:
        valid = False
    if proxy is None or not valid:
        # Not shown: it may hold a password.
        raise refused(resource, f"the proxy that the environment has for {url.scheme} is no http or https address")
    return proxy


def _target(url: URL, location: str, resource: str) -> URL:
    target = parse_address(location, base=url) if location else None
    if target is None:
        raise refused(resource, f"{url.host} redirects to what is no address")
    if url.scheme == "https" and target.scheme == "http":
        raise refused(
            resource, f"{url.host} redirects from https to plain http at {target.host}, which is not followed"
        )
    return target
