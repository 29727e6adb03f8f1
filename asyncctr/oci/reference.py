"""Image references: the names people write, and the canonical names that runtimes and registries want."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from asyncctr.core.errors import InvalidConfigError
from asyncctr.core.validation import check_token, fail

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

__all__ = ["DEFAULT_TAG", "DOCKER_HUB", "Digest", "Reference", "names_to_give", "parse_digest"]

DOCKER_HUB = "docker.io"
"""The registry of a name that has none."""

DEFAULT_TAG = "latest"
"""The tag of a name that has neither tag nor digest."""

_FIELD = "image"
_LEGACY_HUB = "index.docker.io"
_OFFICIAL = "library/"
_REPOSITORY_MAX = 255
_TAG_MAX = 128
_SHOWN = 80

# The grammar is the distribution project's (reference/reference.go, v0.6). Go's \w is ASCII, hence no \w here.
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IMAGE_ID = re.compile(r"(?:sha256:)?[a-f0-9]{64}")
# The registered algorithms of the OCI image specification (descriptor.md) that runtimes verify, with their hex digits.
_DIGEST_LENGTH = {"sha256": 64, "sha512": 128}


@attrs.frozen(kw_only=True)
class Digest:
    """A content digest, ``str()`` of which is ``"algorithm:hex"``.

    Attributes:
        algorithm: ``"sha256"`` or ``"sha512"``.
        hex: the hash in lower-case hexadecimal digits.
    """

    algorithm: str
    hex: str

    def __attrs_post_init__(self) -> None:
        _check_digest("digest", self.algorithm, self.hex)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def parse_digest(text: str, *, field: str = "digest") -> Digest:
    """The digest that ``text`` is (OCI image specification, descriptor.md, "Digests").

    Raises:
        InvalidConfigError: it is none, or of another algorithm; ``field`` is the error's field.
    """
    check_token(field, text)
    algorithm, colon, digits = text.partition(":")
    if not colon:
        raise fail(field, f"the digest {_shown(text)} has no ':'; write 'sha256:' and 64 hexadecimal digits")
    _check_digest(field, algorithm, digits)
    return Digest(algorithm=algorithm, hex=digits)


def _check_digest(field: str, algorithm: str, digits: str) -> None:
    length = _DIGEST_LENGTH.get(algorithm)
    if length is None:
        raise fail(field, f"the digest algorithm {_shown(algorithm)} is not supported; use 'sha256' or 'sha512'")
    if len(digits) != length:
        raise fail(field, f"a {algorithm} digest has {length} hexadecimal digits, not {len(digits)}")
    if not re.fullmatch(r"[a-f0-9]+", digits):
        raise fail(field, f"a {algorithm} digest has only the digits 0-9 and a-f, lower-case, unlike {_shown(digits)}")


def _registry(value: str) -> str:
    return DOCKER_HUB if value == _LEGACY_HUB else value


@attrs.frozen(kw_only=True)
class Reference:
    """An image's canonical name. ``str()`` writes it out in full, and ``parse`` of that gives an equal value.

    Attributes:
        registry: a host name, IPv4 address or bracketed IPv6 address, with an optional port;
            ``"docker.io"`` for Docker Hub.
        repository: the path in the registry, such as ``"library/alpine"``; at most 255 characters.
        tag: ``None`` when the name has none.
        digest: ``"algorithm:hex"``; ``None`` when the name has none. It wins over the tag.

    Raises:
        InvalidConfigError: a part is not of the grammar; the field is ``"image"``.
    """

    registry: str = attrs.field(converter=_registry)
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __attrs_post_init__(self) -> None:
        _check_registry(self.registry)
        _check_repository(self.repository)
        if self.registry == DOCKER_HUB and "/" not in self.repository:
            raise fail(
                _FIELD, f"on Docker Hub {self.repository!r} is in the repository {_OFFICIAL + self.repository!r}"
            )
        if self.tag is not None:
            _check_tag(self.tag)
        if self.digest is not None:
            parse_digest(self.digest, field=_FIELD)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reference that ``text`` names, completed as Docker does: ``alpine`` is ``docker.io/library/alpine``.

        The first part is a registry when it has a ``.``, a ``:`` or an upper-case letter, or is ``localhost``. No tag
        is added; see :meth:`with_default_tag`. An image id is refused: it names no repository.

        Raises:
            InvalidConfigError: the text is no reference; the message says why and the field is ``"image"``.
        """
        check_token(_FIELD, text)
        # These come first and show nothing of the text, because it may hold a password.
        if "://" in text:
            raise fail(_FIELD, "must not have a scheme such as 'https://'; write 'registry/repository:tag'")
        named, at, digest = text.partition("@")
        if "/" in digest or "@" in digest:
            raise fail(_FIELD, "must not hold credentials: only a digest follows an '@'; credentials go in 'auth'")
        if _IMAGE_ID.fullmatch(text):
            raise fail(_FIELD, f"{_shown(text)} is an image id, which no registry knows; write a repository's name")
        if at and not digest:
            raise fail(_FIELD, "has an '@' but no digest after it")
        if at:
            # Before the tag, which the message would show and which in "user:password@host" is a password.
            parse_digest(digest, field=_FIELD)

        registry, slash, path = named.partition("/")
        if not slash or not _is_registry(registry):
            registry, path = DOCKER_HUB, named
        repository, colon, tag = path.partition(":")
        if colon and not tag:
            raise fail(_FIELD, "has a ':' but no tag after it")
        if repository and "/" not in repository and _registry(registry) == DOCKER_HUB:
            repository = _OFFICIAL + repository
        return cls(
            registry=registry,
            repository=repository,
            tag=tag if colon else None,
            digest=digest if at else None,
        )

    @property
    def name(self) -> str:
        """The registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """The short form that Docker shows: without ``docker.io/`` and, for official images, ``library/``.

        Where the short form would be read as another image (``docker.io/example.com/x``), it is the full one.
        """
        if self.registry != DOCKER_HUB:
            return str(self)
        short = self.repository.removeprefix(_OFFICIAL)
        text = (self.repository if "/" in short else short) + self._suffix
        try:
            same = Reference.parse(text) == self
        except InvalidConfigError:
            same = False
        return text if same else str(self)

    def with_default_tag(self) -> Self:
        """The same with the tag ``latest`` where there is neither tag nor digest."""
        if self.tag is None and self.digest is None:
            return attrs.evolve(self, tag=DEFAULT_TAG)
        return self

    def __str__(self) -> str:
        return self.name + self._suffix

    @property
    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return f"{tag}@{self.digest}" if self.digest is not None else tag


def names_to_give(name: str, further: Iterable[str]) -> tuple[Reference, ...]:
    """The names of an image that is built, each once.

    Raises:
        InvalidConfigError: one is malformed, or has a digest.
    """
    found: dict[Reference, None] = {}
    for text in (name, *further):
        reference = Reference.parse(text).with_default_tag()
        if reference.digest is not None:
            raise fail(_FIELD, f"{text!r} has a digest; what is built gets a tag")
        found[reference] = None
    return tuple(found)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _is_registry(first: str) -> bool:
    # An upper-case letter cannot be in a repository, so what has one can only be a host.
    return first == "localhost" or "." in first or ":" in first or first.lower() != first


def _check_registry(value: str) -> None:
    check_token(_FIELD, value)
    if not _REGISTRY.fullmatch(value):
        raise fail(
            _FIELD,
            f"the registry {_shown(value)} is no host name, IPv4 or bracketed IPv6 address with an optional port",
        )
    if not _is_registry(value):
        raise fail(
            _FIELD, f"the registry {_shown(value)} would be read as part of the repository; give it a domain or a port"
        )


def _check_repository(value: str) -> None:
    if not value:
        raise fail(_FIELD, "names no repository")
    check_token(_FIELD, value)
    if len(value) > _REPOSITORY_MAX:
        raise fail(_FIELD, f"the repository has {len(value)} characters; at most {_REPOSITORY_MAX} are allowed")
    if value.lower() != value:
        raise fail(_FIELD, f"the repository {_shown(value)} must be lower-case")
    for component in value.split("/"):
        if not component:
            raise fail(_FIELD, f"the repository {_shown(value)} has an empty part: a '/' at an end, or two in a row")
        if not _COMPONENT.fullmatch(component):
            raise fail(
                _FIELD,
                f"{_shown(component)} in the repository is not letters a-z and digits "
                "with '.', '_', '__' or dashes between them",
            )


def _check_tag(value: str) -> None:
    if not value:
        raise fail(_FIELD, "the tag is empty")
    check_token(_FIELD, value)
    if len(value) > _TAG_MAX:
        raise fail(_FIELD, f"the tag has {len(value)} characters; at most {_TAG_MAX} are allowed")
    if not _TAG.fullmatch(value):
        raise fail(
            _FIELD,
            f"the tag {_shown(value)} is not ASCII letters, digits, '_', '.' and '-', of which the last two not first",
        )
