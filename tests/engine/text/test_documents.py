"""Late chunking and long inputs through the service, against a computation of their own from token states."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nestvec.engine.service import ServiceLimits
from nestvec.engine.splitting import Splitter, SplitterKind
from nestvec.engine.types import EmbedCall, OutputKind, Truncation
from nestvec.errors import InputError, InputTooLongError, RequestTooLargeError
from tokenizers import Tokenizer as LibraryTokenizer

from tests.support.fakes import fake_states
from tests.support.served import Served, ServedOptions, serve_fake

ROOM = 14  # of 16 tokens, [CLS] and [SEP] apart
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
    made = serve_fake(tiny_folder / "tokenizer.json")
    yield made
    made.service.close()


@pytest.fixture(scope="module")
def library(tiny_folder: Path) -> LibraryTokenizer:
    """The tokenizer without ours around it."""
    found = LibraryTokenizer.from_file(str(tiny_folder / "tokenizer.json"))
    found.no_padding()
    found.no_truncation()
    return found


def windows_of(tokens: int) -> list[tuple[int, int]]:
    """Every 14 - 1 tokens a window of 14, the last at the end; straight from the documentation."""
    if tokens <= ROOM:
        return [(0, tokens)]
    starts = [n for n in range(0, tokens, ROOM - ROOM // 8) if n + ROOM < tokens]
    return [(n, n + ROOM) for n in [*starts, tokens - ROOM]]


def states_of(ids: list[int]) -> np.ndarray[Any, Any]:
    """Token states of a whole document, each from the window in which it is furthest from a cut."""
    windows = windows_of(len(ids))
    of_windows = [fake_states([2, *ids[a:b], 3]) for a, b in windows]
    rows = [of_windows[0][0]]
    for place in range(len(ids)):
        best, chosen = -1, None
        for states, (a, b) in zip(of_windows, windows, strict=True):
            if a <= place < b:
                before = place - a if a else 10**6
                behind = b - 1 - place if b < len(ids) else 10**6
                if min(before, behind) > best:
                    best, chosen = min(before, behind), states[1 + place - a]
        assert chosen is not None
        rows.append(chosen)
    return np.stack([*rows, of_windows[-1][-1]])


def unit(vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """At unit length."""
    scaled: np.ndarray[Any, Any] = vector / np.linalg.norm(vector)
    return scaled


def pooled(
    states: np.ndarray[Any, Any], starts: list[int], span: tuple[int, int]
) -> np.ndarray[Any, Any]:
    """Mean of the states of the tokens that start in a span; of the edges' special tokens too."""
    own = [n for n, start in enumerate(starts) if span[0] <= start < span[1]]
    first = 0 if own[0] == 0 else own[0] + 1
    last = len(states) if own[-1] == len(starts) - 1 else own[-1] + 2
    return unit(states[first:last].mean(axis=0))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(text=documents, data=st.data())
async def test_spans_are_pooled_from_what_saw_the_document(
    served: Served, library: LibraryTokenizer, text: str, data: st.DataObject
) -> None:
    """Any spans, in any order, overlapping or not, of documents of any length; places come back as given."""
    encoding = library.encode(text, add_special_tokens=False)
    starts = [a for a, _ in encoding.offsets]
    edge = st.integers(0, len(text))
    given_spans = data.draw(
        st.lists(st.tuples(edge, edge).map(sorted).map(tuple), min_size=1, max_size=4)
    )
    spans = [(a, b) for a, b in given_spans if any(a <= start < b for start in starts)]
    if not spans:
        return
    result = await served.service.embed(EmbedCall([text], splits=(tuple(spans),)))
    states = states_of(encoding.ids)
    for row, chunk, span in zip(result.vectors, result.chunks, spans, strict=True):
        np.testing.assert_allclose(row, pooled(states, starts, span), atol=1e-5)
        assert (chunk.start, chunk.stop, chunk.document) == (*span, 0)
        assert chunk.tokens == sum(span[0] <= start < span[1] for start in starts)
    windows = windows_of(len(starts))
    assert [one.windows for one in result.long_inputs] == ([len(windows)] if windows[1:] else [])


async def test_splitters_give_spans(served: Served) -> None:
    """Several documents in a call; the places lead back to the texts."""
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
    """Pooled as any input is, so that short documents keep their vectors."""
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
    """The document and the span."""
    with pytest.raises(InputError, match=message) as caught:
        await served.service.embed(EmbedCall(texts, splits=splits))
    assert caught.value.input_index == document


