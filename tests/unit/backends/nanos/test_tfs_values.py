from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.backends.nanos.tfs.values import Decoder, Encoder, pop_varint, push_varint
from asyncctr.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from asyncctr.backends.nanos.tfs.values import Value

# Few names, so that they repeat; the rest of them whatever Linux has, bytes that are no UTF-8 included.
NAMES = st.sampled_from(["a", "children", "environment"]) | st.binary(min_size=1, max_size=12).map(
    lambda data: data.replace(b"\0", b"x").decode(errors="surrogateescape")
)
TEXTS = st.binary(max_size=20).map(lambda data: data.decode(errors="surrogateescape"))
INTEGERS = st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1)
VALUES: st.SearchStrategy[Value] = st.recursive(
    TEXTS | INTEGERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
TUPLES = st.dictionaries(NAMES, VALUES, max_size=6)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ({}, "90"),
        ({"a": "b"}, "91 81 61 c1 62"),
        # The second "a" refers to the first, which is number 2 behind the root.
        ({"a": {"a": ""}}, "91 81 61 91 02 c0"),
        # A tuple is numbered before what is in it: root 1, "a" 2, the tuple 3, "b" 4, the vector 5, "c" 6.
        ({"a": {"b": []}, "c": {"c": {}}}, "92 81 61 91 81 62 a0 81 63 91 06 90"),
        ({"n": 0, "m": -300}, "92 81 6e b0 00 81 6d b1 82 2c"),
        ({"a": "x" * 8}, "91 81 61 c8 08" + " 78" * 8),
        ({"a": "x" * 1023}, "91 81 61 cf 7f" + " 78" * 1023),
        ({"a": "x" * 1024}, "91 81 61 c8 88 00" + " 78" * 1024),
    ],
)
def test_what_is_written(value: Value, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert Encoder().encode(value) == data
    assert Decoder().decode(data) == value


@given(TUPLES)
def test_values_come_back(value: dict[str, Value]) -> None:
    encoder, decoder = Encoder(), Decoder()
    assert decoder.decode(encoder.encode(value)) == value
    assert decoder.root == value
    assert encoder.entries == len(decoder.dictionary) - 1
    assert all(decoder.dictionary[number] == name for name, number in encoder.symbols.items())


@given(TUPLES, st.lists(st.dictionaries(NAMES, VALUES | st.none(), max_size=4), max_size=3))
def test_records_change_the_root(value: dict[str, Value], changes: list[dict[str, Value]]) -> None:
    encoder, decoder = Encoder(), Decoder()
    decoder.decode(encoder.encode(value))
    for change in changes:
        decoder.decode(encoder.update(change))
        value = {key: entry for key, entry in (value | change).items() if entry is not None}
    assert decoder.root == value


@given(st.binary(max_size=400))
def test_anything_is_decoded_or_refused(data: bytes) -> None:
    decoder = Decoder()
    try:
        decoder.decode(data)
    except InvalidConfigError as error:
        assert error.field == "image"
    assert len(decoder.dictionary) <= len(data) + 1


@given(TUPLES, st.data())
def test_broken_values_are_decoded_or_refused(value: dict[str, Value], data: st.DataObject) -> None:
    encoded = bytearray(Encoder().encode(value))
    for _ in range(data.draw(st.integers(0, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        Decoder().decode(bytes(encoded))
    except InvalidConfigError as error:
        assert error.field == "image"


@pytest.mark.parametrize("opening", [b"\xa1", b"\x91\x81a"])
def test_deep_values_take_no_stack(opening: bytes) -> None:
    # A key is spelled once only.
    repeated = b"\x91\x02" if opening[0] == 0x91 else opening
    data = opening + repeated * 100_000 + b"\xc0"
    decoder = Decoder()
    decoder.decode(data)
    assert len(decoder.dictionary) > 100_000
    value: Value = {}
    for _ in range(5_000):
        value = {"a": value}
    assert Decoder().decode(Encoder().encode(value)) is not None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends in the middle"),
        (b"\x97", "ends in the middle"),
        (b"\x9f\xff\xff\xff\xff\x7f", "ends in the middle"),
        (b"\x98" + b"\xff" * 12, "broken number"),
        (b"\x91\x81a\xc7b", "7 bytes where 1 are left"),
        (b"\x91\xc1a\xc0", "key of type 4"),
        (b"\x91\x05\xc0", "number 5, which there is not"),
        (b"\x91\x01\xc0", "for a key, which is no symbol"),
        (b"\x90\x90", "record of 2 bytes with a value of 1"),
        (b"\xf0", "unknown type, 7"),
        (b"\xb2\x00", "unknown sign"),
        (b"\x91\x81a\x41", "has no number"),
        (b"\x91\x81a\x20\x01", "as what it is not"),
        (b"\xa1\x80", "vector without a value"),
        (b"\x91\x81a\x81b", "symbol for a value"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidConfigError, match=reason):
        Decoder().decode(data)


def test_limits_and_roots() -> None:
    decoder = Decoder(max_entries=3)
    decoder.decode(b"\x90\x90"[:1])
    with pytest.raises(InvalidConfigError, match="more than 3 entries"):
        decoder.decode(b"\xa4\x90\x90\x90\x90")
    with pytest.raises(InvalidConfigError, match="no root"):
        _ = Decoder().root
    for name in ("", "a\0b"):
        with pytest.raises(InvalidConfigError, match="as a name"):
            Encoder().encode({name: ""})
    with pytest.raises(InvalidConfigError, match="a number of 64 bits"):
        Encoder().encode({"a": 2**63})


@given(st.integers(min_value=0, max_value=2**64 - 1), st.binary(max_size=3))
def test_varints(number: int, rest: bytes) -> None:
    out = bytearray()
    push_varint(out, number)
    assert pop_varint(bytes(out) + rest, 0) == (number, len(out))
