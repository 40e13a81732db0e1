"""Late chunking and long inputs through the service, against a computation of their own from token states."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.splitting import Splitter, SplitterKind
from nestvec.engine.types import EmbedCall, OutputKind, Truncation
from nestvec.errors import InputError, InputTooLongError, RequestTooLargeError
from tokenizers import Tokenizer as LibraryTokenizer

from tests.support.fakes import fake_states
from tests.support.served import Served, ServedOptions, serve_fake

# Content tokens of a window of 16, beside [CLS] and [SEP].
CONTENT_TOKENS = 14
PIECES = [
    "alpha ",
    "beta",
    " gamma",
    "\r\n",
    "😀",
    "e\u0301 ",
    "中文",
    "zz qx ",
    ". ",
    "\u200d",
    "red",
]
documents = st.lists(st.sampled_from(PIECES), min_size=1, max_size=60).map("".join)


@pytest.fixture(scope="module")
def served(tiny_folder: Path) -> Iterator[Served]:
    """A service over a fake backend, whose token states depend on where a token stands in its window."""
    parts = serve_fake(tiny_folder / "tokenizer.json")
    yield parts
    parts.service.close()


@pytest.fixture(scope="module")
def library(tiny_folder: Path) -> LibraryTokenizer:
    """The library's own tokenizer."""
    library = LibraryTokenizer.from_file(str(tiny_folder / "tokenizer.json"))
    library.no_padding()
    library.no_truncation()
    return library


