"""What engines get wrong in logs, and how it is put right."""

from __future__ import annotations

import itertools

import pytest

from asyncctr.backends.docker.logs import _join
from asyncctr.backends.docker.multiplex import SPLIT, Mender


def stored(output: bytes, *, fixed: bool = False) -> list[bytes]:
    """The records of Docker's copier and its local log driver, as they are read back."""
    records: list[bytes] = []
    *lines, rest = output.split(b"\n")
    for line in lines:
        end = len(line) - len(line) % SPLIT
        records += [line[start : start + SPLIT] for start in range(0, end, SPLIT)]
        # Only of a line that was split is the newline lost.
        records.append(line[end:] + (b"\n" if fixed or not end else b""))
    return records + [rest[start : start + SPLIT] for start in range(0, len(rest), SPLIT)]


def mended(records: list[bytes]) -> bytes:
    mender = Mender()
    return b"".join(itertools.chain.from_iterable(mender.mend(1, record) for record in records))


SIZES = (0, 1, 5, SPLIT - 1, SPLIT, SPLIT + 1, 2 * SPLIT, 2 * SPLIT + 7, 3 * SPLIT - 1)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("sizes", list(itertools.product(SIZES, repeat=2)), ids=str)
def test_lines_of_all_lengths_get_their_newlines_back(sizes: tuple[int, ...], fixed: bool) -> None:
    output = b"".join(b"x" * size + b"\n" for size in sizes) + b"end\n"
    assert mended(stored(output, fixed=fixed)) == output


def test_nothing_is_added_behind_an_unfinished_last_line() -> None:
    for size in SIZES[1:]:
        output = b"line\n" + b"x" * size
        assert mended(stored(output)) == output


def test_the_streams_are_kept_apart() -> None:
    mender = Mender()
    given = [
        mender.mend(*record)
        for record in [(1, b"x" * SPLIT), (2, b"error\n"), (1, b"rest"), (2, b"error\n"), (1, b"next\n")]
    ]
    assert given[1:] == [(b"error\n",), (b"rest",), (b"error\n",), (b"\n", b"next\n")]


def test_the_place_where_a_follow_ended_is_found() -> None:
    assert _join([1, 2, 3], [2, 3, 4, 5], whole=False) == 2
    assert _join([1, 2, 3], [1, 2, 3], whole=False) == 3
    # Too far back, and nothing delivered of a log that goes further back.
    assert _join([1, 2, 3], [7, 8, 9], whole=False) is None
    assert _join([], [7, 8, 9], whole=False) is None
    assert _join([], [7, 8, 9], whole=True) == 0


def test_equal_records_are_no_place() -> None:
    assert _join([1, 1, 1], [1, 1, 1, 1, 1], whole=False) is None
    assert _join([0, 1, 1], [0, 1, 1, 1], whole=False) == 3
