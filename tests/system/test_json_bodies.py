"""JSON of callers: bounds that are counted before it is parsed, in slices, and what is mended in it."""

import json
import re
import threading
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.errors import BodyFormatError
from nestvec.system import json_bodies
from nestvec.system.json_bodies import (
    MANY_CONTAINERS,
    MAX_COST,
    SMALL_BYTES,
    JsonLimits,
    is_quickly_parsed,
    parse_json,
    replace_surrogate_escapes,
)
from typing_extensions import override

MIB = 2**20
LIMITS = JsonLimits()
LONE = re.compile("[\ud800-\udfff]")
# Parts of strings as JSON spells them, with all that can be taken for an escape of a surrogate and is none.
PARTS = st.sampled_from(
    [
        "\\ud83d",
        "\\ude42",
        "\\uD800",
        "\\uDC00",
        "\\\\",
        '\\"',
        "\\ud7ff",
        "\\ue000",
        "\\n",
        "u",
        "d800",
        "a",
        ",[",
    ]
)


@pytest.mark.parametrize("slice_bytes", [6, 7, 13, MIB])
@given(parts=st.lists(PARTS, max_size=14))
def test_lone_surrogates_become_one_character(slice_bytes: int, parts: list[str]) -> None:
    """Escapes of lone surrogates become U+FFFD and pairs stay, wherever the slices end; Python's parser agrees."""
    body = f'["{"".join(parts)}"]'.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_bodies, "SLICE_BYTES", slice_bytes)
        parsed = parse_json(body, LIMITS)
    assert parsed == [LONE.sub("\ufffd", json.loads(body)[0])]


def test_nothing_to_mend_is_not_copied() -> None:
    """A body without such escapes is given back as it is."""
    body = b'{"input": "\\\\n"}' * 1000
    assert replace_surrogate_escapes(body) is body


@pytest.mark.parametrize("body", [b"[1e999]", b"[-1e999]", b"[NaN]", b"[Infinity]", b'["\\ud800"'])
def test_what_is_no_strict_json_stays_refused(body: bytes) -> None:
    """Infinity in any spelling is refused, and so is a body that breaks off behind something to mend."""
    with pytest.raises(BodyFormatError):
        parse_json(body, LIMITS)


@pytest.mark.parametrize("slice_bytes", [64 * 1024, 65_537, MIB])
@settings(max_examples=20)
@given(
    st.lists(st.sampled_from(['"', "\\", "[", "{", "]", ",", "a"]), max_size=12),
    st.integers(28, 36),
)
def test_depth_is_measured_in_slices(slice_bytes: int, tricky: list[str], depth: int) -> None:
    """The depth of many lists is found exactly, brackets and quotes inside strings do not count."""
    text = json.dumps("".join(tricky) * 3)
    nested = "[" * depth + "]" * depth
    body = f"[{'[],' * (MANY_CONTAINERS + 1)}{text},{'1,' * SMALL_BYTES}{nested}]".encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_bodies, "SLICE_BYTES", slice_bytes)
        if depth + 1 > LIMITS.max_depth + 1:
            with pytest.raises(BodyFormatError, match="nested"):
                parse_json(body, LIMITS)
        else:
            assert len(parse_json(body, LIMITS)) == MANY_CONTAINERS + 3 + SMALL_BYTES


@pytest.mark.parametrize(
    ("body", "is_read"),
    [
        (b"[" + b"1," * (MAX_COST - 10) + b"1]", True),
        (b"[" + b"1," * (MAX_COST + 10) + b"1]", False),
        (b"[" + b"[]," * 349_000 + b"1]", False),
        (b"\xef\xbb\xbf[" + b"[]," * 349_000 + b"1]", False),
        (b"{" + b",".join(b'"%d":1' % n for n in range(140_000)) + b"}", False),
        (b"[" + b"{}," * 5_000_000 + b"1]", False),
        (b'["' + b",[{:" * MAX_COST + b'"]', True),
        (b'["' + b'\\\\\\",[{:' * MAX_COST + b'"]', True),
    ],
    ids=[
        "most values",
        "more",
        "lists",
        "a BOM",
        "keys",
        "objects",
        "in a string",
        "behind escapes",
    ],
)
def test_values_are_counted_first(body: bytes, is_read: bool) -> None:  # noqa: FBT001 - a case
    """Values, lists, objects and keys count together, before any of them is parsed; text counts as nothing."""
    assert not is_quickly_parsed(body)
    if is_read:
        parse_json(body, LIMITS)
        return
    with pytest.raises(BodyFormatError, match="values") as raised:
        parse_json(body, LIMITS)
    assert raised.value.code == "request_too_large"


def test_honest_bodies_are_parsed_where_they_arrive() -> None:
    """Texts of up to a mebibyte, and a few thousand of them, need no thread."""
    for body in (
        {"input": ["words, words; and: words " * 10] * 300},
        {"input": ["a"] * 2048},
        {"input": [[101, 2023, 102]] * 500},
    ):
        assert is_quickly_parsed(json.dumps(body).encode())
    assert not is_quickly_parsed(b'{"input": "' + b"a" * MIB + b'"}')


LONG_BODIES = pytest.mark.parametrize(
    "body",
    [
        b'"' + b"\\\\" * 10 * MIB + b'"',
        b'"' + b"\\ud800" * 2 * MIB + b'"',
        b'"' + b'\\",[:' * 2 * MIB + b'"',
    ],
    ids=["backslashes", "surrogates", "quotes"],
)


@LONG_BODIES
def test_counting_lets_other_threads_run(body: bytes) -> None:
    """While ten megabytes and more are looked at, another thread gets its turn many times."""
    turns, has_ended = 0, False

    def tick() -> None:
        nonlocal turns
        while not has_ended:
            time.sleep(0.0005)
            turns += 1

    ticking = threading.Thread(target=tick)
    ticking.start()
    result: Any = replace_surrogate_escapes(body)
    json_bodies.check_bounds(body, LIMITS)
    has_ended = True
    ticking.join()
    assert len(result) == len(body)
    assert turns >= 5


def test_slices_take_little_memory() -> None:
    """The intermediate results of a long body are those of one slice."""
    body = b'"' + b"\\\\" * 4 * MIB + b'\\ud800,,"'
    tracemalloc.start()
    for _ in json_bodies._slices(body):
        pass
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 64 * MIB


class WatchedBytes(bytes):
    """JSON that tells over how many bytes at a time it was searched: each search holds Python's lock."""

    longest = 0

    @override
    def count(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        """Count, and tell over how much."""
        self._search(start, end)
        return super().count(sub, start, end)

    @override
    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        """Find, and tell within how much."""
        self._search(start, end)
        return super().find(sub, start, end)

    @override
    def __contains__(self, part: Any) -> bool:
        self._search(0, None)
        return super().__contains__(part)

    def _search(self, start: int, end: int | None) -> None:
        self.longest = max(self.longest, min(len(self), len(self) if end is None else end) - start)


@LONG_BODIES
def test_no_search_goes_over_the_whole(body: bytes) -> None:
    """Searching 20 MB for two bytes in one call takes up to 60 ms, during which no other thread runs."""
    watched = WatchedBytes(body)
    replace_surrogate_escapes(watched)
    json_bodies.check_bounds(watched, LIMITS)
    assert 0 < watched.longest < 2 * json_bodies.SLICE_BYTES