def windows_of(tokens: int) -> list[tuple[int, int]]:
    """Return windows of 14 tokens every 14 - 1 tokens, the last one at the end, as documented."""
    if tokens <= CONTENT_TOKENS:
        return [(0, tokens)]
    starts = [
        n
        for n in range(0, tokens, CONTENT_TOKENS - CONTENT_TOKENS // 8)
        if n + CONTENT_TOKENS < tokens
    ]
    return [(n, n + CONTENT_TOKENS) for n in [*starts, tokens - CONTENT_TOKENS]]


def states_of(ids: list[int]) -> np.ndarray[Any, Any]:
    """Return the token states of a document, each from the window in which it is furthest from a cut."""
    windows = windows_of(len(ids))
    of_windows = [fake_states([2, *ids[a:b], 3]) for a, b in windows]
    rows = [of_windows[0][0]]
    for position in range(len(ids)):
        best, nearest = -1, None
        for states, (a, b) in zip(of_windows, windows, strict=True):
            if a <= position < b:
                before = position - a if a else 10**6
                behind = b - 1 - position if b < len(ids) else 10**6
                if min(before, behind) > best:
                    best, nearest = min(before, behind), states[1 + position - a]
        assert nearest is not None
        rows.append(nearest)
    return np.stack([*rows, of_windows[-1][-1]])


def unit(vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Scale a vector to unit length."""
    scaled: np.ndarray[Any, Any] = vector / np.linalg.norm(vector)
    return scaled


def pooled(
    states: np.ndarray[Any, Any], starts: list[int], span: tuple[int, int]
) -> np.ndarray[Any, Any]:
    """Average the states of the tokens that start in a span, and of the special tokens at the edges."""
    tokens = [n for n, start in enumerate(starts) if span[0] <= start < span[1]]
    first = 0 if tokens[0] == 0 else tokens[0] + 1
    last = len(states) if tokens[-1] == len(starts) - 1 else tokens[-1] + 2
    return unit(states[first:last].mean(axis=0))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(text=documents, data=st.data())
async def test_spans_are_pooled_from_what_saw_the_document(
    served: Served, library: LibraryTokenizer, text: str, data: st.DataObject
) -> None:
    """Any spans, in any order, overlapping or not, of documents of any length, are pooled and come back as sent."""
    encoding = library.encode(text, add_special_tokens=False)
    starts = [a for a, _ in encoding.offsets]
    edge = st.integers(0, len(text))
    drawn_spans = data.draw(
        st.lists(st.tuples(edge, edge).map(sorted).map(tuple), min_size=1, max_size=4)
    )
    spans = [(a, b) for a, b in drawn_spans if any(a <= start < b for start in starts)]
    if not spans:
        return
    result = await served.service.embed(EmbedCall([text], splits=(tuple(spans),)))
    states = states_of(encoding.ids)
    for row, chunk, span in zip(result.vectors, result.chunks, spans, strict=True):
        np.testing.assert_allclose(row, pooled(states, starts, span), atol=1e-5)
        assert (chunk.start, chunk.stop, chunk.document) == (*span, 0)
        assert chunk.tokens == sum(span[0] <= start < span[1] for start in starts)
    windows = windows_of(len(starts))
    assert [long.windows for long in result.long_inputs] == ([len(windows)] if windows[1:] else [])


async def test_splitters_give_spans(served: Served) -> None:
    """Splitters cut several documents of a call, and the chunks' bounds lead back to the texts."""
    texts = ["alpha beta. Gamma delta! 😀 one two. ", "中文。三四"]
    result = await served.service.embed(
        EmbedCall(texts, splits=(Splitter(SplitterKind.SENTENCES),) * 2)
    )
    cut = [texts[chunk.document][chunk.start : chunk.stop] for chunk in result.chunks]
    assert cut == ["alpha beta. ", "Gamma delta! ", "😀 one two. ", "中文。", "三四"]
    assert len(result.vectors) == 5
    assert result.rows == (1,) * 5
    assert len(result.input_tokens) == 2


async def test_a_lone_chunk_is_the_document(served: Served) -> None:
    """A document of one chunk is pooled as any input is, so that short documents keep their vectors."""
    text = "alpha beta gamma"
    whole = await served.service.embed(EmbedCall([text]))
    for split in (((0, len(text)),), Splitter(SplitterKind.TOKENS, 50)):
        chunked = await served.service.embed(EmbedCall([text], splits=(split,)))
        np.testing.assert_allclose(chunked.vectors, whole.vectors, atol=1e-6)


@pytest.mark.parametrize(
    ("texts", "splits", "document", "message"),
    [
        (["alpha"], (((0, 9),),), 0, "span 0 of document 0 lies outside"),
        (["alpha"], (((3, 3),),), 0, "lies outside"),
        (
            ["alpha", "a  b"],
            (((0, 5),), ((0, 1), (1, 3))),
            1,
            "span 1 of document 1 holds no token",
        ),
        (["alpha", "  "], (Splitter(SplitterKind.TOKENS),) * 2, 1, "no token"),
    ],
)
async def test_wrong_spans_name_their_place(
    served: Served, texts: list[str], splits: Any, document: int, message: str
) -> None:
    """Wrong spans are refused with the document and the span."""
    with pytest.raises(InputError, match=message) as caught:
        await served.service.embed(EmbedCall(texts, splits=splits))
    assert caught.value.input_index == document


async def test_long_documents_may_be_refused_or_cut_instead(served: Served) -> None:
    """Long documents are refused or cut where the call says so; windows are the default."""
    text = "alpha " * 40
    spans = (((0, 12), (12, 240)),)
    with pytest.raises(InputTooLongError) as caught:
        await served.service.embed(EmbedCall([text], splits=spans, truncate=Truncation.ERROR))
    assert caught.value.input_index == 0
    cut = await served.service.embed(EmbedCall([text], splits=spans, truncate=Truncation.END))
    assert cut.long_inputs[0].dropped_tokens == 40 - CONTENT_TOKENS
    with pytest.raises(InputError, match="nothing is left"):
        await served.service.embed(
            EmbedCall([text], splits=(((0, 6), (120, 240)),), truncate=Truncation.END)
        )


async def test_chunks_as_they_come_may_go_through_windows(served: Served) -> None:
    """Beyond the limit, chunks that the caller cut (Jina's form) have the vectors of spans of the whole document."""
    chunks = ["alpha beta gamma "] * 12
    joined = "".join(chunks)
    spans = tuple((n * 17, (n + 1) * 17) for n in range(12))
    by_chunks = await served.service.embed(
        EmbedCall(chunks, chunks=(12,), truncate=Truncation.WINDOWS)
    )
    by_spans = await served.service.embed(EmbedCall([joined], splits=(spans,)))
    np.testing.assert_allclose(by_chunks.vectors, by_spans.vectors, atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "query : "])
async def test_long_texts_are_averaged_over_windows(
    served: Served, library: LibraryTokenizer, prefix: str
) -> None:
    """Windows are weighted by the tokens that they are nearest to; the prompt stands before each window."""
    texts = ["alpha", "beta gamma red " * 9, "one two"]
    result = await served.service.embed(
        EmbedCall(texts, truncate=Truncation.WINDOWS, prompt=prefix, normalize=False)
    )
    ids = library.encode(texts[1], add_special_tokens=False).ids
    prompt_ids = library.encode(prefix, add_special_tokens=False).ids
    window = CONTENT_TOKENS - len(prompt_ids)
    step = window - window // 8
    starts = [n for n in range(0, len(ids), step) if n + window < len(ids)] + [len(ids) - window]
    vectors = [fake_states([2, *prompt_ids, *ids[n : n + window], 3]).mean(axis=0) for n in starts]
    counts = [0] * len(starts)
    for position in range(len(ids)):
        distances = [
            min(
                position - n if n else 10**6,
                n + window - 1 - position if n + window < len(ids) else 10**6,
            )
            if n <= position < n + window
            else -1
            for n in starts
        ]
        counts[int(np.argmax(distances))] += 1
    expected = np.average(vectors, axis=0, weights=counts)
    np.testing.assert_allclose(result.vectors[1], expected, atol=1e-6)
    (long,) = result.long_inputs
    assert (long.index, long.windows, long.dropped_tokens) == (1, len(starts), 0)
    assert result.is_truncated == (False,) * 3
    assert result.input_tokens[1] == len(starts) * 16
    short = await served.service.embed(EmbedCall(["alpha"], prompt=prefix, normalize=False))
    np.testing.assert_array_equal(result.vectors[0], short.vectors[0])


async def test_what_was_cut_is_told(served: Served) -> None:
    """The answer says how many tokens were cut off: exactly where they were counted, else at least so many."""
    texts = ["alpha", "alpha " * 20, "alpha " * 400]
    result = await served.service.embed(EmbedCall(texts, truncate=Truncation.END))
    dropped_of = {long.index: (long.dropped_tokens, long.drops_more) for long in result.long_inputs}
    assert dropped_of[1] == (6, False)
    dropped, more = dropped_of[2]
    assert more
    assert 0 < dropped < 386
    start = await served.service.embed(EmbedCall(texts, truncate=Truncation.START))
    assert [long.dropped_tokens for long in start.long_inputs] == [6, 386]


async def test_windows_are_for_vectors_of_texts(tiny_folder: Path, served: Served) -> None:
    """Windows are refused for other outputs; where they are the server's default, those outputs refuse long inputs."""
    call = EmbedCall(["alpha"], kind=OutputKind.TOKENS, truncate=Truncation.WINDOWS)
    with pytest.raises(InputError, match="windows"):
        await served.service.embed(call)
    limits = ServiceLimits(truncate=Truncation.WINDOWS)
    other = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(limits=limits))
    assert (await other.service.embed(EmbedCall(["alpha " * 40]))).long_inputs[0].windows == 3
    with pytest.raises(InputTooLongError):
        await other.service.embed(EmbedCall(["alpha " * 40], kind=OutputKind.TOKENS))
    other.service.close()


