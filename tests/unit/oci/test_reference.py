"""Image references: the grammar, its normalisation, and what a refusal says."""

from __future__ import annotations

import pickle

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.core.errors import InvalidConfigError
from asyncctr.oci.reference import Digest, Reference, parse_digest

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"
LONG_DIGEST = f"sha512:{HEX * 2}"


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("alpine", "docker.io/library/alpine", "alpine"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
        ("library/alpine", "docker.io/library/alpine", "alpine"),
        ("docker.io/alpine", "docker.io/library/alpine", "alpine"),
        ("docker.io/library/alpine:x", "docker.io/library/alpine:x", "alpine:x"),
        ("index.docker.io/alpine", "docker.io/library/alpine", "alpine"),
        ("index.docker.io/me/tool", "docker.io/me/tool", "me/tool"),
        ("me/tool", "docker.io/me/tool", "me/tool"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/x", "localhost:5000/x", "localhost:5000/x"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("localhost", "docker.io/library/localhost", "localhost"),
        ("example.com", "docker.io/library/example.com", "example.com"),
        ("example.com/x", "example.com/x", "example.com/x"),
        ("example:80/x/y:t", "example:80/x/y:t", "example:80/x/y:t"),
        ("10.0.0.1/x", "10.0.0.1/x", "10.0.0.1/x"),
        ("[::1]/x", "[::1]/x", "[::1]/x"),
        ("[2001:db8::1]:5000/x:t", "[2001:db8::1]:5000/x:t", "[2001:db8::1]:5000/x:t"),
        ("Example/x", "Example/x", "Example/x"),
        (f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}", f"x@{DIGEST}"),
        (f"x:t@{DIGEST}", f"docker.io/library/x:t@{DIGEST}", f"x:t@{DIGEST}"),
        (f"r.io/x@{LONG_DIGEST}", f"r.io/x@{LONG_DIGEST}", f"r.io/x@{LONG_DIGEST}"),
        ("a.b_c__d---e/f1", "docker.io/a.b_c__d---e/f1", None),
        ("x:_T.a-9", "docker.io/library/x:_T.a-9", "x:_T.a-9"),
        (HEX[:-1], f"docker.io/library/{HEX[:-1]}", HEX[:-1]),
        (f"{HEX}:t", f"docker.io/library/{HEX}:t", f"{HEX}:t"),
        ("x/" + "a" * 253, "docker.io/x/" + "a" * 253, "x/" + "a" * 253),
        ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, "x:" + "t" * 128),
    ],
)
def test_parse(text: str, canonical: str, familiar: str | None) -> None:
    if familiar is None:  # the first part of it would be read as a registry, and is none
        with pytest.raises(InvalidConfigError):
            Reference.parse(text)
        return
    reference = Reference.parse(text)
    assert str(reference) == canonical
    assert reference.familiar == familiar
    assert Reference.parse(canonical) == reference


def test_parts() -> None:
    reference = Reference.parse(f"[::1]:5000/a/b:t@{DIGEST}")
    assert reference == Reference(registry="[::1]:5000", repository="a/b", tag="t", digest=DIGEST)
    assert reference.name == "[::1]:5000/a/b"
    assert pickle.loads(pickle.dumps(reference)) == reference
    assert len({reference, Reference.parse(str(reference))}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        reference.tag = "u"  # type: ignore[misc]


def test_default_tag() -> None:
    assert Reference.parse("alpine").tag is None
    assert str(Reference.parse("alpine").with_default_tag()) == "docker.io/library/alpine:latest"
    assert Reference.parse("alpine:3").with_default_tag().tag == "3"
    assert Reference.parse(f"alpine@{DIGEST}").with_default_tag().tag is None


@pytest.mark.parametrize(
    "canonical",
    [
        "docker.io/localhost/x",
        "docker.io/example.com/x",
        f"docker.io/library/{HEX}",
        f"docker.io/library/sha256:{HEX}",
        "docker.io/library/docker.io/x",
    ],
)
def test_familiar_is_full_where_the_short_form_names_another_image(canonical: str) -> None:
    reference = Reference.parse(canonical)
    assert Reference.parse(reference.familiar) == reference


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must not be empty"),
        (" ", "white space"),
        ("alpine\n", "white space"),
        ("al\0pine", "NUL"),
        ("al\udc80pine", "valid Unicode"),
        ("a" * (1 << 20), "bytes long"),
        ("Alpine", "lower-case"),
        ("r.io/Alpine", "lower-case"),
        ("https://r.io/x", "scheme"),
        (HEX, "image id"),
        (DIGEST, "image id"),
        ("x:", "no tag"),
        ("x@", "no digest"),
        (":t", "no repository"),
        (f"@{DIGEST}", "no repository"),
        ("r.io/", "no repository"),
        ("docker.io/", "no repository"),
        ("/x", "empty part"),
        ("x/", "empty part"),
        ("r.io/x//y", "empty part"),
        ("x..y", "'x..y'"),
        ("x___y", "'x___y'"),
        ("-x", "'-x'"),
        ("x-", "'x-'"),
        ("../x", "registry '..'"),
        ("a_b.c/x", "registry 'a_b.c'"),
        ("r.io:p/x", "registry 'r.io:p'"),
        ("[::1/x", "registry '[::1'"),
        ("::1/x", "registry '::1'"),
        ("[fe80::1%eth0]/x", "registry"),
        ("x:-t", "tag '-t'"),
        ("x:t:u", "tag 't:u'"),
        ("x:é", "tag 'é'"),
        ("x:" + "t" * 129, "129 characters"),
        ("é", "'é'"),
        ("x/" + "a" * 254, "256 characters"),
        ("a" * 248, "256 characters"),
        (f"x@sha256:{HEX[:-1]}", "64 hexadecimal digits, not 63"),
        (f"x@sha256:{HEX.upper()}", "lower-case"),
        (f"x@sha512:{HEX}", "128 hexadecimal digits"),
        (f"x@md5:{HEX[:32]}", "'md5' is not supported"),
        ("x@latest", "no ':'"),
        (f"x@{DIGEST}@{DIGEST}", "only a digest follows"),
    ],
)
def test_refusal(text: str, reason: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Reference.parse(text)
    assert caught.value.field == "image"
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [None, 5, b"alpine", ["alpine"]])
def test_only_text(value: object) -> None:
    with pytest.raises(InvalidConfigError, match="must be a str"):
        Reference.parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "https://me:canary9@r.io/x",
        "me:canary9@r.io/x",
        "me:canary9!@r.io",
        "me:canary9!@r.io:5000",
        "me:c/anary9@r.io/x",
        "me:a@canary9@r.io/x",
        "me:a@canary9@r.io",
        "me:a@canary9/@r.io",
    ],
)
def test_credentials_in_a_name_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Reference.parse(text)
    assert "anary9" not in str(caught.value)


