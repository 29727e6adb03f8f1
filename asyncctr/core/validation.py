"""Converters and validators that the value classes share. Every refusal is an ``InvalidConfigError`` naming its field."""

from __future__ import annotations

import ipaddress
import os
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from asyncctr.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from enum import StrEnum

    from attrs import Attribute

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
E = TypeVar("E", bound="StrEnum")

# Linux refuses one longer argument or environment string: MAX_ARG_STRLEN, 32 pages (include/uapi/linux/binfmts.h).
MAX_STRING = 131_072
_OBJECT_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_LABEL_KEY_MAX = 4_096
# What runtimes hold numbers in.
_INT_MAX = 2**63 - 1


class FrozenMap(Mapping[K, V]):
    """An immutable, hashable, picklable mapping that keeps its insertion order."""

    __slots__ = ("_hash", "_items")

    _items: dict[K, V]
    _hash: int | None

    def __init__(self, items: Mapping[K, V] | Iterable[tuple[K, V]] = ()) -> None:
        object.__setattr__(self, "_items", dict(items))
        object.__setattr__(self, "_hash", None)

    def __getitem__(self, key: K) -> V:
        return self._items[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        if self._hash is None:
            object.__setattr__(self, "_hash", hash(frozenset(self._items.items())))
        return cast("int", self._hash)

    def __setattr__(self, name: str, value: object) -> None:
        msg = "FrozenMap is immutable"
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> None:
        msg = "FrozenMap is immutable"
        raise AttributeError(msg)

    def __reduce__(self) -> tuple[object, ...]:
        return (FrozenMap, (self._items,))

    def __repr__(self) -> str:
        return repr(self._items)


def fail(field: str, message: str) -> InvalidConfigError:
    """The error for ``field``, which may carry an index or key for the message; the caller raises it."""
    return InvalidConfigError(f"{field}: {message}", field=field.partition("[")[0].removesuffix(" key"))


def redacted(mapping: Mapping[str, object]) -> str:
    """A repr of a mapping whose values may be secret: the keys alone."""
    return "{" + ", ".join(f"{key!r}: ***" for key in mapping) + "}"


def hidden(value: object) -> str:
    """A repr that shows only whether a secret is set."""
    return "***" if value else repr(value)


def check_text(field: str, value: object, *, empty: bool = True, limit: int = MAX_STRING) -> str:
    """A string that every runtime can carry: no NUL, encodable as UTF-8, shorter than ``limit`` bytes."""
    if not isinstance(value, str):
        raise fail(field, f"must be a str, not {type(value).__name__}")
    if not value and not empty:
        raise fail(field, "must not be empty")
    if "\0" in value:
        raise fail(field, "must not contain a NUL character")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise fail(
            field, "must be valid Unicode text (lone surrogates, as from undecodable bytes, cannot be passed)"
        ) from None
    if size >= limit:
        raise fail(field, f"is {size} bytes long; at most {limit - 1} can be passed")
    return value


def check_token(field: str, value: object, *, limit: int = 4_096) -> str:
    """Text without white space or control characters, such as an image reference."""
    text = check_text(field, value, empty=False, limit=limit)
    # Of white space the space alone is printable.
    if " " in text or not text.isprintable():
        raise fail(field, "must not contain white space or control characters")
    return text


def check_path(field: str, value: object) -> str:
    """An absolute path without ``..`` components."""
    text = check_text(field, value, empty=False, limit=4_096)
    if not text.startswith("/"):
        raise fail(field, f"must be an absolute path, not {text!r}")
    if ".." in text.split("/"):
        raise fail(field, f"must not contain '..', but is {text!r}")
    return text


def check_object_name(field: str, value: object) -> str:
    """A volume's or network's name: letters, digits, ``_.-``, starting with a letter or digit, at most 255 characters."""
    text = check_text(field, value, empty=False)
    if not _OBJECT_NAME.fullmatch(text):
        raise fail(field, f"must match {_OBJECT_NAME.pattern}, but is {text!r}")
    return text


def check_container_id(value: object) -> str:
    """What can be an id: no path, and no name of a directory."""
    text = check_token("container_id", value)
    if "/" in text or text in (".", ".."):
        raise fail("container_id", f"must be an id as create() gave it, not {text[:100]!r}")
    return text


def check_port(field: str, value: object, *, zero: bool = False) -> int:
    """A port number, 1 to 65535; ``zero`` allows 0 as well."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise fail(field, f"must be an int, not {type(value).__name__}")
    if not (0 if zero else 1) <= value <= 65_535:
        raise fail(field, f"must be a port number, not {value}")
    return value


def texts(value: Mapping[str, str] | Iterable[tuple[str, str]]) -> FrozenMap[str, str]:
    """A frozen mapping of text, as runtimes report it: unchecked."""
    return FrozenMap(value)


def names(value: Iterable[str]) -> frozenset[str]:
    """A frozen set of names."""
    return frozenset(value)


def sequence(field: str, value: Iterable[Any] | None, item: Callable[[str, Any], T]) -> tuple[T, ...]:
    """A tuple of checked items; a bare string is refused, because it would become its characters."""
    if value is None:
        return ()
    if isinstance(value, (str, bytes, bytearray, Mapping)) or not isinstance(value, Iterable):
        raise fail(field, f"must be a sequence such as a list or tuple, not {type(value).__name__}")
    return tuple(item(f"{field}[{index}]", entry) for index, entry in enumerate(value))


def mapping(
    field: str, value: Mapping[str, Any] | None, key: Callable[[str, Any], str], item: Callable[[str, Any], T]
) -> FrozenMap[str, T]:
    """A frozen mapping of checked keys and values."""
    if value is None:
        return FrozenMap()
    if not isinstance(value, Mapping):
        raise fail(field, f"must be a mapping such as a dict, not {type(value).__name__}")
    return FrozenMap({key(f"{field} key", name): item(f"{field}[{name!r}]", entry) for name, entry in value.items()})


def label_key(field: str, value: object) -> str:
    """A label's key: any text but the empty one."""
    return check_text(field, value, empty=False, limit=_LABEL_KEY_MAX)


def env_key(field: str, value: object) -> str:
    """An environment variable's name: not empty, without ``=``."""
    text = check_text(field, value, empty=False)
    if "=" in text:
        raise fail(field, f"must not contain '=', but is {text!r}")
    return text


def environment(field: str, value: Mapping[str, str] | Iterable[str] | None) -> FrozenMap[str, str]:
    """A frozen mapping from a mapping or from ``"K=V"`` strings; errors name the variable, never its value."""
    if value is not None and not isinstance(value, Mapping):
        pairs: dict[str, str] = {}
        for index, entry in enumerate(sequence(field, value, lambda _, entry: entry)):
            name, separator, text = entry.partition("=") if isinstance(entry, str) else ("", "", "")
            if not separator:
                raise fail(f"{field}[{index}]", 'must be a "NAME=value" string')
            pairs[name] = text
        value = pairs
    frozen = mapping(field, value, env_key, check_text)
    for name, text in frozen.items():
        if len(name.encode()) + len(text.encode()) + 2 > MAX_STRING:
            raise fail(f"{field}[{name!r}]", f"is too long: name and value together may have {MAX_STRING - 2} bytes")
    return frozen


def positive(
    field: str, value: object, *, minimum: int = 1, minus_one: bool = False, required: bool = False
) -> int | None:
    """``None``, unless ``required``, or an int of at least ``minimum``; ``minus_one`` allows -1 as well."""
    if value is None and not required:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise fail(field, f"must be an int{'' if required else ' or None'}, not {type(value).__name__}")
    if value > _INT_MAX:
        raise fail(field, f"must be at most {_INT_MAX}")
    if value < minimum and not (minus_one and value == -1):
        raise fail(field, f"must be at least {minimum}{' or -1' if minus_one else ''}, not {value}")
    return value


def is_number(value: object) -> bool:
    """Whether it is an int or a float; ``bool`` is none here."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def signal_name(field: str, value: str | int) -> str:
    """``"SIGTERM"`` from ``"SIGTERM"``, ``"TERM"`` or ``15``; real-time signals as their number's text."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise fail(field, f"must be a signal's name or number, not {type(value).__name__}")
    if isinstance(value, str) and not value.isdecimal():
        name = value.upper() if value.upper().startswith("SIG") else f"SIG{value.upper()}"
        if name not in signal.Signals.__members__:
            raise fail(field, f"{value!r} is no signal; use a name such as 'SIGTERM' or a number")
        return name
    number = int(value)
    if not 1 <= number <= 64:
        raise fail(field, f"must be between 1 and 64, not {number}")
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def signal_number(name: str) -> int:
    """The number of what :func:`signal_name` gave."""
    return int(name) if name.isdecimal() else signal.Signals[name].value


def check_grace(value: float) -> None:
    """Refuse a grace that is no number of seconds."""
    if not is_number(value) or not 0 <= value < float("inf"):
        raise fail("grace", f"must be a number of seconds, 0 or more, not {value!r}")


def member(field: str, kind: type[E], value: Any) -> E:
    """The member of an enum, or the one with that value."""
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(repr(entry.value) for entry in kind)
        raise fail(field, f"must be one of {names}, not {value!r}") from None


def path_text(value: object) -> Any:
    """The text of a path object; what is none is left to the field's check."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def host_address(field: str, value: object) -> str:
    """An entry of a hosts file: an IP address, or ``"host-gateway"`` for the runtime's host."""
    text = check_text(field, value, empty=False)
    try:
        if text != "host-gateway":
            ipaddress.ip_address(text)
    except ValueError:
        raise fail(field, f"must be an IP address or 'host-gateway', not {text!r}") from None
    return text


def unless_empty(check: Callable[..., object], **options: object) -> Callable[[Any, Attribute[Any], Any], None]:
    """An attrs validator from one of the checks above, for a field whose empty text means that it is not given."""

    def validate(_: object, attribute: Attribute[Any], value: object) -> None:
        if check_text(attribute.name, value):
            check(attribute.name, value, **options)

    return validate


def checked(check: Callable[..., object], **options: object) -> Callable[[Any, Attribute[Any], Any], None]:
    """An attrs validator from one of the checks above; ``None`` passes only where the check lets it."""

    def validate(_: object, attribute: Attribute[Any], value: object) -> None:
        check(attribute.name, value, **options)

    return validate


def is_a(*types: type) -> Callable[[Any, Attribute[Any], Any], None]:
    """An attrs validator: an instance of one of ``types``; ``bool`` is no ``int`` here."""

    def validate(_: object, attribute: Attribute[Any], value: object) -> None:
        wrong_bool = isinstance(value, bool) and bool not in types
        if wrong_bool or not isinstance(value, types):
            names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in types)
            raise fail(attribute.name, f"must be {names}, not {type(value).__name__}")

    return validate