async def test_windows_have_a_bound(tiny_folder: Path) -> None:
    """Inputs read in windows are bounded in characters before they are tokenized, and in tokens after that."""
    limits = ServiceLimits(max_tokens=100, truncate=Truncation.WINDOWS)
    served = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(limits=limits))
    with pytest.raises(RequestTooLargeError, match=re.escape("characters are too many")):
        await served.service.embed(EmbedCall(["a" * 900]))
    with pytest.raises(RequestTooLargeError, match="tokens"):
        await served.service.embed(EmbedCall(["a " * 120]))
    served.service.close()


async def test_texts_that_fit_are_what_they_always_are(served: Served) -> None:
    """Texts that fit have the same vectors whatever is done with longer ones."""
    texts = ["", "alpha", "beta " * CONTENT_TOKENS, "😀 中文"]
    for prompt in (None, "query : "):
        prompted_texts = texts if prompt is None else [texts[1], texts[3]]
        plain, windowed = [
            await served.service.embed(
                EmbedCall(prompted_texts, prompt=prompt, truncate=how, normalize=False)
            )
            for how in (Truncation.ERROR, Truncation.WINDOWS)
        ]
        np.testing.assert_array_equal(plain.vectors, windowed.vectors)
        assert plain.input_tokens == windowed.input_tokens
