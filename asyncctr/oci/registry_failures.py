"""What fails at a registry: the errors of the tree that it means, and whether another attempt may do better."""

from __future__ import annotations

import email.utils
import json
import random
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

import aiohttp
import anyio

from asyncctr.core.errors import ImagePullError

if TYPE_CHECKING:
    from asyncctr.core.errors import AsyncctrError

__all__ = ["AttemptError", "Patience", "refused", "reported", "retry_after", "unreachable"]

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_SHOWN = 500


class AttemptError(Exception):
    """One attempt failed.

    Attributes:
        error: what to raise when there is to be no other.
        again: whether another attempt may do better.
        after: seconds that the registry asks to wait before it.
    """

    def __init__(self, error: AsyncctrError, *, again: bool = False, after: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.again = again
        self.after = after

    def finish(self) -> NoReturn:
        """Raise the error, from what caused it."""
        raise self.error from self.__cause__


class Patience:
    """How often one call tries again, and how long it waits in between."""

    def __init__(self, attempts: int, longest: float) -> None:
        self._attempts = attempts
        self._longest = longest
        self._failed = 0
        self._waited = 0.0

    def progress(self) -> None:
        """Something came: begin to count anew."""
        self._failed = 0
        self._waited = 0.0

    async def pause(self, failure: AttemptError) -> None:
        """Wait before the next attempt. Raises the failure's error instead when there is to be none."""
        self._failed += 1
        if not failure.again or self._failed >= self._attempts:
            failure.finish()
        delay = failure.after
        if delay is None:
            delay = min(_FIRST_PAUSE * 2 ** (self._failed - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._waited += delay
        if self._waited > self._longest:
            failure.finish()
        await anyio.sleep(delay)


def refused(resource: str, message: str) -> AttemptError:
    """The failure that another attempt would not mend."""
    return AttemptError(ImagePullError(f"{resource}: {message}", resource=resource))


def unreachable(error: aiohttp.ClientError | OSError, host: str, timeout: float, resource: str) -> AttemptError:
    """The failure that an exception of the connection is."""
    again = False
    if isinstance(error, TimeoutError):
        text = f"{host} was silent for {timeout:g} s"
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
        text = f"the certificate of {host} is not trusted: {reason}; SSL_CERT_FILE names a file of authorities to trust"
    elif isinstance(error, aiohttp.ClientSSLError):
        text = f"{host} does not speak TLS as it should: {_reason(error.os_error)}; is it a registry without TLS?"
    elif isinstance(error, aiohttp.ClientConnectorError):
        again = True
        text = f"{error.host} cannot be reached: {_reason(error.os_error)}"
    elif isinstance(error, aiohttp.InvalidURL):
        text = f"{host} is no address that can be asked"
    else:
        again = True
        text = f"{host} cut the connection: {type(error).__name__}"
    return AttemptError(ImagePullError(f"{resource}: {text}", resource=resource), again=again)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def reported(status: int, body: bytes) -> str:
    """What an answer with an error's status says, in its own words where it has some."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "no status that is known"
    return _told(body) or phrase


def _told(body: bytes) -> str:
    """The code and message of an error's body, as the distribution specification ("Error Codes") or OAuth 2.0 has them.

    Nothing of what is no such JSON: pages of proxies may show the request, and so the credentials.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    errors = document.get("errors")
    first: Any = errors[0] if isinstance(errors, list) and errors else document
    if not isinstance(first, dict):
        return ""
    keys = ("code", "message") if first is not document else ("error", "error_description", "details", "message")
    words = [value for key in keys if isinstance(value := first.get(key), str) and value]
    text = ": ".join(dict.fromkeys(words))[:_SHOWN]
    return "".join(character if character.isprintable() else " " for character in text)


def retry_after(value: str) -> float | None:
    """Seconds, from seconds or a date (RFC 9110, section 10.2.3)."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    try:
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