async def test_long_documents_may_be_refused_or_cut_instead(served: Served) -> None:
    """As the call says; windows are what happens unasked."""
    text = "alpha " * 40
    spans = (((0, 12), (12, 240)),)
    with pytest.raises(InputTooLongError) as caught:
        await served.service.embed(EmbedCall([text], splits=spans, truncate=Truncation.ERROR))
    assert caught.value.input_index == 0
    cut = await served.service.embed(EmbedCall([text], splits=spans, truncate=Truncation.END))
    assert cut.long_inputs[0].dropped_tokens == 40 - ROOM
    with pytest.raises(InputError, match="nothing is left"):
        await served.service.embed(
            EmbedCall([text], splits=(((0, 6), (120, 240)),), truncate=Truncation.END)
        )


async def test_chunks_as_they_come_may_go_through_windows(served: Served) -> None:
    """Jina's form, beyond the limit: the same as spans of the whole."""
    chunks = ["alpha beta gamma "] * 12
    joined = "".join(chunks)
    spans = tuple((n * 17, (n + 1) * 17) for n in range(12))
    one = await served.service.embed(EmbedCall(chunks, chunks=(12,), truncate=Truncation.WINDOWS))
    other = await served.service.embed(EmbedCall([joined], splits=(spans,)))
    np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "query : "])
async def test_long_texts_are_averaged_over_windows(
    served: Served, library: LibraryTokenizer, prefix: str
) -> None:
    """Each window's vector counts by the tokens that it is nearest to; the prompt stands before each window."""
    texts = ["alpha", "beta gamma red " * 9, "one two"]
    result = await served.service.embed(
        EmbedCall(texts, truncate=Truncation.WINDOWS, prompt=prefix, normalize=False)
    )
    ids = library.encode(texts[1], add_special_tokens=False).ids
    lead = library.encode(prefix, add_special_tokens=False).ids
    room = ROOM - len(lead)
    step = room - room // 8
    starts = [n for n in range(0, len(ids), step) if n + room < len(ids)] + [len(ids) - room]
    vectors = [fake_states([2, *lead, *ids[n : n + room], 3]).mean(axis=0) for n in starts]
    counts = [0] * len(starts)
    for place in range(len(ids)):
        depth = [
            min(place - n if n else 10**6, n + room - 1 - place if n + room < len(ids) else 10**6)
            if n <= place < n + room
            else -1
            for n in starts
        ]
        counts[int(np.argmax(depth))] += 1
    expected = np.average(vectors, axis=0, weights=counts)
    np.testing.assert_allclose(result.vectors[1], expected, atol=1e-6)
    (long,) = result.long_inputs
    assert (long.index, long.windows, long.dropped_tokens) == (1, len(starts), 0)
    assert result.is_truncated == (False,) * 3
    assert result.input_tokens[1] == len(starts) * 16
    short = await served.service.embed(EmbedCall(["alpha"], prompt=prefix, normalize=False))
    np.testing.assert_array_equal(result.vectors[0], short.vectors[0])


async def test_what_was_cut_is_told(served: Served) -> None:
    """How many tokens, exactly where they were counted and at least so many where not."""
    texts = ["alpha", "alpha " * 20, "alpha " * 400]
    result = await served.service.embed(EmbedCall(texts, truncate=Truncation.END))
    told = {one.index: (one.dropped_tokens, one.drops_more) for one in result.long_inputs}
    assert told[1] == (6, False)
    dropped, more = told[2]
    assert more
    assert 0 < dropped < 386
    start = await served.service.embed(EmbedCall(texts, truncate=Truncation.START))
    assert [one.dropped_tokens for one in start.long_inputs] == [6, 386]


async def test_windows_are_for_vectors_of_texts(tiny_folder: Path, served: Served) -> None:
    """Asked for by name they are refused elsewhere; as the server's habit they mean an error there."""
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
    """In characters before anything is tokenised, and in tokens behind."""
    limits = ServiceLimits(max_tokens=100, truncate=Truncation.WINDOWS)
    served = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(limits=limits))
    with pytest.raises(RequestTooLargeError, match=re.escape("characters are too many")):
        await served.service.embed(EmbedCall(["a" * 900]))
    with pytest.raises(RequestTooLargeError, match="tokens"):
        await served.service.embed(EmbedCall(["a " * 120]))
    served.service.close()


async def test_texts_that_fit_are_what_they_always_are(served: Served) -> None:
    """Whatever is to be done with longer ones: an empty one, one with a prompt, one of just the length."""
    texts = ["", "alpha", "beta " * ROOM, "😀 中文"]
    for prompt in (None, "query : "):
        given_texts = texts if prompt is None else [texts[1], texts[3]]
        plain, windowed = [
            await served.service.embed(
                EmbedCall(given_texts, prompt=prompt, truncate=how, normalize=False)
            )
            for how in (Truncation.ERROR, Truncation.WINDOWS)
        ]
        np.testing.assert_array_equal(plain.vectors, windowed.vectors)
        assert plain.input_tokens == windowed.input_tokens
