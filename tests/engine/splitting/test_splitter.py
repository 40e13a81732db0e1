"""Splitters: nothing of a document is lost, whatever it is written in."""

import itertools
import re
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nestvec.engine.splitting import Span, Splitter, SplitterKind
from nestvec.engine.splitting.markdown import sections
from nestvec.engine.splitting.sentences import PLAIN, sentences

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
    """Return where words start, as a tokenizer would say."""
    return [match.start() for match in WORD.finditer(text)]


def spans_of(splitter: Splitter, text: str, starts: list[int]) -> list[Span]:
    """Cut a text; where vectors of its sentences are needed, by some of a seed."""
    if splitter.needs_sentences:
        found = splitter.sentences(text, starts)
        vectors = np.random.default_rng(len(text)).standard_normal((len(found), 3))
        splitter = splitter.with_edges(found, vectors.astype(np.float32), starts)
    return splitter.spans(text, starts)


@given(texts)
@example("x B.\u2029y")  # the library panics on it as it is
def test_sentences_and_sections_are_the_text(text: str) -> None:
    """Sentences and sections, joined, are the text."""
    for spans in (sentences(text), sections(text)):
        assert "".join(text[a:b] for a, b in spans) == text
        assert all(a < b for a, b in spans)


def test_every_white_space_has_a_plain_one() -> None:
    """No character of Unicode that is white space is missing in the table, which looks at its first ones only."""
    assert {code for code in range(sys.maxunicode + 1) if chr(code).isspace()} == set(PLAIN)


def test_sentences() -> None:
    """Abbreviations end no sentence; line ends and other scripts' full stops do."""
    text = "He met Dr. Smith. Then J. R. Ewing left!\r\n\r\n你好。再见！ End"
    assert [text[a:b] for a, b in sentences(text)] == [
        "He met Dr. Smith. ",
        "Then J. R. Ewing left!\r\n\r\n",
        "你好。",
        "再见！ ",
        "End",
    ]


def test_sections() -> None:
    """Both kinds of headings begin a section, but not in code, quotes or lists."""
    text = (
        "intro\r\n# One 😀\r\nbody\r\n```\r\n# code\r\n```\r\n> # quoted\r\n\r\nTwo\r\n===\r\nend"
    )
    assert [text[a:b] for a, b in sections(text)] == [
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
    """Without overlap each token is in one chunk, and no chunk is empty or, by tokens, larger than asked for."""
    starts = starts_of(text)
    spans = spans_of(Splitter(kind, size), text, starts)
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
    """Each chunk starts with the last tokens of the one before."""
    overlap = data.draw(st.integers(0, size // 2))
    text = "word " * tokens
    starts = starts_of(text)
    spans = Splitter(SplitterKind.TOKENS, size, overlap).spans(text, starts)
    tokens_of = [[n for n, start in enumerate(starts) if a <= start < b] for a, b in spans]
    assert sorted({n for chunk in tokens_of for n in chunk}) == list(range(tokens))
    for chunk, following in itertools.pairwise(tokens_of):
        assert len(chunk) == size
        assert chunk[size - overlap :] == following[:overlap]


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        (SplitterKind.SENTENCES, 0, ["One two. ", "Three four five. ", "Six. ", "Seven."]),
        (SplitterKind.SENTENCES, 5, ["One two. Three four five. ", "Six. Seven."]),
        (SplitterKind.SENTENCES, 2, ["One two. ", "Three four five. ", "Six. Seven."]),
        (SplitterKind.MARKDOWN, 0, ["One two. Three four five. Six. Seven."]),
        (SplitterKind.CODE, 0, ["One two. Three four five. Six. Seven."]),
        (SplitterKind.MARKDOWN, 5, ["One two. Three four five. ", "Six. Seven."]),
    ],
)
def test_whole_sentences_fill_chunks(kind: SplitterKind, size: int, expected: list[str]) -> None:
    """A chunk holds as many whole sentences as fit; a longer sentence stands alone."""
    text = "One two. Three four five. Six. Seven."
    spans = Splitter(kind, size).spans(text, starts_of(text))
    assert [text[a:b] for a, b in spans] == expected


@pytest.mark.parametrize(
    "sentence", ["你好。", "He met Dr. Smith of the U.S. office. ", "Ja! 😀 ", "x" * 1500 + ". "]
)
def test_long_texts_are_cut_as_short_ones(sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long texts are read in pieces, whose edges do not show in the sentences."""
    text = sentence * (9000 // len(sentence))
    pieces = sentences(text)
    monkeypatch.setattr("nestvec.engine.splitting.sentences.PIECE_CHARS", 10**6)
    assert sentences(text) == pieces


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (SplitterKind.SENTENCES, "alpha beta. gamma. " * 2000),
        (SplitterKind.MARKDOWN, "# alpha\n\nbeta\n\n" * 2000),
        (SplitterKind.MARKDOWN, "alpha beta\n" * 4000),
        (SplitterKind.MARKDOWN, "> alpha beta\n" * 4000),
        (SplitterKind.MARKDOWN, "- alpha\n  beta\n" * 2000),
        (SplitterKind.MARKDOWN, "alpha. " * 4000),
        (SplitterKind.TOKENS, "alpha " * 100_000),
        (SplitterKind.CODE, "alpha\n\n  beta\n\n    gamma\n" * 12_000),
    ],
)
def test_cutting_ends_where_its_check_says_so(kind: SplitterKind, text: str) -> None:
    """Long documents are checked many times while they are cut, and what the check raises ends the work."""
    starts = [match.start() for match in re.finditer(r"\w+", text)]
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == 5:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        Splitter(kind, chunk_tokens=4).spans(text, starts, check)
    assert checks == 5
