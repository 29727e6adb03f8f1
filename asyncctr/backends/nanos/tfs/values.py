"""The values of TFS's log: tuples, vectors, strings and integers, with the dictionary that numbers what may be referred to.

A header byte has bit 7 for "immediate", the type in bits 6 to 4, bit 3 for "more bytes follow", and the number's top in bits 2 to
0; more of it follows in groups of seven bits. Symbols (the keys of tuples), tuples and vectors are numbered from 1 in the order in
which they first appear, a tuple before what is in it; the first value of a log, its root, is 1. A symbol is never spelled twice:
the guest numbers what it appends by the count of its dictionary, in which a symbol has one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, Union

from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["FIELD", "ROOT", "Decoder", "Encoder", "Value", "pop_varint", "push_varint"]

FIELD = "image"

Value: TypeAlias = Union[str, int, "Mapping[str, Value]", "Sequence[Value]", None]
"""A mapping is a tuple, another sequence than ``str`` a vector; ``None``, in a tuple, takes the key away. Strings are bytes to the
guest: what is no UTF-8 has surrogates in its place."""

ROOT = 1
"""The number of the root tuple."""

_SYMBOL, _TUPLE, _VECTOR, _INTEGER, _STRING = range(5)
_IMMEDIATE = 0x80
_MORE = 0x08
# What the guest holds integers in.
_INTEGER_BITS = 63
# A varint of 64 bits has ten groups, a header's number one more at most.
_MAX_GROUPS = 10
_NULL = "\0"


def push_varint(out: bytearray, number: int) -> None:
    """Append a number in groups of seven bits, the highest first; all but the last have bit 7 set."""
    if number < 0x80:
        out.append(number)
        return
    shift = (number.bit_length() - 1) // 7 * 7
    while shift:
        out.append(number >> shift & 0x7F | 0x80)
        shift -= 7
    out.append(number & 0x7F)


def pop_varint(data: bytes, offset: int, number: int = 0) -> tuple[int, int]:
    """The number at an offset, and the offset behind it.

    Args:
        data: where it is.
        offset: of its first byte.
        number: bits in front of those that are read.

    Raises:
        InvalidConfigError: it does not end, or not within 64 bits.
    """
    for position in range(offset, min(offset + _MAX_GROUPS, len(data))):
        byte = data[position]
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            if number >> 64:
                break
            return number, position + 1
    raise fail(FIELD, f"has a broken number at byte {offset} of a record")


class Encoder:
    """Encodes values one after another, with one dictionary.

    Attributes:
        entries: how many symbols, tuples and vectors are numbered.
        symbols: the number of each symbol that this encoder numbered.
    """

    def __init__(self, entries: int = 0, known: Callable[[str], int | None] | None = None) -> None:
        """Go on behind a log that has ``entries``; ``known`` tells the number of a symbol in it."""
        self.entries = entries
        self.symbols: dict[str, int] = {}
        self._known = known

    def encode(self, value: Value) -> bytes:
        """A value that is new: the first one is the root."""
        out = bytearray()
        self._encode(out, [iter([(None, value)])])
        return bytes(out)

    def update(self, changes: Mapping[str, Value], number: int = ROOT) -> bytes:
        """What sets keys of the tuple of that number, and takes away those that are ``None``."""
        out = bytearray()
        _push_header(out, 0, _TUPLE, len(changes))
        push_varint(out, number)
        self._encode(out, [iter(changes.items())])
        return bytes(out)

    def _encode(self, out: bytearray, stack: list[Iterator[tuple[str | None, Value]]]) -> None:
        # Not recursive: a directory may be deeper than Python's stack.
        while stack:
            for key, value in stack[-1]:
                if key is not None:
                    self._symbol(out, key)
                if isinstance(value, str):
                    data = value.encode(errors="surrogateescape")
                    _push_header(out, _IMMEDIATE, _STRING, len(data))
                    out += data
                elif isinstance(value, int):
                    _push_integer(out, value)
                elif value is None:
                    if key is None:
                        raise fail(FIELD, "has a vector without a value at some place")
                    out.append(_IMMEDIATE)
                else:
                    stack.append(self._open(out, value))
                    break
            else:
                stack.pop()

    def _open(self, out: bytearray, value: Mapping[str, Value] | Sequence[Value]) -> Iterator[tuple[str | None, Value]]:
        self.entries += 1
        # Duck typing: looking a class up in an ABC is dear, and there are three tuples to a file.
        items = getattr(value, "items", None)
        _push_header(out, _IMMEDIATE, _VECTOR if items is None else _TUPLE, len(value))
        return iter(items()) if items is not None else iter([(None, element) for element in value])

    def _symbol(self, out: bytearray, name: str) -> None:
        number = self.symbols.get(name)
        if number is None and self._known is not None:
            number = self._known(name)
        if number is not None:
            _push_header(out, 0, _SYMBOL, number)
            return
        data = name.encode(errors="surrogateescape")
        if not data or b"\0" in data:
            raise fail(FIELD, f"cannot have {name!r} as a name")
        _push_header(out, _IMMEDIATE, _SYMBOL, len(data))
        out += data
        self.entries += 1
        self.symbols[name] = self.entries


def _push_header(out: bytearray, immediate: int, kind: int, number: int) -> None:
    if number < 8:
        out.append(immediate | kind << 4 | number)
        return
    groups = (number.bit_length() + 3) // 7
    out.append(immediate | kind << 4 | _MORE | number >> 7 * groups)
    for shift in range(7 * (groups - 1), 0, -7):
        out.append(number >> shift & 0x7F | 0x80)
    out.append(number & 0x7F)


def _push_integer(out: bytearray, number: int) -> None:
    if abs(number) >> _INTEGER_BITS:
        raise fail(FIELD, f"cannot hold a number of {number.bit_length()} bits; at most {_INTEGER_BITS}")
    _push_header(out, _IMMEDIATE, _INTEGER, 1 if number < 0 else 0)
    push_varint(out, abs(number))


class Decoder:
    """Decodes the records of a log, each into what the ones before it made. The log may be a stranger's.

    Attributes:
        dictionary: what is numbered, from 1 on; what has number 0 stands for nothing.
    """

    def __init__(self, *, max_entries: int = 4_000_000) -> None:
        """Refuse a log that numbers more than ``max_entries``."""
        self.dictionary: list[str | dict[str, Value] | list[Value]] = [""]
        self._max_entries = max_entries

    @property
    def root(self) -> dict[str, Value]:
        """The root tuple as the records so far have it.

        Raises:
            InvalidConfigError: there is none.
        """
        root = self.dictionary[ROOT] if len(self.dictionary) > ROOT else None
        if not isinstance(root, dict):
            raise fail(FIELD, "has no root")
        return root

    def decode(self, data: bytes) -> Value:
        """Read a record's value. Tuples and vectors in it are those of the dictionary, which later records may change.

        Raises:
            InvalidConfigError: it is broken, or too much.
        """
        value, left, offset = self._value(data, 0)
        first = value
        # Where the next values go, and how many; not recursive, for a stranger may nest as deep as the record is long.
        stack: list[tuple[dict[str, Value] | list[Value], Iterator[int]]] = []
        _push(stack, value, left)
        while stack:
            target, places = stack[-1]
            place = next(places, None)
            if place is None:
                stack.pop()
                continue
            key: str | None = None
            if isinstance(target, dict):
                key, offset = self._key(data, offset)
            value, left, offset = self._value(data, offset)
            _set(target, place if key is None else key, value)
            _push(stack, value, left)
        if offset != len(data):
            raise fail(FIELD, f"has a record of {len(data)} bytes with a value of {offset}")
        return first

    def _value(self, data: bytes, offset: int) -> tuple[Value, int, int]:
        """The value at an offset, how many are to be read into it, and the offset behind."""
        immediate, kind, number, offset = _pop_header(data, offset)
        if kind in (_TUPLE, _VECTOR):
            value: Value
            if immediate:
                value = {} if kind == _TUPLE else []
                self._add(value)
            else:
                index, offset = pop_varint(data, offset)
                value = self._composite(index, dict if kind == _TUPLE else list)
            return value, number, offset
        if not immediate:
            raise fail(FIELD, f"refers to a value of type {kind}, which has no number")
        if kind == _INTEGER:
            if number > 1:
                raise fail(FIELD, "has a number of an unknown sign")
            value, offset = pop_varint(data, offset)
            return -value if number else value, 0, offset
        if kind not in (_STRING, _SYMBOL):
            raise fail(FIELD, f"has a value of an unknown type, {kind}")
        text, offset = _pop_text(data, offset, number)
        if kind == _STRING:
            return text, 0, offset
        # The two that are values, too: nothing, which takes the key away, and the guest's null.
        if text not in ("", _NULL):
            raise fail(FIELD, "has a symbol for a value")
        return "" if text else None, 0, offset

    def _key(self, data: bytes, offset: int) -> tuple[str, int]:
        immediate, kind, number, offset = _pop_header(data, offset)
        if kind != _SYMBOL:
            raise fail(FIELD, f"has a key of type {kind}")
        if not immediate:
            return self._known_symbol(number), offset
        name, offset = _pop_text(data, offset, number)
        self._add(name)
        return name, offset

    def _add(self, value: str | dict[str, Value] | list[Value]) -> None:
        if len(self.dictionary) > self._max_entries:
            raise fail(FIELD, f"has a log of more than {self._max_entries} entries")
        self.dictionary.append(value)

    def _composite(self, number: int, kind: type) -> dict[str, Value] | list[Value]:
        value = self._numbered(number)
        if isinstance(value, str) or not isinstance(value, kind):
            raise fail(FIELD, f"refers to number {number} as what it is not")
        return value

    def _known_symbol(self, number: int) -> str:
        value = self._numbered(number)
        if not isinstance(value, str):
            raise fail(FIELD, f"has number {number} for a key, which is no symbol")
        return value

    def _numbered(self, number: int) -> str | dict[str, Value] | list[Value]:
        if not 0 < number < len(self.dictionary):
            raise fail(FIELD, f"refers to number {number}, which there is not")
        return self.dictionary[number]


def _push(stack: list[tuple[dict[str, Value] | list[Value], Iterator[int]]], value: Value, left: int) -> None:
    if isinstance(value, (dict, list)):
        stack.append((value, iter(range(left))))


def _set(target: dict[str, Value] | list[Value], place: int | str, value: Value) -> None:
    if isinstance(target, dict):
        if value is None:
            target.pop(str(place), None)
        else:
            target[str(place)] = value
    elif value is None:
        raise fail(FIELD, "has a vector without a value at some place")
    elif int(place) < len(target):
        target[int(place)] = value
    else:
        target.append(value)


def _pop_header(data: bytes, offset: int) -> tuple[int, int, int, int]:
    """Whether a value is immediate, its type and number, and the offset behind its header."""
    if offset >= len(data):
        raise fail(FIELD, "has a record that ends in the middle of a value")
    first = data[offset]
    number, offset = first & 0x07, offset + 1
    if first & _MORE:
        number, offset = pop_varint(data, offset, number)
    return first & _IMMEDIATE, first >> 4 & 0x07, number, offset


def _pop_text(data: bytes, offset: int, length: int) -> tuple[str, int]:
    end = offset + length
    if end > len(data):
        raise fail(FIELD, f"has a string of {length} bytes where {len(data) - offset} are left")
    return data[offset:end].decode(errors="surrogateescape"), end
