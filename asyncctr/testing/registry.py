"""A private image registry on a loopback port: open, or with htpasswd or token authentication."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
import time
from typing import TYPE_CHECKING, Literal

import aiohttp.web

from asyncctr.testing.base import Daemon
from asyncctr.testing.certificates import make_signing_key
from asyncctr.testing.process import DaemonError, http_ok
from asyncctr.testing.programs import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Registry", "TokenServer"]

_LISTENING = re.compile(r"listening on (?:127\.0\.0\.1|\[::1\]):(\d+)")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """A token server as the distribution project specifies it ("Token Authentication Specification"), on a loopback port.

    It gives RS256 tokens whose ``kid`` is the key's libtrust fingerprint, which the registry looks up among the certificates of
    its ``rootcertbundle``. Every user may do everything; without credentials, nobody gets a token unless ``anonymous_pull``.

    Attributes:
        lifetime: seconds that tokens are valid; may be changed at any time.
        anonymous_pull: whether tokens to pull are given without credentials.
        issued: the scopes of the tokens given, in order; each as it was asked for.
        refused: how many requests were answered with 401.
    """

    service = "asyncctr test registry"
    issuer = "asyncctr test tokens"

    def __init__(self, users: Mapping[str, str], *, lifetime: int = 300, anonymous_pull: bool = False) -> None:
        self._users = dict(users)
        self.lifetime = lifetime
        self.anonymous_pull = anonymous_pull
        self.issued: list[str] = []
        self.refused = 0
        self._key: Path | None = None
        self._fingerprint = ""
        self._runner: aiohttp.web.AppRunner | None = None
        self.url = ""

    async def start(self, directory: Path) -> Path:
        """Make the key in ``directory`` and listen; the path of the certificate to verify tokens with."""
        self._key, cert = await make_signing_key(directory)
        public = await run("openssl", "pkey", "-in", self._key, "-pubout", "-outform", "DER")
        # libtrust: the SHA-256 of the public key's DER, cut to 240 bits, base32 in groups of four.
        encoded = base64.b32encode(hashlib.sha256(public.stdout).digest()[:30]).decode()
        self._fingerprint = ":".join(encoded[start : start + 4] for start in range(0, len(encoded), 4))
        application = aiohttp.web.Application()
        application.router.add_get("/token", self._get)
        application.router.add_post("/token", self._post)
        runner = self._runner = aiohttp.web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
        return cert

    async def aclose(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def token(self, subject: str, scopes: list[str]) -> str:
        """A token for ``scopes``, each ``type:name:actions``; an empty list is for the API's root alone."""
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": subject,
            "aud": self.service,
            "exp": now + self.lifetime,
            "nbf": now - 5,
            "iat": now,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        header = {"typ": "JWT", "alg": "RS256", "kid": self._fingerprint}
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        if self._key is None:
            raise DaemonError("the token server was not started")
        signature = await run("openssl", "dgst", "-sha256", "-sign", self._key, stdin=signed.encode())
        return f"{signed}.{_base64url(signature.stdout)}"

    async def _get(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        user: str | None = None
        header = request.headers.get("Authorization", "")
        if header.lower().startswith("basic "):
            try:
                user, _, password = base64.b64decode(header[6:], validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return self._refuse()
            if not self._known(user, password):
                return self._refuse()
        # Both forms are in use: the parameter repeated, and scopes separated by spaces.
        return await self._give(user, " ".join(request.query.getall("scope", [])).split())

    async def _post(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        form = await request.post()
        user = str(form.get("username", ""))
        if form.get("grant_type") != "password" or not self._known(user, str(form.get("password", ""))):
            return self._refuse()
        return await self._give(user, str(form.get("scope", "")).split())

    def _known(self, user: str, password: str) -> bool:
        return user in self._users and secrets.compare_digest(self._users[user].encode(), password.encode())

    def _refuse(self) -> aiohttp.web.Response:
        self.refused += 1
        body = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
        return aiohttp.web.json_response(body, status=401)

    async def _give(self, user: str | None, scopes: list[str]) -> aiohttp.web.Response:
        if user is None:
            if not self.anonymous_pull:
                return self._refuse()
            scopes = [
                f"{scope.rpartition(':')[0]}:pull" for scope in scopes if "pull" in scope.rpartition(":")[2].split(",")
            ]
        token = await self.token(user or "", scopes)
        self.issued.extend(scopes)
        body = {"token": token, "access_token": token, "expires_in": self.lifetime}
        return aiohttp.web.json_response(body)


class Registry(Daemon):
    """A private docker-registry (distribution 2.8) on a loopback port, which Docker daemons use without TLS. Needs no root.

    Args:
        auth: ``"none"``; ``"htpasswd"``: Basic authentication with bcrypt hashes; ``"token"``: by :attr:`tokens`.
        users: names and passwords; by default one user, whose password is made up: :attr:`credentials`.
        start_timeout: seconds until it must answer.
        stop_timeout: seconds from SIGTERM to SIGKILL.

    Attributes:
        users: names and passwords.
        tokens: with ``auth="token"``, the token server, on the event loop that entered.
    """

    kind = "registry"

    def __init__(
        self,
        *,
        auth: Literal["none", "htpasswd", "token"] = "none",
        users: Mapping[str, str] | None = None,
        start_timeout: float = 60.0,
        stop_timeout: float = 10.0,
    ) -> None:
        super().__init__(start_timeout=start_timeout, stop_timeout=stop_timeout)
        self.auth = auth
        self.users = dict(users) if users is not None else {"tester": secrets.token_urlsafe(12)}
        self.tokens: TokenServer | None = None
        self._port = 0
        self._log_start = 0
        self._bundle: Path | None = None

    @property
    def port(self) -> int:
        """Its port; the same after a restart."""
        return self._port

    @property
    def host(self) -> str:
        """``127.0.0.1:port``, as image references have it."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """``http://`` and :attr:`host`."""
        return f"http://{self.host}"

    @property
    def credentials(self) -> tuple[str, str] | None:
        """The first user's name and password; ``None`` where none are wanted."""
        return next(iter(self.users.items())) if self.auth != "none" else None

    def reference(self, repository: str, tag: str = "latest") -> str:
        """The image reference of a repository in this registry."""
        return f"{self.host}/{repository}:{tag}"

    def blob_path(self, digest: str) -> Path:
        """Where the registry keeps a blob's content, for tests that corrupt it."""
        algorithm, _, value = digest.partition(":")
        return self.dir / "data/docker/registry/v2/blobs" / algorithm / value[:2] / value / "data"

    async def _prepare(self) -> None:
        if self.auth == "htpasswd":
            lines: list[bytes] = []
            for user, password in self.users.items():
                # By its input, for arguments are everybody's to read.
                lines.append((await run("htpasswd", "-niB", user, stdin=f"{password}\n".encode())).stdout.strip())
            file = self.dir / "htpasswd"
            file.touch(mode=0o600)
            file.write_bytes(b"\n".join(lines) + b"\n")
        elif self.auth == "token":
            self.tokens = TokenServer(self.users)
            self._bundle = await self.tokens.start(self.dir)

    def _settings(self) -> dict[str, object]:
        settings: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.dir / "data")},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            # Port 0: the kernel picks one, and nobody can take it in between.
            "http": {"addr": f"127.0.0.1:{self._port}", "secret": secrets.token_hex(16)},
        }
        if self.auth == "htpasswd":
            settings["auth"] = {"htpasswd": {"realm": "asyncctr test registry", "path": str(self.dir / "htpasswd")}}
        elif self.tokens is not None:
            settings["auth"] = {
                "token": {
                    "realm": self.tokens.url,
                    "service": self.tokens.service,
                    "issuer": self.tokens.issuer,
                    "rootcertbundle": str(self._bundle),
                }
            }
        return settings

    def _command(self) -> list[str]:
        file = self.dir / "config.yml"
        file.touch(mode=0o600)
        # JSON is YAML.
        file.write_text(json.dumps(self._settings(), indent=1))
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        return ["docker-registry", "serve", str(file)]

    async def _ping(self) -> bool:
        if not self._port:
            match = _LISTENING.search(self.log.read_bytes()[self._log_start :].decode(errors="replace"))
            if match is None:
                return False
            self._port = int(match[1])
        # With authentication the API's root answers 401; the rest is open.
        return await http_ok("127.0.0.1", self._port, "/")

    async def _stop_others(self) -> None:
        if self.tokens is not None:
            await self.tokens.aclose()
