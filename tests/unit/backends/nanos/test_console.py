from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncctr.backends.nanos.console import ConsoleFilter

DHCP = b"[0.190463] en1: assigned 10.0.2.15\n"
LINK_LOCAL = b"[1.283645] en1: assigned FE80::5054:FF:FE12:3456\n"
ERROR = b"[12.000001] mmap: failed to allocate [0x1000 0x2000)\n"
MESSAGE = b"[0.231383] storage_shutdown error: no core generated: limit 0\n"
SIGNAL = (
    b"\n*** signal 11 received by tid 2, errno -1, code -6\n    fault address 0x0\n\n*** Thread context:\n"
    b"lastvector: 000000000000000e (Page fault)\n     frame: ffffc00000000000\n\nrax: 0000000000000000\n\n   core dump\n"
) + MESSAGE
FAULT = (
    b"cpu 0000000000000000, state kernel, vector 000000000000000d\n"
    b"lastvector: 000000000000000d (General protection fault)\n\nrax: 0000000000000000\n"
)
ABORT = b"\nProcess abort: SIGKILL received by thread 2\n\nlastvector: 0000000000000020\nTerminating.\n"

# What tells the kernel's lines, in pieces, so that much of what is drawn nearly is one.
FRAGMENTS = st.sampled_from(
    [
        *(
            b"[",
            b"0.190463",
            b"7.1",
            b"] ",
            b"[0.190463] ",
            b"en1: assigned ",
            b"10.0.2.15",
            b"\n",
            b"\r\n",
            b" ",
            b"text",
        ),
        *(b"   terminate\n", b"*** signal ", b"11 received by tid 2, errno 0, code 1\n", b"Process abort: SIGKILL "),
        *(
            b"received by thread 2\n",
            b"cpu ",
            b"0000000000000000",
            b", state kernel, vector ",
            b"lastvector: ",
            bytes(range(256)),
        ),
    ]
)
OUTPUT = st.lists(FRAGMENTS | st.binary(max_size=8), max_size=20).map(b"".join)
CUTS = st.lists(st.integers(0, 600), max_size=30)
KERNEL = re.compile(
    rb"(?:^|(?<=\n))\[\d+\.\d{6}\] |\[\d+\.\d{6}\] en1: assigned |(?:^|(?<=\n))(?:   terminate|\*\*\* signal |Process abort: |cpu 0)"
)


def filtered(*chunks: bytes) -> bytes:
    console = ConsoleFilter()
    return b"".join([*(console.feed(chunk) for chunk in chunks), console.finish()])


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place for place in cuts if place < len(data))})
    return [data[start:end] for start, end in pairwise(places)]


@given(OUTPUT.filter(lambda output: not KERNEL.search(output)), CUTS)
def test_a_programs_output_passes_byte_for_byte(output: bytes, cuts: list[int]) -> None:
    assert filtered(*cut(output, cuts)) == output


@given(OUTPUT, CUTS)
@example(b"\n\n   terminate\n", [1, 2])
@example(b"[0.190463] en1: assigned 10.0.2", [3, 12, 20])
def test_chunks_make_no_difference(output: bytes, cuts: list[int]) -> None:
    assert filtered(*cut(output, cuts)) == filtered(output)
    assert filtered(*(output[place : place + 1] for place in range(len(output)))) == filtered(output)


@given(
    st.lists(st.binary().filter(lambda line: b"\n" not in line and not KERNEL.search(line)), min_size=1),
    st.data(),
    CUTS,
)
def test_messages_at_line_starts_are_dropped(lines: list[bytes], data: st.DataObject, cuts: list[int]) -> None:
    messages = st.lists(st.sampled_from([DHCP, LINK_LOCAL, ERROR]), max_size=3).map(b"".join)
    printed = b"".join(line + b"\n" for line in lines)
    console = b"".join(data.draw(messages) + line + b"\n" for line in lines) + data.draw(messages)
    assert filtered(*cut(console, cuts)) == printed


@pytest.mark.parametrize("message", [DHCP, LINK_LOCAL])
def test_an_address_is_told_apart_in_the_middle_of_a_line(message: bytes) -> None:
    console = b"listening " + message + b"on 8080\n"
    for place in range(len(console)):
        assert filtered(console[:place], console[place:]) == b"listening on 8080\n"


@pytest.mark.parametrize("words", [SIGNAL, ABORT, FAULT, b"   terminate\n"])
@pytest.mark.parametrize("printed", [b"", b"text\n", b"[1] text\n", b"[0.5] \n\xff\n"])
def test_last_words_are_dropped(words: bytes, printed: bytes) -> None:
    for place in range(len(printed + words)):
        assert filtered((printed + words)[:place], (printed + words)[place:]) == printed


@pytest.mark.parametrize("words", [SIGNAL, ABORT, FAULT])
def test_the_same_with_more_behind_it_than_a_dump_has_is_the_programs(words: bytes) -> None:
    output = b"log:\n" + words + b"line of text\n" * 4000
    expected = output.replace(MESSAGE, b"")
    assert filtered(output) == expected
    assert filtered(*(output[place : place + 1000] for place in range(0, len(output), 1000))) == expected


def test_terminate_with_anything_behind_it_is_the_programs() -> None:
    assert filtered(b"   terminate\n", b"x") == b"   terminate\nx"


def test_nothing_is_delayed_that_cannot_be_the_kernels() -> None:
    console = ConsoleFilter()
    for chunk in (
        b"> ",
        b"text",
        b"\n",
        b"[1",
        b"",
        b"\r\n",
        b"cpu 12%",
        b"   ",
        b"[1.234567] ",
        b"en1: assignment",
        b"*** signal 1",
    ):
        printed = console.feed(chunk)
        expected = {
            b"[1": b"",
            b"\r\n": b"[1\r\n",
            b"[1.234567] ": b"",
            b"en1: assignment": b"[1.234567] en1: assignment",
        }
        assert printed == expected.get(chunk, chunk)


def test_what_is_undecided_at_the_end_is_given_out() -> None:
    for output in (
        b"[",
        b"[0.19",
        b"   termin",
        b"*** signal 1",
        b"\n",
        b"text\n\n",
        b"cpu 00",
        b"x[0.190463] en1: assigned 1",
    ):
        console = ConsoleFilter()
        assert console.feed(output) + console.finish() == output
