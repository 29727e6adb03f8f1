"""What is read of ``WWW-Authenticate``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.oci.challenge import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ('BASIC Realm = "a \\"b\\" c" , bearer realm=x', [("basic", {"realm": 'a "b" c'}), ("bearer", {"realm": "x"})]),
        ("Negotiate", [("negotiate", {})]),
        ('Negotiate YWJj==, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Negotiate, NTLM, Basic realm=""', [("negotiate", {}), ("ntlm", {}), ("basic", {"realm": ""})]),
        ('Bearer realm="one",realm="two"', [("bearer", {"realm": "one"})]),
        (' ,, Bearer ,, realm="x" ,', [("bearer", {"realm": "x"})]),
        ('Bearer realm="never ends', [("bearer", {})]),
        ('Bearer realm="x"service="y"', [("bearer", {})]),
        ("=", []),
        ("", []),
    ],
)
def test_headers(header: str, challenges: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges([header]) == tuple(Challenge(*challenge) for challenge in challenges)


def test_several_headers_and_a_long_one() -> None:
    assert [c.scheme for c in parse_challenges(["Basic realm=a", "Bearer realm=b"])] == ["basic", "bearer"]
    assert len(parse_challenges(["a " * 1_000_000])) < 20_000


_tokens = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,9}", fullmatch=True)


@given(
    st.lists(st.tuples(_tokens, st.dictionaries(_tokens.map(str.lower), st.text(max_size=20), max_size=3)), max_size=4)
)
def test_what_is_written_is_read(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} {', '.join(f'{name}={quoted(text)}' for name, text in parameters.items())}"
        for scheme, parameters in challenges
    )
    assert parse_challenges([header]) == tuple(
        Challenge(scheme.lower(), parameters) for scheme, parameters in challenges
    )


@given(st.text(alphabet='aB=",\\ \t-~\x00é', max_size=60))
def test_nonsense_is_read_as_far_as_it_goes(header: str) -> None:
    parse_challenges([header])