@pytest.mark.parametrize(
    "parts",
    [
        {"registry": "example", "repository": "x"},
        {"registry": "", "repository": "x"},
        {"registry": "docker.io", "repository": "alpine"},
        {"registry": "index.docker.io", "repository": "alpine"},
        {"registry": "r.io", "repository": ""},
        {"registry": "r.io", "repository": "x:t"},
        {"registry": "r.io", "repository": "x", "tag": ""},
        {"registry": "r.io", "repository": "x", "tag": "t\n"},
        {"registry": "r.io", "repository": "x", "digest": HEX},
        {"registry": "r.io", "repository": "x", "tag": 5},
        {"registry": 5, "repository": "x"},
    ],
)
def test_parts_that_would_not_read_back(parts: dict[str, str]) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Reference(**parts)
    assert caught.value.field == "image"


def test_digest() -> None:
    assert parse_digest(DIGEST) == Digest(algorithm="sha256", hex=HEX)
    assert str(parse_digest(LONG_DIGEST)) == LONG_DIGEST
    with pytest.raises(InvalidConfigError) as caught:
        parse_digest("sha256:../../etc/passwd", field="layers")
    assert caught.value.field == "layers"
    with pytest.raises(InvalidConfigError):
        parse_digest(f"{DIGEST}\n")
    with pytest.raises(InvalidConfigError):
        Digest(algorithm="sha256", hex="")


_label = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
_host = st.one_of(
    st.just("localhost"),
    st.lists(_label, min_size=2, max_size=3).map(".".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address.exploded}]"),
)
_registry = st.builds(lambda host, port: host + port, _host, st.from_regex(r"(:[0-9]{1,5})?", fullmatch=True))
_component = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
_repository = st.lists(_component, min_size=2, max_size=5).map("/".join)
_digest = st.one_of(
    st.from_regex(r"sha256:[a-f0-9]{64}", fullmatch=True), st.from_regex(r"sha512:[a-f0-9]{128}", fullmatch=True)
)
_reference = st.builds(
    Reference,
    registry=st.one_of(st.just("docker.io"), _registry),
    repository=_repository,
    tag=st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True),
    digest=st.none() | _digest,
)


@given(_reference)
def test_what_is_written_reads_back(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference


@given(
    st.one_of(
        st.text(),
        st.text(st.characters()),  # lone surrogates included
        st.text(alphabet="aA0._-:/@[]#% \n"),
        st.lists(st.sampled_from(["docker.io", "x", "/", ":", "@", "sha256:", HEX, "[::1]", "A", "."])).map("".join),
    )
)
def test_garbage_is_read_or_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidConfigError as error:
        assert error.field == "image"
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference
    assert len(reference.repository) <= 255


@given(st.text())
def test_garbage_is_a_digest_or_refused(text: str) -> None:
    for candidate in (text, f"sha256:{text}"):
        try:
            assert str(parse_digest(candidate)) == candidate
        except InvalidConfigError as error:
            assert error.field == "digest"
