"""Whom a process runs as: names and numbers looked up in the image's ``/etc/passwd`` and ``/etc/group``, as Docker does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from asyncctr.core.validation import fail

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["User", "resolve_user"]

FIELD = "user"

_NUMBER = re.compile(r"[0-9]{1,32}")
_MAX_ID = 2**31 - 1


@attrs.frozen(kw_only=True)
class User:
    """Numbers for the kernel.

    Attributes:
        uid: the user's.
        gid: the primary group's.
        additional_gids: the supplementary groups; the primary one first.
        home: the home directory; ``"/"`` for who has none.
    """

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = (0,)
    home: str = "/"


def resolve_user(text: str, passwd: bytes, group: bytes) -> User:
    """The user that a configuration or an image names.

    A number is an id even where a user or group has that name. Who names a group gets no supplementary ones. The primary group is
    among the supplementary ones as well, so that a process in it cannot pass for one that is not (CVE-2022-36109).

    Args:
        text: ``"name"``, ``"uid"``, ``"name:group"`` or ``"uid:gid"``; empty for root.
        passwd: the image's ``/etc/passwd``; empty where it has none.
        group: its ``/etc/group``.

    Raises:
        InvalidConfigError: there is no such user or group; the field is ``"user"``.
    """
    wanted, _, wanted_group = text.partition(":")
    wanted = wanted or "0"
    uid = _number(wanted)
    gid, home, name = 0, "/", ""
    for fields in _entries(passwd, 6):
        entry_uid, entry_gid = _id(fields[2]), _id(fields[3])
        # A line without proper numbers is nobody's: read as 0 they would make root of a typing mistake.
        if entry_uid is None or entry_gid is None or (fields[0] != wanted if uid is None else entry_uid != uid):
            continue
        uid, gid, home, name = entry_uid, entry_gid, fields[5] or "/", fields[0]
        break
    if uid is None:
        raise fail(FIELD, f"the image has no user {wanted!r} in its /etc/passwd")
    if wanted_group:
        gid = _group(wanted_group, group)
        more: list[int] = []
    else:
        more = [
            found
            for fields in _entries(group, 4)
            if name and name in fields[3].split(",") and (found := _id(fields[2])) is not None
        ]
    return User(uid=uid, gid=gid, additional_gids=tuple(dict.fromkeys([gid, *more])), home=home)


def _group(wanted: str, group: bytes) -> int:
    number = _number(wanted)
    if number is not None:
        return number
    for fields in _entries(group, 3):
        if fields[0] == wanted and (found := _id(fields[2])) is not None:
            return found
    raise fail(FIELD, f"the image has no group {wanted!r} in its /etc/group")


def _entries(data: bytes, count: int) -> Iterator[list[str]]:
    for line in data.decode(errors="replace").split("\n"):
        fields = [field.strip() for field in line.split(":")]
        if len(fields) >= count and fields[0]:
            yield fields


def _number(text: str) -> int | None:
    if not _NUMBER.fullmatch(text):
        return None
    if int(text) > _MAX_ID:
        raise fail(FIELD, f"ids must be at most {_MAX_ID}, not {text}")
    return int(text)


def _id(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) and int(text) <= _MAX_ID else None
