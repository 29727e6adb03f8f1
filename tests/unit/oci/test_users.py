from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.core.errors import InvalidConfigError
from asyncctr.oci.users import User, resolve_user

PASSWD = b"""# a comment
root:x:0:0:root:/root:/bin/sh
broken:x:none:0::/:/bin/sh
app:x:1000:1001::/home/app:/bin/sh
other:x:1000:1002::/home/other:/bin/sh
42:x:7:7::/number:/bin/sh
homeless:x:8:8:::
+::::::
"""
GROUP = b"""root:x:0:
broken:x:none:app
wheel:x:10:root,app
app:x:1001:
extra:x:2000:other,app
43:x:9:
"""


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(additional_gids=(0, 10), home="/root")),
        ("root", User(additional_gids=(0, 10), home="/root")),
        ("0", User(additional_gids=(0, 10), home="/root")),
        ("app", User(uid=1000, gid=1001, additional_gids=(1001, 10, 2000), home="/home/app")),
        ("1000", User(uid=1000, gid=1001, additional_gids=(1001, 10, 2000), home="/home/app")),
        ("other", User(uid=1000, gid=1002, additional_gids=(1002, 2000), home="/home/other")),
        ("app:", User(uid=1000, gid=1001, additional_gids=(1001, 10, 2000), home="/home/app")),
        ("app:extra", User(uid=1000, gid=2000, additional_gids=(2000,), home="/home/app")),
        ("app:5", User(uid=1000, gid=5, additional_gids=(5,), home="/home/app")),
        (":extra", User(uid=0, gid=2000, additional_gids=(2000,), home="/root")),
        ("5", User(uid=5)),
        ("5:6", User(uid=5, gid=6, additional_gids=(6,))),
        ("42", User(uid=42)),
        ("7", User(uid=7, gid=7, additional_gids=(7,), home="/number")),
        ("5:43", User(uid=5, gid=43, additional_gids=(43,))),
        ("homeless", User(uid=8, gid=8, additional_gids=(8,))),
        ("2147483647", User(uid=2147483647)),
    ],
)
def test_users(text: str, user: User) -> None:
    assert resolve_user(text, PASSWD, GROUP) == user


@pytest.mark.parametrize(
    "text",
    [
        "nobody",
        "app:nobody",
        "broken",
        "2147483648",
        "app:2147483648",
        "-1",
        "+",
        "\u0661",
        "app:broken",
        " app",
        "9" * 5000,
    ],
)
def test_nobody(text: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        resolve_user(text, PASSWD, GROUP)
    assert caught.value.field == "user"


def test_without_files() -> None:
    assert resolve_user("", b"", b"") == User()
    assert resolve_user("3:4", b"", b"") == User(uid=3, gid=4, additional_gids=(4,))


FILES = st.binary(max_size=60) | st.lists(
    st.sampled_from([b"a", b"0", b"1", b":", b"\n", b",", b"x", b"\xff", b"99999999999"]), max_size=40
).map(b"".join)


@given(st.text("a1:+ ", max_size=6), FILES, FILES)
def test_any_file_gives_a_user_or_a_refusal(text: str, passwd: bytes, group: bytes) -> None:
    try:
        user = resolve_user(text, passwd, group)
    except InvalidConfigError as error:
        assert error.field == "user"
    else:
        assert all(0 <= number < 2**31 for number in (user.uid, user.gid, *user.additional_gids))
        assert user.gid == user.additional_gids[0]


NAMES = st.text("abc", min_size=1, max_size=3)


@given(st.dictionaries(NAMES, st.integers(0, 50), min_size=1), st.dictionaries(NAMES, st.sets(NAMES)), st.data())
def test_names_are_found(users: dict[str, int], groups: dict[str, set[str]], data: st.DataObject) -> None:
    passwd = "".join(f"{name}:x:{uid}:{uid + 1}::/home/{name}:\n" for name, uid in users.items()).encode()
    group = "".join(
        f"{name}:x:{gid + 100}:{','.join(members)}\n" for gid, (name, members) in enumerate(groups.items())
    ).encode()
    name = data.draw(st.sampled_from(sorted(users)))
    member_of = [gid + 100 for gid, members in enumerate(groups.values()) if name in members]
    assert resolve_user(name, passwd, group) == User(
        uid=users[name],
        gid=users[name] + 1,
        additional_gids=(users[name] + 1, *member_of),
        home=f"/home/{name}",
    )
