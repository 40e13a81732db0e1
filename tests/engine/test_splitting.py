"""Splitters: nothing of a document is lost, whatever it is written in."""

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nestvec.engine import splitting
from nestvec.engine.splitting import Splitter, SplitterKind, sections, sentences

ODD = [
    *(
        "a",
        "B",
        " ",
        ". ",
        ".",
        "!",
        "?",
        "。",
        "！",
        "😀",
        "e\u0301",
        "\u200d",
        "\n\n",
        "\n",
        "\r\n",
    ),
    *(
        "#",
        "# h\n",
        "Dr. ",
        "J. ",
        "\u2029",
        "\u3000",
        "\u00a0",
        "\x85",
        "\x0b",
        "```\n",
        "क",
        "।",
        "\ufeff",
    ),
]
texts = st.one_of(st.lists(st.sampled_from(ODD), max_size=40).map("".join), st.text(max_size=80))
WORD = re.compile(r"\w+")


def starts_of(text: str) -> list[int]:
    """Places of words, as a tokenizer would have them."""
    return [found.start() for found in WORD.finditer(text)]


@given(texts)
@example("x B.\u2029y")  # the library panics on it as it is
def test_sentences_and_sections_are_the_text(text: str) -> None:
    """Joined they are what was given."""
    for spans in (sentences(text), sections(text)):
        assert "".join(text[a:b] for a, b in spans) == text
        assert all(a < b for a, b in spans)


def test_sentences() -> None:
    """Abbreviations end none, line ends and other scripts do."""
    text = "He met Dr. Smith. Then J. R. Ewing left!\r\n\r\n你好。再见！ End"
    assert [text[a:b] for a, b in sentences(text)] == [
        "He met Dr. Smith. ",
        "Then J. R. Ewing left!\r\n\r\n",
        "你好。",
        "再见！ ",
        "End",
    ]


def test_sections() -> None:
    """Headings of both kinds; none in code, quotes or lists."""
    text = (
        "intro\r\n# One 😀\r\nbody\r\n```\r\n# code\r\n```\r\n> # quoted\r\n\r\nTwo\r\n===\r\nend"
    )
    found = [text[a:b] for a, b in sections(text)]
    assert found == [
        "intro\r\n",
        "# One 😀\r\nbody\r\n```\r\n# code\r\n```\r\n> # quoted\r\n\r\n",
        "Two\r\n===\r\nend",
    ]


@given(
    texts,
    st.sampled_from(list(SplitterKind)),
    st.integers(0, 6).map(lambda n: n if n == 0 or n >= 2 else 2),
)
def test_chunks_hold_every_token_in_order(text: str, kind: SplitterKind, size: int) -> None:
    """Without overlap each in one chunk; no chunk is empty; sizes hold where a sentence does not alone exceed them."""
    starts = starts_of(text)
    spans = Splitter(kind, size).spans(text, starts)
    assert bool(spans) == bool(starts)
    if not spans:
        return
    assert "".join(text[a:b] for a, b in spans) == text
    counts = [sum(a <= start < b for start in starts) for a, b in spans]
    assert sum(counts) == len(starts)
    assert min(counts) >= 1
    if kind is SplitterKind.TOKENS and size:
        assert max(counts) <= size
        assert all(count == size for count in counts[:-1])


@given(st.integers(1, 60), st.integers(4, 12), st.data())
def test_chunks_by_tokens_overlap_as_asked(tokens: int, size: int, data: st.DataObject) -> None:
    """Each starts with the last tokens of the one before."""
    overlap = data.draw(st.integers(0, size // 2))
    text = "word " * tokens
    starts = starts_of(text)
    spans = Splitter(SplitterKind.TOKENS, size, overlap).spans(text, starts)
    places = [[n for n, start in enumerate(starts) if a <= start < b] for a, b in spans]
    assert sorted({n for own in places for n in own}) == list(range(tokens))
    for one, other in itertools.pairwise(places):
        assert len(one) == size
        assert one[size - overlap :] == other[:overlap]


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        (SplitterKind.SENTENCES, 0, ["One two. ", "Three four five. ", "Six. ", "Seven."]),
        (SplitterKind.SENTENCES, 5, ["One two. Three four five. ", "Six. Seven."]),
        (SplitterKind.SENTENCES, 2, ["One two. ", "Three four five. ", "Six. Seven."]),
        (SplitterKind.MARKDOWN, 0, ["One two. Three four five. Six. Seven."]),
        (SplitterKind.MARKDOWN, 5, ["One two. Three four five. ", "Six. Seven."]),
    ],
)
def test_whole_sentences_fill_chunks(kind: SplitterKind, size: int, expected: list[str]) -> None:
    """As many as fit; a longer one stands alone."""
    text = "One two. Three four five. Six. Seven."
    spans = Splitter(kind, size).spans(text, starts_of(text))
    assert [text[a:b] for a, b in spans] == expected


@pytest.mark.parametrize(
    "sentence", ["你好。", "He met Dr. Smith of the U.S. office. ", "Ja! 😀 ", "x" * 1500 + ". "]
)
def test_long_texts_are_cut_as_short_ones(sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are taken in pieces; none shows at their edges."""
    text = sentence * (9000 // len(sentence))
    pieces = sentences(text)
    monkeypatch.setattr(splitting, "PIECE_CHARS", 10**6)
    assert sentences(text) == pieces
